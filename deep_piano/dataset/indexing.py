"""An index of a dataset's training split, with which pieces are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import Sequence
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import InputError
from deep_piano.infra.progress import Progress, Tell, no_progress

Kind = TypeVar("Kind", CorpusIndex, CompactIndex)


def index_of(dataset: Dataset, kind: type[Kind], *, progress: Tell = no_progress) -> Kind:
    """Index the training split of a dataset.

    Raises
    ------
    InputError
        When its codec is not `notes`, or the split is empty.
    """
    if not dataset.codec.encodes_notes:
        raise InputError(
            f"the dataset is of the codec {dataset.spec.codec!r}, and only notes can be "
            "indexed. Give one that `deep-piano prepare` made with the codec notes."
        )
    groups = dataset.require("train")
    count = sum(group.recordings for group in groups)

    def recordings() -> Iterator[tuple[str, Sequence]]:
        for done, row in enumerate(dataset.recordings("train"), 1):
            yield row.name, row.sequence
            progress(Progress("indexing", done, count))

    return kind.build(recordings(), dataset=dataset.digest)
