from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import PITCH, classes, encode, excerpt
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import InputError
from deep_piano.train.windows import held_out_batches, training_batches
from tests.support.fakes import SOUND_CODECS, arpeggios
from tests.support.rows import arpeggio_rows, note_row, sound_row, write_dataset

NOTES = CODECS["notes"]
PLAIN = TrainConfig(
    batch=4,
    window=16,
    transpose_semitones=0,
    tempo_range=0.0,
    velocity_range=0.0,
    transcription_noise=0.0,
    input_noise=0.0,
    random_state=3,
)


@pytest.fixture(scope="module", params=[1e6, 800], ids=["few row groups", "many row groups"])
def dataset(request, tmp_path_factory):
    rows = arpeggio_rows(24, seconds=20, held_out=6)
    rows = [row for index, row in enumerate(rows) if index % 5 or index == 0]
    folder = tmp_path_factory.mktemp("dataset")
    return Dataset(write_dataset(folder, rows, row_group_bytes=request.param))


def first(count, dataset, settings, **share):
    with training_batches(dataset, settings, **share) as batches:
        return list(islice(batches, count))


def arrays(batch):
    return vars(batch) | batch.known._asdict() | {"known": np.zeros(0)}


def same(a, b):
    pairs = zip(arrays(a).values(), arrays(b).values(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_held_out_recordings_are_played_once_and_in_order(rng):
    sequences = [encode(arpeggios(seconds, rng=rng)) for seconds in (8, 30, 17)]
    played: dict[int, list[np.ndarray]] = {}
    playing = {}
    for batch, places in held_out_batches(sequences, NOTES, batch=2, window=16):
        for slot in range(2):
            if batch.keep[slot] == 0 and batch.weights[slot].any():
                playing[slot] = int(places[slot])
            assert (places[slot] >= 0) == batch.weights[slot].any()
            length = int(batch.weights[slot].sum())
            if length:
                played.setdefault(playing[slot], []).append(batch.targets[slot, :length])
                assert (batch.steps[slot, 1:length] == batch.targets[slot, : length - 1]).all()
    assert list(played) == [1, 2, 0]  # the longest first
    for index, sequence in enumerate(sequences):
        np.testing.assert_array_equal(np.concatenate(played[index]), classes(sequence[1:]))


@pytest.mark.parametrize("given", [2, 16, 17, 18, 33, 100])
def test_given_steps_are_input_but_not_targets(rng, given):
    sequences = [encode(arpeggios(seconds, rng=rng)) for seconds in (30, 8)]
    targets: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for batch, places in held_out_batches(sequences, NOTES, batch=2, window=16, given=given):
        for slot, place in enumerate(places[places >= 0]):
            targets[int(place)].append(batch.targets[slot, batch.weights[slot] > 0])
    for index, sequence in enumerate(sequences):
        np.testing.assert_array_equal(np.concatenate(targets[index]), classes(sequence[given:]))


def test_context_is_that_of_the_step_before_the_target(rng):
    sequence = encode(arpeggios(10, rng=rng))
    batch, _ = next(held_out_batches([sequence], NOTES, batch=1, window=20))
    context = NoteContext(1)
    context.start(0)
    played = excerpt(sequence, 0)
    for place in range(20):
        known = [context.advance(played[place : place + 1])]
        known += [
            context.of_field(np.zeros(1, np.int64), played[place + 1 : place + 2, :count])[0]
            for count in range(1, 4)
        ]
        for row, parts in zip(batch.known[:2], zip(*known, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(parts, 1)[0], row[0, place])


def test_a_random_state_fixes_every_batch(dataset):
    settings = PLAIN.model_copy(update={"transpose_semitones": 6, "tempo_range": 0.1})
    once, again = (first(40, dataset, settings) for _ in range(2))
    other = first(40, dataset, settings.model_copy(update={"random_state": 4}))
    assert all(same(a, b) for a, b in zip(once, again, strict=True))
    assert not all(same(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("step", [1, 7, 40])
@pytest.mark.parametrize("hop", [None, 8])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_going_on_is_as_if_it_had_never_stopped(dataset, step, hop, noise):
    noises = {"transcription_noise": noise, "input_noise": noise / 2}
    bent = {"transpose_semitones": 6, "tempo_range": 0.1, "hop": hop, **noises}
    settings = PLAIN.model_copy(update=bent)
    whole = first(step + 10, dataset, settings)
    rest = first(10, dataset, settings, step=step)
    assert all(same(a, b) for a, b in zip(whole[step:], rest, strict=True))


def test_missed_notes_leave_every_play_as_many_windows_as_before(dataset):
    plain = first(60, dataset, PLAIN)
    missed = first(60, dataset, PLAIN.model_copy(update={"transcription_noise": 1.0}))
    assert all((a.keep == b.keep).all() for a, b in zip(plain, missed, strict=True))
    assert sum(b.weights.sum() for b in missed) < sum(b.weights.sum() for b in plain)


def test_half_of_the_plays_have_noise_in_the_input_and_none_in_the_targets(dataset):
    noisy = PLAIN.model_copy(update={"input_noise": 0.3, "window": 64})
    right, wrong = [], []
    for batch in first(40, dataset, noisy):
        whole = batch.weights.all(1)
        for steps, targets in zip(batch.steps[whole], batch.targets[whole], strict=True):
            errors = (steps[1:, PITCH] != targets[:-1, PITCH]).mean()
            (wrong if errors else right).append(errors)
    assert 0.3 < len(right) / (len(right) + len(wrong)) < 0.7
    assert 0.1 < np.mean(wrong) < 0.3  # another note may have the same value


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("step", [0, 13])
def test_workers_share_the_batches_of_one(dataset, world_size, step):
    whole = first(25, dataset, PLAIN, step=step)
    for rank in range(world_size):
        share = first(25, dataset, PLAIN, step=step, rank=rank, world_size=world_size)
        for batch, part in zip(whole, share, strict=True):
            for name, array in arrays(part).items():
                np.testing.assert_array_equal(arrays(batch)[name][rank::world_size], array)


def test_workers_read_row_groups_of_their_own_where_there_are_enough(tmp_path, monkeypatch):
    rows = [note_row(f"{n}.mid", seconds=10, seed=n) for n in range(16)]
    dataset = Dataset(write_dataset(tmp_path, rows, row_group_bytes=1))
    assert len(dataset.row_groups("train")) == 16
    read = {0: set(), 1: set()}
    for rank, seen in read.items():
        monkeypatch.setattr(
            dataset,
            "rows",
            lambda group, seen=seen: seen.add(group) or Dataset.rows(dataset, group),
        )
        settings = PLAIN.model_copy(update={"window": 64})
        first(2, dataset, settings, rank=rank, world_size=2)
    assert read[0]
    assert not read[0] & read[1]


def test_every_recording_is_played_before_any_is_played_again(tmp_path):
    rows = [note_row(f"{n}.mid", seconds=20, seed=n) for n in range(24)]
    for n, row in enumerate(rows):
        row.sequence[:, PITCH] = n  # marks the recording
    dataset = Dataset(write_dataset(tmp_path, rows))
    settings = PLAIN.model_copy(update={"batch": 1, "window": 128})
    order = [int(batch.steps[0, 0, PITCH]) for batch in first(48, dataset, settings)]
    assert sorted(order[:24]) == sorted(order[24:]) == list(range(24))
    assert order[:24] != order[24:]


def test_windows_never_cross_recordings_and_follow_each_other(dataset):
    known = [classes(excerpt(row.sequence, 0)) for row in dataset.recordings("train")]
    for batch in first(30, dataset, PLAIN):
        for slot in range(PLAIN.batch):
            length = int(batch.weights[slot].sum())
            piece = np.concatenate([batch.steps[slot, :length], batch.targets[slot, length - 1 :]])
            piece = piece[: length + 1]
            assert any(
                (piece[1:] == sequence[start + 1 : start + length + 1]).all()
                for sequence in known
                for start in range(len(sequence) - length)
            )


def test_a_hop_shorter_than_the_window_starts_each_anew(dataset):
    settings = PLAIN.model_copy(update={"batch": 1, "hop": 4})
    batches = first(3, dataset, settings)
    assert all(batch.keep[0] == 0 for batch in batches)
    for a, b in pairwise(batches):
        np.testing.assert_array_equal(a.steps[:, 4:], b.steps[:, :-4])
        for one, other in zip(a.known, b.known, strict=True):
            np.testing.assert_array_equal(one[:, 4:], other[:, :-4])


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_sound_has_no_context_and_keeps_its_kind(tmp_path, codec):
    dtype = np.float32 if CODECS[codec].spec.continuous else np.int32
    rows = [sound_row(codec, f"{n}.wav", seed=n) for n in range(4)]
    dataset = Dataset(write_dataset(tmp_path, rows, codec=codec))
    [batch] = first(1, dataset, PLAIN)
    assert batch.steps.dtype == batch.targets.dtype == dtype
    assert [array.shape for array in batch.inputs] == [(4, 16, 1)]
    np.testing.assert_array_equal(batch.steps[:, 1:], batch.targets[:, :-1])


def test_nothing_to_train_on_is_said(tmp_path):
    dataset = Dataset(write_dataset(tmp_path, [note_row(split="test")]))
    with pytest.raises(InputError, match=r"'train'.*holds 0 recordings"):
        first(1, dataset, PLAIN)


def test_recordings_of_one_step_are_nothing_to_train_on(tmp_path):
    """The search for the first window would have no end."""
    place = write_dataset(tmp_path, [replace(note_row(), sequence=note_row().sequence[:1])])
    with (
        Dataset(place) as dataset,
        pytest.raises(InputError, match="more than one step"),
        training_batches(dataset, TrainConfig(window=8, batch=8)),
    ):
        pass
