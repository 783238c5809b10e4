"""How long nothing may be heard of work on Ray; tests/chaos/ shows it with processes that hang."""

from __future__ import annotations

import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.stages import cluster
from deep_piano.stages.cluster import Silence


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still, until a test sets it: a list of the seconds."""
    seconds = [1000.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: seconds[0])
    return seconds


def test_it_may_last_so_long_and_no_longer(clock):
    silence = Silence(60, "bulk.silence_seconds")
    clock[0] += 60
    silence.require_short(3)
    clock[0] += 1
    with pytest.raises(
        DeepPianoError, match=r"for 60 s of the 3 tasks .* bulk.silence_seconds says how long"
    ) as caught:
        silence.require_short(3)
    assert not isinstance(caught.value, InputError)


def test_whatever_is_heard_ends_it(clock):
    silence = Silence(60, "prepare.silence_seconds")
    clock[0] += 50
    silence.end()
    clock[0] += 50
    silence.require_short(1, [])
    silence.require_short(1, [12.0])  # a recording was heard
    clock[0] += 50
    silence.require_short(1, [12.0])
    clock[0] += 50
    with pytest.raises(DeepPianoError, match="for 60 s"):
        silence.require_short(1, [12.0])
