"""How long a recording's sound is, found near its end where the file says how long it is.

This module knows FFmpeg; `audio` decodes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deep_piano.errors import AudioError, one_line
from deep_piano.music.ffmpeg import Run, decoding, file_url, run_ffmpeg

_LOOKED_AT_S: Final = 10.0
_SLACK_S: Final = 0.5  # that a length may be off without being wrong
_TIME = re.compile(rb"^out_time_us=(\d+)", re.MULTILINE)


def length_s(path: Path, *, timeout_s: float = 60.0) -> float | None:
    """Return how long the sound of a recording is.

    Of a file that says how long it is, the last ten seconds alone are decoded, which shows whether
    that is true. Otherwise its packets are read to the end, and none of them is decoded.

    Parameters
    ----------
    path : Path
    timeout_s : float
        For each run of FFmpeg, of which there are three at most.

    Returns
    -------
    float or None
        Seconds; None where no sound is found at all.

    Raises
    ------
    AudioError
        When the sound ends before the file says it does, and FFmpeg complains.
    DecodeTimeout
        When there is no end in time.
    """
    file = _File(path, timeout_s)
    run = file.run(from_end_s=_LOOKED_AT_S, seconds=2 * _LOOKED_AT_S)
    marked = [index for index, stream in enumerate(run.streams) if stream.default]
    if marked and 0 not in marked:  # as `audio.decode` chooses among several
        file = _File(path, timeout_s, stream=marked[0])
        run = file.run(from_end_s=_LOOKED_AT_S, seconds=2 * _LOOKED_AT_S)
    tail_s = _decoded_s(run)
    begin_s = max(0.0, (run.said_s or 0.0) - _LOOKED_AT_S)
    if not run.is_estimate and 0 < tail_s < 2 * _LOOKED_AT_S - _SLACK_S:
        found_s = begin_s + tail_s
    else:
        whole = file.run(copy=True)
        found_s = _decoded_s(whole)
        run = whole if whole.complaints else run
    promised_s = run.promised_s or 0.0
    if found_s and run.complaints and found_s < promised_s - _SLACK_S:
        raise AudioError(
            f"{one_line(path)} is damaged: it says that it is {promised_s:.1f} s long, and ends at "
            f"{found_s:.1f} s: {run.reason}. Ask for a part before that, or give another copy."
        )
    return found_s or None


@dataclass(frozen=True)
class _File:
    path: Path
    timeout_s: float
    stream: int = 0

    def run(
        self, *, from_end_s: float | None = None, seconds: float | None = None, copy: bool = False
    ) -> Run:
        """Have FFmpeg read a stretch, decoded or not, and say how far it came."""
        return run_ffmpeg(
            *decoding(file_url(self.path), from_end_s=from_end_s, seconds=seconds),
            *("-map", f"0:a:{self.stream}", *(("-c", "copy") if copy else ())),
            *("-progress", "pipe:1", "-f", "null", "-"),
            timeout_s=self.timeout_s,
            subject=one_line(self.path),
        )


def _decoded_s(run: Run) -> float:
    times = _TIME.findall(run.output)
    return int(times[-1]) / 1e6 if times else 0.0
