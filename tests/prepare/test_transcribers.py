"""The pool of transcribers takes what the cluster has, and gives it back."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import DeepPianoError
from deep_piano.infra.cluster.scheduling import Silence
from deep_piano.prepare import transcribers
from deep_piano.prepare.ingest import TranscriberLostError
from deep_piano.prepare.plan import ShardPlan
from deep_piano.prepare.sources import Source
from deep_piano.prepare.transcribers import Pool, no_transcriber
from tests.support.clusters import one_node
from tests.support.fakes import fake_transcriber

pytestmark = pytest.mark.ray

SOUND, MIDI = Source("a.mp3", 1, "a"), Source("b.mid", 1, "b")


def shard(name):
    return ShardPlan(name, (SOUND,), ())


def silence(limit_s=300.0):
    return Silence(limit_s, "a_setting")


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with one_node(cpus=2):
        yield


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 2), ({"transcribers": 1}, 1), ({"workers": 1}, 1)]
)
def test_transcribers_hold_cpus(settings, count):
    with Pool(fake_transcriber, PrepareConfig(**settings)) as pool:
        pool.start_for([SOUND])
        assert pool.in_flight == 2 * count
        assert pool.cpus_beside == 0
        handles = [pool.take(shard(str(n)), silence()) for n in range(4)]
        tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
        notes, pedal = handles[0](tone, 16_000)
        assert (len(notes) > 0, pedal) == (True, 0.5)
        assert pool.transcribed_s() == [1.0]
        pool.release(shard("0"))
        assert pool.transcribed_s() == []


@pytest.mark.parametrize(
    ("codec", "sources"), [("notes", [MIDI]), ("notes", []), ("mulaw", [SOUND])]
)
def test_nothing_is_started_where_nothing_is_to_be_transcribed(codec, sources):
    with Pool(fake_transcriber, PrepareConfig(codec=codec)) as pool:
        pool.start_for(sources)
        assert pool.in_flight == 0
        assert pool.take(shard("0"), silence()) is None
        assert pool.transcribed_s() == []


def test_a_pool_without_a_place_is_waited_for_so_long_and_no_longer(monkeypatch):
    with (
        Pool(fake_transcriber, PrepareConfig()) as other,
        Pool(fake_transcriber, PrepareConfig()) as pool,
    ):
        other.start_for([SOUND])  # it holds all CPUs
        monkeypatch.setattr(transcribers, "_SETTLING_S", 0)
        pool.start_for([SOUND])
        with pytest.raises(DeepPianoError, match=r"for 2 s of the 1 tasks .* a_setting sets"):
            pool.take(shard("1"), silence(2))


def test_without_a_pool_nothing_is_transcribed():
    with pytest.raises(TranscriberLostError):
        no_transcriber(np.zeros(1, np.float32), 16_000)
