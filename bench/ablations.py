"""What each thing that the network is told is worth, in nats a note.

The network of a preset is trained from scratch on the same batches in every row, with a part of
what `NoteContext` knows blanked out, in training and in scoring. *plain* is what the codec
`notes-1` told it; from there one part after the other is added, and from all of them one is left
out. Scored are the beginnings of held-out recordings, those of MAESTRO and those of pop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from bench.common import machine
from deep_piano.codecs.base import Known
from deep_piano.codecs.note_context import FEATURES, NoteContext
from deep_piano.codecs.notes import CANDIDATES, COPIES, RUN_BUCKETS, SPEC
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError
from deep_piano.infra.storage.open import open_folder
from deep_piano.models.config import PRESETS
from deep_piano.report.text import markdown
from deep_piano.train.likelihood import losses
from deep_piano.train.trainer import Trainer
from deep_piano.train.windows import training_batches

PARTS: Final = ("ends", "memory", "touch and gaps", "texture of the seed", "chords")
SECOND: Final = "second candidate"
POP: Final = ("emopia", "pianist8", "pop1k7", "pop909")
_SIZES = [size for part in SPEC.context for size in part.classes]
# "None" is the last class of each, but of the lengths of runs the first, and of the keys that may
# join a chord the last of the first half.
_NOTHING = np.array([0 if size == len(RUN_BUCKETS) + 1 else size - 1 for size in _SIZES])
_NOTHING[SPEC.columns[2][1]] = [SPEC.fields[1].size, 0] * CANDIDATES
_COPIED = slice(len(_SIZES) - COPIES, len(_SIZES))


def columns_of(part: str) -> tuple[list[slice], list[int]]:
    """Return the features and the classes that belong to a part."""
    features = {
        "ends": ["ends", "ends_of_duration"],
        "touch and gaps": ["loudness", "gaps"],
        "texture of the seed": ["seed_texture"],
        "chords": ["next_chord", "rest_of_chord"],
    }.get(part, [])
    recalled = list(range(_COPIED.start))
    classes = {
        "ends": list(range(_COPIED.start, _COPIED.stop)),
        "memory": recalled,
        # The keys stand first, then pairs of a value and a run for the onset and the pitch.
        SECOND: [1, *(recalled[4:6]), *(recalled[8:10])],
    }.get(part, [])
    return [FEATURES[name] for name in features], classes


class Blanked(NoteContext):
    """A context of which some parts say nothing."""

    def __init__(self, batch: int, without: Sequence[str]) -> None:
        super().__init__(batch)
        self._without = [columns_of(part) for part in without]
        self._copies = "ends" not in without

    def window(self, steps: NDArray[Any], coming: NDArray[Any]) -> Known:
        """Hear a window of notes: see `Context`."""
        known = super().window(steps, coming)
        for features, classes in self._without:
            for place in features:
                known.features[..., place] = 0
            known.classes[..., classes] = _NOTHING[classes]
        known.copied[:] &= self._copies
        return known


class Row(NamedTuple):
    """What a network came to: nats a note by field, of MAESTRO and of pop."""

    maestro: NDArray[np.float64]
    pop: NDArray[np.float64]
    notes_per_s: float


Job = tuple[str, Sequence[str], TrainConfig, int, int]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--notes", default=3_000_000, show_default=True, help="To train each network on.")
@click.option("--preset", default="base", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--recordings", default=48, show_default=True, help="Scored of each, at most.")
@click.option("--scored", default=1024, show_default=True, help="Notes of each of them.")
@click.option("--only", multiple=True, help="Rows to make, by name.")
def main(
    dataset: str, notes: int, preset: str, recordings: int, scored: int, only: Sequence[str]
) -> None:
    """Print nats a note with parts of the context left out, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes.
    """
    shape = TrainConfig.model_validate({"preset": preset, "input_noise": 0.0})
    steps = max(1, notes // (shape.batch * shape.window))
    settings = shape.model_copy(update={"steps": steps})
    rows = {name: without for name, without in all_rows().items() if not only or name in only}
    found = {}
    try:
        for name, without in rows.items():
            job = (dataset, without, settings, recordings, scored)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[name] = pool.submit(trained, job).result()
            click.echo(f"{name}: {found[name].maestro.sum():.3f}", err=True)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Preset {preset}, {steps:,} updates of {shape.batch} windows of {shape.window} notes; "
        f"{machine()}.\n"
    )
    names = [field.name for field in SPEC.fields]
    head = ["told", "MAESTRO", *names, "pop", *names, "notes a second"]
    click.echo(markdown(head, [cells(name, row) for name, row in found.items()]))


def all_rows() -> dict[str, list[str]]:
    """Return the rows: what is left out in each."""
    rows = {"plain": list(PARTS)}
    for count in range(1, len(PARTS) + 1):
        rows[f"+ {PARTS[count - 1]}"] = list(PARTS[count:])
    return rows | {f"all but {part}": [part] for part in (*PARTS[:3], SECOND)}


def trained(job: Job) -> Row:
    """Train a network, and score it."""
    place, without, settings, recordings, scored = job

    def context(batch: int) -> Blanked:
        return Blanked(batch, without)

    with Dataset(open_folder(place)) as dataset:
        trainer = Trainer(dataset.spec, PRESETS[settings.preset], settings)
        with training_batches(dataset, settings, context=context) as batches:
            begun = time.monotonic()
            for _ in range(settings.steps):
                trainer.train(next(batches))
            took_s = time.monotonic() - begun
        with trainer.averaged():
            maestro, pop = (
                score(trainer, dataset, context, corpora, recordings, scored)
                for corpora in (("maestro",), POP)
            )
    return Row(maestro, pop, settings.steps * settings.batch * settings.window / took_s)


def score(
    trainer: Trainer,
    dataset: Dataset,
    context: Callable[[int], NoteContext],
    corpora: Sequence[str],
    recordings: int,
    scored: int,
) -> NDArray[np.float64]:
    """Return nats a note by field, of the beginnings of held-out recordings of some corpora."""
    rows = [
        row.sequence[: scored + 1]
        for row in dataset.recordings("validation")
        if row.corpus in corpora
    ]
    order = np.random.default_rng(0).permutation(len(rows))[:recordings]
    sums, steps = losses(trainer.model, dataset.codec, [rows[index] for index in order], context)
    found: NDArray[np.float64] = sums.sum(0) / max(1, steps.sum())
    return found


def cells(name: str, row: Row) -> list[str]:
    """Return a row of the table."""
    figures = [figure for nats in (row.maestro, row.pop) for figure in (nats.sum(), *nats.tolist())]
    return [name, *(f"{figure:.3f}" for figure in figures), f"{row.notes_per_s:,.0f}"]


if __name__ == "__main__":
    main()
