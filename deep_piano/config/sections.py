"""Settings: `ray_config.yaml` and the command line become one frozen, validated `Config`.

The only reader of YAML. It knows names, types and ranges; it knows nothing of what is done with
them. The models' defaults are the defaults of the whole program; `ray_config.yaml` at the top of
the repository spells them out, with an explanation each. A file may hold profiles, named groups of
settings that are laid over its own; one of them is chosen by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, overload

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from deep_piano.errors import ConfigError
from deep_piano.infra.storage.bucket import ATTEMPTS

RandomState = Annotated[int, Field(ge=0, lt=2**32)]
Temperature = Annotated[float, Field(ge=0.01, le=5)]
TopP = Annotated[float, Field(gt=0, le=1)]
Guidance = Annotated[float, Field(ge=0, le=10)]
TopK = Annotated[int, Field(ge=0, le=1024)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
Silence = Annotated[float, Field(gt=0, le=604800)]


class _Section(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Temperatures(_Section):
    """Temperature of each attribute of a note, and of a sample; 1 leaves the model as it is."""

    onset: Temperature = 1.0
    pitch: Temperature = 1.0
    velocity: Temperature = 1.0
    duration: Temperature = 1.0
    sample: Temperature = 1.0


class TopPs(_Section):
    """Probability mass to draw each attribute of a note from; 1 is all of it.

    Only pitch is cut: long gaps and lengths are spread over many classes, and cutting each for
    being unlikely makes the music hurry.

    Holtzman et al., *The Curious Case of Neural Text Degeneration*, ICLR 2020.
    """

    onset: TopP = 1.0
    pitch: TopP = 0.95
    velocity: TopP = 1.0
    duration: TopP = 1.0


class TopKs(_Section):
    """How many of the likeliest values to draw each attribute of a note from; 0 is all of them."""

    onset: TopK = 0
    pitch: TopK = 0
    velocity: TopK = 0
    duration: TopK = 0


class Guidances(_Section):
    """How strongly each attribute of a note follows the seed; 1 is as the network learned it."""

    onset: Guidance = 1.0
    pitch: Guidance = 4.0
    velocity: Guidance = 1.0
    duration: Guidance = 1.0


def _for_all(section: type[_Section]) -> BeforeValidator:
    """Let one number stand for every attribute of a section."""

    def spread(value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dict.fromkeys(section.model_fields, value)
        return value

    return BeforeValidator(spread)


class GenerateConfig(_Section):
    """How a seed becomes a piece."""

    seconds: Annotated[float, Field(ge=5, le=3600)] = 180.0
    seed_seconds: Annotated[float, Field(ge=2, le=60)] = 10.0
    seed_start: Annotated[float, Field(ge=0, le=86400)] = 0.0
    temperature: Annotated[Temperatures, _for_all(Temperatures)] = Temperatures()
    top_p: Annotated[TopPs, _for_all(TopPs)] = TopPs()
    top_k: Annotated[TopKs, _for_all(TopKs)] = TopKs()
    guidance: Annotated[Guidances, _for_all(Guidances)] = Guidances()
    hold_density: Annotated[float, Field(ge=0, le=10)] = 1.0
    random_state: RandomState = 0
    takes: Annotated[int, Field(ge=1, le=100)] = 1
    keep: Annotated[int, Field(ge=1, le=100)] | None = None
    checkpoint: Annotated[str, Field(min_length=1)] = "notes"
    sound: Annotated[str, Field(min_length=1)] | None = None
    index: Annotated[str, Field(min_length=1)] | None = None


Share = Annotated[float, Field(ge=0, le=1)]


class BulkConfig(_Section):
    """How a folder of seeds becomes a folder of pieces, beside what `GenerateConfig` says."""

    format: Literal["mp3", "wav", "flac", "ogg", "mid"] = "mp3"
    batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    gpus_per_worker: Share | None = None
    nodes_within_seconds: Seconds = 0.0
    silence_seconds: Silence = 1800.0
    max_failures: Annotated[int, Field(ge=0)] | None = None


Megabytes = Annotated[float, Field(gt=0, le=4096)]


class PrepareConfig(_Section):
    """How a corpus becomes a dataset."""

    codec: Literal["notes", "mulaw", "samples"] = "notes"
    sr: Annotated[int, Field(ge=4_000, le=192_000)] | None = None
    trim_silence_db: Annotated[float, Field(gt=0, le=200)] | None = 60.0
    trim_start_seconds: Seconds = 0.0
    trim_end_seconds: Seconds = 0.0
    min_seconds: Seconds = 10.0
    max_seconds: Annotated[float, Field(ge=0, le=10_000)] = 3600.0
    min_notes: Annotated[int, Field(ge=2, le=100_000)] = 64
    min_density: Annotated[float, Field(ge=0, le=1000)] = 0.2
    max_density: Annotated[float, Field(gt=0, le=1000)] = 50.0
    max_silence_share: Share = 0.8
    max_clipping_share: Share = 0.01
    min_tuning_strength: Share = 0.3
    max_similarity: Annotated[float, Field(gt=0, le=1)] = 0.5
    descriptor_seconds: Seconds = 30.0
    split: Literal["auto", "hash", "metadata", "folder"] = "auto"
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    test_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    group: Annotated[str, Field(min_length=1)] | None = None
    shard_mb: Megabytes = 32.0
    row_group_mb: Megabytes = 1.0
    time_limit_seconds: Annotated[float, Field(gt=0, le=86400)] = 300.0
    silence_seconds: Silence = 7200.0
    max_failures: Annotated[int, Field(ge=0)] | None = None
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    transcribers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    gpus_per_transcriber: Share = 0.25

    @field_validator("group")
    @classmethod
    def _is_a_pattern_with_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"a regular expression ({error})") from error
            if not groups:
                raise ValueError("a regular expression with a group in parentheses")
        return pattern


class StorageConfig(_Section):
    """Where `s3://` leads; credentials come from the environment or the machine's role alone."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    region: Annotated[str, Field(min_length=1)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = ATTEMPTS


class TrainConfig(_Section):
    """How a dataset becomes a checkpoint."""

    preset: Literal["tiny", "small", "base", "large"] = "base"
    target: Annotated[int, Field(ge=1, le=1024)] | None = None
    window: Annotated[int, Field(ge=8, le=8192)] = 64
    hop: Annotated[int, Field(ge=1, le=8192)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 7_000
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 0.003
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 200
    decay_steps: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    mean_of_weights: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    clip_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    transpose_semitones: Annotated[int, Field(ge=0, le=12)] = 6
    tempo_range: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    velocity_range: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    transcription_noise: Annotated[float, Field(ge=0, le=1)] = 0.5
    input_noise: Annotated[float, Field(ge=0, le=1)] = 0.08
    eval_every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 250
    patience: Annotated[int, Field(ge=1, le=10_000)] | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    random_state: RandomState = 0
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    cpus_per_worker: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0, le=16)] | None = None
    nodes_within_seconds: Seconds = 0.0
    silence_seconds: Silence = 1800.0
    max_failures: Annotated[int, Field(ge=0, le=1000)] = 3

    @property
    def decay(self) -> int:
        """How many of the last updates the learning rate falls over."""
        return self.steps // 5 if self.decay_steps is None else min(self.decay_steps, self.steps)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hop is not None and self.hop > self.window:
            raise ValueError(f"such that hop is at most window ({self.window})")
        if self.workers is not None and self.batch % self.workers:
            raise ValueError(f"such that workers divide batch ({self.batch})")
        return self


class Config(_Section):
    """Every setting, one section a command."""

    generate: GenerateConfig = GenerateConfig()
    bulk: BulkConfig = BulkConfig()
    prepare: PrepareConfig = PrepareConfig()
    storage: StorageConfig = StorageConfig()
    train: TrainConfig = TrainConfig()


class _Profile(Config):
    """What a profile may hold: any setting, and the name of the profile that it extends."""

    extends: Annotated[str, Field(min_length=1)] | None = None


class _Document(Config):
    """What a file may hold: settings, and profiles by name."""

    profiles: dict[str, dict[Any, Any]] = {}


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    *,
    profile: str | None = None,
) -> Config:
    """Read the settings.

    Parameters
    ----------
    path : Path, optional
        A YAML file; what it does not name keeps its default. Without one: the defaults.
    overrides : mapping of str to mapping of str to object, optional
        Section to setting to value, from the command line. They win over the file's. A value of
        None means "not given".
    profile : str, optional
        One of the file's profiles: its settings win over the file's own.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        When the file cannot be read, a setting is unknown or out of its range, or there is no such
        profile. The profiles that are not chosen are looked at as well.

    Examples
    --------
    >>> load_config(None, {"generate": {"seconds": 60, "takes": None}}).generate.seconds
    60.0
    """
    config = Config() if path is None else _read_document(path, profile)
    if path is None and profile is not None:
        raise ConfigError(
            f"the profile {profile!r} can only be one of a file of settings. Give that as well, as "
            "--config ray_config.yaml."
        )
    if not overrides:
        return config
    given = {section: _without_none(settings) for section, settings in overrides.items()}
    # Only what was set, so that it can be told afterwards.
    return _validate(_merge(config.model_dump(exclude_unset=True), given), "the command line")


def _read_document(path: Path, profile: str | None) -> Config:
    """Return the settings of a file, those of one profile laid over its own."""
    document = _validate(_read_yaml(path), str(path), _Document)
    own = document.model_dump(exclude_unset=True, exclude={"profiles"})
    of_profiles = {
        name: _lay_over(own, document.profiles, name, path) for name in document.profiles
    }
    if profile is None:
        return _validate(own, str(path))
    return of_profiles[_require_profile(profile, of_profiles, str(path))]


def _lay_over(
    own: Mapping[str, Any], profiles: Mapping[str, Mapping[Any, Any]], name: str, path: Path
) -> Config:
    """Return the settings of a profile: the file's own, what it extends, then its own."""
    line = [name]
    while (parent := profiles[line[-1]].get("extends")) is not None:
        where = f"the profile {line[-1]!r} of {path}"
        line.append(_require_profile(parent, profiles, where))
        if line.count(parent) > 1:
            raise ConfigError(
                f"profiles extend one another in a circle: {' -> '.join(line)} (in {path}). Let "
                "one of them extend none."
            )
    merged = dict(own)
    for one in reversed(line):
        merged = _merge(merged, profiles[one])
        laid = _validate(merged, f"the profile {one!r} of {path}", _Profile)
        merged = laid.model_dump(exclude_unset=True, exclude={"extends"})
    return _validate(merged, str(path))


def _require_profile(name: object, profiles: Iterable[str], source: str) -> str:
    known = list(profiles)
    if isinstance(name, str) and name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."
    raise ConfigError(f"there is no profile {name!r}: {hint} (in {source})")


def _without_none(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if value is not None}


def _merge(settings: Mapping[Any, Any], given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return settings with what is given in their place, group by group."""
    merged = dict(settings)
    for name, value in given.items():
        before = merged.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merge(before, value)
        else:
            merged[name] = value
    return merged


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, and reads 1e-3 as a number (YAML 1.2)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{name!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read_yaml(path: Path) -> object:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(
            f"cannot read the settings {path}: {error.strerror}. Give a YAML file, or none."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings {path} are not UTF-8 text: {error.reason}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"the settings {path}{where} cannot be understood: {problem}.") from error
    return {} if tree is None else tree


Settings = TypeVar("Settings", bound=Config)


@overload
def _validate(tree: object, source: str) -> Config: ...


@overload
def _validate(tree: object, source: str, kind: type[Settings]) -> Settings: ...


def _validate(tree: object, source: str, kind: type[Config] = Config) -> Config:
    try:
        return kind.model_validate(tree)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{_explain(error, kind)} (in {source})") from invalid


def _explain(error: Mapping[str, Any], kind: type[Config]) -> str:
    """Return one line: which setting, what is wrong with it, what was received."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "invalid_key":
        return f"a setting's name must be a word. Received: {error['input']!r}"
    if error["type"] == "extra_forbidden":
        near = _nearest(name, kind)
        hint = f"did you mean {near!r}?" if near else "see ray_config.yaml for those there are."
        return f"there is no setting {name!r}: {hint}"
    received = re.sub(r"\s+", " ", repr(error["input"]))[:60]
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{name or 'the whole'} must be a group of settings. Received: {received}"
    wrong = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"the setting {name!r} must be {wrong}. Received: {received}"


def _nearest(unknown: str, kind: type[Config]) -> str | None:
    """Return the known setting with the name most alike, preferring the same section."""
    known = list(_names(kind))
    parent, _, leaf = unknown.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(known)}
    for candidates in (beside, anywhere):
        matches = difflib.get_close_matches(leaf, candidates, n=1)
        if matches:
            return candidates[matches[0]]
    return None


def _names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield the dotted names of all sections and settings."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")
