"""Does what follows a fill follow from it? Spans made anew beside what was really played.

A span of held-out recordings is filled: by what was played there; by the network, of so many
candidates, with and without its end being led towards what follows; by a stretch of the same
recording from elsewhere; and by one of another recording. How well a span leads to the notes after
it is what these cost the network, in nats a note. The smaller, the better the join.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from bench.continuations import held_out_music
from deep_piano.config.load import load_config
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.given import FOLLOWING_NOTES, Given
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.open import open_decoder
from deep_piano.generate.fill import FillRoad, FillSeed
from deep_piano.generate.notes import NoteRoad
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import Notes, excerpt
from deep_piano.report.text import markdown

BETWEEN_S = (30.0, 40.0)
ELSEWHERE_S = (60.0, 70.0)
LONG_S = 90.0  # recordings that have both
FIRST_NOTES = 4


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--corpus", default="maestro", show_default=True, help="Whose recordings to take.")
@click.option("--pieces", default=10, show_default=True, help="Recordings.")
@click.option("--candidates", default=[1, 4, 16], multiple=True, help="Fills to choose from.")
def main(dataset: str, corpus: str, pieces: int, candidates: Sequence[int]) -> None:
    """Print a line for each way to fill a span, as Markdown. DATASET as `prepare` made it."""
    plain = load_config(None, {"generate": {"between": list(BETWEEN_S)}}).generate
    road = FillRoad(checkpoint.load(plain.checkpoint), plain)
    with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
        seeds = []
        for of, _, notes in held_out_music(opened, 2 * pieces, LONG_S):
            if of == corpus and len(seeds) < pieces:
                path = Path(folder) / f"{len(seeds)}.mid"
                write_midi(path, notes)
                seeds.append(road.read(path, no_progress))
    others = [*seeds[1:], seeds[0]]
    spans = {
        "what was played": [_stretch(seed, *BETWEEN_S) for seed in seeds],
        "of the recording, 60 to 70 s": [_stretch(seed, *ELSEWHERE_S) for seed in seeds],
        "of another recording": [_stretch(other, *BETWEEN_S) for other in others],
    }
    for count in candidates:
        chosen = plain.model_copy(update={"candidates": count})
        for led in (True, False):
            name = f"a fill of {count}" + ("" if led else ", not led")
            spans[name] = filled(replace(road, settings=chosen), seeds, led=led)
    rows = [[name, *figures(road, seeds, made)] for name, made in spans.items()]
    head = ["the span", f"next {FIRST_NOTES} notes", f"next {FOLLOWING_NOTES} notes"]
    click.echo(markdown([*head, "nearer than another recording's"], rows))


def _stretch(seed: FillSeed, begin_s: float, end_s: float) -> Notes:
    """Return notes of a recording, moved to where the span is."""
    notes = excerpt(seed.whole, begin_s, end_s)
    notes["onset"] += BETWEEN_S[0]
    notes["offset"] += BETWEEN_S[0]
    return notes


def filled(road: FillRoad, seeds: Sequence[FillSeed], *, led: bool) -> list[Notes]:
    """Return the notes that the network puts into the span of each recording."""
    tasks = {number: road.task(seed, 0) for number, seed in enumerate(seeds)}
    if not led:
        tasks = {number: replace(task, sections=()) for number, task in tasks.items()}
    done = decoded(road, tasks)
    whole = [road.join(seed, done[number], 0).notes for number, seed in enumerate(seeds)]
    return [notes[_inside(notes)] for notes in whole]


def _inside(notes: Notes) -> np.ndarray:
    return (notes["onset"] >= BETWEEN_S[0]) & (notes["onset"] < BETWEEN_S[1])


def decoded(road: NoteRoad, tasks: Mapping[int, NoteTask]) -> dict[int, NoteContinuation]:
    """Return what a decoder makes of tasks, side by side."""
    decoder = open_decoder(road.checkpoint, road.settings)
    for number, task in tasks.items():
        decoder.add(number, task)
    done: dict[object, NoteContinuation] = {}
    while len(decoder):
        done |= decoder.step()
    return {number: done[number] for number in tasks}


def nats_after(
    road: FillRoad, seeds: Sequence[FillSeed], spans: Iterable[Notes], count: int
) -> np.ndarray:
    """Return what the notes after each recording's span cost, so many of them."""
    alone = replace(road, settings=road.settings.model_copy(update={"candidates": 1}))
    tasks = {}
    for number, (seed, span) in enumerate(zip(seeds, spans, strict=True)):
        zero_s = seed.begins_s
        heard = excerpt(np.concatenate([seed.before, span]), zero_s, BETWEEN_S[1])
        after = excerpt(seed.after[:count], zero_s, np.inf)
        given = replace(Given.following(heard, after, 0.0), from_s=None)
        task = replace(alone.task(seed, 0), seed=heard, given=given, sections=())
        tasks[number] = replace(task, seed_seconds=BETWEEN_S[1] - zero_s)
    return np.array([one.nats for one in decoded(alone, tasks).values()])


def figures(road: FillRoad, seeds: Sequence[FillSeed], spans: Sequence[Notes]) -> list[str]:
    """Return the mean figures of a way to fill spans, as a row shows them."""
    few, all_ = (nats_after(road, seeds, spans, count) for count in (FIRST_NOTES, FOLLOWING_NOTES))
    strange = [_stretch(other, *BETWEEN_S) for other in [*seeds[1:], seeds[0]]]
    nearer = (all_ < nats_after(road, seeds, strange, FOLLOWING_NOTES)).sum()
    return [f"{few.mean():.2f}", f"{all_.mean():.2f}", f"{nearer} of {len(seeds)}"]


if __name__ == "__main__":
    main()
