from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import PITCHES
from deep_piano.decoding.apart import Apart


def music(rng, count, apart=None, *, keys=(40, 41), chord=0.4):
    """Notes of few keys, so that much is shared; where they are kept apart, one after another."""
    steps = []
    struck = np.zeros(PITCHES, bool)
    some = np.zeros(PITCHES, bool)
    some[keys[0] : keys[1] + 1] = True
    while len(steps) < count:
        onset = int(rng.choice([0, 5, 30], p=[chord, 0.3, 0.7 - chord])) if steps else 7
        if onset:
            struck[:] = False
        if not (some & ~struck).any():
            continue
        free, every = some & ~struck, ~struck
        allowed = free if apart is None else apart.without_copies([free, every], onset)
        key = int(rng.choice(np.flatnonzero(allowed)))
        struck[key] = True
        steps.append([onset, key, 16, 20])
        if apart is not None:
            apart.take(onset, key)
    return np.array(steps, np.uint16)


@pytest.mark.parametrize("chord", [0.0, 0.3, 0.65])
@pytest.mark.parametrize(
    ("kind", "most"), [(CorpusIndex, 8), (CorpusIndex, 11), (CompactIndex, 12)]
)
def test_no_run_is_longer_than_asked_after_any_note(kind, most, chord):
    rng = np.random.default_rng(0)
    corpus = [(str(n), music(rng, 3000, chord=chord)) for n in range(4)]
    index, exact = kind.build(corpus), CorpusIndex.build(corpus)
    free = music(np.random.default_rng(1), 300, chord=chord)
    assert exact.longest_run(free).notes > most
    made = music(np.random.default_rng(1), 300, Apart(index, most), chord=chord)
    for end in range(2, len(made) + 1, 9):
        assert index.longest_run(made[:end]).notes <= most
        assert exact.longest_run(made[:end]).notes <= most


def test_what_shares_nothing_is_not_led():
    rng = np.random.default_rng(0)
    index = CorpusIndex.build([("low", music(rng, 500, keys=(10, 60)))])
    made = music(np.random.default_rng(1), 200, Apart(index, 8), keys=(10, 60))
    assert np.array_equal(made, music(np.random.default_rng(1), 200, keys=(10, 60)))


def test_a_copy_goes_its_own_way():
    index = CorpusIndex.build([("a", music(np.random.default_rng(0), 500))])
    one = Apart(index, 8)
    music(np.random.default_rng(1), 30, one)
    twin = one.copy()
    choices = [np.ones(PITCHES, bool)]
    before = one.without_copies(choices, 5)
    twin.take(5, 12)
    twin.take(0, 20)
    assert np.array_equal(one.without_copies(choices, 5), before)
