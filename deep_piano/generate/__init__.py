"""A seed becomes a piece; a folder of seeds, a folder of pieces."""

from deep_piano.generate.on_ray import generate
from deep_piano.generate.piece import make_pieces

__all__ = ["generate", "make_pieces"]
