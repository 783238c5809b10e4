"""A sequence goes on step by step: two codecs, two engines each (NumPy or Numba, and XLA)."""
