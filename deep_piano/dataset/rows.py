"""The content of a dataset: rows of recordings, facts of shards, and rejects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Row:
    """A recording in a dataset.

    Attributes
    ----------
    id : str
        SHA-256 of what was decoded, before any trimming: the samples in 16 bit, or the notes.
    name : str
        The path of its file within the corpus.
    source_sha256 : str
        Of its file's bytes.
    split : str
        "train", "validation" or "test".
    kind : str
        "audio" or "midi".
    duration_s : float
        As decoded and trimmed, in seconds.
    sequence : ndarray, shape (n, fields)
    fingerprint : ndarray of uint32, shape (64,) or (0,)
    audio, notes : AudioFeatures or None, NoteFeatures or None
        None where the recording has no sound, or the codec does not use it.
    """

    id: str
    name: str
    source_sha256: str
    split: str
    kind: str
    duration_s: float
    sequence: NDArray[Any]
    fingerprint: NDArray[np.uint32]
    audio: AudioFeatures | None
    notes: NoteFeatures | None

    @property
    def corpus(self) -> str:
        """The first folder of its name; "." where it lies in none."""
        folder, slash, _ = self.name.partition("/")
        return folder if slash else "."


@dataclass(frozen=True)
class SetAside:
    """A recording that duplicates another one, with the data to reconsider that."""

    reject: Reject
    id: str
    fingerprint: tuple[int, ...]


@dataclass(frozen=True)
class ShardFacts:
    """The facts of a shard, without its sequences.

    Attributes
    ----------
    name : str
    bytes : int
        Of its file.
    sha256 : str
        Of its file.
    digest : str
        Of the settings with which its recordings were read.
    table : pyarrow.Table
        Its rows, without the sequences.
    rejects : tuple of Reject
        Its files that were rejected.
    set_aside : tuple of SetAside
        Its recordings that duplicate others.
    row_groups : tuple of dict
        `split`, `recordings`, `steps` and `duration_s` of each.
    """

    name: str
    bytes: int
    sha256: str
    digest: str
    table: pa.Table
    rejects: tuple[Reject, ...]
    set_aside: tuple[SetAside, ...]
    row_groups: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Reject:
    """A file that was left out, and why.

    Attributes
    ----------
    name : str
        Its path within the corpus.
    kind : str
        "drop": by a rule. "failure": it could not be read.
    rule : str
        The rule's name, such as "too_short".
    reason : str
        For people, one line.
    value, limit : float or None
        The measured value, and the limit of the settings.
    source_sha256 : str
        Of the file's bytes; "" where they could not be read.
    """

    name: str
    kind: str
    rule: str
    reason: str
    value: float | None = None
    limit: float | None = None
    source_sha256: str = ""
