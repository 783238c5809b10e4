"""The compiled rule beside the reference, `decoding.apart.Apart`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import PITCHES
from deep_piano.decoding.apart import Apart
from tests.decoding.test_apart import music

pytestmark = [pytest.mark.tf, pytest.mark.slow]

PIECES = 3


class Compiled:
    """The rows of several pieces, of which one is looked at, as if they were an `Apart`."""

    def __init__(self, index, most, *, mine=1):
        import tensorflow as tf

        from deep_piano.decoding import notes_xla_apart as it

        gram, entries = index.table(most)
        kept, free = (
            SimpleNamespace(task=SimpleNamespace(corpus=corpus, most_shared=most))
            for corpus in (index, None)
        )
        rows = [it.apart_row(kept if n == mine else free, gram) for n in range(PIECES)]
        self.rows = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        self.rows["struck"] = np.zeros((PIECES, PITCHES), bool)
        self.mine, self.table = mine, tf.constant(entries)
        self._without_copies = tf.function(it.without_copies, jit_compile=True, autograph=False)
        self._take = tf.function(it.take_apart, jit_compile=True, autograph=False)

    def without_copies(self, choices, onset):
        several = [np.tile(choice, (PIECES, 1)) for choice in choices]
        found = self._without_copies(self._rows, self.table, several, self._onsets(onset)).numpy()
        others = [n for n in range(PIECES) if n != self.mine]
        assert (found[others] == choices[0]).all()
        return found[self.mine]

    def take(self, onset, key):
        after = self._take(self._rows, self.table, self._onsets(onset))
        self.rows |= {name: value.numpy() for name, value in after.items()}
        if onset:
            self.rows["struck"][:] = False
        self.rows["struck"][:, key] = True

    @property
    def _rows(self):
        import tensorflow as tf

        return {name: tf.constant(value) for name, value in self.rows.items()}

    def _onsets(self, onset):
        import tensorflow as tf

        return tf.fill([PIECES], tf.constant(onset, tf.int64))


@pytest.mark.parametrize(
    ("kind", "most", "chord"),
    [(CorpusIndex, 8, 0.0), (CorpusIndex, 11, 0.65), (CompactIndex, 12, 0.3)],
)
def test_the_same_keys_are_left_out(kind, most, chord):
    rng = np.random.default_rng(0)
    corpus = [(str(n), music(rng, 3000, chord=chord)) for n in range(4)]
    index, exact = kind.build(corpus), CorpusIndex.build(corpus)
    made, expected = (
        music(np.random.default_rng(1), 150, apart(index, most), chord=chord)
        for apart in (Compiled, Apart)
    )
    np.testing.assert_array_equal(made, expected)
    assert max(one.longest_run(made).notes for one in (index, exact)) <= most
    free = music(np.random.default_rng(1), 150, chord=chord)
    assert index.longest_run(free).notes > most


@pytest.mark.parametrize("kind", [CorpusIndex, CompactIndex])
def test_a_corpus_without_runs_bars_nothing(kind):
    index = kind.build([("short", music(np.random.default_rng(0), 8))])
    made = music(np.random.default_rng(1), 40, Compiled(index, 12))
    np.testing.assert_array_equal(made, music(np.random.default_rng(1), 40, Apart(index, 12)))
