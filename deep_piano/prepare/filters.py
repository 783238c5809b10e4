"""Which recordings are left out of a dataset, and why.

This module knows descriptors and settings; it knows nothing of files or audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
from deep_piano.config.sections import PrepareConfig
from deep_piano.music.audio import SILENCE_DBFS, Samples


@dataclass(frozen=True)
class Broken:
    """A rule that a recording breaks, with the measured value and the limit."""

    rule: str
    reason: str
    value: float | None = None
    limit: float | None = None


def broken_by_peak(samples: Samples) -> Broken | None:
    """Return the rule that a silent recording breaks; samples have shape (n,)."""
    peak, limit = float(np.abs(samples).max(initial=0)), 10 ** (SILENCE_DBFS / 20)
    return _first((peak < limit, "silent", "its peak is {value:.6f} of full scale", peak, limit))


def broken_by_maximum(duration_s: float, settings: PrepareConfig) -> Broken | None:
    """Return the rule that a too long recording breaks."""
    limit = settings.max_seconds
    return _first((duration_s > limit, "too_long", "it is longer", duration_s, limit))


def broken_by_minimum(duration_s: float, settings: PrepareConfig) -> Broken | None:
    """Return the rule that a recording breaks when too little is left after trimming."""
    limit = settings.min_seconds
    reason = "{value:.1f} s of it are left"
    return _first((duration_s < limit, "too_short", reason, duration_s, limit))


def broken_by_sound(features: AudioFeatures, settings: PrepareConfig) -> Broken | None:
    """Return the first rule that a recording's sound breaks; None for none."""
    s, f = settings, features
    return broken_by_minimum(f.duration_s, settings) or _first(
        (
            f.silence_share > s.max_silence_share,
            *("silent", "{value:.0%} of it is silence", f.silence_share, s.max_silence_share),
        ),
        (
            f.clipping_share > s.max_clipping_share,
            *("clipped", "{value:.1%} of its samples are clipped"),
            *(f.clipping_share, s.max_clipping_share),
        ),
        (
            f.tuning_strength < s.min_tuning_strength,
            *("not_piano_like", "its sound hardly keeps to a tuning ({value:.2f})"),
            *(f.tuning_strength, s.min_tuning_strength),
        ),
    )


def broken_by_notes(features: NoteFeatures, settings: PrepareConfig) -> Broken | None:
    """Return the first rule that a recording's notes break; None for none."""
    s, f = settings, features
    return _first(
        (f.notes < s.min_notes, "too_few_notes", "it has {value:.0f} notes", f.notes, s.min_notes),
        (
            f.density_per_s < s.min_density,
            *("too_sparse", "it has {value:.2f} notes a second", f.density_per_s, s.min_density),
        ),
        (
            f.density_per_s > s.max_density,
            *("too_dense", "it has {value:.1f} notes a second", f.density_per_s, s.max_density),
        ),
    )


def _first(*rules: tuple[bool, str, str, float, float]) -> Broken | None:
    for broken, rule, reason, value, limit in rules:
        if broken:
            text = reason.format(value=value, limit=limit)
            return Broken(rule, f"{text} (limit: {limit:g})", round(float(value), 6), float(limit))
    return None
