"""A sequence goes on step by step: two codecs, two engines each (NumPy or Numba, and XLA)."""

from deep_piano.decoding.base import Continuation, Sampling

__all__ = ["Continuation", "Sampling"]
