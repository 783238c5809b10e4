"""Folders, local or on S3, and files that appear whole or not at all."""

from deep_piano.infra.storage.atomic import atomic_path, require_free, sha256_of
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.infra.storage.open import open_folder, require_apart

__all__ = [
    "Entry",
    "Folder",
    "atomic_path",
    "open_folder",
    "require_apart",
    "require_free",
    "sha256_of",
]
