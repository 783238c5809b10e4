"""FFmpeg, run as a program of its own.

So a file that hangs or crashes it costs only itself. Before a file is blamed, FFmpeg must show that
it can decode at all (`require_working`): what is the machine's fault is never a file's. This module
knows FFmpeg and what it says; it knows nothing of music.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

from deep_piano.errors import DecodeTimeout, DeepPianoError, one_line
from deep_piano.infra.programs import environment

logger = logging.getLogger(__name__)

MOST_MEMORY = 2 * 2**30
"""Address space of FFmpeg while it decodes, in bytes: of it an ordinary file takes 0.6 GiB, nearly
all of that reserved and never used (0.04 GiB resident)."""

# Containers that hold sound and cannot name other files. What is left out on purpose: hls, dash,
# concat, imf, sdp, rtsp, image2, and everything that is only a picture or text.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,flv,matroska,webm,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,ogg,oma,rm,tta,w64,wav,wv"
)
_LARGEST_ALLOCATION = 512 * 2**20
_LONGEST_LINE, _MOST_LINES = 4096, 500
_PROOF_LIMIT_S = 60.0

_LEVEL = re.compile(r"(?:\[[^\]]*\] )*?\[(\w+)\] ")
_FAULTS = frozenset({"error", "fatal", "panic"})
_DURATION = re.compile(r" +Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_STREAM = re.compile(r" {2,4}Stream #0:\d+[^ ]*: (Audio|Video|Subtitle|Data): (.*)")
_CHANNELS = re.compile(r", (?:(mono)|(stereo|downmix)|(quad)|(\d+)\.(\d)\S*|(\d+) channels)[,( ]")


@dataclass(frozen=True)
class Stream:
    """A stream of sound, as FFmpeg describes it.

    Attributes
    ----------
    channels : int
        0 where it is not known how many.
    has_layout : bool
        It is known, or can be guessed, where they stand.
    default : bool
        The file says that it is the one to play.
    """

    channels: int
    has_layout: bool
    default: bool


@dataclass(frozen=True)
class Run:
    """What a run of FFmpeg left.

    Attributes
    ----------
    code : int
        Its exit code.
    output : bytes
        Of its standard output.
    complaints : tuple of str
        The last of its errors: of those about a file that it opened, what came after opening it.
    streams : tuple of Stream
        The sounds in the file.
    said_s : float or None
        How long the file says it is; None where it does not.
    is_estimate : bool
        That length is only what its size would make at the bit rate of its first frames.
    has_others : bool
        The file holds more than one stream, such as moving pictures, whose length that may be.
    """

    code: int
    output: bytes
    complaints: tuple[str, ...]
    streams: tuple[Stream, ...]
    said_s: float | None
    is_estimate: bool
    has_others: bool

    @property
    def reason(self) -> str:
        """The last complaint and the exit code, in one line."""
        last = self.complaints[-1] if self.complaints else "no reason given"
        return f"{last} (ffmpeg's exit code: {self.code})"

    @property
    def promised_s(self) -> float | None:
        """How long the file promises its sound to be, in seconds; None where it does not."""
        ends_early = any(re.search(r"partial file|ended prematurely", c) for c in self.complaints)
        if self.is_estimate or (self.has_others and not ends_early):
            return None
        return self.said_s


def ffmpeg_binary() -> Path:
    """Return the `ffmpeg` on PATH if it works, else that of the package imageio-ffmpeg.

    Raises
    ------
    DeepPianoError
        When neither works.
    """
    return _first_that_works(shutil.which("ffmpeg"))


@lru_cache(maxsize=8)
def _first_that_works(on_path: str | None) -> Path:
    faults: list[str] = []
    for binary in _candidates(on_path):
        fault = _fault(binary)
        if not fault:
            for bad in faults:
                logger.warning("%s. %s is used instead.", bad, one_line(binary))
            return binary
        faults.append(f"{one_line(binary)} does not work: {fault}")
    raise DeepPianoError(
        f"no ffmpeg was found that works{''.join(f'; {fault}' for fault in faults)}. Install one "
        "(pip install imageio-ffmpeg, or your system's package), or take a broken one off PATH."
    )


def _candidates(on_path: str | None) -> Iterator[Path]:
    if on_path:
        yield Path(on_path)
    with contextlib.suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        yield Path(imageio_ffmpeg.get_ffmpeg_exe())


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
            env=environment(),
        )
    except (OSError, subprocess.SubprocessError, DeepPianoError):
        return None
    words = run.stdout.split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else None


def require_working() -> None:
    """Make FFmpeg decode a sound of our own, so that what it said of a file may be believed.

    Raises
    ------
    DeepPianoError
        When it cannot.
    """
    binary = ffmpeg_binary()
    fault = _fault(binary)
    if fault:
        _first_that_works.cache_clear()  # it worked before
        raise DeepPianoError(
            f"{one_line(binary)} does not work any more: {fault}. No file is to blame: mend it, "
            "and run the same command again."
        )


def _fault(binary: Path) -> str:
    """Return why a program cannot decode a tenth of a second of silence; "" where it can."""
    # A header of our own, so that neither a disk nor a library is needed.
    silence = bytes(1600)
    wav = b"RIFF\x64\x06\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data"
    wav += len(silence).to_bytes(4, "little") + silence
    options = (*decoding("pipe:0", protocol="pipe"), *to_samples(8000, most=10_000))
    try:
        run = _run(binary, *options, timeout_s=_PROOF_LIMIT_S, given=wav, limited=True)
    except (DeepPianoError, TimeoutError) as error:
        return str(error)
    return "" if run.output == 2 * silence and not run.code else run.reason


def file_url(path: Path) -> str:
    """Return how FFmpeg is told of a file, whose name may begin with a dash or hold a colon."""
    return "file:" + str(path.absolute())


def decoding(
    url: str,
    *,
    start_s: float = 0.0,
    from_end_s: float | None = None,
    seconds: float | None = None,
    protocol: str = "file",
) -> tuple[str, ...]:
    """Return the options that make FFmpeg open one file, of sound, and nothing else.

    Parameters
    ----------
    url : str
        From `file_url`.
    start_s, seconds : float
        Where to begin, and how much to read.
    from_end_s : float, optional
        Begin so long before the end that the file says it has; at its beginning where it does not
        say, or is shorter.
    protocol : str
        The only one that it may use.
    """
    guard = (
        *("-protocol_whitelist", protocol, "-format_whitelist", _CONTAINERS),
        *("-max_alloc", str(_LARGEST_ALLOCATION), "-threads", "1", "-filter_threads", "1"),
    )
    start = ("-ss", f"{start_s:.6f}") if start_s else ()
    start = ("-sseof", f"{-from_end_s:.6f}") if from_end_s is not None else start
    length = ("-t", f"{seconds:.6f}") if seconds is not None else ()
    # Before the input, `-vn` keeps pictures from being read at all. Twelve channels of which nobody
    # says where they stand are tracks, rather than the speakers that FFmpeg would guess.
    return (*guard, *start, *length, "-vn", "-guess_layout_max", "8", "-i", url)


def to_samples(
    sr: int, *, most: int, stream: int = 0, mix: str = "", channels: Literal[1, 2] = 1
) -> tuple[str, ...]:
    """Return the options that make FFmpeg write a stream of sound as float32.

    Parameters
    ----------
    sr : int
        Sampling rate in Hz.
    most : int
        Samples, roughly, that are enough.
    stream : int
        The first is 0.
    mix : str
        A filter that mixes the channels; FFmpeg's own way by default.
    channels : int
        Mono or stereo.
    """
    layout = "mono" if channels == 1 else "stereo"
    # By itself FFmpeg adds float channels up, so that a stereo file at full scale overflows.
    filters = (mix, f"aresample={sr}:rematrix_maxval=1", f"aformat=channel_layouts={layout}")
    return (
        *("-map", f"0:a:{stream}", "-sn", "-dn", "-ac", str(channels), "-ar", str(sr)),
        *("-af", ",".join(filter(None, filters))),
        # By itself it writes every packet, 2 KB at a time: that took its reader 7 ms a recording.
        *("-c:a", "pcm_f32le", "-f", "f32le", "-fs", str(4 * channels * most)),
        *("-flush_packets", "0", "pipe:1"),
    )


def run_ffmpeg(*options: str, timeout_s: float, subject: str, given: Any = None) -> Run:
    """Run FFmpeg to its end or its time limit, with all that it started.

    What it is `given` is our own; a file of somebody's is read with a limit of memory.

    Parameters
    ----------
    options : str
    timeout_s : float
        It is ended after this long.
    subject : str
        What it works at, for messages.
    given : bytes-like, optional
        For its standard input.

    Raises
    ------
    DecodeTimeout
        When it does not finish with a file, though it does with a sound of our own.
    DeepPianoError
        When it does not start, or not finish with what it was given.
    """
    binary, limited = ffmpeg_binary(), given is None
    try:
        return _run(binary, *options, timeout_s=timeout_s, given=given, limited=limited)
    except TimeoutError as error:
        if limited:
            require_working()
        kind = DecodeTimeout if limited else DeepPianoError
        raise kind(
            f"FFmpeg did not finish with {subject} within {timeout_s:g} s "
            "and was ended. Try a WAV file, or a shorter stretch."
        ) from error


def _run(binary: Path, *options: str, timeout_s: float, given: Any, limited: bool) -> Run:
    command = [str(binary), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    command += options
    logger.debug("running %s", command)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise DeepPianoError(f"cannot start {one_line(binary)}: {error.strerror}") from error
    if limited:
        _limit_memory(process.pid)
    said = _Said()
    listener = threading.Thread(target=said.listen, args=(process.stderr,), daemon=True)
    process.stderr = None  # so that `communicate` leaves it to the listener
    listener.start()
    try:
        output, _ = process.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it did not finish within {timeout_s:g} s") from error
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        listener.join(timeout=5)
    return Run(
        process.returncode,
        output,
        tuple(said.complaints),
        tuple(said.streams),
        said.duration_s,
        is_estimate=said.is_estimate,
        has_others=said.timed > 1,
    )


@dataclass
class _Said:
    """What FFmpeg says, line by line: of millions of complaints the last are kept."""

    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))
    streams: list[Stream] = field(default_factory=list)
    duration_s: float | None = None
    is_estimate: bool = False
    timed: int = 0

    def listen(self, stream: IO[bytes]) -> None:
        level, of_input = "error", False  # what comes before any level is a loader's complaint
        with stream:
            while data := stream.readline(_LONGEST_LINE):
                line = data.decode("utf-8", "replace").rstrip()
                found = _LEVEL.match(line)
                level = found[1] if found else level
                text = line[found.end() :] if found else line
                if level in _FAULTS and text.strip():
                    where = re.sub(
                        r" @ 0x[0-9a-f]+", "", line[: found.start(1) - 1] if found else ""
                    )
                    self.complaints.append(where + text.strip())
                elif level == "warning" and "Estimating duration from bitrate" in text:
                    self.is_estimate = True
                elif level == "info" and text.startswith("Input #0"):
                    # Until here it looked at everything in the file; from here on it decodes sound.
                    self.complaints.clear()
                    of_input = True
                elif level == "info" and text.startswith(("Output #0", "Stream mapping")):
                    of_input = False
                elif level == "info" and of_input and found:
                    self._describe(text)

    def _describe(self, text: str) -> None:
        length, stream = _DURATION.match(text), _STREAM.match(text)
        if length and self.duration_s is None:
            hours, minutes, rest = length.groups()
            self.duration_s = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        elif stream:
            self.timed += "(attached pic)" not in stream[2]
        if stream and stream[1] == "Audio" and len(self.streams) < _MOST_LINES:
            self.streams.append(_stream(stream[2]))


def _stream(description: str) -> Stream:
    """Understand a description such as "mp3, 44100 Hz, stereo, fltp (default)"."""
    found = _CHANNELS.search(description)
    default = "(default)" in description
    if not found:
        return Stream(0, True, default)
    mono, stereo, _, front, low, number = found.groups()
    if number:
        return Stream(int(number), False, default)
    if front:
        return Stream(int(front) + int(low), True, default)
    return Stream(1 if mono else 2 if stereo else 4, True, default)


def _limit_memory(process_id: int) -> None:
    """Let a process take no more than `MOST_MEMORY`, where the system can be asked for that."""
    import resource

    # Not by `preexec_fn`, which may not be used beside threads; FFmpeg has hardly begun by now.
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError, ValueError):  # it has ended, or its limit is lower
            resource.prlimit(process_id, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
