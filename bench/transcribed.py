"""What a recording costs against its notes: the same seeds as MIDI and as sound.

The seeds are those of `bench.continuations`, as they were played, and rendered on the sampled piano
and then transcribed. Each is continued, and

- *what followed*: what the half minute that really followed costs the network after the seed, in
  nats a note; beside it, the same after the seed of another recording of the corpus;
- the other columns are those of `bench.continuations`, of the pieces.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.continuations import Case, adherence, by_corpus, held_out, made, realism
from bench.fill import decoded
from deep_piano.codecs.notes import ONSET, STEPS_PER_SECOND, encode
from deep_piano.config.load import load_config
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.given import Given
from deep_piano.decoding.note_task import NoteTask
from deep_piano.errors import AudioError
from deep_piano.generate.notes import NoteRoad
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music import audio, synth
from deep_piano.music.notes import Notes, excerpt
from deep_piano.report.text import markdown

FOLLOWING_S = 30.0
RING_S = 1.0  # the last note is not cut
SR = 44_100


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--pieces", default=10, show_default=True, help="Seeds of each corpus.")
@click.option("--workers", default=os.cpu_count(), help="Processes.  [one a CPU]")
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
def main(dataset: str, pieces: int, workers: int, **options: Any) -> None:
    """Print a line for the notes and one for their sound, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes; the seeds are of its
    validation split.
    """
    settings = load_config(None, {"generate": options}).generate
    road = NoteRoad(checkpoint.load(settings.checkpoint), settings).ready(no_progress)
    with tempfile.TemporaryDirectory() as folder:
        with Dataset(open_folder(dataset)) as opened:
            cases = list(held_out(opened, pieces, Path(folder), settings.seed_seconds))
        played, heard = zip(*rendered(cases, road), strict=True)
        rows = []
        for name, some in (("played", played), ("transcribed", heard)):
            done = made(some, settings, [0], workers)
            costs = (what_followed(road, done), what_followed(road, done, moved=1))
            rows.append([name, *(f"{cost:.3f}" for cost in costs), *pieces_row(done)])
    head = ["seed", "what followed", "after another seed", "told apart", "by habits"]
    head += ["overlapped area", "common ends", "cosine", "same key"]
    real = ["real", "", "", *pieces_row(done, of_real=True)]
    click.echo(markdown(head, [*rows, real]))


def rendered(cases: Sequence[Case], road: NoteRoad) -> Iterator[tuple[Case, Case]]:
    """Yield cases and their twins, whose seeds are recordings of the sampled piano.

    It tells which of these cannot be used.
    """
    assert road.sound is not None
    seconds = road.settings.seed_seconds
    for case in cases:
        path = case.path.with_suffix(".wav")
        notes = excerpt(case.whole, 0.0, seconds)
        audio.encode(path, synth.render(notes, sound=road.sound, seconds=seconds, sr=SR), sr=SR)
        try:
            road.read(path, no_progress)
        except AudioError as error:
            click.echo(f"left out: {case.name}: {error}", err=True)
        else:
            yield case, replace(case, path=path, pieces=[])


def what_followed(road: NoteRoad, cases: Sequence[Case], *, moved: int = 0) -> float:
    """Return what the notes after the seeds cost, in nats a note.

    With `moved` each case has the seed of the one so many further on in its corpus.
    """
    alone = replace(road, settings=road.settings.model_copy(update={"candidates": 1}))
    begin_s = road.settings.seed_seconds
    tasks = {}
    for number, (case, seed) in enumerate(with_seeds(cases, moved)):
        onset = case.whole["onset"]
        notes = case.whole[(onset >= begin_s) & (onset < begin_s + FOLLOWING_S)]
        steps = encode(notes).astype(np.int64)
        steps[0, ONSET] = round(float(notes["onset"][0]) * STEPS_PER_SECOND)
        given = Given(steps, np.full((len(steps), 2), np.nan))
        ends_s = float(notes["offset"].max()) + RING_S
        rng = np.random.default_rng(0)
        tasks[number] = NoteTask(seed, begin_s, ends_s, rng, given=given)
    done = decoded(alone, tasks)
    nats, notes_of = zip(*((done[n].nats, len(done[n].steps)) for n in tasks), strict=True)
    return float(np.average(nats, weights=notes_of))


def with_seeds(cases: Sequence[Case], moved: int) -> Iterator[tuple[Case, Notes]]:
    """Yield each case with the seed of the one so many further on in its corpus."""
    for corpus, some in by_corpus(cases):
        if corpus != "all":
            for place, case in enumerate(some):
                yield case, some[(place + moved) % len(some)].seed


def pieces_row(cases: Sequence[Case], *, of_real: bool = False) -> list[str]:
    """Return the figures of pieces, or those of what was really played, as a row shows them."""
    found, kept = realism(cases), adherence(cases)
    told = (found.told_apart, found.otherwise, found.area, found.common_ends)
    real = (found.real_told_apart, found.real_otherwise, found.real_area, found.real_common_ends)
    keeps, really = (kept.cosine, kept.same_key), (kept.real_cosine, kept.real_same_key)
    figures = (*real, *really) if of_real else (*told, *keeps)
    return [f"{figure:.3f}" for figure in figures]


if __name__ == "__main__":
    main()
