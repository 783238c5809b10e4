"""Recorded keys made ready to play, on pianos that are synthesised here."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deep_piano.errors import AssetError, InputError
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.music.notes import make_notes
from deep_piano.music.sounds import default_sound, load_sound
from tests.support.playing import SR, level_db, loudest_hz, many_notes, one_note, play
from tests.support.recordings import key_hz, struck, write_piano


@pytest.mark.parametrize("pitch", [21, 36, 40, 47, 60, 61, 62, 77, 88, 99, 108])
def test_every_key_is_in_tune_recorded_or_not(piano, pitch):
    samples = play(piano, one_note(pitch, offset=2.5))[round(0.55 * SR) : round(2.4 * SR)]
    cents = 1200 * np.log2(loudest_hz(samples) / key_hz(pitch))
    assert abs(cents) < 3


def test_keys_are_evened_out(tmp_path):
    folder = write_piano(tmp_path / "uneven", [48, 54, 66, 72, 78])
    soundfile.write(folder / "C4v16.flac", struck(60, level=0.1), 24_000)
    soundfile.write(folder / "C4v8.flac", struck(60, level=0.2), 24_000)
    soundfile.write(folder / "C4v1.flac", struck(60, level=0.4), 24_000)
    samples = play(folder, make_notes([0, 2, 4], [1, 3, 5], [54, 60, 66], [127] * 3), seconds=6)
    levels = [level_db(samples[round(t * SR) :][: SR // 2]) for t in (0, 2, 4)]
    assert np.ptp(levels) < 5  # recorded: 15 dB apart


def test_softer_notes_of_one_layer_are_darker(one_layer):
    def brightness(velocity):
        samples = play(one_layer, one_note(48, velocity))[round(0.5 * SR) : round(1.4 * SR)]
        power = np.abs(np.fft.rfft(samples.mean(axis=1))) ** 2
        hz = np.fft.rfftfreq(len(samples), 1 / SR)
        return power[hz > 1500].sum() / power.sum()

    shares = [brightness(velocity) for velocity in (20, 60, 90, 127)]
    assert (np.diff(shares) > 0).all()
    assert shares[0] < 0.2 * shares[-1]


def test_a_note_longer_than_its_recording_ends_softly(piano):
    samples = play(piano, one_note(60, offset=9), seconds=10)
    assert not samples[5 * SR :].any()
    assert np.abs(np.diff(samples[3 * SR :], axis=0)).max() < 0.02


def test_mono_samples_are_spread_by_pitch(tmp_path):
    folder = write_piano(tmp_path / "mono", [36, 96], layers=((1, 0.5),), channels=1)
    low, high = (play(folder, one_note(pitch)) for pitch in (36, 96))
    assert level_db(low[:, 0]) > level_db(low[:, 1]) + 1
    assert level_db(high[:, 1]) > level_db(high[:, 0]) + 1


@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_cold_warm_and_half_warm_caches_give_the_same_bytes(request, sound, monkeypatch, tmp_path):
    folder = request.getfixturevalue(sound)
    notes, seconds = many_notes(60, seed=1, longest_s=3.0), 5.0
    cold = play(folder, notes, seconds=seconds)
    assert play(folder, notes, seconds=seconds).tobytes() == cold.tobytes()
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "other"))
    play(folder, many_notes(60, seed=1, longest_s=0.1), seconds=seconds)
    assert play(folder, notes, seconds=seconds).tobytes() == cold.tobytes()


def test_a_warm_cache_reads_no_recording(piano, monkeypatch):
    notes = many_notes(20, seed=2)
    expected = play(piano, notes)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a recording was read")

    monkeypatch.setattr("deep_piano.music.sounds._read_trimmed", refuse)
    np.testing.assert_array_equal(play(piano, notes), expected)


DAMAGE = {
    "empty": lambda whole: b"",
    "cut short": lambda whole: whole[: len(whole) // 2],
    "other bytes": lambda whole: b"not what it was",
    "an archive": lambda whole: b"PK\x03\x04" + whole,
    "other JSON": lambda whole: b'{"a": [1]}',
    "another shape": lambda whole: b"[[1, 2]]",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_cache_does_not_matter(piano, damage):
    notes = many_notes(10, seed=3)
    expected = play(piano, notes)
    kept = [path for path in (cache.cache_dir() / "prepared").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".json", ".npy"}
    whole = {path: path.read_bytes() for path in kept}
    for path in kept:
        path.write_bytes(DAMAGE[damage](whole[path]))
    np.testing.assert_array_equal(play(piano, notes), expected)
    assert {path: path.read_bytes() for path in kept} == whole


def test_a_cache_of_samples_in_another_form_does_not_matter(piano):
    notes = many_notes(10, seed=3)
    expected = play(piano, notes)
    for path in (cache.cache_dir() / "prepared").rglob("*.npy"):
        np.save(path, np.load(path).astype(np.float32)[:, :1])
    np.testing.assert_array_equal(play(piano, notes), expected)


def test_an_unwritable_cache_does_not_matter(piano, tmp_path, monkeypatch):
    notes = many_notes(10, seed=3)
    expected = play(piano, notes)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(play(piano, notes), expected)


def test_a_full_disk_costs_the_cache_alone(piano, monkeypatch):
    notes = many_notes(10, seed=3)
    expected = play(piano, notes)
    for path in (cache.cache_dir() / "prepared").rglob("*.*"):
        path.unlink()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(np, "save", full)
    np.testing.assert_array_equal(play(piano, notes), expected)
    assert not list((cache.cache_dir() / "prepared").rglob("*.*"))


def test_changed_samples_are_prepared_again(tmp_path):
    folder = write_piano(tmp_path / "piano", [60], layers=((1, 0.5),))
    before = play(folder, one_note())
    soundfile.write(folder / "C4v1.flac", struck(60, partials=1, seconds=2), 24_000)
    assert np.abs(play(folder, one_note()) - before).max() > 0.01


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("A4v8.flac", 69), ("C#-1.wav", 1), ("Piano.ff.Bb0.flac", 22), ("x.y.C8v16.ogg", 108)],
)
def test_sample_names(tmp_path, name, pitch):
    samples = struck(60, seconds=0.6)
    soundfile.write(tmp_path / name, samples, 24_000)
    sound = load_sound(tmp_path)
    assert list(sound.files[0]) == [pitch]


@pytest.mark.parametrize("name", ["H4.flac", "A4.mp3", "A4v8.flac.txt", "a4.flac", "notes.txt"])
def test_a_folder_without_samples(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"holds no samples\. Name them like A4v8.flac"):
        play(tmp_path, one_note())


def write_wav(samples, **options):
    return lambda path: soundfile.write(path, samples, 24_000, format="WAV", **options)


BAD_SAMPLES = {
    "junk": (lambda path: path.write_bytes(b"fLaC, so to speak"), "cannot be read: "),
    "no bytes": (lambda path: path.write_bytes(b""), "cannot be read: "),
    "no frames": (write_wav(np.zeros((0, 2))), "lasts less than 10 ms"),
    "a click": (write_wav(np.ones((100, 2))), "lasts less than 10 ms"),
    "surround": (write_wav(np.zeros((9_000, 4))), "has 4 channels; one or two are played"),
    "not numbers": (
        write_wav(np.full((9_000, 1), np.nan), subtype="FLOAT"),
        "holds numbers that are no sound",
    ),
    "huge": (
        write_wav(np.full((9_000, 1), 1e30), subtype="FLOAT"),
        "holds numbers that are no sound",
    ),
}


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_a_sample_that_cannot_be_played_is_refused_before_any_is(tmp_path, kind):
    write, message = BAD_SAMPLES[kind]
    write(tmp_path / "A4.wav")
    with pytest.raises(InputError, match=rf"A4\.wav {message}.*Replace it, or take") as raised:
        load_sound(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_a_fetched_sample_that_cannot_be_played_is_to_be_fetched_again(tmp_path, monkeypatch, kind):
    write, message = BAD_SAMPLES[kind]
    write(tmp_path / "A4.wav")
    monkeypatch.setattr(cache, "path", lambda name: tmp_path)
    with pytest.raises(AssetError, match=rf"A4\.wav {message}.*fetch the sound again"):
        load_sound(SOUND_NAMES[0])


def test_a_sample_that_breaks_later_is_said_when_it_is_played(tmp_path):
    sound = load_sound(write_piano(tmp_path / "piano", [60], layers=((1, 0.5),)))
    for file in tmp_path.rglob("*.flac"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        sound.sample(60, 0, sr=SR, frames=SR)


def test_an_unknown_sound():
    known = ", ".join(SOUND_NAMES)
    with pytest.raises(InputError, match=rf"no sound 'harpsichord'\. Choose {known}, a folder"):
        play("harpsichord", one_note())


@pytest.mark.parametrize("name", SOUND_NAMES)
def test_a_sound_that_is_not_fetched(name):
    with pytest.raises(AssetError, match=f"Run `deep-piano assets fetch {name}`"):
        play(name, one_note())


def test_the_default_sound_is_the_best_that_is_there(monkeypatch, tmp_path):
    assert default_sound() == "steinway"
    monkeypatch.setattr(cache, "path", lambda name: tmp_path if name == "salamander" else None)
    assert default_sound() == "salamander"
