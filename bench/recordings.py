"""The main job on real recordings, and whether every piece keeps what is promised.

`deep_piano.generate.piece.make_pieces` continues each recording at several random states. Every
piece is measured on the files that were written, not on what the program says of them: length,
silence, peak and loudness on the decoded sound, the rest on the MIDI file. Each continuation is
then compared in its pitch classes with its own recording's seed, and with the seeds of all the
others, which is the mean over all ways of shuffling the seeds so that none stays with its piece.

The exit code is 1 when any criterion is missed. `--format mid` leaves the sound out, for quick
comparisons of settings.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.common import output_format
from deep_piano.analysis.note_figures import (
    longest_loop,
    longest_note_s,
    longest_silence_s,
    pitch_class_cosine,
)
from deep_piano.cli.options import PerField
from deep_piano.errors import DeepPianoError
from deep_piano.music.midi import read_midi
from deep_piano.music.notes import Notes
from deep_piano.report.text import markdown

SUFFIXES = frozenset({".mp3", ".wav", ".flac", ".ogg", ".m4a", ".opus"})
QUIET_DBFS = -60.0
TARGET_LUFS = -16.0
LEAST_DIFFERENCE = 0.1


@dataclass
class Row:
    """One piece; what belongs to its sound is None where there is none.

    Attributes
    ----------
    seconds : float or None
        Length of the sound file.
    sounds_s : float or None
        From the first to the last sample that is not quiet.
    quiet_s : float or None
        The longest stretch of the sound file below `QUIET_DBFS`.
    error : str
        Why there is no piece.
    """

    recording: str
    random_state: int
    asked_s: float
    continuation: Notes | None = None
    last_offset_s: float = math.nan
    seconds: float | None = None
    sounds_s: float | None = None
    silence_s: float = math.nan
    quiet_s: float | None = None
    note_s: float = math.nan
    loop: int = 0
    peak_dbfs: float | None = None
    lufs: float | None = None
    cosine: float = math.nan
    shuffled: float = math.nan
    error: str = ""


@dataclass(frozen=True)
class Criterion:
    """What every piece must keep: a figure, and whether it is right."""

    name: str
    limit: str
    figure: Callable[[Row], float | None]
    holds: Callable[[float, Row], bool]
    badness: Callable[[float, Row], float] = field(default=lambda value, row: value)


def _off_length(value: float, row: Row) -> float:
    return abs(value - row.asked_s)


def _off_loudness(value: float, row: Row) -> float:
    return abs(value - TARGET_LUFS)


def _close(value: float, row: Row) -> bool:
    return _off_length(value, row) <= 1


CRITERIA = (
    Criterion("length of the file", "asked ± 1 s", lambda r: r.seconds, _close, _off_length),
    Criterion("it sounds for", "asked ± 1 s", lambda r: r.sounds_s, _close, _off_length),
    Criterion("last note ends at", "asked ± 1 s", lambda r: r.last_offset_s, _close, _off_length),
    Criterion("silence between notes", "≤ 4 s", lambda r: r.silence_s, lambda v, r: v <= 4),
    Criterion("quiet in the sound", "≤ 4 s", lambda r: r.quiet_s, lambda v, r: v <= 4),
    Criterion("longest note", "≤ 20 s", lambda r: r.note_s, lambda v, r: v <= 20),
    Criterion("longest loop", "≤ 16 times", lambda r: r.loop, lambda v, r: v <= 16),
    Criterion("peak", "< 0 dBFS", lambda r: r.peak_dbfs, lambda v, r: v < 0),
    Criterion(
        "loudness",
        "-16 ± 2 LUFS",
        lambda r: r.lufs,
        lambda v, r: _off_loudness(v, r) <= 2,
        _off_loudness,
    ),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--audio",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of recordings.  [$DEEP_PIANO_SHARED/audio, else ../shared/audio]",
)
@click.option("--only", help="Only recordings with this in their name.")
@click.option(
    "--random-state",
    "states",
    multiple=True,
    type=int,
    default=range(5),
    show_default="0 to 4",
    help="May be given several times.",
)
@click.option("--seconds", default=180.0, show_default=True, help="Length of a piece.")
@output_format
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option("--temperature", type=PerField(float), help="As for deep-piano generate.")
@click.option("--top-p", type=PerField(float), help="As for deep-piano generate.")
@click.option("--top-k", type=PerField(int), help="As for deep-piano generate.")
@click.option("--sound", help="As for deep-piano generate.")
@click.option("--summary", is_flag=True, help="Leave out the table of all pieces.")
def main(
    folder: Path | None,
    only: str | None,
    states: Sequence[int],
    suffix: str,
    summary: bool,
    **settings: Any,
) -> None:
    """Print the figures of a piece for each recording and random state, as Markdown."""
    recordings = find_recordings(folder, only)
    try:
        rows = make_rows(recordings, states, suffix, settings)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    if not summary:
        click.echo(pieces_table(rows) + "\n")
    criteria, kept = criteria_table(rows)
    click.echo(criteria)
    sys.exit(0 if kept else 1)


def find_recordings(folder: Path | None, only: str | None) -> list[Path]:
    """Return the recordings below a folder, sorted by name.

    Raises
    ------
    click.ClickException
        When there are none.
    """
    beside = Path(__file__).parents[2] / "shared"
    folder = folder or Path(os.environ.get("DEEP_PIANO_SHARED") or beside) / "audio"
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    found = sorted(path for path in found if not only or only in path.name)
    if not found:
        named = f" with {only!r} in their name" if only else ""
        raise click.ClickException(f"no recordings{named} in {folder}: give another --audio.")
    return found


def make_rows(
    recordings: Sequence[Path], states: Sequence[int], suffix: str, settings: dict[str, Any]
) -> list[Row]:
    """Make and measure every piece."""
    from deep_piano.config.load import load_config
    from deep_piano.generate import piece, seeds
    from deep_piano.generate.seeds import Seed
    from deep_piano.models import checkpoint

    checkpoint.find(load_config(None, {"generate": settings}).generate.checkpoint)

    # Each recording is transcribed once for all random states. The notes are copied for each use.
    read_seed, known = seeds.read_seed, {}

    def read_once(path: Path, **options: Any) -> Seed:
        if path not in known:
            known[path] = read_seed(path, **options)
        seed = known[path]
        return Seed(seed.notes.copy(), seed.seconds, seed.digest, seed.name)

    rows = []
    seeds.read_seed = read_once
    try:
        with tempfile.TemporaryDirectory() as folder:
            for recording in recordings:
                for state in states:
                    # Their beginnings, as docs/recordings.md reports them.
                    options = {"seed_start": 0.0, **settings, "random_state": state}
                    config = load_config(None, {"generate": options}).generate
                    row = Row(recording.stem, state, config.seconds)
                    out = Path(folder) / f"piece.{suffix}"
                    try:
                        piece.make_pieces(recording, out, config, force=True)
                        measure(row, out, known[recording])
                    except DeepPianoError as error:
                        row.error = str(error)
                    rows.append(row)
                    click.echo(
                        f"{row.recording} {state}: {'; '.join(faults(row)) or 'good'}", err=True
                    )
    finally:
        seeds.read_seed = read_seed
    compare_with_others(rows, {path.stem: seed.notes for path, seed in known.items()})
    return rows


def measure(row: Row, out: Path, seed: Any) -> None:
    """Fill in what the files of a piece show."""
    notes = read_midi(out.with_suffix(".mid"))
    row.continuation = notes[notes["onset"] >= seed.seconds - 0.001]  # MIDI rounds to ticks
    row.last_offset_s = float(notes["offset"].max())
    row.silence_s = longest_silence_s(notes, start_s=0.0, end_s=row.last_offset_s)
    row.note_s = longest_note_s(notes)
    row.loop = longest_loop(notes)
    row.cosine = pitch_class_cosine(seed.notes, row.continuation)
    if out.suffix != ".mid":
        measure_sound(row, out)


def measure_sound(row: Row, path: Path) -> None:
    """Fill in what the decoded sound file shows, both channels."""
    import soundfile

    from deep_piano.music.loudness import integrated_lufs

    samples, sr = soundfile.read(path, dtype="float32", always_2d=True)
    level = np.abs(samples).max(axis=1)
    row.seconds = len(level) / sr
    loud = np.flatnonzero(level >= 10 ** (QUIET_DBFS / 20))
    row.sounds_s = (int(loud[-1]) + 1 - int(loud[0])) / sr if len(loud) else 0.0
    row.quiet_s = longest_quiet_s(level, sr=sr)
    row.peak_dbfs = 20 * math.log10(max(float(level.max(initial=0)), 1e-9))
    row.lufs = integrated_lufs(samples, sr=sr)


def longest_quiet_s(level: NDArray[np.float32], *, sr: int) -> float:
    """Return the longest stretch in which no sample reaches -60 dBFS, in seconds.

    Parameters
    ----------
    level : ndarray, shape (n,)
        Absolute values, full scale 1.0; the ends of the file count.
    sr : int
        Sampling rate in Hz.
    """
    loud = np.flatnonzero(level >= 10 ** (QUIET_DBFS / 20))
    edges = np.r_[-1, loud, len(level)]
    return (int(np.diff(edges).max()) - 1) / sr


def compare_with_others(rows: Sequence[Row], seeds: dict[str, Notes]) -> None:
    """Fill in each continuation's mean pitch-class cosine with the seeds of other recordings."""
    for row in rows:
        if row.continuation is not None:
            others = [notes for name, notes in seeds.items() if name != row.recording]
            scores = [pitch_class_cosine(notes, row.continuation) for notes in others]
            row.shuffled = float(np.mean(scores)) if scores else math.nan


def faults(row: Row) -> list[str]:
    """Return what is wrong with a piece, in words."""
    if row.error:
        return [row.error]
    found = []
    for criterion in CRITERIA:
        value = criterion.figure(row)
        if value is not None and not criterion.holds(value, row):
            found.append(f"{criterion.name} {value:.4g} (must be {criterion.limit})")
    return found


def pieces_table(rows: Sequence[Row]) -> str:
    """Return one line a piece."""
    head = [
        "recording",
        "state",
        "file, s",
        "sounds, s",
        "last note, s",
        "silence, s",
        "quiet, s",
        "longest note, s",
        "loop",
        "peak, dBFS",
        "LUFS",
        "cosine",
        "other seeds",
        "verdict",
    ]
    lines = []
    for row in rows:
        figures = [
            row.seconds,
            row.sounds_s,
            row.last_offset_s,
            row.silence_s,
            row.quiet_s,
            row.note_s,
        ]
        lines.append(
            [
                row.recording,
                str(row.random_state),
                *(_shown(value, 2) for value in figures),
                str(row.loop),
                _shown(row.peak_dbfs, 2),
                _shown(row.lufs, 1),
                _shown(row.cosine, 3),
                _shown(row.shuffled, 3),
                "; ".join(faults(row)) or "good",
            ]
        )
    return markdown(head, lines)


def criteria_table(rows: Sequence[Row]) -> tuple[str, bool]:
    """Return a table of the criteria with the worst piece of each, and whether all are kept."""
    made = [row for row in rows if not row.error]
    lines = [["pieces made", f"all {len(rows)}", str(len(made)), _verdict(len(made) == len(rows))]]
    kept = len(made) == len(rows) > 0
    for criterion in CRITERIA:
        values = [(value, row) for row in made if (value := criterion.figure(row)) is not None]
        if values:
            right = all(criterion.holds(*pair) for pair in values)
            worst, _ = max(values, key=lambda pair: criterion.badness(*pair))
            lines.append([criterion.name, criterion.limit, f"{worst:.2f}", _verdict(right)])
            kept &= right
    cosine, shuffled = mean_cosines(rows)
    lines.append(["mean pitch-class cosine with its own seed", "", _shown(cosine, 3), ""])
    if not math.isnan(shuffled):
        right = cosine - shuffled >= LEAST_DIFFERENCE
        lines.append(["the same with shuffled seeds", "", _shown(shuffled, 3), ""])
        lines.append(
            ["difference", f"≥ {LEAST_DIFFERENCE}", f"{cosine - shuffled:.3f}", _verdict(right)]
        )
        kept &= right
    return markdown(["criterion", "must be", "worst piece", "verdict"], lines), kept


def mean_cosines(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the mean cosine with the own seed, and with other recordings' seeds."""
    made = [row for row in rows if not row.error]
    if not made:
        return math.nan, math.nan
    own, others = ([getattr(row, name) for row in made] for name in ("cosine", "shuffled"))
    return float(np.mean(own)), float(np.mean(others))


def _verdict(right: bool) -> str:
    return "kept" if right else "**missed**"


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
