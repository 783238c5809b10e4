"""How long a sound is, and that decoding from there to its end gives its last seconds."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.errors import AudioError
from deep_piano.music import audio, length
from deep_piano.music.length import length_s
from tests.support.recordings import (
    SR,
    ffmpeg,
    write_half,
    write_hour,
    write_sound,
    write_text,
    write_tone,
)

LENGTH_S = 27.3

FORMATS = {
    "a.wav": [],
    "a.flac": [],
    "constant.mp3": ["-b:a", "128k"],
    "variable.mp3": ["-q:a", "2"],
    "no_header.mp3": ["-q:a", "2", "-write_xing", "0"],  # its length is only estimated
    "a.ogg": ["-c:a", "libvorbis"],
    "a.opus": ["-c:a", "libopus"],
    "a.m4a": ["-c:a", "aac"],
    "a.aac": ["-c:a", "aac"],
    "a.webm": ["-c:a", "libopus"],
    "a.ts": ["-c:a", "aac"],
}


@pytest.fixture(scope="module")
def knocks(tmp_path_factory):
    """Knocks of a pitch and at a moment of their own, so that no two stretches are alike."""
    path = tmp_path_factory.mktemp("knocks") / "knocks.wav"
    rng, samples = np.random.default_rng(0), np.zeros(round(LENGTH_S * SR))
    t = np.arange(6000) / SR
    for begin_s in np.arange(0, LENGTH_S - 0.5, 0.4):
        at = round((begin_s + 0.1 * rng.random()) * SR)
        knock = np.exp(-25 * t) * np.sin(2 * np.pi * rng.uniform(200, 2000) * t)
        samples[at : at + len(t)] += 0.5 * knock
    write_sound(path, samples)
    return path


def shift_s(tail, whole, *, sr):
    """Return how much later than the end of the whole a tail was cut."""
    end = np.pad(whole[-len(tail) :], sr // 2)
    likeness = np.fft.irfft(np.fft.rfft(end, 2**18) * np.conj(np.fft.rfft(tail, 2**18)))
    return (int(np.argmax(likeness)) - sr // 2) / sr


@pytest.mark.parametrize("name", FORMATS)
def test_the_last_seconds_are_found_in_every_format(knocks, tmp_path, name):
    path = tmp_path / name
    ffmpeg("-i", knocks, *FORMATS[name], path)
    found_s = length_s(path)
    assert found_s == pytest.approx(LENGTH_S, abs=0.06)
    tail = audio.decode(path, sr=8000, start_s=found_s - 10, seconds=10)
    assert len(tail) / 8000 == pytest.approx(10, abs=0.05)
    assert shift_s(tail, audio.decode(path, sr=8000), sr=8000) == pytest.approx(0, abs=0.06)


def test_pictures_that_last_longer_than_the_sound_do_not_count(knocks, tmp_path):
    path = tmp_path / "film.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=50", "-i", knocks, "-c:a", "aac", path)
    assert length_s(path) == pytest.approx(LENGTH_S, abs=0.06)


def test_two_files_joined_last_as_long_as_both(knocks, tmp_path):
    path = tmp_path / "a.mp3"
    ffmpeg("-i", knocks, "-q:a", "2", path)
    path.write_bytes(2 * path.read_bytes())
    assert length_s(path) == pytest.approx(2 * LENGTH_S, abs=0.2)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 9.99])
def test_a_short_sound(tmp_path, seconds):
    write_tone(tmp_path / "a.wav", seconds=seconds)
    assert length_s(tmp_path / "a.wav") == pytest.approx(seconds, abs=1e-4)


def test_of_an_hour_that_says_so_only_the_end_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "hour.mp3"
    write_hour(path)
    decoded_s = []
    run_ffmpeg = length.run_ffmpeg

    def spy(*options, **limits):
        run = run_ffmpeg(*options, **limits)
        decoded_s.append(0 if "copy" in options else length._decoded_s(run))
        return run

    monkeypatch.setattr(length, "run_ffmpeg", spy)
    assert length_s(path) == pytest.approx(3600, abs=60)
    assert 0 < sum(decoded_s) <= 20


def test_a_download_that_broke_off_has_no_end(tmp_path):
    write_half(tmp_path / "half.flac")
    with pytest.raises(AudioError, match=r"half.flac is damaged: it says that it is .* and ends"):
        length_s(tmp_path / "half.flac")


def test_an_mp3_that_is_shorter_than_it_says_is_told_of(knocks, tmp_path, caplog):
    path = tmp_path / "half.mp3"
    ffmpeg("-i", str(knocks), "-q:a", "2", str(path))
    assert length_s(path) == pytest.approx(LENGTH_S, abs=0.2)
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < length_s(path) < 17
    assert "half.mp3 says that it is 27.3 s long, and ends at" in caplog.text


def test_what_is_no_sound_has_no_length(tmp_path):
    write_text(tmp_path / "letter.mp3")
    assert length_s(tmp_path / "letter.mp3") is None
