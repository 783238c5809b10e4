from __future__ import annotations

import numpy as np
import pytest

from deep_piano.music.meter import Meter


def test_steady_quarters():
    meter = Meter.steady(0.75)
    assert meter.bpm == pytest.approx(80)
    assert len(set(meter.beat_us)) == 1
    assert meter.quarters([0, 0.75, 3.0, 300]).tolist() == [0, 1, 4, 400]


def test_the_first_quarter_leads_in():
    meter = Meter.steady(0.5, first_s=0.3)
    assert meter.quarters([0, 0.3, 0.8]).tolist() == pytest.approx([0, 1, 2])
    assert meter.bpm == pytest.approx(120)


def test_beats_are_met_to_a_microsecond(rng):
    beat_s = np.r_[0, np.cumsum(rng.uniform(0.4, 0.9, 500))]
    meter = Meter.of_beats(beat_s)
    np.testing.assert_allclose(meter.seconds(np.arange(501)), beat_s, atol=1e-6)


def test_there_and_back(rng):
    meter = Meter.of_beats(np.r_[0, np.cumsum(rng.uniform(0.4, 0.9, 50))])
    seconds = np.sort(rng.uniform(0, 60, 200))  # beyond the last beat, too
    np.testing.assert_allclose(meter.seconds(meter.quarters(seconds)), seconds, atol=1e-9)
