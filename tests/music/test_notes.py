from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.errors import MidiError
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import NOTE, excerpt, fold_pedal, make_notes
from tests.support.fakes import arpeggios


def test_make_notes_sorts_and_drops_what_no_piano_plays():
    notes = make_notes([1, 0, 0, 2], [2, 1, 1, 2], [60, 64, 20, 70], [0, 200, 64, 64])
    assert notes["pitch"].tolist() == [64, 60]
    assert notes["velocity"].tolist() == [127, 1]


def test_pedal_holds_a_note_until_it_lifts():
    notes = make_notes([0, 1], [0.5, 1.2], [60, 64], [64, 64])
    folded = fold_pedal(notes, [0.4], [1.1])
    assert folded["offset"].tolist() == [1.1, 1.2]


def test_pedal_that_went_down_later_holds_nothing():
    notes = make_notes([0], [0.5], [60], [64])
    assert fold_pedal(notes, [0.6], [2.0])["offset"].tolist() == [0.5]


def test_a_key_struck_again_ends_its_note():
    notes = make_notes([0, 1, 1.5], [0.5, 1.2, 3], [60, 60, 62], [64, 64, 64])
    folded = fold_pedal(notes, [0.2], [4.0])
    assert folded["offset"].tolist() == [1.0, 4.0, 4.0]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5000), st.integers(1, 900), st.integers(21, 108), st.integers(1, 127)
        ),
        min_size=1,
        max_size=60,
    )
)
def test_no_two_notes_of_a_key_overlap_after_folding(rows):
    onset, length, pitch, velocity = np.array(rows, float).T
    notes = make_notes(onset / 100, (onset + length) / 100, pitch, velocity)
    folded = fold_pedal(notes, [0.0, 20.0], [10.0, 30.0])
    for key in np.unique(folded["pitch"]):
        mine = folded[folded["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:]).all()


def test_midi_round_trip(tmp_path, rng):
    notes = arpeggios(20, rng=rng)
    notes = fold_pedal(notes, [], [])
    write_midi(tmp_path / "a.mid", notes)
    again = read_midi(tmp_path / "a.mid")
    assert again["pitch"].tolist() == notes["pitch"].tolist()
    assert again["velocity"].tolist() == notes["velocity"].tolist()
    np.testing.assert_allclose(again["onset"], notes["onset"], atol=6e-4)
    np.testing.assert_allclose(again["offset"], notes["offset"], atol=1.1e-3)


def test_the_same_notes_give_the_same_bytes(tmp_path, rng):
    notes = arpeggios(5, rng=rng)
    write_midi(tmp_path / "a.mid", notes)
    write_midi(tmp_path / "b.mid", notes)
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_read_midi_folds_pedal_merges_tracks_and_leaves_drums_out(tmp_path):
    from symusic import ControlChange, Note, Score, Track

    score = Score(480)
    for pitch, drum in ((60, False), (64, False), (36, True)):
        track = Track(is_drum=drum)
        track.notes.append(Note(0, 240, pitch, 80))
        if pitch == 60:
            track.controls.append(ControlChange(100, 64, 127))
            track.controls.append(ControlChange(960, 64, 0))
        score.tracks.append(track)
    score.dump_midi(tmp_path / "t.mid")
    notes = read_midi(tmp_path / "t.mid")
    assert notes["pitch"].tolist() == [60, 64]
    np.testing.assert_allclose(notes["offset"], [1.0, 0.25], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with 'MThd'"),
        (b"just text", "does not begin with 'MThd'"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\xff\xff\x90", "broken MIDI file"),
    ],
)
def test_what_is_not_midi_is_refused(tmp_path, content, message):
    path = tmp_path / "x.mid"
    path.write_bytes(content)
    with pytest.raises(MidiError, match=message):
        read_midi(path)


def test_a_midi_file_without_notes_is_empty(tmp_path):
    write_midi(tmp_path / "empty.mid", np.empty(0, NOTE))
    assert len(read_midi(tmp_path / "empty.mid")) == 0


def test_excerpt_begins_at_its_own_zero(rng):
    notes = arpeggios(20, rng=rng)
    cut = excerpt(notes, 5, 10)
    assert 0 <= cut["onset"][0] < 0.3
    assert cut["onset"][-1] < 5
    assert (notes["onset"] >= 0).all()  # the original is left as it was
