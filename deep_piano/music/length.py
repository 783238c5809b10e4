"""How long a recording's sound is, and when its playing ends, found near its end.

This module knows FFmpeg; `audio` decodes.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from deep_piano.errors import AudioError, one_line
from deep_piano.music.ffmpeg import Run, decoding, file_url, run_ffmpeg, to_samples

logger = logging.getLogger(__name__)

_LOOKED_AT_S: Final = 10.0
_LAST_MINUTE_S, _COARSE_SR, _FAINT_DB = 60.0, 8_000, -50.0
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
    run = file.progress(from_end_s=_LOOKED_AT_S, seconds=2 * _LOOKED_AT_S)
    if marked := _marked(run):
        file = _File(path, timeout_s, stream=marked)
        run = file.progress(from_end_s=_LOOKED_AT_S, seconds=2 * _LOOKED_AT_S)
    tail_s = _decoded_s(run)
    begin_s = max(0.0, (run.said_s or 0.0) - _LOOKED_AT_S)
    if not run.is_estimate and 0 < tail_s < 2 * _LOOKED_AT_S - _SLACK_S:
        found_s = begin_s + tail_s
    else:
        whole = file.progress(copy=True)
        found_s = _decoded_s(whole)
        run = whole if whole.complaints else run
    promised_s = run.promised_s or 0.0
    if found_s and found_s < promised_s - _SLACK_S:
        if run.complaints:
            raise AudioError(
                f"{one_line(path)} is damaged: it says that it is {promised_s:.1f} s long, and "
                f"ends at {found_s:.1f} s: {run.reason}. Ask for a part before that, or give "
                "another copy."
            )
        # It may have been cut on purpose by a program that left its header as it was.
        logger.warning(
            "%s says that it is %.1f s long, and ends at %.1f s. If it is a download that broke "
            "off, this is not its end: give another copy.",
            *(one_line(path), promised_s, found_s),
        )
    return found_s or None


def playing_ends_s(path: Path, of_s: float, *, timeout_s: float = 60.0) -> float:
    """Return when the playing of a recording ends: a recorder may run on for long.

    Parameters
    ----------
    path : Path
    of_s : float
        From `length_s`.
    timeout_s : float
        For each run of FFmpeg.

    Returns
    -------
    float
        Seconds: where the last minute was last louder than 50 dB below its loudest moment; `of_s`
        where it holds no sound.

    Raises
    ------
    DecodeTimeout
        When it is not decoded in time.
    """
    start_s = max(0.0, of_s - _LAST_MINUTE_S)
    run = _File(path, timeout_s).samples(start_s)
    if marked := _marked(run):
        run = _File(path, timeout_s, stream=marked).samples(start_s)
    block = _COARSE_SR // 10
    count = len(run.output) // (4 * block)
    blocks = np.frombuffer(run.output, "<f4", count * block).reshape(count, block)
    power = np.square(np.nan_to_num(blocks), dtype=np.float64).mean(axis=1)
    heard = np.flatnonzero(power > 10 ** (_FAINT_DB / 10) * power.max(initial=0))
    return min(of_s, start_s + (int(heard[-1]) + 1) * block / _COARSE_SR) if len(heard) else of_s


def _marked(run: Run) -> int:
    """Return which sound the file says is to be played, as `audio.decode` chooses."""
    marked = [index for index, stream in enumerate(run.streams) if stream.default]
    return marked[0] if marked and 0 not in marked else 0


@dataclass(frozen=True)
class _File:
    path: Path
    timeout_s: float
    stream: int = 0

    def progress(
        self, *, from_end_s: float | None = None, seconds: float | None = None, copy: bool = False
    ) -> Run:
        """Have FFmpeg read a stretch, decoded or not, and say how far it came."""
        how = ("-c", "copy") if copy else ()
        return self._run(
            *decoding(file_url(self.path), from_end_s=from_end_s, seconds=seconds),
            *("-map", f"0:a:{self.stream}", *how, "-progress", "pipe:1", "-f", "null", "-"),
        )

    def samples(self, start_s: float) -> Run:
        """Have FFmpeg decode a minute, coarsely, as float32."""
        most = round((_LAST_MINUTE_S + 1) * _COARSE_SR)
        return self._run(
            *decoding(file_url(self.path), start_s=start_s, seconds=_LAST_MINUTE_S),
            *to_samples(_COARSE_SR, most=most, stream=self.stream),
        )

    def _run(self, *options: str) -> Run:
        return run_ffmpeg(*options, timeout_s=self.timeout_s, subject=one_line(self.path))


def _decoded_s(run: Run) -> float:
    times = _TIME.findall(run.output)
    return int(times[-1]) / 1e6 if times else 0.0
