"""The hostile corpus is what it claims to be; what `prepare` makes of it is tested elsewhere."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deep_piano.errors import AudioError, InputError
from deep_piano.infra.storage.open import open_folder
from deep_piano.music import audio
from deep_piano.music.ffmpeg import ffmpeg_binary
from deep_piano.music.midi import read_midi
from deep_piano.music.recordings import is_midi
from tests.support.hostile import (
    HANGS,
    MILLION,
    SECONDS,
    TWO_LINES,
    improvised,
    write_hanging_ffmpeg,
    write_hostile_corpus,
)

SR = 16_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    return folder, write_hostile_corpus(folder)


def outcomes(corpus, outcome):
    _, expected = corpus
    return [name for name, one in expected.items() if one.outcome == outcome]


def read(folder, name):
    """Return the samples or notes of a file, by its name in the corpus."""
    with open_folder(folder).local(name) as path:
        return read_midi(path) if is_midi(name) else audio.decode(path, sr=SR, timeout_s=30)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_every_file_is_expected(corpus):
    folder, expected = corpus
    found = {entry.name for entry in open_folder(folder).entries()}
    assert found == set(expected)


def test_good_recordings_can_be_read_and_all_differ(corpus):
    folder, _ = corpus
    seen = {}
    for name in [*outcomes(corpus, "recording"), HANGS]:
        content = read(folder, name)
        if is_midi(name):
            assert len(content) >= 64, name
        else:
            assert SECONDS - 2.1 < len(content) / SR <= SECONDS + 0.1, name
            assert 0.3 < np.abs(content).max() < 0.8, name
        assert seen.setdefault(digest(content), name) == name


def test_failures_are_errors_made_for_people(corpus):
    folder, _ = corpus
    for name in outcomes(corpus, "failure"):
        if name != HANGS:
            with pytest.raises(InputError) as caught:
                read(folder, name)
            # Of a MIDI file, the message names the path as it is.
            assert is_midi(name) or "\n" not in str(caught.value)


def test_headers_lie(corpus):
    folder, _ = corpus
    assert _said_s(folder / "says ten hours.wav") > 3600
    assert len(read(folder, "says ten hours.wav")) == SECONDS * SR
    assert _said_s(folder / "says 12 seconds.wav") == 12
    assert audio.duration_s(folder / "says an hour.mp3") == pytest.approx(3600, abs=1)
    assert audio.duration_s(folder / "truncated.mp3") == pytest.approx(SECONDS, abs=0.1)
    assert len(read(folder, "truncated.mp3")) == pytest.approx(13 * SR, abs=0.1 * SR)
    assert len(read(folder, "says 12 seconds.wav")) == 12 * SR


def _said_s(wav):
    """Return what a 16-bit mono WAV file says of itself, which FFmpeg does not believe."""
    data = wav.read_bytes()
    return struct.unpack_from("<I", data, data.index(b"data") + 4)[0] / 2 / 44_100


def test_formats_are_what_they_are_called(corpus):
    folder, _ = corpus
    surround, telephone = (soundfile.info(folder / f) for f in ("surround.flac", "telephone.wav"))
    assert (surround.samplerate, surround.channels, surround.subtype) == (96_000, 6, "PCM_24")
    assert (telephone.samplerate, telephone.channels) == (8_000, 1)
    assert soundfile.info(folder / "is an mp3.wav").format == "MP3"


def test_drops_break_their_rules(corpus):
    folder, _ = corpus
    assert np.abs(read(folder, "silence.wav")).max() == 0
    assert 0 < np.abs(read(folder, "faint.wav")).max() < 0.001
    assert len(read(folder, "short.wav")) < 2 * SR
    assert np.mean(np.abs(read(folder, "pause.wav")) < 0.001) > 0.8
    clipped, _ = soundfile.read(folder / "clipped.wav")
    assert np.mean(np.abs(clipped) > 0.999) > 0.05
    million = read(folder, "million.mid")
    assert len(million) == MILLION
    assert MILLION / million["offset"].max() > 5000
    assert not len(read(folder, "no notes.mid"))
    assert not len(read(folder, "drums.mid"))


COPIES = {
    "zz again/one.wav": "good/take.wav",
    "zz again/two.wav": "good/take.wav",
    "zz again/three.wav": "good/take.wav",
    "zz again/link.wav": "good/take.wav",
    "zz again/one line.wav": TWO_LINES,
}
SAME_SOUND = {
    "zz again/lossless.flac": "good/take.wav",
    "zz again/one line.flac": TWO_LINES,
    "zz again/retagged.mp3": "good/take.mp3",
    "zz again/etude.mid": "good/etude 1.mid",
}


def test_copies_are_the_same(corpus):
    folder, expected = corpus
    for name, original in (COPIES | SAME_SOUND).items():
        same_bytes = (folder / name).read_bytes() == (folder / original).read_bytes()
        assert expected[name].rule == "duplicate"
        assert same_bytes == (name in COPIES)
        assert digest(read(folder, name)) == digest(read(folder, original)), name


def test_near_copies_are_not_the_same(corpus):
    folder, _ = corpus
    again, first = read(folder, "zz again/re-encoded.ogg"), read(folder, "good/take.flac")
    length = min(len(again), len(first))
    assert digest(again) != digest(first)
    assert np.corrcoef(again[:length], first[:length])[0, 1] > 0.99
    again, first = read(folder, "zz again/etude 2.mid"), read(folder, "good/etude 2.mid")
    assert digest(again) != digest(first)
    np.testing.assert_array_equal(again["pitch"], first["pitch"])


def test_names_are_awkward(corpus):
    folder, expected = corpus
    assert any("\n" in name for name in expected)
    assert any('"' in name and "'" in name for name in expected)
    assert any(not name.isascii() and len(name) < 100 for name in expected)
    assert max(len(Path(name).name) for name in expected) == 200
    if r"caf\xe9.wav" in expected:
        assert (folder / os.fsdecode(b"caf\xe9.wav")).is_file()


def test_the_same_corpus_every_time_whatever_the_codec(corpus, tmp_path):
    folder, for_notes = corpus
    for_sound = write_hostile_corpus(tmp_path / "again", encodes_notes=False)
    first, second = open_folder(folder), open_folder(tmp_path / "again")
    for entry in first.entries():
        if not entry.problem and entry.name != "unreadable.wav":
            assert first.read_bytes(entry.name) == second.read_bytes(entry.name), entry.name
    assert list(for_sound) == list(for_notes)
    for name, expected in for_sound.items():
        if is_midi(name) and name not in ("pipe.mid", "empty.mid"):  # no codec is asked about them
            assert (expected.outcome, expected.rule) == ("drop", "no_audio")
        else:
            assert expected == for_notes[name]


def test_music_differs_by_its_number_alone():
    np.testing.assert_array_equal(improvised(random_state=1), improvised(random_state=1))
    assert digest(improvised(random_state=1)) != digest(improvised(random_state=2))


def test_the_hanging_ffmpeg_hangs_on_one_file_alone(corpus, tmp_path, monkeypatch):
    folder, _ = corpus
    binary = write_hanging_ffmpeg(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    assert ffmpeg_binary() == binary
    assert len(read(folder, "good/take.wav")) == SECONDS * SR
    with pytest.raises(AudioError, match=r"did not finish with .*hang.mp3 within 0.5 s"):
        audio.decode(folder / HANGS, sr=SR, timeout_s=0.5)
