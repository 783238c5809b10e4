"""What the transcription network finds in a segment, written as rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deep_piano.music.segments import Intervals


def intervals(*rows: tuple[float, float, int], **columns: list[bool]) -> Intervals:
    """Build intervals from (begin s, end s, pitch), whole ones unless said otherwise."""
    begin, end, pitch = np.array(rows, float).reshape(-1, 3).T
    whole = Intervals(
        pitch=pitch.astype(int),
        begin_s=begin,
        end_s=end,
        velocity=np.full(len(rows), 64),
        has_begin=np.ones(len(rows), bool),
        has_end=np.ones(len(rows), bool),
    )
    return replace(whole, **{name: np.array(column) for name, column in columns.items()})


def as_rows(notes: np.ndarray) -> list[tuple[float, float, int]]:
    return [
        (round(float(n["onset"]), 6), round(float(n["offset"]), 6), int(n["pitch"])) for n in notes
    ]
