"""Weights and sounds of others: what there is, and where it lies."""

from deep_piano.infra.assets.cache import ensure, fetch, list_assets
from deep_piano.infra.assets.catalogue import ASSETS, Asset

__all__ = ["ASSETS", "Asset", "ensure", "fetch", "list_assets"]
