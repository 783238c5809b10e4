"""Numbers that several decoders share; those of notes stand in `rules` and `codecs.notes`."""

from __future__ import annotations

from typing import Final

NORM_EPSILON: Final = 1e-3
"""Keras's default for LayerNormalization."""

# How the energy of sound is held: that of the samples, and of what is added to the linear
# prediction, is measured over so many; what is added is multiplied by what brings both back, at
# most by so much.
LEVEL_STEPS: Final = 16_384
MOST_GAIN: Final = 2.0
LARGEST_ADDITION: Final = 10.0
"""At once, in the filter's mean errors on the seed: more is a click, and it rings."""
ROOM: Final = 16.0
"""Times full scale that is fed back: a filter that is fed its own clipped output can lock."""
