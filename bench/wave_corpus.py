"""A corpus of sound for the sound-wave codecs: MIDI files rendered on a sampled piano.

Stretches of the files that are named, in an order that their names decide, become FLAC files in
``train/`` and ``validation/``, which `deep-piano prepare` takes as splits; recordings are copied in
beside them. All are brought to one loudness. Files that are there already are kept.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import click
import numpy as np

from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music import audio, loudness, synth
from deep_piano.music.midi import read_midi
from deep_piano.music.notes import excerpt
from deep_piano.music.recordings import MIDI_SUFFIXES

SHARE_HELD_OUT = 0.08  # of the files whose folder has no table of splits
LUFS = -20.0

Job = tuple[Path, Path, float, str, int]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--files", default=80, show_default=True, help="MIDI files of each source.")
@click.option("--seconds", default=150.0, show_default=True, help="Of each of them, at most.")
@click.option("--sound", default="steinway", show_default=True, help="That plays them.")
@click.option("--sr", default=16_000, show_default=True, help="Sampling rate in Hz.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
def main(
    sources: Sequence[Path],
    output: Path,
    files: int,
    seconds: float,
    sound: str,
    sr: int,
    workers: int,
) -> None:
    """Render the MIDI files of SOURCES, and copy their recordings, into a corpus of sound.

    A folder with a metadata.csv as MAESTRO's keeps its splits; of others the names decide.
    """
    jobs: list[Job] = []
    for source in sources:
        splits = _splits(source)
        found = sorted(
            (path for path in source.rglob("*") if path.is_file()),
            key=lambda path: _hash(path.name),
        )
        midi = [path for path in found if path.suffix.lower() in MIDI_SUFFIXES][:files]
        sounds = [
            path for path in found if path.suffix.lower() in (".ogg", ".flac", ".mp3", ".wav")
        ]
        for path in chain(midi, sounds):
            by_chance = "validation" if _hash(path.name) % 1000 < 1000 * SHARE_HELD_OUT else "train"
            split = splits.get(path.name, by_chance)
            target = output / split / source.name / f"{path.stem}.flac"
            if not target.exists():
                jobs.append((path, target, seconds, sound, sr))
    with ProcessPoolExecutor(workers) as pool:
        for count, name in enumerate(pool.map(_make, jobs), 1):
            click.echo(f"{count} of {len(jobs)}: {name}")


def _make(job: Job) -> str:
    path, target, seconds, sound, sr = job
    if path.suffix.lower() in MIDI_SUFFIXES:
        notes = read_midi(path)
        spare_s = max(0.0, float(notes["offset"].max()) - seconds)
        begin_s = spare_s * np.random.default_rng(_hash(path.name)).random()
        notes = excerpt(notes, begin_s, begin_s + seconds)
        length_s = min(seconds, float(notes["offset"].max()) + 1)
        samples = synth.render(notes, sound=sound, seconds=length_s, sr=sr).mean(axis=1)
    else:
        samples = audio.decode(path, sr=sr)
    samples = loudness.normalise(samples, sr=sr, target_lufs=LUFS)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        audio.encode(temporary, samples, sr=sr)
    return str(target)


def _splits(source: Path) -> dict[str, str]:
    """Return the split of each MIDI file of a folder with a table of them."""
    table = source / "metadata.csv"
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows: Iterable[dict[str, str]] = csv.DictReader(file)
        return {Path(row["midi_filename"]).name: row["split"] for row in rows}


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)


if __name__ == "__main__":
    main()
