"""Recordings in and out, through FFmpeg.

This module knows files and samples; it knows nothing of notes, pianos or loudness. FFmpeg runs
as a program of its own, so that a file which hangs or crashes it costs only itself, and it is
told to open nothing but the one file: no URL, no playlist, no picture that names other files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AudioError, DecodeTimeout, DeepPianoError, InputError, one_line
from deep_piano.infra.storage.atomic import atomic_path, sha256_of

logger = logging.getLogger(__name__)


Samples = NDArray[np.float32]

SILENCE_DBFS = -60.0
LONGEST_DECODE_S = 3 * 3600.0

# Containers that hold sound and cannot name other files. What is left out on purpose: hls, dash,
# concat, imf, sdp, rtsp, image2, and everything that is only a picture or text.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,flv,matroska,webm,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,ogg,oma,rm,tta,w64,wav,wv"
)
_LARGEST_ALLOCATION = 512 * 2**20
MOST_MEMORY = 2 * 2**30
"""Address space of FFmpeg while it decodes, in bytes: of it an ordinary file takes 0.6 GiB, nearly
all of that reserved and never used (0.04 GiB resident)."""
_KEPT_OF_ERRORS = 65_536

_ENCODERS = {
    ".mp3": ("-f", "mp3", "-c:a", "libmp3lame", "-q:a", "2"),
    ".wav": ("-f", "wav", "-c:a", "pcm_s16le"),
    ".flac": ("-f", "flac", "-c:a", "flac", "-sample_fmt", "s16"),
    ".ogg": ("-f", "ogg", "-c:a", "libvorbis", "-q:a", "6"),
}
ENCODED_SUFFIXES = frozenset(_ENCODERS)


@dataclass(frozen=True)
class _Finished:
    """What a run of FFmpeg left: exit code, standard output, last lines of standard error."""

    code: int
    output: bytes
    complaints: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The last complaint and the exit code, in one line."""
        last = self.complaints[-1] if self.complaints else "no reason given"
        last = re.sub(r" @ 0x[0-9a-f]+", "", last)  # an address, another one every time
        return f"{last} (ffmpeg's exit code: {self.code})"


def ffmpeg_binary() -> Path:
    """Return the `ffmpeg` on PATH, else the one that the package imageio-ffmpeg brings.

    Raises
    ------
    DeepPianoError
        When there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return Path(found)
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise DeepPianoError(
            "no ffmpeg was found. Install it (pip install imageio-ffmpeg, or your system's "
            "package) or put it on PATH."
        ) from error


def ffmpeg_version() -> str | None:
    """Return the version that FFmpeg says it is; None where there is none that runs."""
    try:
        run = subprocess.run(
            [str(ffmpeg_binary()), "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, DeepPianoError):
        return None
    words = run.stdout.split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else None


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
        Any container FFmpeg knows that cannot refer to other files; of a video, its first sound.
    sr : int
        Sampling rate of the result, in Hz.
    start_s, seconds : float
        Where to begin, and how much to decode; `seconds=None` means all (at most three hours).
    channels : int
        1, or 2: mono then comes out of both.
    timeout_s : float
        FFmpeg is ended after this long.

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
        takes more than `MOST_MEMORY`.

    Examples
    --------
    >>> decode(Path("seed.mp3"), sr=16_000, seconds=10).shape  # doctest: +SKIP
    (160000,)
    """
    if not (math.isfinite(start_s) and start_s >= 0):
        raise AudioError(f"the start must be 0 seconds or later. Received: {start_s}.")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise AudioError(f"the length must be more than 0 seconds. Received: {seconds}.")
    name = one_line(path)
    _require_readable(path, name)
    asked_s = min(seconds or LONGEST_DECODE_S, LONGEST_DECODE_S)
    asked = round(asked_s * sr)
    layout = "mono" if channels == 1 else "stereo"
    run = _run_ffmpeg(
        # A quarter of a second more than asked: resampling holds back its last few samples.
        *_input_options(path, start_s=start_s, seconds=asked_s + 0.25),
        # By itself FFmpeg adds float channels up, so that a stereo file at full scale overflows.
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-ac", str(channels), "-ar", str(sr)),
        *("-af", f"aresample={sr}:rematrix_maxval=1,aformat=channel_layouts={layout}"),
        *("-c:a", "pcm_f32le", "-f", "f32le", "-fs", str(4 * channels * (asked + sr)), "pipe:1"),
        timeout_s=timeout_s,
        subject=name,
    )
    whole = len(run.output) // (4 * channels)
    decoded = np.frombuffer(run.output, "<f4", whole * channels)
    if channels > 1:
        decoded = decoded.reshape(whole, channels)
    samples = decoded[:asked].astype(np.float32, copy=False)
    if len(samples) < asked and run.complaints:
        _explain_shortfall(path, run, decoded_s=len(samples) / sr, start_s=start_s, asked_s=asked_s)
    if not len(samples):
        raise AudioError(_nothing_decoded(path, start_s))
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds NaN or infinite samples. Export it again as 16-bit audio.")
    if run.complaints:
        logger.warning("%s is damaged, what decodes is used: %s", name, run.reason)
    if seconds is None and len(samples) == asked:
        logger.warning("%s: only its first %g hours are used.", name, LONGEST_DECODE_S / 3600)
    return samples


def duration_s(path: Path, *, timeout_s: float = 20.0) -> float | None:
    """Return how long a recording says it is, in seconds; None where it does not say."""
    name = one_line(path)
    _require_readable(path, name)
    run = _run_ffmpeg("-loglevel", "info", *_input_options(path), timeout_s=timeout_s, subject=name)
    for line in run.complaints:
        found = re.search(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", line)
        if found:
            hours, minutes, rest = found.groups()
            return int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return None


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
        run = _run_ffmpeg(
            *("-y", "-f", "f32le", "-ar", str(sr), "-ac", str(columns.shape[1]), "-i", "pipe:0"),
            # Without these the files carry FFmpeg's version and, in Ogg, a random serial number.
            *("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"),
            *options,
            *(_tag_options(tags or {}) if path.suffix.lower() != ".wav" else ()),
            "file:" + str(temporary.absolute()),
            timeout_s=timeout_s,
            subject=name,
            given=columns.tobytes(),
        )
        if run.code:
            raise DeepPianoError(f"FFmpeg could not write {name}: {run.reason}")


def _tag_options(tags: Mapping[str, str]) -> tuple[str, ...]:
    pairs = ((name, one_line(text)) for name, text in sorted(tags.items()))
    return tuple(option for name, text in pairs for option in ("-metadata", f"{name}={text}"))


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    _require_readable(path, one_line(path))
    return sha256_of(path)


def _input_options(
    path: Path, *, start_s: float = 0.0, seconds: float | None = None
) -> tuple[str, ...]:
    """Return the options that make FFmpeg open this file and nothing else."""
    guard = (
        *("-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS),
        *("-max_alloc", str(_LARGEST_ALLOCATION), "-threads", "1", "-filter_threads", "1"),
    )
    start = ("-ss", f"{start_s:.6f}") if start_s else ()
    length = ("-t", f"{seconds:.6f}") if seconds is not None else ()
    # As a file: URL a name may begin with a dash or hold a colon.
    return (*guard, *start, *length, "-i", "file:" + str(path.absolute()))


def _run_ffmpeg(
    *options: str, timeout_s: float, subject: str, given: bytes | None = None
) -> _Finished:
    """Run FFmpeg to its end or its time limit, with all that it started.

    What it is `given` is our own; a file of somebody's is read with a limit of memory.
    """
    command = [str(ffmpeg_binary()), "-nostdin", "-hide_banner", "-loglevel", "error", *options]
    logger.debug("running %s", command)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if given is None:
        _limit_memory(process.pid)
    errors = bytearray()
    listener = threading.Thread(target=_keep_the_last, args=(process.stderr, errors), daemon=True)
    process.stderr = None  # so that `communicate` leaves it to the listener
    listener.start()
    try:
        output, _ = process.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        kind = DecodeTimeout if given is None else DeepPianoError
        raise kind(
            f"FFmpeg did not finish with {subject} within {timeout_s:g} s "
            "and was ended. Try a WAV file, or a shorter stretch."
        ) from error
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        listener.join(timeout=5)
    lines = errors.decode("utf-8", "replace").splitlines()
    return _Finished(process.returncode, output, tuple(line.strip() for line in lines if line))


def _limit_memory(process_id: int) -> None:
    """Let a process take no more than `MOST_MEMORY`, where the system can be asked for that."""
    import resource

    # Not by `preexec_fn`, which may not be used beside threads; FFmpeg has hardly begun by now.
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError, ValueError):  # it has ended, or its limit is lower
            resource.prlimit(process_id, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def _keep_the_last(stream: IO[bytes], kept: bytearray) -> None:
    """Read a stream to its end, and keep its last 64 KiB: a file may cause millions of errors."""
    with stream:
        while block := stream.read(4096):
            kept += block
            del kept[:-_KEPT_OF_ERRORS]


def _explain_shortfall(
    path: Path, run: _Finished, *, decoded_s: float, start_s: float, asked_s: float
) -> None:
    """Raise the reason why less was decoded than asked for, unless the recording just ends."""
    name, everything = one_line(path), "\n".join(run.complaints)
    if "matches no streams" in everything:
        raise AudioError(f"{name} holds no sound. Give a recording with an audio track.")
    if not decoded_s and run.code:
        raise AudioError(f"{name} is not audio that can be read: {run.reason}")
    said_s = duration_s(path)
    # A few lost frames in the middle of what was asked are no reason to refuse the rest.
    there_s = min(asked_s, (said_s or math.inf) - start_s)
    if decoded_s < there_s - 0.5:
        where = f"{start_s + decoded_s:.1f} s"
        raise AudioError(
            f"{name} is damaged: it decodes only up to {where}: {run.reason}. "
            "Ask for a part before that, or give another copy."
        )


def _nothing_decoded(path: Path, start_s: float) -> str:
    """Return why an intact recording gave no sample."""
    said_s = duration_s(path)
    if start_s and said_s:
        return (
            f"{one_line(path)} is {said_s:.1f} s long: it cannot start at {start_s:g} s. "
            "Choose an earlier start."
        )
    beyond = f" from {start_s:g} s on" if start_s else ""
    return f"{one_line(path)} holds no samples{beyond}. Give another recording or an earlier start."


def _require_readable(path: Path, name: str) -> None:
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
