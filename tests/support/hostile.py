"""A corpus of everything that may lie in a folder of recordings, and what should become of it.

`write_hostile_corpus` writes the files; `write_hanging_ffmpeg` writes the FFmpeg that never comes
back from one of them. The same folder comes out every time, byte for byte.

Every file has music of its own, except those in ``zz again/``: they repeat one from ``good/``,
which sorts before them.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from deep_piano.music import audio
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import Notes, make_notes
from deep_piano.music.recordings import is_midi
from tests.support.recordings import (
    SILENCE_BEFORE_S,
    SR,
    ffmpeg,
    speech_like,
    struck,
    white_noise,
    write_faint,
    write_ffmpeg,
    write_half,
    write_header_only,
    write_inf,
    write_nan,
    write_nothing,
    write_picture,
    write_silence,
    write_silent_film,
    write_sound,
    write_text,
)

SECONDS = 14.0
HANGS = "hang.mp3"
TWO_LINES = "two\nlines\tand a tab.wav"
MILLION = 1_000_000

Outcome = Literal["recording", "drop", "failure", "ignored"]


@dataclass(frozen=True)
class Expectation:
    """What becomes of a file, the rule that catches it where that is certain, and what it is."""

    outcome: Outcome
    rule: str | None
    what: str


def write_hostile_corpus(folder: Path, *, encodes_notes: bool = True) -> dict[str, Expectation]:
    """Fill a new folder; return what to expect of each file, by its name within the folder.

    Parameters
    ----------
    folder : Path
        Must not exist yet.
    encodes_notes : bool
        Whether the codec encodes notes; one for sound drops all MIDI files.

    Returns
    -------
    dict
        Folders, and what lies behind a link to the parent folder, are not in it. The one name that
        is not UTF-8 is there as `infra.storage` shows it. `HANGS` is a good recording to any FFmpeg
        but that of `write_hanging_ffmpeg`.
    """
    folder.mkdir()
    corpus = _Corpus(folder)
    _good(corpus)
    _broken(corpus)
    _lying(corpus)
    _unusual(corpus)
    _useless(corpus)
    _named(corpus)
    _linked(corpus)
    _again(corpus)
    _midi(corpus)
    _no_music(corpus)
    return corpus.expected if encodes_notes else for_sound(folder, corpus.expected)


def for_sound(folder: Path, expected: dict[str, Expectation]) -> dict[str, Expectation]:
    """Return what to expect of the same files where the codec encodes sound.

    It drops all MIDI files that are files and not empty.
    """
    return {
        name: replace(one, outcome="drop", rule="no_audio")
        if is_midi(name) and (folder / name).is_file() and (folder / name).stat().st_size
        else one
        for name, one in expected.items()
    }


def write_hanging_ffmpeg(folder: Path) -> Path:
    """Write an `ffmpeg` that sleeps forever over `HANGS`, in a child; return its path.

    It is to be found first on PATH, and for any other file it is the real one.
    """
    return write_ffmpeg(folder / "ffmpeg", "sleep 1000000 & wait", for_file=HANGS)


def improvised(seconds: float = SECONDS, *, random_state: int) -> Notes:
    """Return a melody over broken chords, eight notes a second; no two numbers are alike."""
    rng = np.random.default_rng(random_state)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    tonic, count = rng.integers(48, 60), int(seconds * 4)
    degree = np.clip(np.cumsum(rng.choice([-2, -1, 1, 2, 3], count)) % 15, 0, 14)
    melody = tonic + 12 + 12 * (degree // 7) + scale[degree % 7]
    root = np.repeat(rng.integers(0, 7, count // 8 + 1), 8)[:count]
    chord = root + rng.choice([0, 2, 4, 7], count)
    left = tonic - 12 + 12 * (chord // 7) + scale[chord % 7]
    beat = np.arange(count) / 4
    onset = np.concatenate([beat, beat + 0.125]) + rng.uniform(0, 0.02, 2 * count)
    length = np.concatenate([rng.choice([0.2, 0.25, 0.5], count), np.full(count, 0.3)])
    velocity = np.concatenate([rng.integers(70, 100, count), rng.integers(45, 70, count)])
    offset = np.minimum(onset + length, seconds)
    return make_notes(onset, offset, np.concatenate([melody, left]), velocity)


def played(notes: Notes, *, seconds: float = SECONDS, sr: int = SR) -> np.ndarray:
    """Return notes as sound, shape (round(seconds * sr),), with a peak of 0.5.

    Simpler than `synth.render`, and without its cache: each key is a tone that dies away.
    """
    mix = np.zeros(round(seconds * sr), np.float32)
    for note in notes:
        begin, end = round(note["onset"] * sr), round((note["offset"] + 0.1) * sr)
        tone = _key(int(note["pitch"]), sr)[: min(end, len(mix)) - begin]
        damper = np.linspace(1, 0, len(tone), dtype=np.float32) ** 0.25
        mix[begin : begin + len(tone)] += (note["velocity"] / 127) ** 2 * tone * damper
    return 0.5 * mix / np.abs(mix).max()


@cache
def _key(pitch: int, sr: int) -> np.ndarray:
    tone = struck(pitch, seconds=1.0, sr=sr, channels=1, delay_s=-SILENCE_BEFORE_S)[:, 0]
    return tone.astype(np.float32)


class _Corpus:
    """A folder that fills, with what is expected of each file in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.expected: dict[str, Expectation] = {}
        self._takes = 0

    def add(self, name: str, outcome: Outcome, rule: str | None = None, *, what: str) -> Path:
        """Note what is expected of a file, and return where to write it."""
        assert name not in self.expected, f"two files are named {name!r}"
        self.expected[name] = Expectation(outcome, rule, what)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def recording(self, name: str, *, what: str) -> Path:
        return self.add(name, "recording", what=what)

    def failure(self, name: str, *, what: str) -> Path:
        return self.add(name, "failure", "unreadable", what=what)

    def music(self, seconds: float = SECONDS) -> Notes:
        """Return notes that no other file of the corpus has."""
        self._takes += 1
        return improvised(seconds, random_state=self._takes)

    def take(self, *, sr: int = SR) -> np.ndarray:
        """Return sound that no other file of the corpus has."""
        return played(self.music(), sr=sr)


def _good(corpus: _Corpus) -> None:
    write_sound(corpus.recording("good/take.wav", what="16-bit WAV"), corpus.take())
    for suffix in ("mp3", "ogg", "flac"):
        path = corpus.recording(f"good/take.{suffix}", what=f"as {suffix}")
        audio.encode(path, corpus.take(), sr=SR)
    _convert(corpus, corpus.recording("good/take.m4a", what="AAC"), "-c:a", "aac")
    for number in (1, 2, 3):
        path = corpus.recording(f"good/etude {number}.mid", what="320 notes in 40 s")
        write_midi(path, corpus.music(40.0))
    path = corpus.add(HANGS, "failure", "time_limit", what="sound, and FFmpeg never ends with it")
    audio.encode(path, corpus.take(), sr=SR)


def _broken(corpus: _Corpus) -> None:
    unusable: dict[str, tuple[Callable[[Path], object], str]] = {
        "empty.mp3": (write_nothing, "0 bytes"),
        "letter.mp3": (write_text, "text"),
        "picture.mp3": (write_picture, "a picture"),
        "header only.wav": (write_header_only, "WAV without a sample"),
        "nan.wav": (write_nan, "one sample is NaN"),
        "inf.wav": (write_inf, "one sample is infinite"),
        "silent film.mp4": (write_silent_film, "video without sound"),
        "half.flac": (write_half, "the second half is zeros"),
        "empty.mid": (write_nothing, "0 bytes"),
        "letter.mid": (_write_other_text, "text"),
        "two\nlines, no music.mp3": (write_text, "text, and an awkward name to report"),
        "two\nlines, no music.mid": (_write_other_text, "text, and an awkward name to report"),
    }
    for name, (write, what) in unusable.items():
        path = corpus.failure(name, what=what)
        write(path)
        if path.stem in ("nan", "inf"):
            _forget_when(path)
    path = corpus.recording("truncated.mp3", what="cut after 13 of the 14 s in its header")
    audio.encode(path, corpus.take(), sr=SR)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 13 // 14])
    path = corpus.failure("truncated.m4a", what="its index, which comes last, is cut off")
    _convert(corpus, path, "-c:a", "aac")
    path.write_bytes(path.read_bytes()[:-2000])


def _write_other_text(path: Path) -> None:
    """Write text of its own: what has the same bytes as audio, and is called MIDI, is a riddle."""
    path.write_text("this is a letter, not a song\n" * 100)


def _forget_when(path: Path) -> None:
    """Take out the time that libsndfile writes into a WAV file of floats."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PEAK") + 12, 0)
    path.write_bytes(data)


def _lying(corpus: _Corpus) -> None:
    path = corpus.recording("says ten hours.wav", what="14 s; its header says hours")
    write_sound(path, corpus.take())
    _say_wav_size(path, 0x7FFF_FF00)
    path = corpus.recording("says 12 seconds.wav", what="14 s; its header says 12, and that counts")
    write_sound(path, corpus.take())
    _say_wav_size(path, 12 * SR * 2)
    path = corpus.recording("says an hour.mp3", what="14 s; Xing header and TLEN say an hour")
    audio.encode(path, corpus.take(), sr=SR)
    data = bytearray(path.read_bytes())
    xing = data.index(b"Xing")
    struct.pack_into(">I", data, xing + 8, round(3600 * SR / 1152))  # how many frames there are
    path.write_bytes(_id3("TLEN", "3600000") + data)


def _say_wav_size(path: Path, size: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, size + 36)
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    path.write_bytes(data)


def _unusual(corpus: _Corpus) -> None:
    six = np.repeat(corpus.take(sr=96_000)[:, None], 6, axis=1)
    path = corpus.recording("surround.flac", what="96 kHz, 24 bit, 5.1")
    soundfile.write(path, six, 96_000, format="FLAC", subtype="PCM_24", compression_level=0.0)
    path = corpus.recording("telephone.wav", what="8 kHz, mono, 8 bit")
    write_sound(path, corpus.take(sr=8_000), sr=8_000, subtype="PCM_U8")
    film = ("-f", "lavfi", "-i", f"testsrc=d={SECONDS}:s=64x64:r=2", "-c:v", "mpeg4")
    _convert(corpus, corpus.recording("film.mp4", what="video with sound"), *film, "-c:a", "aac")
    cover = ("-f", "lavfi", "-i", "testsrc=d=1:s=64x64:r=1", "-frames:v", 1, "-c:v", "mjpeg")
    picture = (*cover, "-disposition:v", "attached_pic")
    _convert(corpus, corpus.recording("cover.mp3", what="MP3 with a picture in it"), *picture)
    path = corpus.recording("is an mp3.wav", what="MP3 under another suffix")
    audio.encode(path.with_suffix(".mp3"), corpus.take(), sr=SR)
    path.with_suffix(".mp3").rename(path)
    path = corpus.recording("album.mp3/LOUD.WAV", what="in a folder with a recording's suffix")
    write_sound(path, corpus.take())


def _useless(corpus: _Corpus) -> None:
    write_silence(corpus.add("silence.wav", "drop", "silent", what="zeros"))
    write_faint(corpus.add("faint.wav", "drop", "silent", what="a tone at -66 dBFS"))
    path = corpus.add("short.wav", "drop", "too_short", what="1.5 s of music")
    write_sound(path, corpus.take()[: round(1.5 * SR)])
    path = corpus.add("pause.wav", "drop", "silent", what="4 s of music, a minute of silence, 4 s")
    begin, end = np.split(corpus.take()[: 8 * SR], 2)
    write_sound(path, np.concatenate([begin, np.zeros(60 * SR, np.float32), end]))
    path = corpus.add("clipped.wav", "drop", "clipped", what="amplified ten times")
    write_sound(path, np.clip(10 * corpus.take(), -1, 1))
    path = corpus.add("noise.wav", "drop", "not_piano_like", what="white noise")
    write_sound(path, white_noise(SECONDS))
    path = corpus.add("speech.wav", "drop", "not_piano_like", what="a voice")
    write_sound(path, speech_like(SECONDS))


def _named(corpus: _Corpus) -> None:
    names = {
        "spaces  between and before .wav": "spaces",
        'it\'s "quoted" `twice`.wav': "quotes",
        TWO_LINES: "newline and tab",
        "grand \N{MUSICAL KEYBOARD} piano.wav": "emoji",
        "\N{HIRAGANA LETTER A}" * 27 + "x" * 169 + ".wav": "200 characters in 254 bytes",
        "-y -i dash.wav": "looks like an option",
        "=1+1, 100%20;#1?&a=b: c.wav": "looks like a formula, a table's row and a URL",
    }
    for name, what in names.items():
        write_sound(corpus.recording(name, what=f"name: {what}"), corpus.take())
    path = corpus.recording(r"caf\xe9.wav", what="name: not UTF-8")
    write_sound(path, corpus.take())
    try:
        path.rename(path.with_name(os.fsdecode(b"caf\xe9.wav")))
    except OSError:  # macOS refuses such names
        path.unlink()
        del corpus.expected[path.name]


def _linked(corpus: _Corpus) -> None:
    """Write what only some systems have: links, pipes, permissions."""
    (corpus.folder / "good" / "loop").symlink_to("..")
    corpus.failure("self.wav", what="a link to itself").symlink_to("self.wav")
    corpus.failure("gone.wav", what="a link to nothing").symlink_to("nothing.wav")
    path = corpus.add("zz again/link.wav", "drop", "duplicate", what="a link to good/take.wav")
    path.symlink_to("../good/take.wav")
    for name in ("pipe.wav", "pipe.mid"):
        os.mkfifo(corpus.failure(name, what="a named pipe that nobody writes to"))
    path = corpus.failure("unreadable.wav", what="no permission to read it")
    write_sound(path, corpus.take())
    path.chmod(0)
    if os.access(path, os.R_OK):
        what = "no permission to read it, which does not keep root from reading"
        corpus.expected[path.name] = Expectation("recording", None, what)


def _again(corpus: _Corpus) -> None:
    def again(name: str, rule: str, what: str) -> Path:
        return corpus.add(f"zz again/{name}", "drop", rule, what=what)

    good = corpus.folder / "good"
    for name in ("one.wav", "three.wav", "two.wav"):
        path = again(name, "duplicate", "the bytes of good/take.wav")
        shutil.copyfile(good / "take.wav", path)
    two_lines = corpus.folder / TWO_LINES
    path = again("one line.wav", "duplicate", "the bytes of a file whose name has two lines")
    shutil.copyfile(two_lines, path)
    path = again("one line.flac", "duplicate", "the sound of a file whose name has two lines")
    ffmpeg("-i", f"file:{two_lines}", path)
    path = again("retagged.mp3", "duplicate", "good/take.mp3 with another title")
    path.write_bytes(_id3("TIT2", "Another title") + (good / "take.mp3").read_bytes())
    ffmpeg("-i", good / "take.wav", again("lossless.flac", "duplicate", "good/take.wav as FLAC"))
    path = again("re-encoded.ogg", "near_duplicate", "good/take.flac in Vorbis at 64 kbit/s")
    ffmpeg("-i", good / "take.flac", *("-c:a", "libvorbis", "-b:a", "64k"), *_EXACT, path)


def _midi(corpus: _Corpus) -> None:
    """Write MIDI files that no pianist would; `_again`'s cases for notes are here as well."""
    path = corpus.add("million.mid", "drop", "too_dense", what="a million notes in 104 s")
    path.write_bytes(_million_notes())
    path = corpus.add("no notes.mid", "drop", what="a whole MIDI file without a note")
    write_midi(path, make_notes([], [], [], []))
    path = corpus.add("three notes.mid", "drop", what="three notes in 30 s")
    write_midi(path, make_notes([0, 10, 20], [10, 20, 30], [60, 64, 67], [80, 80, 80]))
    path = corpus.add("drums.mid", "drop", what="a thousand notes, all of them drums")
    path.write_bytes(_midi_file(b"\0\x99\x24\x40\x60\x89\x24\0" * 1000, ticks_per_quarter=480))
    path = corpus.failure("broken.mid", what="noise after a right header")
    noise = np.random.default_rng(0).bytes(2000)
    path.write_bytes(_midi_file(b"", ticks_per_quarter=480)[:14] + noise)
    path = corpus.failure("cut off.mid", what="the second half of its only track is missing")
    write_midi(path, corpus.music(40.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first = corpus.folder / "good" / "etude 1.mid"
    path = corpus.add("zz again/etude.mid", "drop", "duplicate", what="good/etude 1.mid, retitled")
    path.write_bytes(first.read_bytes().replace(b"Piano", b"Grand"))
    path = corpus.add("zz again/etude 2.mid", "drop", "near_duplicate", what="played once more")
    notes = read_midi(corpus.folder / "good" / "etude 2.mid")
    notes["velocity"] += 3
    notes["onset"] += np.random.default_rng(0).uniform(0, 0.003, len(notes))
    write_midi(path, notes)


def _midi_file(events: bytes, *, ticks_per_quarter: int) -> bytes:
    """Return a MIDI file of one track, at 120 quarters a minute."""
    track = events + b"\0\xff\x2f\0"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, ticks_per_quarter)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _million_notes() -> bytes:
    """Return a million notes, one after the other, 9,600 a second, all over the keyboard."""
    events = np.zeros((MILLION, 2, 3), np.uint8)  # (time since the last one, pitch, velocity)
    events[:, :, 1] = (21 + np.arange(MILLION) * 37 % 88)[:, None]
    events[:, 0, 2] = 64  # down; up is velocity 0, which needs no status byte of its own
    events[:, 1, 0] = 1
    return _midi_file(b"\0\x90" + events.tobytes()[1:], ticks_per_quarter=4800)


def _no_music(corpus: _Corpus) -> None:
    files = {
        "notes.txt": b"buy milk\n",
        "cover.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
        "table.csv": b"title,minutes\nFirst,3\n",
        "binary.csv": bytes(range(256)),
        "list.m3u8": b"#EXTM3U\ngood/take.wav\n",
        "README": b"take.wav is good\n",
        ".DS_Store": b"\0\0\0\1Bud1",
        "good/._take.wav": b"\0\x05\x16\x07\0\x02\0\0Mac OS X",  # beside every file on some disks
    }
    for name, data in files.items():
        corpus.add(name, "ignored", what="no recording by its name").write_bytes(data)


_EXACT = ("-map_metadata", -1, "-fflags", "+bitexact", "-flags:a", "+bitexact")


def _convert(corpus: _Corpus, path: Path, *options: object) -> None:
    """Write a new take as FFmpeg's options say; they may bring a second input."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "take.wav"
        write_sound(source, corpus.take())
        ffmpeg("-i", source, *options, *_EXACT, "-flags:v", "+bitexact", path)


def _id3(frame: str, text: str) -> bytes:
    """Return an ID3 tag, version 2.3, of one frame of text."""
    content = b"\0" + text.encode("latin-1")
    data = frame.encode() + struct.pack(">IH", len(content), 0) + content
    assert len(data) < 128, "a longer tag has its size in more than one byte"
    return b"ID3\3\0\0" + struct.pack(">I", len(data)) + data
