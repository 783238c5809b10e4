"""Settings: one frozen, validated `Config`, with a section for each command.

This module knows names, types and ranges; it knows nothing of their use. Its defaults are those of
the whole program; `ray_config.yaml` in the repository lists and explains them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from deep_piano.infra.storage.bucket import ATTEMPTS

RandomState = Annotated[int, Field(ge=0, lt=2**32)]
Temperature = Annotated[float, Field(ge=0.01, le=5)]
TopP = Annotated[float, Field(gt=0, le=1)]
MinP = Annotated[float, Field(ge=0, lt=1)]
Guidance = Annotated[float, Field(ge=0, le=10)]
TopK = Annotated[int, Field(ge=0, le=1024)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
SpanEnd = Annotated[float, Field(ge=2, le=3600)]
Silence = Annotated[float, Field(gt=0, le=604800)]


class _Section(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Temperatures(_Section):
    """Temperature of each attribute of a note, and of a sample; 1 leaves the model unchanged.

    Durations are drawn a little colder, so that notes end together as often as with a pedal.
    """

    onset: Temperature = 1.0
    pitch: Temperature = 1.0
    velocity: Temperature = 1.0
    duration: Temperature = 0.95
    sample: Temperature = 1.0


class TopPs(_Section):
    """Probability mass to draw each attribute of a note from; 1 is all of it.

    Only pitch is cut: long gaps and lengths are spread over many unlikely classes, and without
    them the music hurries.

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


class MinPs(_Section):
    """How likely a value of each attribute must be beside the likeliest to be drawn; 0 is off."""

    onset: MinP = 0.0
    pitch: MinP = 0.0
    velocity: MinP = 0.0
    duration: MinP = 0.0


class Guidances(_Section):
    """How strongly each attribute of a note follows the seed; 1 is as trained."""

    onset: Guidance = 1.0
    pitch: Guidance = 2.5
    velocity: Guidance = 1.0
    duration: Guidance = 1.0


def _for_all(section: type[_Section]) -> BeforeValidator:
    """Accept one number for all attributes of a section."""

    def spread(value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dict.fromkeys(section.model_fields, value)
        return value

    return BeforeValidator(spread)


_KEY = re.compile("[A-G][#b]? (major|minor)")


def _is_a_key(name: str) -> str:
    if name not in ("free", "stay") and not _KEY.fullmatch(name):
        raise ValueError("free, stay, or a key such as A minor or Bb major")
    return name


KeyName = Annotated[str, AfterValidator(_is_a_key)]
Density = Annotated[float, Field(ge=0.25, le=4)]
RegisterShift = Annotated[float, Field(ge=-24, le=24)]
Dynamics = Annotated[float, Field(ge=0.25, le=4)]
SEED = "seed"
"""What a section of a plan recalls where it is the seed."""


class PlanSection(_Section):
    """A section of a piece; the first one holds the seed, and the last one lasts to the end."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    recall: str | None = None
    transpose: Annotated[int, Field(ge=-24, le=24)] = 0
    strength: Annotated[float, Field(ge=0, le=20)] = 5.0
    vary: Annotated[float, Field(ge=0, le=20)] = 0.0
    density: Density = 1.0
    register_shift: RegisterShift = 0.0
    dynamics: Dynamics = 1.0
    key: KeyName | None = None
    bridge: Annotated[float, Field(ge=0, le=30)] = 6.0


SHORTEST_FILL_S, LONGEST_FILL_S = 1.0, 60.0
_BESIDE_REMIX = ("keep_until", "form", "plan", "keep_recording", "two_tracks")
USELESS: Final[Mapping[str, tuple[str, ...]]] = {
    "between": ("remix", "seed_start", "seed_end", *_BESIDE_REMIX),
    "rhythm": (*_BESIDE_REMIX, "density", "hold_density", "hold_beat", "dynamics"),
    "pitches": (*_BESIDE_REMIX, "register_shift", "key", "most_shared"),
}
"""The settings that are of no use for a span made anew, and for a remix that keeps the one thing or
the other."""


class GenerateConfig(_Section):
    """How a seed becomes a piece."""

    seconds: Annotated[float, Field(ge=5, le=3600)] = 180.0
    seed_seconds: Annotated[float, Field(ge=2, le=60)] = 10.0
    seed_start: Annotated[float, Field(ge=0, le=86400)] | None = None
    seed_end: Annotated[float, Field(ge=2, le=86400)] | None = None
    keep_until: Annotated[float, Field(ge=2, le=3600)] | None = None
    between: Annotated[list[SpanEnd], Field(min_length=2, max_length=2)] | None = None
    remix: Literal["rhythm", "pitches"] | None = None
    temperature: Annotated[Temperatures, _for_all(Temperatures)] = Temperatures()
    top_p: Annotated[TopPs, _for_all(TopPs)] = TopPs()
    top_k: Annotated[TopKs, _for_all(TopKs)] = TopKs()
    guidance: Annotated[Guidances, _for_all(Guidances)] = Guidances()
    min_p: Annotated[MinPs, _for_all(MinPs)] = MinPs()
    hold_density: Annotated[float, Field(ge=0, le=10)] = 1.0
    hold_beat: Annotated[float, Field(ge=0, le=3)] = 1.0
    form: Literal["auto", "free", "aba", "rondo", "theme"] = "auto"
    plan: list[PlanSection] | None = None
    density: Density = 1.0
    register_shift: RegisterShift = 0.0
    dynamics: Dynamics = 1.0
    key: KeyName = "free"
    candidates: Annotated[int, Field(ge=1, le=64)] = 4
    random_state: RandomState = 0
    takes: Annotated[int, Field(ge=1, le=100)] = 1
    keep: Annotated[int, Field(ge=1, le=100)] | None = None
    checkpoint: Annotated[str, Field(min_length=1)] = "notes"
    sound: Annotated[str, Field(min_length=1)] | None = None
    index: Annotated[str, Field(min_length=1)] | None = None
    most_shared: Annotated[int, Field(ge=8, le=1024)] | None = None
    midi: Literal["pedal", "sounding"] = "pedal"
    two_tracks: bool = False
    score: bool = False
    keep_recording: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.keep is not None and self.keep > self.takes:
            raise ValueError(f"such that keep ({self.keep}) is at most takes ({self.takes})")
        if self.keep_until is not None and self.seed_end is not None:
            raise ValueError("such that only one of keep_until and seed_end is given")
        if self.keep_until is not None and self.keep_until < (self.seed_start or 0) + 2:
            raise ValueError(
                f"such that keep_until ({self.keep_until:g}) is 2 s or more beyond seed_start "
                f"({self.seed_start or 0:g})"
            )
        if self.seed_start is not None and self.seed_end is not None:
            between = self.seed_end - self.seed_start
            if not 2 <= between <= 60:
                raise ValueError(
                    f"such that there are 2 to 60 s between seed_start ({self.seed_start:g}) and "
                    f"seed_end ({self.seed_end:g})"
                )
        densities = [self.density, *(part.density for part in self.plan or [])]
        if self.hold_density == 0 and set(densities) != {1.0}:
            raise ValueError("such that hold_density is above 0: it holds the density asked for")
        if self.two_tracks and self.midi == "sounding":
            raise ValueError("such that only one of two_tracks and midi: sounding is given")
        if self.plan is not None:
            self._require_sound(self.plan)
        return self

    @model_validator(mode="after")
    def _remade_fits_together(self) -> Self:
        if self.between is not None:
            begin_s, end_s = self.between
            if not SHORTEST_FILL_S <= end_s - begin_s <= LONGEST_FILL_S:
                raise ValueError(
                    f"such that between ({begin_s:g} to {end_s:g} s) lasts {SHORTEST_FILL_S:g} to "
                    f"{LONGEST_FILL_S:g} s"
                )
        asked = ("between", "between" if self.between else None), ("remix", self.remix)
        for name, kind in asked:
            given = [
                other
                for other in (USELESS[kind] if kind else ())
                if getattr(self, other) != type(self).model_fields[other].get_default()
            ]
            if given:
                raise ValueError(f"such that only one of {name} and {given[0]} is given")
        return self

    def _require_sound(self, plan: list[PlanSection]) -> None:
        """Raise ValueError where a plan's sections do not go together."""
        if self.form not in ("auto", "free"):
            raise ValueError(f"such that there is a plan or a form ({self.form}), not both")
        if not plan:
            raise ValueError("such that the plan has a section")
        known = [SEED]
        for part in plan:
            if part.name in known:
                raise ValueError(f"such that one section of the plan is named {part.name!r}")
            if part.recall not in (None, *known):
                raise ValueError(
                    f"such that section {part.name!r} recalls one before it "
                    f"({', '.join(known)}), not {part.recall!r}"
                )
            known.append(part.name)
        if any(part.seconds is None for part in plan[:-1]):
            raise ValueError("such that all sections of the plan but the last have seconds")
        planned_s = sum(part.seconds or 0.0 for part in plan)
        if planned_s > self.seconds:
            raise ValueError(
                f"such that the plan ({planned_s:g} s) is no longer than the piece "
                f"({self.seconds:g} s)"
            )

    def seed_within(self, ends_s: float | None) -> tuple[float, float]:
        """Return where the seed begins in a recording, and how long it is at most, in seconds.

        Parameters
        ----------
        ends_s : float or None
            When the music of the recording ends; None where it is not known.
        """
        if self.keep_until is not None:
            start_s = self.seed_start or 0.0
            return start_s, self.keep_until - start_s
        if self.seed_start is not None:
            end_s = self.seed_end or self.seed_start + self.seed_seconds
            return self.seed_start, end_s - self.seed_start
        if self.seed_end is not None:
            start_s = max(0.0, self.seed_end - self.seed_seconds)
            return start_s, self.seed_end - start_s
        return max(0.0, (ends_s or 0.0) - self.seed_seconds), self.seed_seconds


Share = Annotated[float, Field(ge=0, le=1)]


class BulkConfig(_Section):
    """How a folder of seeds becomes a folder of pieces, in addition to `GenerateConfig`."""

    format: Literal["mp3", "wav", "flac", "ogg", "mid", "musicxml"] = "mp3"
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
    """The service behind `s3://`; credentials come from the environment or a role only."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    region: Annotated[str, Field(min_length=1)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = ATTEMPTS


class TrainConfig(_Section):
    """How a dataset becomes a checkpoint."""

    preset: Literal["tiny", "small", "base", "large"] = "base"
    layers: Annotated[int, Field(ge=1, le=64)] | None = None
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
    input_noise: Annotated[float, Field(ge=0, le=1)] = 0.05
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
        """The number of updates of the decay."""
        return self.steps // 5 if self.decay_steps is None else min(self.decay_steps, self.steps)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hop is not None and self.hop > self.window:
            raise ValueError(f"such that hop is at most window ({self.window})")
        if self.workers is not None and self.batch % self.workers:
            raise ValueError(f"such that workers divide batch ({self.batch})")
        return self


class Config(_Section):
    """All settings, with a section for each command."""

    generate: GenerateConfig = GenerateConfig()
    bulk: BulkConfig = BulkConfig()
    prepare: PrepareConfig = PrepareConfig()
    storage: StorageConfig = StorageConfig()
    train: TrainConfig = TrainConfig()
