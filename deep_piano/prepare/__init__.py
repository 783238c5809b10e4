"""A corpus becomes a dataset."""

from deep_piano.prepare.dry_run import preview
from deep_piano.prepare.on_ray import prepare

__all__ = ["prepare", "preview"]
