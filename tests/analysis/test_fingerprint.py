"""The same performance is found again, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deep_piano.analysis import fingerprint
from deep_piano.analysis import fingerprint_kernels as kernels
from deep_piano.music.notes import NOTE, make_notes
from tests.support.recordings import key_hz

SR = 8_000


def performance(seed, *, notes=400, per_s=6.0):
    """Chords and single notes of no piece in particular, in a key, at a pianist's pace."""
    rng = np.random.default_rng(seed)
    onset = np.cumsum(rng.gamma(2, 1 / (2 * per_s), notes))
    scale = np.flatnonzero(np.isin(np.arange(128) % 12, (0, 2, 4, 5, 7, 9, 11)))
    pitch = scale[np.clip(rng.normal(35, 6, notes).round().astype(int), 13, 62)]
    return make_notes(
        onset, onset + rng.uniform(0.1, 1, notes), pitch, rng.integers(20, 110, notes)
    )


def played(seed, *, seconds=30.0, sr=SR):
    """A melody over long notes, as sound."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sr)) / sr
    samples = np.zeros(len(t))
    for begin in np.cumsum(rng.uniform(0.2, 0.9, round(2 * seconds))):
        sounding = t >= begin
        decay = np.exp(-1.5 * (t[sounding] - begin))
        for partial in (1, 2, 3):
            turns = key_hz(rng.integers(45, 80)) * partial * (t[sounding] - begin)
            samples[sounding] += decay * np.sin(2 * np.pi * turns) / partial
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def rebuilt(notes, **columns):
    given = {name: columns.get(name, notes[name]) for name in NOTE.names}
    given["offset"] = np.maximum(given["offset"], given["onset"] + 0.01)
    return make_notes(*(given[name] for name in NOTE.names))


def jittered(notes, rng):
    return rebuilt(notes, onset=notes["onset"] + rng.normal(0, 0.003, len(notes)))


def rolled(notes, rng):
    return rebuilt(notes, onset=notes["onset"] + rng.uniform(0, 0.01, len(notes)))


def transcribed(notes, rng):
    kept = notes[rng.random(len(notes)) > 0.05]
    return rebuilt(kept, onset=kept["onset"] + rng.normal(0, 0.002, len(kept)))


def trimmed(notes, rng):
    late = notes[notes["onset"] > 5].copy()
    return rebuilt(late, onset=late["onset"] - 4.987, offset=late["offset"] - 4.987)


@pytest.mark.parametrize("change", [jittered, rolled, transcribed, trimmed])
def test_the_same_performance_is_similar(change, rng):
    notes = performance(1)
    changed = change(notes, rng)
    found = fingerprint.similarity(fingerprint.of_notes(notes), fingerprint.of_notes(changed))
    assert found >= fingerprint.THRESHOLD


@pytest.mark.parametrize("seed", range(2, 6))
def test_another_performance_is_not_similar(seed):
    a, b = fingerprint.of_notes(performance(1)), fingerprint.of_notes(performance(seed))
    assert fingerprint.similarity(a, b) < 0.2


def test_another_performance_of_the_same_score_is_not_similar(rng):
    notes = performance(1)
    waits = np.diff(notes["onset"], prepend=0) * rng.lognormal(0, 0.15, len(notes))
    again = rebuilt(notes, onset=np.cumsum(waits), offset=np.cumsum(waits) + 0.3)
    found = fingerprint.similarity(fingerprint.of_notes(notes), fingerprint.of_notes(again))
    assert found < fingerprint.THRESHOLD - 0.1


@given(seed=st.integers(0, 50), louder=st.integers(-60, 60), later_s=st.integers(0, 1000))
def test_velocities_durations_and_the_beginning_do_not_matter(seed, louder, later_s):
    # Onsets at multiples of 1/64 s stay exact when they are moved.
    notes = performance(seed, notes=150)
    onset = np.rint(notes["onset"] * 64) / 64 + 1 / 256
    one = rebuilt(notes, onset=onset, offset=onset + 0.2)
    two = rebuilt(
        one,
        onset=one["onset"] + later_s,
        offset=one["offset"] + later_s + 1,
        velocity=one["velocity"].astype(int) + louder,
    )
    np.testing.assert_array_equal(fingerprint.of_notes(one), fingerprint.of_notes(two))


@pytest.mark.parametrize("count", [0, 1, 19])
def test_few_notes_have_no_fingerprint(count):
    assert fingerprint.of_notes(performance(0, notes=count)).shape == (0,)


def test_a_single_chord_has_no_fingerprint():
    pitch = np.arange(30, 90)
    chord = make_notes(np.zeros(60), np.full(60, 9.0), pitch, np.full(60, 80))
    assert fingerprint.of_notes(chord).shape == (0,)


def test_a_wall_of_notes_has_a_fingerprint():
    count = 300_000
    onset = np.sort(np.random.default_rng(0).uniform(0, 30, count))
    pitch = np.random.default_rng(1).integers(21, 109, count)
    wall = make_notes(onset, onset + 1, pitch, np.full(count, 64))
    assert fingerprint.of_notes(wall).shape == (64,)


def test_fingerprints_stay_what_they_are():
    """A change here makes every stored fingerprint worthless: it is a new format of dataset."""
    grid = np.arange(400)
    notes = make_notes(grid / 8, grid / 8 + 0.1, 40 + grid**2 % 37, np.full(400, 80))
    print_ = fingerprint.of_notes(notes)
    assert print_.dtype == np.uint32
    assert print_[:3].tolist() == [544246, 14493546, 20541366]


@pytest.mark.parametrize("count", [0, 5, 60, 5000])
def test_a_minhash_is_that_of_the_plain_definition(count, rng):
    tokens = rng.integers(0, 2**63, count, dtype=np.uint64)
    multipliers = rng.integers(0, 2**63, 7, dtype=np.uint64) | np.uint64(1)
    mixed = np.array([kernels.mixed(token) for token in tokens], np.uint64)
    expected = [(mixed * m).min(initial=2**64 - 1) for m in multipliers]
    least, different = kernels.of_tokens(tokens.copy(), multipliers, 32)
    assert least.tolist() == expected
    assert different == min(count, 32)
    least, different = kernels.of_tokens(np.repeat(tokens, 3), multipliers, 32)
    assert (least.tolist(), different) == (expected, min(count, 32))


def test_landmarks_and_their_pairs_are_those_of_the_plain_definition(rng):
    at_s = np.sort(rng.integers(0, 200, 120) / 8)
    pitch = rng.integers(21, 109, 120).astype(np.uint64)
    found_s, found = kernels.landmarks(at_s, pitch, 0.5, 2.0, 3, 4)
    expected = []
    for first, begun in enumerate(at_s):
        after = [second for second, end in enumerate(at_s) if 0.5 <= end - begun < 2.0]
        both = [(begun, int(pitch[first]) << 7 | int(pitch[second])) for second in after[:3]]
        expected += [one for one in both if int(kernels.mixed(np.uint64(one[1]))) % 4 == 0]
    assert list(zip(found_s.tolist(), found.tolist(), strict=True)) == expected
    pairs = [
        a << 30 | b << 16 | int((end - begun) / 0.25)
        for n, (begun, a) in enumerate(expected)
        for end, b in [one for one in expected[n:] if 1 <= one[0] - begun < 3][:5]
    ]
    multipliers = rng.integers(0, 2**63, 3, dtype=np.uint64) | np.uint64(1)
    least, different = kernels.of_landmarks(found_s, found, 1.0, 3.0, 5, 0.25, multipliers, 32)
    plain, _ = kernels.of_tokens(np.array(pairs, np.uint64), multipliers, 32)
    assert different == 32
    assert least.tolist() == plain.tolist()


@pytest.mark.parametrize("gain", [0.25, 1e-6, 1e20])
def test_sound_of_any_level_has_the_same_fingerprint(gain):
    samples = played(1)
    found = fingerprint.similarity(
        fingerprint.of_audio(samples, sr=SR),
        fingerprint.of_audio(samples * np.float32(gain), sr=SR),
    )
    assert found >= 0.9


@pytest.mark.parametrize("noise", [0.003, 0.01])
def test_sound_with_noise_is_similar(noise, rng):
    samples = played(1)
    worse = samples + noise * rng.standard_normal(len(samples)).astype(np.float32)
    one, two = (fingerprint.of_audio(part, sr=SR) for part in (samples, worse))
    assert fingerprint.similarity(one, two) >= 0.7


def test_sound_trimmed_by_a_second_is_similar():
    samples = played(1, seconds=40)
    one, two = (fingerprint.of_audio(part, sr=SR) for part in (samples, samples[SR + 117 :]))
    assert fingerprint.similarity(one, two) >= fingerprint.THRESHOLD


def test_other_sound_is_not_similar():
    one, two = (fingerprint.of_audio(played(seed), sr=SR) for seed in (1, 2))
    assert fingerprint.similarity(one, two) < 0.2


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0),
        np.ones(1),
        np.zeros(20 * SR),
        played(1, seconds=3),
        np.sin(2 * np.pi * 440 * np.arange(20 * SR) / SR),
    ],
    ids=["nothing", "one sample", "silence", "three seconds", "a steady tone"],
)
def test_too_little_to_hear_has_no_fingerprint(samples):
    assert fingerprint.of_audio(samples.astype(np.float32), sr=SR).shape == (0,)


@pytest.mark.parametrize("sr", [4_000, 5_512, 16_000, 44_100])
def test_every_rate_gives_a_fingerprint(sr):
    assert fingerprint.of_audio(played(1, seconds=20, sr=sr), sr=sr).shape == (64,)


def prints(rng, *, count):
    return rng.integers(0, 2**32, (count, 64), dtype=np.uint32)


def changed(values, share, rng):
    """The same fingerprint, but for a share of its values."""
    result = values.copy()
    places = rng.choice(64, round(64 * share), replace=False)
    result[places] = rng.integers(0, 2**32, len(places), dtype=np.uint32)
    return result


def test_the_first_of_near_duplicates_stays(rng):
    a, b = prints(rng, count=2)
    given = [(2, "later", changed(a, 0.25, rng)), (1, "first", a), (0, "other", b)]
    assert fingerprint.near_duplicates(given) == {"later": ("first", 0.75)}


def test_recordings_of_the_same_order_key_go_by_id(rng):
    (a,) = prints(rng, count=1)
    assert fingerprint.near_duplicates([("x", "b", a), ("x", "a", a)]) == {"b": ("a", 1.0)}


def test_what_is_dropped_drops_nothing(rng):
    (a,) = prints(rng, count=1)
    b = changed(a, 0.375, rng)
    kept = b == a
    c = b.copy()
    c[np.flatnonzero(kept)[:20]] ^= np.uint32(1)  # near to b, far from a
    given = [(0, "a", a), (1, "b", b), (2, "c", c)]
    assert fingerprint.similarity(b, c) >= 0.5 > fingerprint.similarity(a, c)
    assert fingerprint.near_duplicates(given) == {"b": ("a", 0.625)}


def test_nothing_is_near_to_an_empty_fingerprint(rng):
    empty = np.empty(0, np.uint32)
    (a,) = prints(rng, count=1)
    assert fingerprint.near_duplicates([(0, "a", empty), (1, "b", empty), (2, "c", a)]) == {}
    assert fingerprint.near_duplicates([]) == {}


def test_a_threshold_of_one_takes_equal_fingerprints_only(rng):
    (a,) = prints(rng, count=1)
    given = [(0, "a", a), (1, "b", changed(a, 1 / 64, rng)), (2, "c", a.copy())]
    assert fingerprint.near_duplicates(given, threshold=1.0) == {"c": ("a", 1.0)}


@given(
    values=npst.arrays(np.uint32, (12, 64), elements=st.integers(0, 3), fill=st.nothing()),
    seed=st.integers(0, 9),
)
def test_near_duplicates_are_those_of_the_plain_definition(values, seed):
    threshold = 0.35

    def alike(one, other):
        same = one == other
        return same.mean() >= threshold and same.reshape(-1, 2).all(axis=1).any()  # a pair agrees

    given = [(place, f"{place:02d}", row) for place, row in enumerate(values)]
    stay, expected = [], {}
    for _, name, row in given:
        near = [other for other in stay if alike(values[int(other)], row)]
        if near:
            found = fingerprint.similarity(values[int(near[0])], row)
            expected[name] = (near[0], found)
        else:
            stay.append(name)
    shuffled = [given[place] for place in np.random.default_rng(seed).permutation(len(given))]
    assert fingerprint.near_duplicates(shuffled, threshold=threshold) == expected


def test_thousands_of_copies_are_found(rng):
    (a,) = prints(rng, count=1)
    given = [(place, f"{place}", changed(a, 0.2, rng)) for place in range(3000)]
    found = fingerprint.near_duplicates(given, threshold=0.5)
    assert len(found) == 2999
    assert {first for first, _ in found.values()} == {"0"}


def test_many_recordings_are_told_apart(rng):
    given = [(place, f"{place}", row) for place, row in enumerate(prints(rng, count=3000))]
    assert fingerprint.near_duplicates(given) == {}
