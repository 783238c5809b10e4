"""The sample player, on pianos that are synthesised here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano import assets, synth
from deep_piano.errors import AssetError, InputError
from deep_piano.notes import NOTE, make_notes

SR = 22_050
SILENCE_BEFORE_S = 0.013


def key_hz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def struck(pitch, *, level=0.5, partials=6, seconds=4.0, sr=24_000, channels=2, delay_s=0.0):
    """A decaying tone after some silence and the noise of a key that travels."""
    t = np.arange(round(seconds * sr)) / sr
    decay = np.exp(-t * (0.5 + pitch / 60))
    tone = sum(np.sin(2 * np.pi * key_hz(pitch) * k * t) / k for k in range(1, partials + 1))
    wave = level * decay * np.minimum(1, t / 0.001) * tone / 2
    before = round((SILENCE_BEFORE_S + delay_s) * sr)
    noise = 0.02 * level * np.random.default_rng(pitch).uniform(-1, 1, before)
    return np.repeat(np.concatenate([noise, wave])[:, None], channels, axis=1)


def write_piano(folder, pitches, *, layers=((1, 0.05), (8, 0.2), (16, 0.6)), **options):
    folder.mkdir()
    names = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"]
    sr = options.get("sr", 24_000)
    for pitch in pitches:
        for layer, level in layers:
            name = f"{names[pitch % 12]}{pitch // 12 - 1}" + (f"v{layer}" if layer else "")
            samples = struck(pitch, level=level, **options)
            soundfile.write(folder / f"{name}.flac", samples, sr)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def piano(tmp_path_factory):
    """Every minor third, in three layers."""
    return write_piano(tmp_path_factory.mktemp("sounds") / "piano", range(36, 100, 3))


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds") / "one"
    return write_piano(folder, range(36, 100, 6), layers=((0, 0.5),), partials=30)


def play(piano, notes, seconds=3.0, **options):
    return synth.render(notes, sound=piano, seconds=seconds, sr=SR, **options)


def one_note(pitch=60, velocity=80, onset=0.5, offset=1.5):
    return make_notes([onset], [offset], [pitch], [velocity])


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples)) + 1e-15)


def loudest_hz(samples):
    wave = samples.mean(axis=1)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 2**19))
    return np.argmax(spectrum) * SR / 2**19


@pytest.mark.parametrize("seconds", [0, 0.5, 2.0, 3.00001])
@pytest.mark.parametrize("notes", [np.empty(0, NOTE), one_note()])
def test_shape_and_length_are_as_asked(piano, notes, seconds):
    samples = play(piano, notes, seconds=seconds)
    assert samples.shape == (round(seconds * SR), 2)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("pitch", [21, 36, 40, 47, 60, 61, 62, 77, 88, 99, 108])
def test_every_key_is_in_tune_recorded_or_not(piano, pitch):
    samples = play(piano, one_note(pitch, offset=2.5))[round(0.55 * SR) : round(2.4 * SR)]
    cents = 1200 * np.log2(loudest_hz(samples) / key_hz(pitch))
    assert abs(cents) < 3


@pytest.mark.parametrize("velocity", [10, 60, 120])
@pytest.mark.parametrize("pitch", [40, 60, 85])
@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_onsets_are_within_two_milliseconds(request, sound, pitch, velocity):
    folder = request.getfixturevalue(sound)
    samples = np.abs(play(folder, one_note(pitch, velocity))).max(axis=1)
    first = np.argmax(samples > 0.1 * samples.max()) / SR
    assert 0.4999 <= first < 0.502
    assert not samples[: round(0.5 * SR) - 1].any()


@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_loudness_grows_with_velocity_and_only_by_it(request, sound):
    folder = request.getfixturevalue(sound)
    velocities = np.arange(1, 128, 6)
    onset = np.arange(len(velocities)) * 1.0
    notes = make_notes(onset, onset + 0.7, np.full(len(velocities), 60), velocities)
    samples = play(folder, notes, seconds=len(velocities) + 1)
    levels = [level_db(samples[round(t * SR) :][: SR // 2]) for t in onset]
    asked = synth.velocity_db(velocities)
    np.testing.assert_allclose(levels - levels[-1], asked - asked[-1], atol=0.1)
    assert (np.diff(levels) > 0).all()


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


@pytest.mark.parametrize("pitch", [30, 60, 88])
def test_dampers_silence_a_note_without_a_click(piano, pitch):
    samples = play(piano, one_note(pitch, offset=1.5))
    released = round(1.5 * SR)
    jumps = np.abs(np.diff(samples, axis=0)).max(axis=1)
    assert jumps[released - 10 :].max() <= 1.05 * jumps[released - 2000 : released].max()
    end = released + round(synth.release_s(pitch) * SR) + 2
    assert samples[end - 100 : end - 50].any()
    assert not samples[end:].any()


def test_the_bass_is_damped_more_slowly():
    lengths = [synth.release_s(pitch) for pitch in range(21, 89)]
    assert (np.diff(lengths) < 0).all()
    assert lengths[0] == pytest.approx(0.4)
    assert lengths[-1] == pytest.approx(0.15)


def test_the_highest_keys_have_no_dampers(piano):
    assert synth.release_s(89) == np.inf
    short, long = (play(piano, one_note(90, offset=end)) for end in (0.6, 2.9))
    np.testing.assert_array_equal(short, long)
    assert np.abs(short[round(1.5 * SR) : round(1.6 * SR)]).max() > 1e-4


@pytest.mark.parametrize("pitch", [60, 95])
def test_striking_a_key_again_damps_its_last_note(piano, pitch):
    overlapping = np.sort(np.concatenate([one_note(pitch, 100, 0.5, 3), one_note(pitch, 1, 1, 3)]))
    loud = play(piano, one_note(pitch, 100, 0.5, 3))
    both = play(piano, overlapping)
    np.testing.assert_array_equal(both[:SR], loud[:SR])
    after = slice(round((1 + synth.RESTRIKE_S) * SR) + 1, round(1.6 * SR))
    assert level_db(both[after]) < level_db(loud[after]) - 20


def test_a_note_longer_than_its_recording_ends_softly(piano):
    samples = play(piano, one_note(60, offset=9), seconds=10)
    assert not samples[5 * SR :].any()
    assert np.abs(np.diff(samples[3 * SR :], axis=0)).max() < 0.02


def test_the_end_of_the_piece_is_faded(piano):
    samples = play(piano, one_note(60, 120, 0.1, 9), seconds=1)
    assert np.abs(samples[-2:]).max() < 1e-3
    assert np.abs(samples[-3000:-2000]).max() > 0.05


def test_notes_outside_of_the_piece_are_left_out(piano):
    notes = np.concatenate([one_note(onset=-1.0), one_note(), one_note(onset=30, offset=31)])
    np.testing.assert_array_equal(play(piano, notes), play(piano, one_note()))


def test_notes_add_up(piano):
    first, second = one_note(60, 70, 0.2, 1.0), one_note(67, 90, 0.6, 2.0)
    both = play(piano, np.concatenate([first, second]))
    np.testing.assert_allclose(both, play(piano, first) + play(piano, second), atol=1e-6)


def many_notes(count, seed, longest_s=1.0):
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, 2, count)
    offset = onset + rng.uniform(0.05, longest_s, count)
    return make_notes(onset, offset, rng.integers(21, 109, count), rng.integers(1, 128, count))


@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_cold_warm_and_half_warm_caches_give_the_same_bytes(request, sound, monkeypatch, cache):
    folder = request.getfixturevalue(sound)
    notes, seconds = many_notes(60, seed=1, longest_s=3.0), 5.0
    cold = play(folder, notes, seconds=seconds)
    assert play(folder, notes, seconds=seconds).tobytes() == cold.tobytes()
    monkeypatch.setenv("DEEP_PIANO_HOME", str(cache / "other"))
    play(folder, many_notes(60, seed=1, longest_s=0.1), seconds=seconds)
    assert play(folder, notes, seconds=seconds).tobytes() == cold.tobytes()


def test_a_warm_cache_reads_no_recording(piano, monkeypatch):
    notes = many_notes(20, seed=2)
    expected = play(piano, notes)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a recording was read")

    monkeypatch.setattr(synth, "_read_trimmed", refuse)
    np.testing.assert_array_equal(play(piano, notes), expected)


def test_a_broken_or_unwritable_cache_does_not_matter(piano, cache, monkeypatch):
    notes = many_notes(10, seed=3)
    expected = play(piano, notes)
    for file in (cache / "prepared").rglob("*.*"):
        file.write_bytes(b"not what it was")
    np.testing.assert_array_equal(play(piano, notes), expected)
    (cache / "file").write_text("")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(cache / "file"))
    np.testing.assert_array_equal(play(piano, notes), expected)


def test_changed_samples_are_prepared_again(tmp_path):
    folder = write_piano(tmp_path / "piano", [60], layers=((1, 0.5),))
    before = play(folder, one_note())
    soundfile.write(folder / "C4v1.flac", struck(60, partials=1, seconds=2), 24_000)
    assert np.abs(play(folder, one_note()) - before).max() > 0.01


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_any_notes_give_finite_samples(count, seed):
    folder = Path(test_any_notes_give_finite_samples.folder)
    samples = play(folder, many_notes(count, seed), seconds=2)
    assert np.isfinite(samples).all()
    assert samples.any()


@pytest.fixture(autouse=True, scope="module")
def _give_the_piano_to_hypothesis(piano):
    test_any_notes_give_finite_samples.folder = piano


def test_mono_samples_are_spread_by_pitch(tmp_path):
    folder = write_piano(tmp_path / "mono", [36, 96], layers=((1, 0.5),), channels=1)
    low, high = (play(folder, one_note(pitch)) for pitch in (36, 96))
    assert level_db(low[:, 0]) > level_db(low[:, 1]) + 1
    assert level_db(high[:, 1]) > level_db(high[:, 0]) + 1


def test_progress_counts_the_notes(piano):
    told = []
    play(piano, many_notes(30, seed=4), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("name", "pitch"),
    [("A4v8.flac", 69), ("C#-1.wav", 1), ("Piano.ff.Bb0.flac", 22), ("x.y.C8v16.ogg", 108)],
)
def test_sample_names(tmp_path, name, pitch):
    samples = struck(60, seconds=0.6)
    soundfile.write(tmp_path / name, samples, 24_000)
    sound = synth._load(tmp_path)
    assert list(sound.files[0]) == [pitch]


@pytest.mark.parametrize("name", ["H4.flac", "A4.mp3", "A4v8.flac.txt", "a4.flac", "notes.txt"])
def test_a_folder_without_samples(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"holds no samples\. Name them like A4v8.flac"):
        play(tmp_path, one_note())


def test_a_broken_sample(tmp_path):
    (tmp_path / "A4.flac").write_bytes(b"fLaC, so to speak")
    with pytest.raises(
        AssetError, match=r"A4.flac cannot be read.*Fetch the sound again"
    ) as raised:
        play(tmp_path, one_note())
    assert "\n" not in str(raised.value)


def test_an_unknown_sound():
    with pytest.raises(
        InputError, match=r"no sound 'harpsichord'\. Choose salamander, steinway, a"
    ):
        play("harpsichord", one_note())


@pytest.mark.parametrize("name", synth.SOUND_NAMES)
def test_a_sound_that_is_not_fetched(name):
    with pytest.raises(AssetError, match=f"Run `deep-piano assets fetch {name}`"):
        play(name, one_note())


def test_the_default_sound_is_the_best_that_is_there(monkeypatch, tmp_path):
    assert synth.default_sound() == "steinway"
    monkeypatch.setattr(assets, "path", lambda name: tmp_path if name == "salamander" else None)
    assert synth.default_sound() == "salamander"


# SoundFonts


@pytest.fixture
def font(tmp_path):
    path = tmp_path / "grand.SF2"
    path.write_bytes(b"RIFF")
    return path


def test_a_soundfont_is_played_by_midirenderer(font, monkeypatch, tmp_path):
    asked = []

    def render_wave_from(soundfont, midi):
        asked.append((soundfont, midi[:4]))
        path = tmp_path / "rendered.wav"
        soundfile.write(path, struck(60, sr=48_000), 48_000)
        return path.read_bytes()

    fake = SimpleNamespace(render_wave_from=render_wave_from)
    monkeypatch.setitem(sys.modules, "midirenderer", fake)
    samples = play(font, one_note(60, 3), seconds=2.5)
    assert asked == [(b"RIFF", b"MThd")]
    assert samples.shape == (round(2.5 * SR), 2)
    assert loudest_hz(samples) == pytest.approx(key_hz(60), rel=0.002)


def test_a_soundfont_without_midirenderer(font, monkeypatch):
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    with pytest.raises(InputError, match=r"pip install 'deep-piano\[sf2\]'"):
        play(font, one_note())


def test_a_broken_or_missing_soundfont(font, monkeypatch):
    def render_wave_from(soundfont, midi):
        raise ValueError("not a SoundFont")

    fake = SimpleNamespace(render_wave_from=render_wave_from)
    monkeypatch.setitem(sys.modules, "midirenderer", fake)
    with pytest.raises(InputError, match=r"grand\.SF2 cannot be played: not a SoundFont"):
        play(font, one_note())
    with pytest.raises(InputError, match=r"no such file: .*none\.sf2"):
        play(font.with_name("none.sf2"), one_note())


# The real sounds, where they are fetched


@pytest.fixture
def fetched(request, monkeypatch):
    monkeypatch.undo()  # the user's own cache
    folder = assets.path(request.param)
    if folder is None:
        pytest.skip(f"{request.param} is not fetched")
    return request.param


@pytest.mark.assets
@pytest.mark.parametrize("fetched", synth.SOUND_NAMES, indirect=True)
def test_real_pianos_are_in_tune_on_time_and_even(fetched):
    pitches = np.arange(28, 97, 4)
    onset = 0.1 + np.arange(len(pitches)) * 1.5
    notes = make_notes(onset, onset + 0.9, pitches, np.full(len(pitches), 80))
    samples = synth.render(notes, sound=fetched, seconds=onset[-1] + 2, sr=SR)
    levels = []
    for start_s, pitch in zip(onset, pitches, strict=True):
        played = samples[round(start_s * SR) :][: round(1.0 * SR)]
        peak = np.abs(played).max(axis=1)
        assert np.argmax(peak > 0.1 * peak.max()) / SR < 0.002
        levels.append(level_db(played[: SR // 2]))
        spectrum = np.abs(np.fft.rfft(played.mean(axis=1) * np.hanning(len(played)), 2**19))
        hz = np.arange(len(spectrum)) * SR / 2**19
        partial = 2 if pitch < 41 else 1  # the lowest strings hardly sound at their own frequency
        near = np.abs(1200 * np.log2(np.maximum(hz, 1) / (partial * key_hz(pitch)))) < 90
        cents = 1200 * np.log2(hz[near][np.argmax(spectrum[near])] / (partial * key_hz(pitch)))
        # Real pianos are stretched: flat in the bass, sharp in the treble.
        assert abs(cents - 0.3 * (pitch - 62)) < 20
    assert np.abs(np.diff(levels)).max() < 4
