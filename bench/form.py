"""Does a form bring the seed back? Pieces with one beside pieces without, and real ones.

The seeds are those of `bench.continuations`. What comes later than a minute is compared with the
seed; likewise in real pieces of more than a minute and a half; and as a control what comes late in
a piece with the seeds of the other pieces:

- *melody*: the share of the seed's melody that comes again, each note within a tenth of a second
  of its time, in the seed's key, at 0.9, 1 or 1.1 times its tempo. The melody has each note above
  which none sounds (the skyline of Uitdenbogerd and Zobel 1999);
- *harmony*: the cosine of the seed's pitch classes, second by second, with the stretch of later
  music that is most like it;
- *copy*: the longest run of notes shared with the seed, as `analysis.originality` has it;
- *told apart*: the forest of `bench.continuations`, over whole continuations;
- *endings*: the same for the last ten seconds of pieces and of real recordings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.continuations import Case, held_out
from bench.controls import continued
from bench.realism import told_apart
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.config.load import load_config, read_plan
from deep_piano.dataset.reader import Dataset
from deep_piano.generate.notes import NoteRoad
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.notes import Notes, excerpt
from deep_piano.report.text import markdown

LATER_S = 60.0
LONG_S = 90.0  # what a real piece has to last for its figures
ENDING_S = 10.0
CHORD_S = 0.03
TEMPI = (0.9, 1.0, 1.1)
APART_S = 0.2
_HOP = 2  # stretches of harmony begin so many times a second


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.argument("forms", nargs=-1, required=True)
@click.option("--corpus", default="maestro", show_default=True, help="Whose seeds to take.")
@click.option("--pieces", default=20, show_default=True, help="Seeds.")
@click.option("--seconds", default=180.0, show_default=True, help="Length of a piece.")
@click.option("--candidates", default=4, show_default=True, help="As for deep-piano generate.")
def main(
    dataset: str,
    forms: Sequence[str],
    corpus: str,
    pieces: int,
    **options: Any,
) -> None:
    """Print a line for each of FORMS, names or files of plans, and of the real pieces, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes; the seeds are of its
    validation split.
    """
    rows = []
    weights = checkpoint.load("notes")
    for form in forms:
        asked = {"plan": read_plan(Path(form))} if Path(form).is_file() else {"form": form}
        settings = load_config(None, {"generate": options | asked}).generate
        road = NoteRoad(weights, settings)
        with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
            found = held_out(opened, pieces, Path(folder), settings.seed_seconds)
            cases = [case for case in found if case.corpus == corpus]
            seeds = [road.read(case.path, no_progress) for case in cases]
        made = continued(road, seeds, [settings] * len(seeds))
        for case, seed, piece in zip(cases, seeds, made, strict=True):
            case.seed, case.seed_s, case.pieces = seed.notes, seed.seconds, [piece.notes]
        apart = told_apart([case.real for case in cases], [case.alike[0] for case in cases])
        whole = [case.pieces[0] for case in cases]
        ends = told_apart([case.whole for case in cases], whole, cut=last)
        rows.append([Path(form).stem, *recurrence(cases, whole), f"{apart:.3f}", f"{ends:.3f}"])
    head = ["form", "melody", "of other seeds", "harmony", "of other seeds", "copy, notes: median"]
    head += ["longest", "told apart", "endings"]
    real = [case for case in cases if case.whole["onset"].max() >= LONG_S]
    rows.append(["real", *recurrence(real, [case.whole for case in real]), "", ""])
    click.echo(markdown(head, rows))


def last(notes: Notes) -> list[Notes]:
    """Return the last ten seconds of a piece, as its one part."""
    end_s = float(notes["offset"].max())
    return [excerpt(notes, end_s - ENDING_S, end_s)]


def recurrence(cases: Sequence[Case], pieces: Sequence[Notes]) -> list[str]:
    """Return the figures of pieces beside the seeds of cases, as a row shows them."""
    later = [piece[piece["onset"] >= LATER_S] for piece in pieces]
    found: list[str] = []
    for figure in (melody_again, harmony_again):
        own, other = with_control([case.seed for case in cases], later, figure)
        found += [f"{own:.3f}", f"{other:.3f}"]
    copies = [copied(case.seed, one) for case, one in zip(cases, later, strict=True)]
    return [*found, f"{np.median(copies):.0f}", str(max(copies))]


def with_control(
    seeds: Sequence[Notes], later: Sequence[Notes], figure: Callable[[Notes, Notes], float]
) -> tuple[float, float]:
    """Return the mean of a figure over pieces with their own seeds, and with all others."""
    all_ = np.array([[figure(seed, one) for seed in seeds] for one in later])
    own = np.eye(len(seeds), dtype=bool)
    return float(all_[own].mean()), float(all_[~own].mean())


def melody_of(notes: Notes) -> Notes:
    """Return the notes above which none sounds when they begin."""
    onset, pitch = notes["onset"], notes["pitch"].astype(int)
    at_once = np.abs(onset[:, None] - onset) <= CHORD_S
    sounds = (onset < onset[:, None]) & (notes["offset"] > onset[:, None] + CHORD_S)
    return notes[~((at_once | sounds) & (pitch > pitch[:, None])).any(1)]


def melody_again(seed: Notes, later: Notes) -> float:
    """Return the share of the seed's melody that comes again together, at about its tempo."""
    melody, best = melody_of(seed), 0
    mine, theirs = np.nonzero(melody["pitch"][:, None] == later["pitch"])
    for tempo in TEMPI:
        begins = later["onset"][theirs] - melody["onset"][mine] * tempo
        for shift in (0.0, 0.5):
            when = np.floor(begins / APART_S + shift).astype(np.int64)
            pairs = np.unique(np.stack([when, mine], 1), axis=0)
            best = max(best, int(np.unique(pairs[:, 0], return_counts=True)[1].max(initial=0)))
    return best / max(len(melody), 1)


def harmony_again(seed: Notes, later: Notes) -> float:
    """Return the mean cosine of the seed's seconds with those of the stretch most like it."""
    length = max(1, int(seed["onset"].max()))
    mine = _chroma(seed, np.arange(length, dtype=float))
    starts_s = np.arange(LATER_S, float(later["onset"].max(initial=0.0)), 1 / _HOP)
    alike = mine @ _chroma(later, starts_s).T
    stretches = range(len(starts_s) - _HOP * (length - 1))
    each = np.arange(length)
    return max((float(alike[each, begin + _HOP * each].mean()) for begin in stretches), default=0.0)


def _chroma(notes: Notes, starts_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pitch classes that sound in each second, of length 1."""
    begin = np.maximum(notes["onset"][:, None], starts_s)
    sounding_s = np.maximum(np.minimum(notes["offset"][:, None], starts_s + 1) - begin, 0)
    chroma = (notes["pitch"][:, None] % 12 == np.arange(12)).T @ sounding_s
    return (chroma / np.maximum(np.linalg.norm(chroma, axis=0), 1e-9)).T


def copied(seed: Notes, later: Notes) -> int:
    """Return the longest run of notes that a part shares with the seed."""
    return CorpusIndex.build([("seed", encode(seed))]).longest_run(encode(later)).notes


if __name__ == "__main__":
    main()
