"""The training loop: a dataset in, a run folder with checkpoints out.

The same loop runs in one process and in each of several `Workers`; the first of them writes. An
update depends on the dataset, the settings and its number only, so that a run that was stopped and
resumed ends with the same weights as one that was not. This module knows batches, the trainer and
the run's folder; it knows nothing of Ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import loss_unit
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError, TrainingError, ran_out_of_memory
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.config import ModelConfig
from deep_piano.models.linear_prediction import context_of
from deep_piano.train import runs
from deep_piano.train.likelihood import losses
from deep_piano.train.start import chosen_rows
from deep_piano.train.trainer import Trainer
from deep_piano.train.windows import training_batches
from deep_piano.train.workers import Workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """The state of a run after an update.

    Attributes
    ----------
    step, steps : int
        Updates made, and the most that will be made.
    loss, validation_loss : float
        Of training since the last validation; of the validation after this update, if any.
    per_s : float
        Steps of sequences a second, all workers together.
    step_name : str
        The name of a step of the codec.
    unit : str
        The unit of the losses.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    per_s: float
    step_name: str
    unit: str

    @property
    def text(self) -> str:
        """The text beside the progress bar."""
        known = [f"update {self.step:,} of {self.steps:,}", f"{self.loss:.3f} {self.unit}"]
        known += [f"validation {self.validation_loss:.3f}"] if self.validation_loss else []
        return ", ".join([*known, f"{self.per_s:,.0f} {self.step_name}s/s"])

    @property
    def progress(self) -> Progress:
        """The progress of the run."""
        return Progress("training", self.step, self.steps, text=self.text)


def go_on(
    dataset: Dataset,
    run: Folder,
    settings: TrainConfig,
    config: ModelConfig,
    *,
    init: Checkpoint | None = None,
    workers: Workers | None = None,
    progress: Callable[[Update], None] | None = None,
    validated: Callable[[Mapping[str, Any]], None] | None = None,
) -> Checkpoint:
    """Train a run from its last checkpoint to its end; return its best checkpoint.

    Parameters
    ----------
    dataset, run, init
        As for `start.begin`.
    settings : TrainConfig
    config : ModelConfig
        Both from `start.begin`. `steps` bounds the updates, `patience` the validations without
        improvement.
    workers : Workers, optional
        The workers that this process is one of.
    progress : callable, optional
        Called with an `Update` about twice a second.
    validated : callable, optional
        Called with each row of the history, once it and its checkpoint are written.

    Raises
    ------
    TrainingError
        When a loss or a weight is NaN or infinite; when nothing of the validation split can be
        scored.
    DeepPianoError
        When memory runs out, or files cannot be read or written.
    """
    with _memory_explained(settings, run):
        loop = _Loop(dataset, run, settings, config, workers or Workers())
        return loop.run(init, progress, validated)


class _Loop:
    """The loop of one run."""

    def __init__(
        self,
        dataset: Dataset,
        run: Folder,
        settings: TrainConfig,
        config: ModelConfig,
        workers: Workers,
    ) -> None:
        # From here on windows count steps of the sequence, not of the LSTM.
        in_steps = {
            name: size * config.frame
            for name in ("window", "hop")
            if (size := getattr(settings, name)) is not None
        }
        settings = settings.model_copy(update=in_steps)
        self._dataset, self._settings, self._workers = dataset, settings, workers
        self._run = run
        self._unit = loss_unit(dataset.codec.step_name, continuous=dataset.spec.continuous)
        self._context = context_of(dataset.codec, config)
        self._sample = _sample(dataset, settings.batch, config.given)[workers.rank :: workers.size]
        self._trainer = Trainer(dataset.spec, config, settings, workers)
        self._history: list[dict[str, Any]] = []
        self._begun, self._hours_before = time.monotonic(), 0.0

    def run(
        self,
        init: Checkpoint | None,
        progress: Callable[[Update], None] | None,
        validated: Callable[[Mapping[str, Any]], None] | None,
    ) -> Checkpoint:
        settings, trainer, workers = self._settings, self._trainer, self._workers
        self._begin(init)
        clock = _Clock(settings.batch * settings.window, trainer.step)
        with training_batches(
            self._dataset,
            settings,
            step=trainer.step,
            rank=workers.rank,
            world_size=workers.size,
            context=self._context,
        ) as batches:
            while trainer.step < settings.steps and not self._enough():
                try:
                    loss = trainer.train(next(batches))
                except FloatingPointError as error:
                    raise self._diverged(error) from error
                found = None
                if trainer.step % settings.eval_every_steps == 0 or trainer.step == settings.steps:
                    row = self._validate(loss)
                    found = row["validation_loss"]
                    if validated is not None:
                        validated(row)
                if progress is not None and (found is not None or clock.due()):
                    progress(
                        Update(
                            trainer.step,
                            settings.steps,
                            loss,
                            found,
                            clock.per_s(trainer.step),
                            self._dataset.codec.step_name,
                            self._unit,
                        )
                    )
        return checkpoints.load(self._run.inner(checkpoints.BEST_OF_RUN))

    def _begin(self, init: Checkpoint | None) -> None:
        """Resume from the last checkpoint, or begin."""
        if runs.has_checkpoint(self._run):
            last = self._run.inner(runs.LAST)
            saved = checkpoints.load(last)
            self._trainer.restore(saved.weights, checkpoints.load_training(last))
            self._history = [dict(row) for row in saved.facts["history"]]
            self._trainer.step = int(saved.facts["step"])
            self._hours_before = self._history[-1]["hours"]
            if self._workers.rank == 0:  # a kill after the checkpoint leaves a history without it
                runs.repair_history(self._run, self._history, unit=self._unit)
        elif init is not None:
            self._trainer.begin_from(init.weights)

    def _enough(self) -> bool:
        """Tell whether `patience` validations have brought no improvement."""
        found = [row["validation_loss"] for row in self._history]
        patience = self._settings.patience
        return patience is not None and len(found) - int(np.argmin([np.inf, *found])) >= patience

    def _validate(self, loss: float) -> dict[str, Any]:
        """Validate, write the checkpoints, then the history; return its new row."""
        trainer, dataset = self._trainer, self._dataset
        rate = trainer.learning_rate
        facts: dict[str, Any] = {"step": trainer.step}
        facts |= {} if dataset.codec.encodes_notes else {"sr": dataset.sr}
        with trainer.averaged():
            sums, steps = losses(
                trainer.model,
                dataset.codec,
                self._sample,
                self._context,
                given=trainer.config.given,
            )
            averaged = trainer.checkpoint(facts)
        every = self._workers.gather(np.append(sums.sum(axis=0), steps.sum())).sum(axis=0)
        names = [field.name for field in dataset.spec.fields]
        by_field = dict(zip(names, (every[:-1] / every[-1]).tolist(), strict=True))
        row = {
            "step": trainer.step,
            "seen": trainer.step * self._settings.batch * self._settings.window,
            "hours": self._hours_before + (time.monotonic() - self._begun) / 3600,
            "train_loss": loss,
            "train_rate": rate,
            "validation_loss": sum(by_field.values()),
            **{f"validation_{name}": value for name, value in by_field.items()},
        }
        best = min((r["validation_loss"] for r in self._history), default=np.inf)
        self._history.append(row)
        trainer.reset_figures()
        state = trainer.training_state()
        facts |= {"validation_loss": row["validation_loss"]}
        checkpoint = trainer.checkpoint(facts)
        self._require_one_model(checkpoint)
        self._require_finite(row["validation_loss"], checkpoint, averaged)
        if self._workers.rank == 0:
            if row["validation_loss"] < best:
                best_yet = replace(averaged, facts=facts)
                checkpoints.save(self._run.inner(checkpoints.BEST_OF_RUN), best_yet)
            last = replace(checkpoint, facts=facts | {"history": self._history})
            checkpoints.save(self._run.inner(runs.LAST), last, training=state)
            runs.write_history(self._run, self._history, unit=self._unit)
            logger.info(
                "checkpoint of update %d written",
                trainer.step,
                extra=dict(
                    stage="train",
                    event="checkpoint",
                    update=trainer.step,
                    best=row["validation_loss"] < best,
                    run=self._run.uri,
                ),
            )
        return row

    def _require_one_model(self, checkpoint: Checkpoint) -> None:
        """Raise where the workers' weights are not the same, bit for bit."""
        digest = checkpoints.digest_of(checkpoint.weights)
        if len(np.unique(self._workers.gather(digest), axis=0)) > 1:
            raise TrainingError(
                f"the workers' weights differ at update {self._trainer.step}: they do not train "
                "one model. Use workers of one kind of machine, with the same versions."
            )

    def _require_finite(self, loss: float, *found: Checkpoint) -> None:
        """Raise on all workers where a loss or weights must not replace those of the run."""
        if not np.isfinite(loss):
            raise self._diverged(f"the validation loss is {loss}")
        for name in (name for one in found for name in checkpoints.not_finite(one.weights)):
            raise self._diverged(f"{name} holds NaN or infinity")

    def _diverged(self, what: object) -> TrainingError:
        """Return the error of a training whose updates a retry would repeat."""
        return TrainingError(
            f"{what} at update {self._trainer.step}. Give --learning-rate "
            f"{self._settings.learning_rate / 2:g}, a lower train.clip_norm or --precision "
            f"float32, {runs.how_to_change(self._run)}."
        )


@contextmanager
def _memory_explained(settings: TrainConfig, run: Folder) -> Iterator[None]:
    """Turn the out-of-memory errors of all backends into one error."""
    try:
        yield
    except DeepPianoError:
        raise
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        raise DeepPianoError(
            f"out of memory with {settings.batch} windows of {settings.window} steps and the "
            f"preset {settings.preset!r}. Use more workers; or lower train.batch or train.window, "
            f"or choose a smaller preset, {runs.how_to_change(run)}."
        ) from error


class _Clock:
    """Counts steps and says when half a second has passed."""

    def __init__(self, steps_an_update: int, first: int) -> None:
        self._steps_an_update, self._first = steps_an_update, first
        self._begun = self._shown = time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self._shown < 0.5:
            return False
        self._shown = time.monotonic()
        return True

    def per_s(self, step: int) -> float:
        took_s = max(1e-9, time.monotonic() - self._begun)
        return (step - self._first) * self._steps_an_update / took_s


def _sample(dataset: Dataset, count: int, given: int) -> list[NDArray[Any]]:
    """Return the beginnings of `count` validation recordings, always the same ones.

    It reads only the row groups that contain them. Of each the first `given` steps are not scored.
    """
    total = sum(group.recordings for group in dataset.row_groups("validation"))
    order = np.random.default_rng(0).permutation(total)[:count].tolist()
    size = dataset.codec.sample_steps + 1
    found = [row.sequence[:size] for row in chosen_rows(dataset, "validation", order)]
    if not any(len(sequence) > given for sequence in found):
        raise TrainingError(
            f"the validation sample has no {dataset.codec.step_name} to be scored: its "
            f"{len(found)} recordings have {given} or fewer. Prepare longer recordings."
        )
    return found
