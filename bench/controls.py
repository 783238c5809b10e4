"""What each control of a piece moves, and what it leaves.

Held-out seeds of `bench.continuations` are continued at several values of one control, all others
as they are by default, and the continuations are held against their seeds. Figures are means over
the pieces:

- *density*: notes a second, over the seed's (geometric mean);
- *register*: the mean pitch, less the seed's, in semitones;
- *loudness*: the mean velocity, over the seed's;
- *in key*: the share of pieces whose key is the one asked for; that of the seed where none is;
- *in scale*: the share of notes in that key's scale;
- *nats a note*: the network's own loss.

The share of `min_p` is that of pitch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from bench.continuations import held_out
from deep_piano.analysis.keys import Key, key_of
from deep_piano.analysis.note_figures import density_ratio
from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.note_task import NoteContinuation
from deep_piano.decoding.open import open_decoder
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.seeds import Seed
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.report.text import markdown

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}
KEYS = {"a fifth higher": 7, "two fifths higher": 2, "a tritone away": 6}
"""Keys that are asked for, each so many semitones above the seed's, in its mode."""

CONTROLS: dict[str, Sequence[float | str]] = {
    "density": (0.5, 0.7, 1.4, 2.0),
    "register_shift": (-12.0, -6.0, -3.0, 3.0, 6.0, 12.0),
    "dynamics": (0.6, 0.8, 1.2, 1.4),
    "min_p": (0.02, 0.05, 0.1, 0.2),
    "key": ("stay", *KEYS),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--corpus", default="maestro", show_default=True, help="Whose seeds to take.")
@click.option("--pieces", default=20, show_default=True, help="Seeds.")
@click.option("--seconds", default=75.0, show_default=True, help="Length of a piece.")
def main(dataset: str, corpus: str, pieces: int, seconds: float) -> None:
    """Print a line for each value of each control, as Markdown. DATASET as `prepare` made it."""
    plain = load_config(None, {"generate": {"seconds": seconds, "candidates": 1}}).generate
    road = NoteRoad(checkpoint.load(plain.checkpoint), plain)
    with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
        seeds = [
            road.read(case.path, no_progress)
            for case in held_out(opened, pieces, Path(folder), plain.seed_seconds)
            if case.corpus == corpus
        ]
    rows = [["none", "", *figures(road, seeds, "key", "free")]]
    for control, values in CONTROLS.items():
        for value in values:
            rows.append([control, str(value), *figures(road, seeds, control, value)])
    head = ["control", "value", "density", "register", "loudness", "in key", "in scale"]
    click.echo(markdown([*head, "nats a note"], rows))


def figures(road: NoteRoad, seeds: Sequence[Seed], control: str, value: float | str) -> list[str]:
    """Return the figures of pieces with a control at a value, as a row shows them."""
    asked = [_asked(seed, control, value) for seed in seeds]
    settings = [_settings(road.settings, control, value, key) for key in asked]
    pieces = continued(road, seeds, settings)
    found = np.array(
        [_figures(seed, piece, key) for seed, piece, key in zip(seeds, pieces, asked, strict=True)]
    ).mean(0)
    found[0] = np.exp(found[0])
    return [f"{figure:.2f}" for figure in found]


def _asked(seed: Seed, control: str, value: float | str) -> Key:
    key = key_of(seed.notes) or Key(0, "major")
    higher = KEYS.get(str(value), 0) if control == "key" else 0
    return Key((key.tonic + higher) % 12, key.mode)


def _settings(plain: GenerateConfig, control: str, value: float | str, key: Key) -> GenerateConfig:
    given: object = key.name if value in KEYS else value
    if control == "min_p":  # of all fields at once it cuts long gaps, and the music hurries
        given = {"pitch": value}
    asked = load_config(None, {"generate": {control: given}}).generate
    return plain.model_copy(update={control: getattr(asked, control)})


def continued(
    road: NoteRoad, seeds: Sequence[Seed], settings: Sequence[GenerateConfig]
) -> list[NoteContinuation]:
    """Return the continuations of seeds, each by settings of its own, decoded side by side."""
    decoder = open_decoder(road.checkpoint, settings[0], width=len(seeds))
    for number, (seed, mine) in enumerate(zip(seeds, settings, strict=True)):
        decoder.add(number, NoteRoad(road.checkpoint, mine).task(seed, 0))
    done: dict[object, NoteContinuation] = {}
    while len(decoder):
        done |= decoder.step()
    return [done[number] for number in range(len(seeds))]


def _figures(seed: Seed, piece: NoteContinuation, key: Key) -> tuple[float, ...]:
    new, old = piece.notes, seed.notes
    scale = [(key.tonic + step) % 12 for step in SCALES[key.mode]]
    return (
        np.log(density_ratio(old, new)),
        new["pitch"].mean() - old["pitch"].mean(),
        new["velocity"].mean() / old["velocity"].mean(),
        key_of(new) == key,
        np.isin(new["pitch"] % 12, scale).mean(),
        piece.nats,
    )


if __name__ == "__main__":
    main()
