"""The codecs of sound waves: samples in, classes or numbers out, and back within a stated error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deep_piano.codecs.waveform import decode_mulaw, encode_mulaw, encode_samples

FLOATS = arrays(np.float32, st.integers(0, 50), elements=st.floats(-1, 1, width=32))


@given(FLOATS)
def test_mulaw_comes_back_within_half_a_class(samples):
    back = decode_mulaw(encode_mulaw(samples))
    # Half a class: ln(256)/256 of the distance from -1/255, to first order.
    limit = (np.abs(samples) + 1 / 255) * np.log(256) / 256 * 1.03 + 1e-7
    assert (np.abs(back - samples) <= limit).all()


@given(FLOATS)
def test_mulaw_is_symmetric_and_rising(samples):
    classes = encode_mulaw(np.sort(samples))[:, 0].astype(int)
    assert (np.diff(classes) >= 0).all()
    apart = samples[np.abs(samples) > 1e-6]
    mirrored = 255 - encode_mulaw(-apart).astype(int)
    assert np.abs(mirrored - encode_mulaw(apart)).max(initial=0) <= 1  # at the edge of a class


@pytest.mark.parametrize(("sample", "expected"), [(0, 128), (1, 255), (-1, 0), (7, 255), (-7, 0)])
def test_mulaw_of_zero_full_scale_and_beyond(sample, expected):
    assert encode_mulaw(np.array([sample], np.float32)).tolist() == [[expected]]


def test_every_class_comes_back_as_itself():
    classes = np.arange(256, dtype=np.uint8)[:, None]
    assert np.array_equal(encode_mulaw(decode_mulaw(classes)), classes)
    assert np.allclose(decode_mulaw(classes), -decode_mulaw(classes)[::-1])


def test_samples_stay_what_they_are():
    samples = np.array([0.5, -1.5, 0.0], np.float32)
    assert encode_samples(samples).tolist() == [[0.5], [-1.5], [0.0]]
