"""Third-party weights and sounds: the catalogue, and the cache."""

from deep_piano.infra.assets.cache import ensure, fetch, list_assets
from deep_piano.infra.assets.catalogue import ASSETS, Asset

__all__ = ["ASSETS", "Asset", "ensure", "fetch", "list_assets"]
