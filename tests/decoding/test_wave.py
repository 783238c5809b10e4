from __future__ import annotations

import numpy as np
import pytest

from deep_piano.codecs.notes import SPEC
from deep_piano.codecs.registry import CODECS
from deep_piano.decoding.wave import WaveEngine
from deep_piano.errors import CheckpointError
from deep_piano.models.checkpoint import Checkpoint, assign_weights
from deep_piano.models.config import ModelConfig, weight_shapes
from deep_piano.models.linear_prediction import context_of
from deep_piano.models.note_network import build_model
from deep_piano.train.likelihood import losses
from tests.support.fakes import SOUND_CASES, SOUND_CODECS, random_checkpoint, sound_checkpoint


def noise(codec, count, seed=1):
    samples = np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)
    return CODECS[codec].encode(samples)


@pytest.mark.tf
@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_it_foresees_what_the_keras_model_foresees(codec, frame):
    checkpoint, sequence = sound_checkpoint(codec, frame=frame), noise(codec, 203)
    model = build_model(checkpoint.spec, checkpoint.config, batch=1, window=32)
    assign_weights(model, checkpoint.weights)
    sums, steps = losses(
        model, CODECS[codec], [sequence], context_of(CODECS[codec], checkpoint.config)
    )
    mine = WaveEngine(checkpoint).losses(sequence)
    assert len(mine) == steps[0]
    assert mine.sum() == pytest.approx(sums[0, 0], rel=1e-4)


@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_the_same_chances_make_the_same_steps(codec, frame):
    engine, sequence = WaveEngine(sound_checkpoint(codec, frame=frame)), noise(codec, 61)

    def made(seed, **more):
        return engine.decode(sequence, 300, np.random.default_rng(seed), **more)

    assert made(3).shape == (300, 1)
    assert made(3).dtype == sequence.dtype
    np.testing.assert_array_equal(made(3), made(3))
    assert (made(3) != made(4)).any()
    assert np.isfinite(made(3).astype(float)).all()


def test_what_was_made_is_as_likely_as_it_was_drawn():
    engine, sequence = WaveEngine(sound_checkpoint("mulaw", frame=4)), noise("mulaw", 61)
    made = engine.decode(sequence, 400, np.random.default_rng(0))
    cold = engine.decode(sequence, 400, np.random.default_rng(0), temperature=0.2)
    nats = [engine.losses(np.concatenate([sequence, s]))[60:].mean() for s in (made, cold)]
    assert nats[1] < nats[0] < np.log(256)


@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_it_goes_on_where_it_stopped_and_forks_by_other_chances(codec, frame):
    engine, sequence = WaveEngine(sound_checkpoint(codec, frame=frame)), noise(codec, 62)
    expected = engine.decode(sequence, 100, np.random.default_rng(3))
    stream = engine.prefill(sequence, np.random.default_rng(3))
    for count in (1, 0, 6, 13):
        engine.extend(stream, count)
    other = stream.fork(np.random.default_rng(4))
    engine.extend(other, 80)
    engine.extend(stream, 80)
    np.testing.assert_array_equal(np.concatenate(stream.made), expected)
    found = np.concatenate(other.made)
    np.testing.assert_array_equal(found[:20], expected[:20])
    assert (found[20:] != expected[20:]).any()
    engine.extend_to_frame(other)
    assert other.last % frame == 0
    assert other.last == 61 + sum(map(len, other.made))


HZ = np.array([262, 330, 392])


def chords_continued(codec, *, spread):
    """Continue chords by a network of such random weights; return them, and five seconds more."""
    config = ModelConfig(1, 8, 8, frame=8, past=64, order=512, scale=0.1, spectrum=(0.0, -40.0))
    shapes, rng = weight_shapes(CODECS[codec].spec, config), np.random.default_rng(2)
    weights = {name: rng.normal(0, spread, shape).astype("f4") for name, shape in shapes.items()}
    engine = WaveEngine(Checkpoint(CODECS[codec].spec, config, weights))
    t = np.arange(10 * 16_000) / 16_000
    seed = (np.sin(2 * np.pi * HZ[:, None] * t) * np.exp(-2 * (t % 1))).sum(0) * 0.1
    seed += np.random.default_rng(1).normal(0, 1e-3, len(seed))
    heard = CODECS[codec].encode(seed.astype(np.float32))
    return seed, CODECS[codec].to_samples(engine.decode(heard, 80_000, np.random.default_rng(0)))


def louder_db(made, seed):
    energies = [np.mean(np.square(part)) for part in np.split(made, 5)]
    return 10 * np.log10(energies / np.mean(np.square(seed)))


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_what_it_makes_has_the_energy_and_the_pitches_of_what_it_heard(codec):
    seed, made = chords_continued(codec, spread=0.0)
    assert (np.abs(louder_db(made, seed)) < 6).all()
    powers = np.square(np.abs(np.fft.rfft(made * np.hanning(len(made)))))
    near = np.abs(np.arange(len(powers)) / 5 - HZ[:, None]).min(0) < 4
    assert powers[near].sum() > 0.5 * powers.sum()  # in 24 Hz of 8,000


@pytest.mark.parametrize("codec", ["mulaw", "samples"])  # of these sizes, as the weights are random
def test_a_wild_network_neither_runs_away_nor_clicks(codec):
    seed, made = chords_continued(codec, spread=1.0)
    assert (np.abs(louder_db(made, seed)) < 6).all()
    assert np.abs(np.diff(made)).max() < 0.3


def test_notes_are_refused():
    with pytest.raises(CheckpointError, match="'notes-2', which is no sound wave"):
        WaveEngine(random_checkpoint())
    assert SPEC.codec == "notes-2"
