"""The training loop of one process: recordings in, a run folder with checkpoints out.

A run folder holds ``checkpoint/best`` (lowest nats a note on the validation sample) and
``checkpoint/last`` (with the optimizer, to resume from), ``history.parquet``, ``history.png`` and
``settings.json``. This module knows batches and the model; it knows nothing of audio or of Ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano import checkpoint as checkpoints
from deep_piano.backend import load_keras
from deep_piano.checkpoint import Checkpoint
from deep_piano.codecs.base import SequenceSpec
from deep_piano.codecs.notes import LOG_WIDTHS, SPEC
from deep_piano.config import TrainConfig
from deep_piano.corpus import Corpus
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.likelihood import nats_per_note
from deep_piano.model import PRESETS, build_model, carry_state
from deep_piano.notes import Notes
from deep_piano.storage import atomic_path
from deep_piano.windows import Augmentation, Batch, training_batches

logger = logging.getLogger(__name__)

VALIDATION_SAMPLE_NOTES = 1024  # of each recording of the sample, one recording a slot


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it."""

    step: int
    steps: int
    train_nats: float
    validation_nats: float | None
    notes_per_s: float


def fit(
    corpus: Corpus,
    run: Path,
    settings: TrainConfig,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train a model and return its best checkpoint.

    Parameters
    ----------
    corpus : Corpus
    run : Path
        The run folder; it must not hold a run already, unless `resume`.
    settings : TrainConfig
    resume : bool
        Go on from ``checkpoint/last``: weights, optimizer and step. The recordings are then
        drawn anew, by the random state and that step.
    progress : callable, optional
        Called with a `Progress` about twice a second.

    Raises
    ------
    InputError
        When the run folder does not fit `resume`.
    DeepPianoError
        When the loss is no longer a number.
    """
    last, best = run / "checkpoint" / "last", run / "checkpoint" / "best"
    if last.exists() and not resume:
        raise InputError(f"{run} holds a run already. Give another folder, or --resume.")
    if resume and not last.exists():
        raise InputError(f"{run} holds no run to resume: {last} is missing.")

    trainer = _Trainer(SPEC, settings)
    history: list[dict[str, float]] = []
    if resume:
        trainer.restore(last)
        history = [row for row in _read_history(run) if row["step"] <= trainer.step]
    best_nats = min((row["validation_nats"] for row in history), default=np.inf)
    run.mkdir(parents=True, exist_ok=True)
    with atomic_path(run / "settings.json") as temporary:
        temporary.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")

    sample = _sample([r.notes for r in corpus.of("validation")], settings.batch)
    batches = training_batches(
        [recording.notes for recording in corpus.of("train")],
        batch=settings.batch,
        window=settings.window,
        augmentation=Augmentation(settings.transpose_semitones, settings.tempo_range),
        rng=np.random.default_rng([settings.random_state, trainer.step]),
    )
    clock = _Clock(settings.batch * settings.window)
    while trainer.step < settings.steps:
        train_nats = trainer.train(next(batches))
        validation_nats = None
        if trainer.step % settings.eval_every_steps == 0 or trainer.step == settings.steps:
            nats = nats_per_note(trainer.model, trainer.spec, sample)
            validation_nats = sum(nats.values())
            history.append(
                {
                    "step": trainer.step,
                    "notes": trainer.step * settings.batch * settings.window,
                    "train_nats": train_nats,
                    "validation_nats": validation_nats,
                    **{f"validation_{name}": value for name, value in nats.items()},
                }
            )
            trainer.reset_figures()
            facts = {"step": trainer.step, "validation_sample_nats": validation_nats}
            checkpoints.save(last, trainer.checkpoint(facts), optimizer=trainer.optimizer())
            if validation_nats < best_nats:
                best_nats = validation_nats
                checkpoints.save(best, trainer.checkpoint(facts))
            _write_history(run, history)
        if progress is not None and (validation_nats is not None or clock.due()):
            progress(
                Progress(
                    trainer.step, settings.steps, train_nats, validation_nats, clock.notes_per_s
                )
            )
    return checkpoints.load(str(best), codec=SPEC.codec)


class _Trainer:
    """The model, its optimizer and the step, behind the few things that `fit` does with them."""

    def __init__(self, spec: SequenceSpec, settings: TrainConfig) -> None:
        keras = load_keras()
        self.spec, self.settings, self.step = spec, settings, 0
        self.config = PRESETS[settings.preset]
        keras.utils.set_random_seed(settings.random_state)
        self.model = build_model(
            spec,
            self.config,
            batch=settings.batch,
            window=settings.window,
            precision=_precision(settings.precision),
        )
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0,
            max(1, settings.steps - settings.warmup_steps),
            alpha=0.01,
            warmup_target=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
        )
        optimizer = keras.optimizers.AdamW(
            schedule,
            weight_decay=settings.weight_decay,
            beta_2=0.98,
            global_clipnorm=settings.clip_norm,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.model.compile(
            optimizer,
            loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True)] * len(spec.fields),
            jit_compile=False,
        )
        self._sums: list[tuple[float, float]] = []

    def train(self, batch: Batch) -> float:
        """Take one step; return the mean nats per note since `reset_figures`."""
        carry_state(self.model, batch.keep)
        fields = range(len(self.spec.fields))
        losses = self.model.train_on_batch(
            [batch.steps, batch.context, batch.targets],
            [batch.targets[..., index] for index in fields],
            sample_weight=[batch.weights] * len(fields),
        )
        self.model.reset_metrics()
        self.step += 1
        # Keras divides by all places of the batch, those behind a recording's end too.
        nats = float(losses[0]) * batch.weights.size
        if not np.isfinite(nats):
            raise DeepPianoError(
                f"the loss is not a number at step {self.step}. "
                "Lower the learning rate, or resume from the last checkpoint."
            )
        widths = sum(
            float((LOG_WIDTHS[index][batch.targets[..., index]] * batch.weights).sum())
            for index in fields
        )
        self._sums.append((nats + widths, float(batch.weights.sum())))
        return sum(nats for nats, _ in self._sums) / sum(count for _, count in self._sums)

    def reset_figures(self) -> None:
        """Begin a new mean."""
        self._sums = []

    def checkpoint(self, facts: Mapping[str, Any]) -> Checkpoint:
        return Checkpoint(self.spec, self.config, checkpoints.weights_of(self.model), facts=facts)

    def optimizer(self) -> dict[str, NDArray[Any]]:
        return {
            f"{index:03d}": np.asarray(variable.numpy())
            for index, variable in enumerate(self.model.optimizer.variables)
        }

    def restore(self, folder: Path) -> None:
        saved = checkpoints.load(str(folder), codec=self.spec.codec)
        if saved.config != self.config:
            raise InputError(
                f"{folder} was trained with {saved.config}, and the preset "
                f"{self.settings.preset!r} is {self.config}. Give the run's own preset."
            )
        checkpoints.assign_weights(self.model, saved.weights)
        self.model.optimizer.build(self.model.trainable_variables)
        arrays = checkpoints.load_optimizer(folder)
        for index, variable in enumerate(self.model.optimizer.variables):
            variable.assign(arrays[f"{index:03d}"])
        self.step = int(saved.facts["step"])


class _Clock:
    """Counts steps and says when half a second has passed."""

    def __init__(self, notes_per_step: int) -> None:
        self._notes = notes_per_step
        self._steps = 0
        self._begun = self._shown = time.monotonic()

    def due(self) -> bool:
        self._steps += 1
        if time.monotonic() - self._shown < 0.5:
            return False
        self._shown = time.monotonic()
        return True

    @property
    def notes_per_s(self) -> float:
        return self._steps * self._notes / max(1e-9, time.monotonic() - self._begun)


def _precision(wanted: str) -> str:
    """Resolve "auto": bfloat16 products where the CPU has instructions for them."""
    if wanted != "auto":
        return wanted
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "amx_bf16" in flags else "float32"


def _sample(recordings: list[Notes], count: int) -> list[Notes]:
    """Choose the beginnings of recordings, always the same ones."""
    order = np.random.default_rng(0).permutation(len(recordings))[:count]
    return [recordings[index][: VALIDATION_SAMPLE_NOTES + 1] for index in order]


def _write_history(run: Path, history: list[dict[str, float]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from deep_piano.pictures import history as draw_history

    with atomic_path(run / "history.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(history), temporary)
    draw_history(run / "history.png", history)


def _read_history(run: Path) -> list[dict[str, float]]:
    import pyarrow.parquet as pq

    path = run / "history.parquet"
    return pq.read_table(path).to_pylist() if path.is_file() else []
