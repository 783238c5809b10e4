from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.music.meter import Meter
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.midi_out import TICKS_PER_QUARTER, write_performance
from deep_piano.music.notes import fold_pedal, make_notes, pedal_share
from tests.support.fakes import arpeggios

READING_S = 2e-5  # symusic counts seconds in float32


def half_a_tick_s(meter):
    return max(meter.beat_us) / 1e6 / TICKS_PER_QUARTER / 2


def assert_same_sound(path, notes, meter):
    again = read_midi(path)
    assert again["pitch"].tolist() == notes["pitch"].tolist()
    assert again["velocity"].tolist() == notes["velocity"].tolist()
    near_s = half_a_tick_s(meter) + READING_S
    np.testing.assert_allclose(again["onset"], notes["onset"], atol=near_s)
    np.testing.assert_allclose(again["offset"], notes["offset"], atol=near_s)


@pytest.fixture
def notes(rng):
    """Ten seconds of broken chords whose notes a pedal ends together every second."""
    keys = arpeggios(10, rng=rng)
    folded = fold_pedal(keys, np.arange(10) + 0.05, np.arange(10) + 0.95)
    folded["onset"], folded["offset"] = np.round(folded["onset"], 2), np.round(folded["offset"], 2)
    return fold_pedal(make_notes(*(folded[name] for name in folded.dtype.names)), [], [])


# Times are hundredths, no two onsets of a key are on one tick, as in what is decoded.
rows = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(2, 400), st.integers(50, 70), st.booleans()),
    min_size=1,
    max_size=50,
    unique_by=lambda row: (row[0], row[2]),
)


@given(
    rows,
    st.lists(st.integers(300_000, 1_200_000), min_size=1, max_size=30),
    st.sampled_from([False, True]),
)
@settings(max_examples=60, deadline=None)
def test_read_back_it_sounds_the_same(tmp_path_factory, rows, beat_us, two_tracks):
    onset, length, pitch, together = (np.array(column) for column in zip(*rows, strict=True))
    offset = np.where(together, (onset // 150 + 1) * 150, onset + length)
    notes = make_notes(onset / 100, offset / 100, pitch, np.resize(np.arange(1, 128), len(onset)))
    notes = fold_pedal(notes, [], [])
    meter = Meter(tuple(beat_us))
    path = tmp_path_factory.mktemp("midi") / "piece.mid"
    write_performance(path, notes, meter=meter, continuation_s=15.0, two_tracks=two_tracks)
    assert_same_sound(path, notes, meter)


def test_keys_are_let_go_and_a_pedal_holds_them(tmp_path, notes):
    from symusic import Score

    write_midi(tmp_path / "sounding.mid", notes)
    write_performance(tmp_path / "played.mid", notes)
    lengths, pedals = {}, {}
    for name in ("sounding", "played"):
        [track] = Score(tmp_path / f"{name}.mid", ttype="second").tracks
        lengths[name] = track.notes.numpy()["duration"].sum()
        pedal = track.pedals.numpy()
        pedals[name] = pedal_share(notes, pedal["time"], pedal["time"] + pedal["duration"])
    assert lengths["played"] < 0.8 * lengths["sounding"]
    assert pedals["sounding"] == 0
    assert pedals["played"] > 0.5


def test_other_programs_read_it(tmp_path, notes):
    mido = pytest.importorskip("mido")
    meter = Meter.steady(0.6)
    write_performance(
        tmp_path / "piece.mid",
        notes,
        meter=Meter(meter.beat_us, beats_a_bar=3, pickup=1),
        signature=(-3, True),
        continuation_s=6.0,
        two_tracks=True,
    )
    file = mido.MidiFile(file=io.BytesIO((tmp_path / "piece.mid").read_bytes()))
    assert file.ticks_per_beat == TICKS_PER_QUARTER
    everything = [message for track in file.tracks for message in track]
    of = {kind: [m for m in everything if m.type == kind] for kind in {m.type for m in everything}}
    assert [message.tempo for message in of["set_tempo"]] == [600_000]
    assert [(m.numerator, m.denominator) for m in of["time_signature"]] == [(1, 4), (3, 4)]
    assert [message.key for message in of["key_signature"]] == ["Cm"]
    assert [message.text for message in of["marker"]] == ["Continuation"]
    assert [message.name for message in of["track_name"]] == ["Seed", "Continuation"]
    assert {message.channel for message in of["note_on"]} == {0, 1}
    assert {message.control for message in of["control_change"]} == {64}
    at = 0
    for message in file.tracks[0]:
        at += message.time
        if message.type == "marker":
            assert at == 10 * TICKS_PER_QUARTER
    # What is down comes up: no key and no pedal is stuck.
    for track in file.tracks[1:]:  # the first has tempi, bars and the marker
        down = set()
        for message in track:
            if message.type == "note_on" and message.velocity:
                assert message.note not in down
                down.add(message.note)
            elif message.type in ("note_on", "note_off"):
                down.remove(message.note)
        assert not down
        assert [m.value for m in track if m.type == "control_change"][-1] == 0


def test_the_second_track_has_its_own_pedal(tmp_path, notes):
    write_performance(tmp_path / "one.mid", notes, continuation_s=5.0)
    write_performance(tmp_path / "two.mid", notes, continuation_s=5.0, two_tracks=True)
    for name in ("one", "two"):
        assert_same_sound(tmp_path / f"{name}.mid", notes, Meter())


def test_the_same_notes_give_the_same_bytes(tmp_path, notes):
    for name in ("a", "b"):
        write_performance(tmp_path / f"{name}.mid", notes, continuation_s=5.0, signature=(2, False))
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_no_notes(tmp_path):
    write_performance(tmp_path / "empty.mid", make_notes([], [], [], []))
    assert not len(read_midi(tmp_path / "empty.mid"))
