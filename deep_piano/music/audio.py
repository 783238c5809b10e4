"""Recordings in and out, through FFmpeg.

This module knows files and samples; it knows nothing of notes, pianos or loudness. FFmpeg is told
to open nothing but the one file: no URL, no playlist, no picture that names other files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AudioError, DeepPianoError, InputError, one_line
from deep_piano.infra.storage.atomic import atomic_path, sha256_of
from deep_piano.music.ffmpeg import (
    Run,
    decoding,
    file_url,
    require_working,
    run_ffmpeg,
    to_samples,
)
from deep_piano.music.midi import begins_as_midi

logger = logging.getLogger(__name__)


Samples = NDArray[np.float32]

SILENCE_DBFS = -60.0
LONGEST_DECODE_S = 3 * 3600.0

_MOST_CHANNELS = 64  # that FFmpeg mixes
_MOST_PLACED = 8  # of which some may not be mixed in: more are averaged
_MOST_SOUNDS = 8  # of one file that are looked at
_LOOKED_AT_S = 10.0  # of a stereo recording, to see whether its channels cancel out
_LEAST_LEFT = 0.25  # of the channels' power; where only one of them sounds, a half is left

_ENCODERS = {
    # Level 5 leaves out a search for shorter codes: the same sound, 1.7 % larger, a seventh sooner.
    ".mp3": ("-f", "mp3", "-c:a", "libmp3lame", "-q:a", "2", "-compression_level", "5"),
    ".wav": ("-f", "wav", "-c:a", "pcm_s16le"),
    ".flac": ("-f", "flac", "-c:a", "flac", "-sample_fmt", "s16"),
    ".ogg": ("-f", "ogg", "-c:a", "libvorbis", "-q:a", "6"),
}
ENCODED_SUFFIXES = frozenset(_ENCODERS)


def decode(
    path: Path,
    *,
    sr: int,
    start_s: float = 0.0,
    seconds: float | None = None,
    channels: Literal[1, 2] = 1,
    timeout_s: float = 60.0,
) -> Samples:
    """Decode a stretch of a recording, to mono unless told otherwise.

    Only what is asked for is decoded, so the file may be hours long.

    Parameters
    ----------
    path : Path
        Any container FFmpeg knows that cannot refer to other files. Of several sounds in it, the
        one that it says is to be played, else the first that is not silent.
    sr : int
        Sampling rate of the result, in Hz.
    start_s, seconds : float
        Where to begin, and how much to decode; `seconds=None` means all (at most three hours).
    channels : int
        1, or 2: mono then comes out of both.
    timeout_s : float
        FFmpeg is ended after this long, however often it must look.

    Returns
    -------
    ndarray, shape (n,), or (n, 2) of two channels, dtype float32
        Samples, full scale 1.0, read-only; n <= seconds * sr, less where the recording ends
        earlier. A file may say that it holds more: no more of it is decoded.

    Raises
    ------
    AudioError
        No such file, a folder, unreadable, empty, not audio, no sound in it, `start_s` beyond
        its end, damaged within the asked stretch, NaN or infinite samples, out of time, or it
        takes more than `ffmpeg.MOST_MEMORY`.
    DeepPianoError
        When FFmpeg does not work, whatever the file.

    Examples
    --------
    >>> decode(Path("seed.mp3"), sr=16_000, seconds=10).shape  # doctest: +SKIP
    (160000,)
    """
    if not (math.isfinite(start_s) and start_s >= 0):
        raise AudioError(f"the start must be 0 seconds or later. Received: {start_s}.")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise AudioError(f"the length must be more than 0 seconds. Received: {seconds}.")
    require_readable(path, one_line(path))
    if begins_as_midi(path):
        raise AudioError(
            f"{one_line(path)} is MIDI: it holds notes, and sound is needed. Give a recording."
        )
    longest_s = min(seconds or LONGEST_DECODE_S, LONGEST_DECODE_S)
    wanted = _Wanted(path, sr, start_s, longest_s, until=time.monotonic() + timeout_s)
    samples, stream, mix = _sounding_stream(wanted)
    if seconds is None and len(samples) == wanted.length:
        logger.warning("%s: only its first %g hours are used.", wanted, LONGEST_DECODE_S / 3600)
    if channels == 1:
        return samples
    # Where FFmpeg's own mix is no use, the two would not be either.
    return np.stack([samples] * 2, 1) if mix else wanted.run(stream=stream, channels=2)[0]


@dataclass(frozen=True)
class _Wanted:
    """A stretch of a recording, to be decoded."""

    path: Path
    sr: int
    start_s: float
    seconds: float
    until: float  # of the clock `time.monotonic`: whatever it takes, it takes no longer

    def __str__(self) -> str:
        return one_line(self.path)

    @property
    def length(self) -> int:
        """How many samples it has at most."""
        return round(self.seconds * self.sr)

    def run(
        self, *, stream: int = 0, mix: str = "", channels: Literal[1, 2] = 1
    ) -> tuple[Samples, Run]:
        """Decode a stream of sound, its channels mixed by a filter or in FFmpeg's own way."""
        run = run_ffmpeg(
            # A quarter of a second more than asked: resampling holds back its last few samples.
            *decoding(file_url(self.path), start_s=self.start_s, seconds=self.seconds + 0.25),
            *to_samples(
                self.sr, most=self.length + self.sr, stream=stream, mix=mix, channels=channels
            ),
            timeout_s=max(0.01, round(self.until - time.monotonic(), 2)),
            subject=str(self),
        )
        whole = len(run.output) // (4 * channels)
        decoded = np.frombuffer(run.output, "<f4", whole * channels)
        if channels > 1:
            decoded = decoded.reshape(whole, channels)
        return decoded[: self.length].astype(np.float32, copy=False), run


class _Chosen(NamedTuple):
    """What was decoded, of which stream, and the filter that mixed its channels ("": FFmpeg)."""

    samples: Samples
    stream: int
    mix: str


def _sounding_stream(wanted: _Wanted) -> _Chosen:
    """Decode the sound that the file says is to be played, else the first that is not silent."""
    samples, run = wanted.run()
    marked = [index for index, stream in enumerate(run.streams) if stream.default]
    chosen = marked[0] if marked and 0 not in marked else 0
    if chosen:
        samples, run = wanted.run(stream=chosen)
    found = _mixed(wanted, samples, run, stream=chosen)
    others = [index for index in range(len(run.streams[:_MOST_SOUNDS])) if index != chosen]
    for other in others if _is_silent(found.samples) else ():
        with contextlib.suppress(AudioError):
            instead = _mixed(wanted, *wanted.run(stream=other), stream=other)
            if not _is_silent(instead.samples):
                logger.warning(
                    "%s: number %d of its %d sounds is silent, number %d is used.",
                    *(wanted, chosen + 1, len(run.streams), other + 1),
                )
                return instead
    return found


def _mixed(wanted: _Wanted, samples: Samples, run: Run, *, stream: int) -> _Chosen:
    """Return what was decoded of a stream, or another mix of its channels where that is no use.

    Raises
    ------
    AudioError
        When it cannot be used.
    """
    here = run.streams[stream] if stream < len(run.streams) else None
    channels, mix = here.channels if here else 0, ""
    if here and not here.has_layout and 2 < channels <= _MOST_CHANNELS:
        even = "+".join(f"{1 / channels:.9f}*c{channel}" for channel in range(channels))
        mix = f"pan=mono|c0={even}"
        samples, run = wanted.run(stream=stream, mix=mix)
    if len(samples) < wanted.length and run.complaints:
        _explain_shortfall(wanted, run, decoded_s=len(samples) / wanted.sr)
    if not len(samples):
        require_working()
        raise AudioError(_nothing_decoded(wanted, run))
    if not np.isfinite(samples).all():
        raise AudioError(
            f"{wanted} holds NaN or infinite samples. Export it again as 16-bit audio."
        )
    if run.complaints:
        _tell_of(wanted, run)
    louder = _instead_of_the_mix(wanted, samples, stream=stream, channels=channels)
    if louder is None:
        return _Chosen(samples, stream, mix)
    logger.warning(
        "%s: its channels cancel each other out, so that number %d of %d alone is used.",
        *(wanted, louder + 1, channels),
    )
    mix = _only(louder)
    return _Chosen(wanted.run(stream=stream, mix=mix)[0], stream, mix)


def _is_silent(samples: Samples) -> bool:
    return bool(np.abs(samples).max(initial=0.0) < 10 ** (SILENCE_DBFS / 20))


def _instead_of_the_mix(
    wanted: _Wanted, samples: Samples, *, stream: int, channels: int
) -> int | None:
    """Return the loudest channel where channels cancel out, as where one is inverted; else None."""
    silent = _is_silent(samples)
    if not 2 <= channels <= _MOST_PLACED or (channels > 2 and not silent):
        return None
    part, mixed = (wanted, samples) if silent else _loudest_part(wanted, samples)
    if channels == 2:
        # With the mix (l + r) / 2 it holds all that the channels do.
        difference, _ = part.run(stream=stream, mix="pan=mono|c0=0.5*c0-0.5*c1")
        left = _power(mixed) / max(_power(mixed) + _power(difference), 1e-30)
        if _is_silent(difference) or left >= _LEAST_LEFT:
            return None
    powers = [_power(part.run(stream=stream, mix=_only(n))[0]) for n in range(channels)]
    loudest = int(np.argmax(powers))
    return loudest if powers[loudest] > 0 else None


def _loudest_part(wanted: _Wanted, samples: Samples) -> tuple[_Wanted, Samples]:
    """Return the ten seconds, or less, from about where samples are loudest."""
    blocks = np.array_split(samples, max(1, len(samples) // wanted.sr))
    loudest = int(np.argmax([_power(block) for block in blocks])) * wanted.sr
    length = min(round(_LOOKED_AT_S * wanted.sr), len(samples))
    begin = max(0, min(loudest, len(samples) - length))
    start_s, seconds = wanted.start_s + begin / wanted.sr, length / wanted.sr
    return replace(wanted, start_s=start_s, seconds=seconds), samples[begin : begin + length]


def _only(channel: int) -> str:
    return f"pan=mono|c0=c{channel}"


def _power(samples: Samples) -> float:
    return float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0


def duration_s(path: Path, *, timeout_s: float = 20.0) -> float | None:
    """Return how long a recording says it is, in seconds; None where it does not say."""
    name = one_line(path)
    require_readable(path, name)
    return run_ffmpeg(*decoding(file_url(path)), timeout_s=timeout_s, subject=name).said_s


def encode(
    path: Path,
    samples: Samples,
    *,
    sr: int,
    tags: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
) -> None:
    """Write samples as .mp3, .wav, .flac or .ogg; the same samples give the same bytes.

    The file appears whole or not at all.

    Parameters
    ----------
    path : Path
        Its suffix chooses the format: VBR MP3 (LAME -V2), 16-bit WAV or FLAC, Vorbis (q6).
    samples : ndarray, shape (n,) or (n, channels), dtype float32
        Full scale 1.0; what is beyond it is clipped.
    sr : int
        Sampling rate in Hz.
    tags : mapping of str to str, optional
        What players show: "title", "comment", "license", ... . A .wav has none.
    timeout_s : float
        FFmpeg is ended after this long.

    Raises
    ------
    InputError
        When the suffix is unknown or the folder cannot be written to.
    DeepPianoError
        When FFmpeg fails.
    """
    options = _ENCODERS.get(path.suffix.lower())
    name = one_line(path)
    if options is None:
        raise InputError(
            f"cannot write audio as {path.suffix or 'a file without a suffix'!r}: {name}. "
            f"Choose one of {', '.join(_ENCODERS)}."
        )
    columns = np.ascontiguousarray(samples if samples.ndim == 2 else samples[:, None], "<f4")
    with atomic_path(path) as temporary:
        run = run_ffmpeg(
            *("-y", "-f", "f32le", "-ar", str(sr), "-ac", str(columns.shape[1]), "-i", "pipe:0"),
            # Without these the files carry FFmpeg's version and, in Ogg, a random serial number.
            *("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"),
            *options,
            *(_tag_options(tags or {}) if path.suffix.lower() != ".wav" else ()),
            file_url(temporary),
            timeout_s=timeout_s,
            subject=name,
            given=columns.reshape(-1).view(np.uint8).data,
        )
        if run.code:
            raise DeepPianoError(f"FFmpeg could not write {name}: {run.reason}")


def _tag_options(tags: Mapping[str, str]) -> tuple[str, ...]:
    pairs = ((name, one_line(text)) for name, text in sorted(tags.items()))
    return tuple(option for name, text in pairs for option in ("-metadata", f"{name}={text}"))


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    require_readable(path, one_line(path))
    return sha256_of(path)


def _explain_shortfall(wanted: _Wanted, run: Run, *, decoded_s: float) -> None:
    """Raise the reason why less was decoded than asked for, unless the recording just ends."""
    if any("matches no streams" in complaint for complaint in run.complaints):
        raise AudioError(f"{wanted} holds no sound. Give a recording with an audio track.")
    if not decoded_s and run.code:
        require_working()
        raise AudioError(f"{wanted} is not audio that can be read: {run.reason}")
    # A few lost frames in the middle of what was asked are no reason to refuse the rest.
    there_s = min(wanted.seconds, (run.promised_s or 0.0) - wanted.start_s)
    if decoded_s < there_s - 0.5:
        require_working()
        where = f"{wanted.start_s + decoded_s:.1f} s"
        raise AudioError(
            f"{wanted} is damaged: it decodes only up to {where}: {run.reason}. "
            "Ask for a part before that, or give another copy."
        )


def _tell_of(wanted: _Wanted, run: Run) -> None:
    """Say what FFmpeg complained of, though nothing is missing."""
    junk = all(re.search(r"Header missing|Error submitting packet", c) for c in run.complaints)
    if junk:  # between frames, or behind the last one: a tag, padding, a page of a server
        logger.info("%s holds bytes that are no sound; they are left out: %s", wanted, run.reason)
    else:
        logger.warning("%s is damaged, what decodes is used: %s", wanted, run.reason)


def _nothing_decoded(wanted: _Wanted, run: Run) -> str:
    """Return why an intact recording gave no sample."""
    start_s = wanted.start_s
    if start_s and run.said_s and not run.is_estimate:
        return (
            f"{wanted} is {run.said_s:.1f} s long: it cannot start at {start_s:g} s. "
            "Choose an earlier start."
        )
    beyond = f" from {start_s:g} s on" if start_s else ""
    return f"{wanted} holds no samples{beyond}. Give another recording or an earlier start."


def require_readable(path: Path, name: str) -> None:
    """Raise unless `path` is an ordinary file with something in it that may be read."""
    try:
        if path.is_dir():
            raise AudioError(f"{name} is a folder. Give one audio file.")
        if not path.exists():
            raise AudioError(f"no such file: {name}. Check its name.")
        if not path.is_file():
            raise AudioError(f"{name} is not an ordinary file. Give an audio file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{name} is empty (0 bytes). Give another copy of it.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"cannot read {name}: {reason}. Check its name and permissions.") from None
