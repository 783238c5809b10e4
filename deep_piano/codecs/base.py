"""What a model needs to know of a codec, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """One attribute of a step: one of `size` classes or, where `continuous`, a real number."""

    name: str
    size: int
    continuous: bool = False


@dataclass(frozen=True)
class SequenceSpec:
    """The shape of a codec's sequences.

    Attributes
    ----------
    codec : str
        The codec's name and version. A checkpoint only serves the codec it was trained on.
    fields : tuple of Field
        The columns of a step, in the order in which they are predicted.
    context_size : int
        How many real-valued features stand beside each step (0: none).
    """

    codec: str
    fields: tuple[Field, ...]
    context_size: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        return {**asdict(self), "fields": [asdict(field) for field in self.fields]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SequenceSpec:
        """Build a specification from what `to_json` returned."""
        fields = tuple(
            Field(str(f["name"]), int(f["size"]), bool(f.get("continuous", False)))
            for f in value["fields"]
        )
        return cls(str(value["codec"]), fields, int(value["context_size"]))
