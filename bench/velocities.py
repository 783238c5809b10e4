"""How loud notes are heard, beside how loud they were played.

Excerpts of ten seconds are rendered on the sampled piano and heard by the transcription network. A
line is fitted to those of the training split; it is what `deep_piano.music.velocities` should hold.
Then *as heard* and *as played*, what that module makes of it, are held against the truth: in these
excerpts, in some of the validation split, and in recordings of real pianos whose notes are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from safetensors.numpy import load_file

from bench.common import machine
from bench.recordings import find_recordings
from deep_piano.codecs.notes import decode
from deep_piano.dataset.reader import Dataset
from deep_piano.generate.notes import ready_sound
from deep_piano.infra.assets import cache
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.music import audio, synth
from deep_piano.music.notes import Notes, excerpt, make_notes
from deep_piano.music.transcription import SAMPLE_RATE, WEIGHTS_FILE, transcribe_segments
from deep_piano.music.transkun import Transkun
from deep_piano.music.velocities import as_played
from deep_piano.report.text import markdown

EXCERPT_S = 10.0
FEWEST_NOTES = 8

Pair = tuple[Notes, audio.Samples]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--excerpts", default=12, show_default=True, help="Of each corpus and split.")
@click.option("--audio", "folder", type=click.Path(exists=True, path_type=Path))
def main(dataset: str, excerpts: int, folder: Path | None) -> None:
    """Print the line and a table of errors, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes. The folder `--audio`
    has recordings, and beside each its notes, a line each: onset and offset in seconds, pitch,
    velocity (`.tsv`).
    """
    means = {}
    with Dataset(open_folder(dataset)) as opened:
        for split in ("train", "validation"):
            means[f"rendered, {split}"] = heard(rendered(opened, split, excerpts))
    if folder is not None:
        means["recordings"] = heard(recorded(folder))
    played, as_heard, _ = means["rendered, train"]
    slope, offset = np.polyfit(as_heard, played, 1)
    click.echo(
        f"Played = {slope:.2f} x heard {offset:+.1f}, the same at {offset / (1 - slope):.0f}; "
        f"heard from {as_heard.min():.0f} to {as_heard.max():.0f}.\n"
    )
    head = ["excerpts", "number", "played", "heard", "correlation", "error as heard", "root mean"]
    head += ["error as played", "root mean"]
    rows = [[name, *figures(*found)] for name, found in means.items()]
    click.echo(markdown(head, rows))
    click.echo(machine())


def figures(played: np.ndarray, as_heard: np.ndarray, put_right: np.ndarray) -> list[str]:
    """Return what a row shows of mean velocities, shape (excerpts,)."""
    shown = [f"{len(played)}", f"{played.mean():.1f}", f"{as_heard.mean():.1f}"]
    shown.append(f"{np.corrcoef(played, as_heard)[0, 1]:.2f}")
    for found in (as_heard, put_right):
        error = found - played
        shown += [f"{error.mean():+.1f}", f"{np.sqrt(np.mean(error**2)):.1f}"]
    return shown


def heard(pairs: Iterator[Pair]) -> np.ndarray:
    """Return mean velocities, shape (3, excerpts): as played, as heard, and as put right."""
    network = Transkun(load_file(cache.ensure("transkun") / WEIGHTS_FILE))
    found = []
    for notes, samples in pairs:
        keys = transcribe_segments(network, samples, sr=SAMPLE_RATE).keys
        if len(keys) >= FEWEST_NOTES <= len(notes):
            found.append([part["velocity"].mean() for part in (notes, keys, as_played(keys))])
    return np.array(found).T


def rendered(dataset: Dataset, split: str, count: int) -> Iterator[Pair]:
    """Yield excerpts of each corpus, always the same ones, and their sound."""
    sound = ready_sound(None, no_progress)
    rng = np.random.default_rng(0)
    for rows in dataset.by_corpus(split, shortest_s=4 * EXCERPT_S).values():
        for index in rng.permutation(len(rows))[:count]:
            whole = decode(rows[index].sequence)
            start_s = rng.uniform(whole["onset"][0], whole["onset"][-1] - 2 * EXCERPT_S)
            notes = excerpt(whole, start_s, start_s + EXCERPT_S)
            stereo = synth.render(notes, sound=sound, seconds=EXCERPT_S, sr=SAMPLE_RATE)
            yield notes, stereo.mean(axis=1)


def recorded(folder: Path) -> Iterator[Pair]:
    """Yield excerpts of recordings, one after another, and their notes."""
    for path in find_recordings(folder, None):
        notes = make_notes(*np.loadtxt(path.with_suffix(".tsv")).T)
        samples = audio.decode(path, sr=SAMPLE_RATE)
        for start_s in np.arange(0, len(samples) / SAMPLE_RATE - EXCERPT_S, EXCERPT_S):
            begin = round(start_s * SAMPLE_RATE)
            part = samples[begin : begin + round(EXCERPT_S * SAMPLE_RATE)]
            yield excerpt(notes, start_s, start_s + EXCERPT_S), part


if __name__ == "__main__":
    main()
