"""Settings: one frozen, validated `Config`, with a section for each command.

This module knows names, types and ranges; it knows nothing of their use. Its defaults are those of
the whole program; `ray_config.yaml` in the repository lists and explains them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

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


class GenerateConfig(_Section):
    """How a seed becomes a piece."""

    seconds: Annotated[float, Field(ge=5, le=3600)] = 180.0
    seed_seconds: Annotated[float, Field(ge=2, le=60)] = 10.0
    seed_start: Annotated[float, Field(ge=0, le=86400)] = 0.0
    keep_until: Annotated[float, Field(ge=2, le=3600)] | None = None
    temperature: Annotated[Temperatures, _for_all(Temperatures)] = Temperatures()
    top_p: Annotated[TopPs, _for_all(TopPs)] = TopPs()
    top_k: Annotated[TopKs, _for_all(TopKs)] = TopKs()
    guidance: Annotated[Guidances, _for_all(Guidances)] = Guidances()
    hold_density: Annotated[float, Field(ge=0, le=10)] = 1.0
    candidates: Annotated[int, Field(ge=1, le=64)] = 4
    random_state: RandomState = 0
    takes: Annotated[int, Field(ge=1, le=100)] = 1
    keep: Annotated[int, Field(ge=1, le=100)] | None = None
    checkpoint: Annotated[str, Field(min_length=1)] = "notes"
    sound: Annotated[str, Field(min_length=1)] | None = None
    index: Annotated[str, Field(min_length=1)] | None = None
    midi: Literal["pedal", "sounding"] = "pedal"
    two_tracks: bool = False
    score: bool = False
    keep_recording: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.keep is not None and self.keep > self.takes:
            raise ValueError(f"such that keep ({self.keep}) is at most takes ({self.takes})")
        if self.keep_until is not None and self.keep_until < self.seed_start + 2:
            raise ValueError(
                f"such that keep_until ({self.keep_until:g}) is 2 s or more beyond seed_start "
                f"({self.seed_start:g})"
            )
        return self

    @property
    def given_seconds(self) -> float:
        """How much of the recording stands before the continuation."""
        if self.keep_until is None:
            return self.seed_seconds
        return self.keep_until - self.seed_start


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
