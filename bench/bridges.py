"""How pieces pass from one section to the next: with bridges of several lengths, and without.

Pieces of held-out seeds have a middle section that differs from the others in density, register,
loudness and key. At each of its two boundaries the seconds before are held against those after:
the *step* in notes a second (|log|), in mean pitch (semitones), in mean velocity (share) and in
pitch classes (1 less the cosine). *Within* is the same in the middle of sections; *real* in real
pieces, at the times of the boundaries. *Dominant* is the share of the notes of the last two
seconds before a boundary that belong to the dominant seventh of the key to come; that of *within*
is what chance gives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from bench.continuations import held_out
from bench.controls import continued
from deep_piano.analysis.keys import Key, key_of
from deep_piano.analysis.note_figures import pitch_class_cosine
from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.sections import dominant_of
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.seeds import Seed
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.notes import Notes, excerpt
from deep_piano.report.text import markdown

BOUNDARIES_S = 40.0, 70.0
MIDDLES_S = 25.0, 55.0, 85.0
SECONDS = 105.0
BESIDE_S = 4.0
PREPARED_S = 2.0
MIDDLE = {"density": 0.6, "register_shift": -6.0, "dynamics": 0.75}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.argument("bridges", nargs=-1, type=float, required=True)
@click.option("--pieces", default=20, show_default=True, help="Seeds of each corpus.")
@click.option("--corpus", default="all", show_default=True, help="Whose seeds to take.")
def main(dataset: str, bridges: Sequence[float], pieces: int, corpus: str) -> None:
    """Print a line for each length of BRIDGES, in seconds, as Markdown.

    DATASET as `prepare` made it.
    """
    plain = load_config(None, {"generate": {"seconds": SECONDS, "candidates": 1}}).generate
    road = NoteRoad(checkpoint.load(plain.checkpoint), plain)
    with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
        found = held_out(opened, pieces, Path(folder), plain.seed_seconds)
        cases = [case for case in found if corpus in ("all", case.corpus)]
        seeds = [road.read(case.path, no_progress) for case in cases]
    head = ["bridge, s", "density", "register", "loudness", "pitch classes", "dominant"]
    rows = []
    keys = [_keys(seed) for seed in seeds]
    for bridge in bridges:
        settings = [_planned(plain, bridge, *asked) for asked in keys]
        made = [piece.notes for piece in continued(road, seeds, settings)]
        rows.append([f"{bridge:g}", *steps(made, keys, BOUNDARIES_S)])
        rows.append([f"{bridge:g}: within", *steps(made, keys, MIDDLES_S)])
    long = [case.whole for case in cases if case.whole["onset"].max() >= SECONDS]
    rows.append(["real", *steps(long, keys, BOUNDARIES_S)[:-1], ""])
    click.echo(markdown(head, rows))


def _keys(seed: Seed) -> tuple[Key, Key]:
    """Return a seed's key, and that of the middle section, a fifth higher."""
    key = key_of(seed.notes) or Key(0, "major")
    return key, Key((key.tonic + 7) % 12, key.mode)


def _planned(plain: GenerateConfig, bridge: float, home: Key, away: Key) -> GenerateConfig:
    first, second = BOUNDARIES_S
    plan = [
        {"name": "A", "seconds": first, "key": home.name},
        {"name": "B", "seconds": second - first, "key": away.name, "bridge": bridge, **MIDDLE},
        {"name": "C", "key": home.name, "bridge": bridge},
    ]
    asked = load_config(None, {"generate": {"plan": plan, "seconds": SECONDS}}).generate
    return plain.model_copy(update={"plan": asked.plan})


def steps(
    pieces: Sequence[Notes], keys: Sequence[tuple[Key, Key]], times_s: Sequence[float]
) -> list[str]:
    """Return the mean steps of pieces at some times, as a row shows them."""
    found = []
    for notes, (home, away) in zip(pieces, keys, strict=False):
        for place, at_s in enumerate(times_s):
            key = (away, home)[place % 2]
            before = excerpt(notes, at_s - BESIDE_S, at_s)
            after = excerpt(notes, at_s, at_s + BESIDE_S)
            last = excerpt(notes, at_s - PREPARED_S, at_s)
            if min(map(len, (before, after, last))):
                found.append(_step(before, after, last, key))
    return [f"{figure:.3f}" for figure in np.mean(found, 0)]


def _step(before: Notes, after: Notes, last: Notes, key: Key) -> tuple[float, ...]:
    return (
        abs(np.log(len(after) / len(before))),
        abs(after["pitch"].mean() - before["pitch"].mean()),
        abs(after["velocity"].mean() / before["velocity"].mean() - 1),
        1 - pitch_class_cosine(before, after),
        np.isin(last["pitch"] % 12, dominant_of(key)).mean(),
    )


if __name__ == "__main__":
    main()
