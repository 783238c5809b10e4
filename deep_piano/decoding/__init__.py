"""A sequence goes on step by step: two codecs, two engines each (NumPy or Numba, and XLA)."""

from deep_piano.decoding.base import Decoder, Sampling
from deep_piano.decoding.open import open_decoder

__all__ = ["Decoder", "Sampling", "open_decoder"]
