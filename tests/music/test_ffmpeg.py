"""Which FFmpeg is used, and whose fault it is when it fails."""

from __future__ import annotations

import os
import subprocess

import pytest

from deep_piano.errors import AudioError, DecodeTimeout, DeepPianoError, InputError
from deep_piano.music import audio, ffmpeg
from tests.support.recordings import write_ffmpeg, write_text, write_tone

UNLINKED = "echo 'ffmpeg: error while loading shared libraries: libopenh264.so.5' >&2; exit 127"
BROKEN = {
    "does not find its libraries": UNLINKED,
    "says nothing": "exit 0",
    "is another program": "echo 'usage: ffmpeg SCRIPT'; exit 2",
    "says something else": "echo 'something else'",
    "knows no option of ours": "echo 'Unrecognized option' >&2; exit 1",
    "crashes": "kill -11 $$",
    "hangs": "sleep 600 & wait",
}


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Put an ffmpeg first on PATH."""
    monkeypatch.setattr(ffmpeg, "_PROOF_LIMIT_S", 2.0)

    def put(script, **options):
        path = write_ffmpeg(tmp_path / "bin" / "ffmpeg", script, **options)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
        return path

    yield put
    ffmpeg._first_that_works.cache_clear()


def only_ours(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)


def test_one_on_path_that_works_is_preferred(on_path):
    own = on_path("")
    assert ffmpeg.ffmpeg_binary() == own
    own.unlink()
    assert ffmpeg.ffmpeg_binary() != own


@pytest.mark.parametrize("how", BROKEN)
def test_one_on_path_that_does_not_work_is_passed_over(on_path, tmp_path, how, caplog):
    own = on_path(BROKEN[how])
    assert ffmpeg.ffmpeg_binary() != own
    assert f"{own} does not work: " in caplog.text
    write_tone(tmp_path / "tone.wav")
    assert len(audio.decode(tmp_path / "tone.wav", sr=8000)) == 80_000
    assert caplog.text.count("does not work") == 1  # it is looked at once


def test_one_that_cannot_be_executed_is_passed_over(on_path):
    own = on_path("")
    own.write_bytes(b"\x7fELF of another machine")
    assert ffmpeg.ffmpeg_binary() != own


def test_where_none_works_the_reasons_are_given(on_path, monkeypatch, tmp_path):
    own = on_path(UNLINKED)
    only_ours(monkeypatch)
    write_tone(tmp_path / "tone.wav")
    with pytest.raises(DeepPianoError, match=r"libopenh264.*exit code: 127") as raised:
        audio.decode(tmp_path / "tone.wav", sr=8000)
    assert str(own) in str(raised.value)
    assert raised.value.exit_code == 1


def test_where_none_is_there(monkeypatch):
    monkeypatch.setenv("PATH", "")
    only_ours(monkeypatch)
    with pytest.raises(DeepPianoError, match="no ffmpeg was found"):
        ffmpeg.ffmpeg_binary()
    assert ffmpeg.ffmpeg_version() is None


@pytest.mark.parametrize("script", [UNLINKED, "exit 1", "exit 0", "sleep 600 & wait"])
def test_one_that_breaks_later_blames_no_file(on_path, tmp_path, script):
    path = on_path("")
    write_tone(tmp_path / "tone.wav")
    audio.decode(tmp_path / "tone.wav", sr=8000)
    write_ffmpeg(path, script)
    with pytest.raises(DeepPianoError, match="does not work any more") as raised:
        audio.decode(tmp_path / "tone.wav", sr=8000, timeout_s=1)
    assert not isinstance(raised.value, InputError)
    # The next call finds one that works.
    assert len(audio.decode(tmp_path / "tone.wav", sr=8000)) == 80_000


def test_one_that_works_is_believed(on_path, tmp_path):
    on_path("sleep 600 & wait", for_file="hang.wav")
    write_tone(tmp_path / "hang.wav")
    with pytest.raises(DecodeTimeout):
        audio.decode(tmp_path / "hang.wav", sr=8000, timeout_s=1)
    write_text(tmp_path / "letter.wav")
    with pytest.raises(AudioError, match="not audio"):
        audio.decode(tmp_path / "letter.wav", sr=8000)


def test_a_machine_without_processes_blames_no_file(tmp_path, monkeypatch):
    write_tone(tmp_path / "tone.wav")

    def refuse(*_args, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    ffmpeg.ffmpeg_binary()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DeepPianoError, match=r"cannot start .*: Resource temporarily") as raised:
        audio.decode(tmp_path / "tone.wav", sr=8000)
    assert not isinstance(raised.value, InputError)


def test_the_version_is_that_of_the_one_in_use(on_path):
    on_path('case "$*" in -version) echo "ffmpeg version 7.1 Copyright"; exit ;; esac')
    assert ffmpeg.ffmpeg_version() == "7.1"


@pytest.mark.parametrize(
    ("description", "channels"),
    [
        ("mp3 (mp3float), 44100 Hz, stereo, fltp, 128 kb/s", 2),
        ("pcm_s16le ([1][0][0][0] / 0x0001), 44100 Hz, 9 channels, s16, 6350 kb/s", 9),
        ("flac, 48000 Hz, 5.1(side), s32 (24 bit)", 6),
        ("pcm_s16le, 44100 Hz, 2.1, s16", 3),
        ("flac, 44100 Hz, mono, s16 (default)", 1),
        ("aac (LC), 44100 Hz, quad, fltp", 4),
        ("none, 0 channels", 0),
        ("something else", 0),
    ],
)
def test_channels_are_counted(description, channels):
    assert ffmpeg._stream(description).channels == channels
