"""Notes found in recordings of pianos that are out of tune, with and without retuning.

    python -m bench.tuning RECORDINGS... [--cents -60,-40,0,40,60] [--start 20] [--seconds 14]

Every recording is played faster or slower by so many cents, as a piano of another tuning or a tape
of another speed sounds, and transcribed. A note counts as found where the recording as it is has
one within 50 ms: of its pitch, or for all notes of the semitone above or below.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from bench.common import machine
from deep_piano.music import audio, tuning
from deep_piano.music.notes import Notes
from deep_piano.music.transcription import SAMPLE_RATE, transcribe
from deep_piano.report.text import markdown

_NEAR_S = 0.05


@click.command()
@click.argument("recordings", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--cents", "steps", default="0,50,-50,40,-40,30,-30,20,-20,60,-60")
@click.option("--start", "start_s", default=20.0)
@click.option("--seconds", default=14.0)
def main(recordings: tuple[Path, ...], steps: str, start_s: float, seconds: float) -> None:
    """Print a table: a row a number of cents, notes found of all, as it was and as it is."""
    corrected = tuning.CORRECTED_CENTS
    rows = []
    played = [
        audio.decode(path, sr=SAMPLE_RATE, start_s=start_s, seconds=seconds) for path in recordings
    ]
    references = [_notes(samples, corrected=50) for samples in played]
    total = sum(map(len, references))
    for cents in map(int, steps.split(",")):
        factor = tuning.speed(cents)
        before = after = 0
        for samples, reference in zip(played, references, strict=True):
            detuned = tuning.retuned(samples, sr=SAMPLE_RATE, cents=-cents)
            found = _found(reference, _notes(detuned, corrected=50), factor=factor)
            before += found
            if tuning.correction_cents(detuned, sr=SAMPLE_RATE):
                found = _found(reference, _notes(detuned, corrected=corrected), factor=factor)
            after += found
        rows.append([f"{cents:+d}", f"{before:,}", f"{after:,}"])
        click.echo(rows[-1], err=True)
    head = ["cents", f"found of {total:,} notes, not retuned", "retuned"]
    click.echo(markdown(head, rows, words=0))
    click.echo(machine())


def _notes(samples: audio.Samples, *, corrected: int) -> Notes:
    before, tuning.CORRECTED_CENTS = tuning.CORRECTED_CENTS, corrected
    try:
        return transcribe(samples, sr=SAMPLE_RATE)
    finally:
        tuning.CORRECTED_CENTS = before


def _found(reference: Notes, heard: Notes, *, factor: float) -> int:
    onset = heard["onset"] * factor
    best = 0
    for shift in (-1, 0, 1):
        near = np.abs(reference["onset"][:, None] - onset) < _NEAR_S
        same = reference["pitch"][:, None].astype(int) + shift == heard["pitch"]
        best = max(best, int((near & same).any(axis=1).sum()))
    return best


if __name__ == "__main__":
    main()
