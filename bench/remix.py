"""What a remix changes, beside the music that was remixed.

Half a minute of held-out recordings is remixed. Figures are means over the recordings:

- *changed*: of a kept rhythm the share of notes whose key was not struck at that moment; of kept
  pitches that of gaps between onsets that differ by more than 20 ms;
- *in scale*: the share of notes in the scale of the key that was played;
- *density*: notes a second, over those that were played (geometric mean);
- *nats a note*: what the notes cost the network, what is kept included.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from bench.continuations import held_out_music
from bench.controls import SCALES
from deep_piano.analysis.keys import Key, key_of
from deep_piano.config.load import load_config
from deep_piano.dataset.reader import Dataset
from deep_piano.generate.notes import NoteTake
from deep_piano.generate.piece import compose
from deep_piano.generate.remix import RemixRoad, changed
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import Notes
from deep_piano.report.text import markdown

SPAN_S = (30.0, 60.0)
APART_S = 0.02


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--corpus", default="maestro", show_default=True, help="Whose recordings to take.")
@click.option("--pieces", default=10, show_default=True, help="Recordings.")
def main(dataset: str, corpus: str, pieces: int) -> None:
    """Print a line for each kind of remix, as Markdown. DATASET as `prepare` made it."""
    weights, rows = checkpoint.load("notes"), []
    with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
        paths = []
        for of, _, notes in held_out_music(opened, pieces, SPAN_S[1]):
            if of == corpus:
                paths.append(Path(folder) / f"{len(paths)}.mid")
                write_midi(paths[-1], notes)
        for kind in ("rhythm", "pitches"):
            asked = {"remix": kind, "seed_start": SPAN_S[0], "seed_end": SPAN_S[1]}
            road = RemixRoad(weights, load_config(None, {"generate": asked}).generate)
            seeds = [road.read(path, no_progress) for path in paths]
            takes = [compose(road, seed)[0] for seed in seeds]
            found = [
                _figures(kind, seed.notes, take) for seed, take in zip(seeds, takes, strict=True)
            ]
            rows.append([kind, *_row(found)])
    scale = np.mean([_in_scale(seed.notes, seed.notes) for seed in seeds])
    rows.append(["what was played", "", f"{scale:.2f}", "", ""])
    head = ["kept", "changed", "in scale", "density", "nats a note"]
    click.echo(markdown(head, rows))


def _figures(kind: str, old: Notes, take: NoteTake) -> list[float]:
    new = take.notes
    gaps = np.abs(np.diff(old["onset"]) - np.diff(new["onset"])) > APART_S
    density = float(np.log(np.ptp(old["onset"]) / np.ptp(new["onset"])))
    nats = float(take.figures["nats_a_note"])
    other = changed(old, new) if kind == "rhythm" else float(gaps.mean())
    return [other, _in_scale(old, new), density, nats]


def _in_scale(old: Notes, new: Notes) -> float:
    key = key_of(old) or Key(0, "major")
    scale = [(key.tonic + step) % 12 for step in SCALES[key.mode]]
    return float(np.isin(new["pitch"] % 12, scale).mean())


def _row(found: Sequence[list[float]]) -> list[str]:
    mean = np.mean(found, 0)
    mean[2] = np.exp(mean[2])
    return [f"{figure:.2f}" for figure in mean]


if __name__ == "__main__":
    main()
