"""How pieces end, beside what pianists do: the last seconds, and how they are told apart.

Pieces of held-out seeds and whole recordings, real ones of the training split too:

- *density* and *loudness*: notes a second and mean velocity in the last four seconds before the
  last onset, second by second, over those of the minute before (means);
- *notes*, *rings*: of the last onset, and how many seconds it sounds (the median and the deciles
  from the second to the eighth);
- *told apart*: the forest of `bench.continuations` on the last ten seconds; *by habits*, by figures
  that no judge looks at; *earlier*: both for ten seconds that end 17 s before the end, which is how
  far any stretch of a piece is told from one of a recording.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.continuations import held_out
from bench.controls import continued
from bench.form import last
from bench.realism import habits, told_apart
from deep_piano.codecs.notes import decode
from deep_piano.config.load import load_config
from deep_piano.dataset.reader import Dataset
from deep_piano.generate.notes import NoteRoad
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.notes import Notes, excerpt
from deep_piano.report.text import markdown

CHORD_S = 0.05
BEFORE_S = 60.0, 15.0  # the last onset: what its last seconds are held against
FEWEST_BEFORE = 30
SHORTEST_S = 60.0
MOST_OF_TRAINING = 250  # recordings of each corpus
EARLIER_S = 27.0, 17.0

Cut = Callable[[Notes], Iterable[Notes]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.argument("forms", nargs=-1, required=True)
@click.option("--pieces", default=20, show_default=True, help="Seeds of each corpus.")
@click.option("--seconds", default=180.0, show_default=True, help="Length of a piece.")
@click.option("--random-state", default=0, show_default=True, help="As for deep-piano generate.")
def main(dataset: str, forms: Sequence[str], pieces: int, **options: Any) -> None:
    """Print a line for the recordings and one for each of FORMS, as Markdown.

    DATASET as `prepare` made it.
    """
    weights = checkpoint.load("notes")
    with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
        learned = training(opened)
        plain = load_config(None, {"generate": options}).generate
        cases = list(held_out(opened, pieces, Path(folder), plain.seed_seconds))
        seeds = [NoteRoad(weights, plain).read(case.path, no_progress) for case in cases]
    real = [case.whole for case in cases]
    rows = [["training split", *profile(learned), "", ""], ["validation", *profile(real), "", ""]]
    for form in forms:
        settings = load_config(None, {"generate": options | {"form": form}}).generate
        made = continued(NoteRoad(weights, settings), seeds, [settings] * len(seeds))
        whole = [
            np.concatenate([seed.notes, piece.notes])
            for seed, piece in zip(seeds, made, strict=True)
        ]
        rows.append([form, *profile(whole), *(apart(real, whole, cut) for cut in (last, earlier))])
    head = ["", "density", "loudness", "notes", "rings, s", "told apart, by habits", "earlier"]
    click.echo(markdown(head, rows))


def training(dataset: Dataset) -> list[Notes]:
    """Return recordings of the training split, as many of each corpus at most."""
    found: dict[str, list[Notes]] = {}
    for row in dataset.recordings("train"):
        some = found.setdefault(row.corpus, [])
        if row.duration_s >= SHORTEST_S and len(some) < MOST_OF_TRAINING:
            some.append(decode(row.sequence))
    return [notes for some in found.values() for notes in some]


def earlier(notes: Notes) -> list[Notes]:
    """Return ten seconds that are over well before the end, as one part."""
    begin_s, end_s = (float(notes["offset"].max()) - s for s in EARLIER_S)
    return [excerpt(notes, begin_s, end_s)]


def apart(real: Sequence[Notes], ours: Sequence[Notes], cut: Cut) -> str:
    """Say how parts are told from those of recordings, and how by habits."""
    by_habits = told_apart(real, ours, figures=habits, cut=cut)
    return f"{told_apart(real, ours, cut=cut):.3f}, {by_habits:.3f}"


def last_chord(notes: Notes) -> Notes:
    """Return the last notes that are struck together."""
    begins = np.flatnonzero(np.diff(notes["onset"], prepend=-np.inf) > CHORD_S)
    return notes[begins[-1] :]


def profile(pieces: Sequence[Notes]) -> list[str]:
    """Return the figures of the endings of pieces, as a row shows them."""
    chords = [last_chord(notes) for notes in pieces]
    rings_s = [
        float(n["offset"].max() - c["onset"][0]) for n, c in zip(pieces, chords, strict=True)
    ]
    slowing = np.array([found for notes in pieces if (found := slows(notes)) is not None])
    density, loudness = (" ".join(f"{s:.2f}" for s in row) for row in np.nanmean(slowing, 0).T)
    low, middle, high = np.percentile(rings_s, [20, 50, 80])
    return [
        density,
        loudness,
        f"{np.mean(list(map(len, chords))):.1f}",
        f"{middle:.1f} ({low:.1f} to {high:.1f})",
    ]


def slows(notes: Notes) -> NDArray[np.float64] | None:
    """Return density and loudness of the last four seconds before the last onset, shape (4, 2)."""
    last_s = float(last_chord(notes)["onset"][0])
    before = excerpt(notes, *(last_s - s for s in BEFORE_S))
    if len(before) < FEWEST_BEFORE:
        return None
    a_second = len(before) / float(np.ptp(before["onset"]))
    seconds = [excerpt(notes, last_s - s, last_s - s + 1) for s in (4, 3, 2, 1)]
    return np.array(
        [
            (
                len(one) / a_second,
                one["velocity"].mean() / before["velocity"].mean() if len(one) else np.nan,
            )
            for one in seconds
        ]
    )


if __name__ == "__main__":
    main()
