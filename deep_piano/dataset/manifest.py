"""The manifest of a dataset: its format, read and validated.

This module knows the file and its parts; `prepare.commit` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from deep_piano.dataset.shards import SHARD_NAME
from deep_piano.dataset.summary import HISTOGRAM_EDGES
from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.folder import Folder

MANIFEST: Final = "manifest.json"
REJECTS: Final = "rejects.csv"
LEDGER: Final = "files.parquet"
FORMAT: Final = 1


def _as_it_came(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check what is a number, or holds some, and keep it: of 0 pydantic would make 0.0."""
    check(value)
    return value


_AS_IT_CAME = WrapValidator(_as_it_came)
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Number = Annotated[float, _AS_IT_CAME]
_Length = Annotated[float, Field(ge=0, lt=1e15), _AS_IT_CAME]


class _Part(BaseModel):
    """A part of a manifest, with the keys that are read; others are allowed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values, unchanged, with all other keys."""
        # pydantic would warn of a whole number where a list is allowed.
        return self.model_dump(exclude_unset=True, warnings=False)


class Amount(_Part):
    """Sums over some recordings."""

    recordings: _Count
    steps: _Count
    duration_s: _Length


class _Group(Amount):
    split: str


class _Shard(_Part):
    name: Annotated[str, Field(pattern=f"^{SHARD_NAME.pattern}$")]
    bytes: _Count
    sha256: str
    row_groups: list[_Group]


class _FieldOfCodec(_Part):
    name: str
    size: _Count
    continuous: bool
    mu: _Count = 0
    longest: _Count = 0


class _Codec(_Part):
    codec: str
    fields: Annotated[list[_FieldOfCodec], Field(min_length=1)]
    context_size: _Count


class _Settings(_Part):
    sr: _Count | None = None


class _Corpus(_Part):
    digest: str
    uri: str = ""


class _Totals(Amount):
    files: _Count
    ignored: _Count
    left_alone: dict[str, _Count] = {}
    drops: _Count
    failures: _Count
    bytes: _Count
    splits: dict[str, Amount]


class _Histogram(_Part):
    edges: Annotated[list[float], Field(min_length=2), _AS_IT_CAME]
    counts: list[_Count]

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or sorted(set(self.edges)) != self.edges:
            raise ValueError("counts between edges that ascend")
        return self


class _Numbers(_Part):
    count: _Count
    mean: Annotated[float | list[float] | None, _AS_IT_CAME]
    min: _Number | None = None
    max: _Number | None = None
    histogram: _Histogram | None = None


@dataclass(frozen=True)
class Distribution:
    """The distribution of a descriptor over the recordings for which it is known.

    Attributes
    ----------
    edges : sequence of float
        Of the bins, ascending.
    counts : sequence of int
        Of each bin.
    mean, min, max : float
    """

    edges: Sequence[float]
    counts: Sequence[int]
    mean: float
    min: float
    max: float


class Summary(_Part):
    """The summary of the descriptors: counts of keys, and figures of every other one."""

    __pydantic_extra__: dict[str, _Numbers]
    key: dict[str, _Count] = {}

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        for name in HISTOGRAM_EDGES.keys() & self.__pydantic_extra__.keys():
            of = self.__pydantic_extra__[name]
            figures = [isinstance(one, float | int) for one in (of.mean, of.min, of.max)]
            if of.histogram is None or (of.count and not all(figures)):
                raise ValueError(f"a histogram of {name}, and its mean, min and max")
        return self

    def distribution(self, name: str) -> Distribution | None:
        """Return the histogram of a descriptor of `HISTOGRAM_EDGES`; None where none is known."""
        of = self.__pydantic_extra__.get(name)
        if of is None or not of.count:
            return None
        assert of.histogram is not None, name
        assert isinstance(of.mean, float | int), name
        assert of.min is not None, name
        assert of.max is not None, name
        return Distribution(
            edges=[float(edge) for edge in of.histogram.edges],
            counts=of.histogram.counts,
            mean=float(of.mean),
            min=float(of.min),
            max=float(of.max),
        )


class Rejected(_Part):
    """A file that was left out, and why: see `rows.Reject`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    kind: str
    rule: str
    reason: str
    value: _Number | None = None
    limit: _Number | None = None
    source_sha256: str = ""


class Manifest(_Part):
    """A validated manifest.

    Attributes
    ----------
    format : int
        Of the file.
    codec, settings
        What made the sequences, and by which settings.
    settings_digest, reading_digest : str
        Of all settings that the dataset depends on, and of those by which recordings are read.
    corpus
        Where it lay, and the digest of its files.
    totals : Amount
        Of all recordings and of each of the `splits`; `files` found that are recordings by their
        names, and others, `ignored`, which are `left_alone` by kind; `drops` and `failures`; the
        `bytes` of the shards.
    summary : Summary
    shards : list
        The `name`, `bytes` and `sha256` of each, and what its `row_groups` hold.
    rejects : list of Rejected
        By name.
    """

    format: Literal[1]
    codec: _Codec
    settings: _Settings
    settings_digest: str
    reading_digest: str
    corpus: _Corpus
    totals: _Totals
    summary: Summary
    shards: list[_Shard]
    rejects: list[Rejected]


def read_manifest(dataset: Folder) -> Manifest | None:
    """Return a dataset's manifest; None where there is none.

    Raises
    ------
    InputError
        When it cannot be understood.
    """
    if not dataset.exists(MANIFEST):
        return None
    try:
        content = dict(json.loads(dataset.read_bytes(MANIFEST)))
        if content.get("format") == FORMAT:
            return Manifest.model_validate(content)
        was = repr(content.get("format"))[:40]
        problem = f"has the format {was}, and this version writes {FORMAT}"
    except ValidationError as invalid:
        problem = f"is broken: {_what_is_wrong(invalid)}"
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"is broken: {error}"
    raise InputError(
        f"{dataset.place(MANIFEST)} {one_line(problem)}. Prepare into another folder, or remove"
        " that file."
    )


def _what_is_wrong(invalid: ValidationError) -> str:
    """Return the missing parts, or the first invalid one."""
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    missing = sorted(
        str(one["loc"][0]) for one in errors if one["type"] == "missing" and len(one["loc"]) == 1
    )
    if missing:
        return f"it lacks {', '.join(missing)}"
    where = ".".join(map(str, errors[0]["loc"]))
    return f"{where}: {errors[0]['msg'].removeprefix('Value error, ')}"[:200]
