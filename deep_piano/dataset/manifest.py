"""The manifest of a dataset: its format, read and validated.

Knows the file and its parts; `prepare.commit` writes it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deep_piano.dataset.shards import SHARD_NAME
from deep_piano.dataset.summary import HISTOGRAM_EDGES
from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.folder import Folder

MANIFEST: Final = "manifest.json"
REJECTS: Final = "rejects.csv"
LEDGER: Final = "files.parquet"
FORMAT: Final = 1

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Length = Annotated[float, Field(ge=0, lt=1e15)]


class _Part(BaseModel):
    """A part of a manifest, as far as something reads it; more may stand beside it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Amount(_Part):
    recordings: _Count
    steps: _Count
    duration_s: _Length


class _Group(_Amount):
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


class _Totals(_Amount):
    files: _Count
    ignored: _Count
    drops: _Count
    failures: _Count
    bytes: _Count
    splits: dict[str, _Amount]


class _Histogram(_Part):
    edges: Annotated[list[float], Field(min_length=2)]
    counts: list[_Count]

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or sorted(set(self.edges)) != self.edges:
            raise ValueError("counts between edges that ascend")
        return self


class _Numbers(_Part):
    count: _Count
    mean: float | list[float] | None
    min: float | None = None
    max: float | None = None
    histogram: _Histogram | None = None


class _Summary(_Part):
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


class _Rejected(_Part):
    model_config = ConfigDict(extra="forbid")

    name: str
    kind: str
    rule: str
    reason: str
    value: float | None = None
    limit: float | None = None
    source_sha256: str = ""


class _Manifest(_Part):
    format: Literal[1]
    codec: _Codec
    settings: _Settings
    settings_digest: str
    reading_digest: str
    corpus: _Corpus
    totals: _Totals
    summary: _Summary
    shards: list[_Shard]
    rejects: list[_Rejected]


def read_manifest(dataset: Folder) -> dict[str, Any] | None:
    """Return a dataset's manifest; None where there is none.

    Raises
    ------
    InputError
        When it cannot be understood.
    """
    if not dataset.exists(MANIFEST):
        return None
    problem, manifest = "", {}
    try:
        manifest = dict(json.loads(dataset.read_bytes(MANIFEST)))
        if manifest.get("format") != FORMAT:
            was = repr(manifest.get("format"))[:40]
            problem = f"has the format {was}, and this version writes {FORMAT}"
        else:
            _Manifest.model_validate(manifest)
    except ValidationError as invalid:
        problem = f"is broken: {_what_is_wrong(invalid)}"
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"is broken: {error}"
    if problem:
        raise InputError(
            f"{dataset.place(MANIFEST)} {one_line(problem)}. Prepare into another folder, or remove"
            " that file."
        )
    return manifest


def _what_is_wrong(invalid: ValidationError) -> str:
    """Return what the first part is that is missing or of another kind, or which are missing."""
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    missing = sorted(
        str(one["loc"][0]) for one in errors if one["type"] == "missing" and len(one["loc"]) == 1
    )
    if missing:
        return f"it lacks {', '.join(missing)}"
    where = ".".join(map(str, errors[0]["loc"]))
    return f"{where}: {errors[0]['msg'].removeprefix('Value error, ')}"[:200]
