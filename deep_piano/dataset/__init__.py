"""The dataset that `prepare` writes and `train` reads: rows, shards, manifest."""

from deep_piano.dataset.manifest import Manifest, read_manifest
from deep_piano.dataset.reader import Dataset
from deep_piano.dataset.rows import Reject, Row

__all__ = ["Dataset", "Manifest", "Reject", "Row", "read_manifest"]
