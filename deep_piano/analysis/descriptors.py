"""Descriptors: figures of a recording, for filters and charts.

This module knows samples and note arrays; it knows nothing of files, settings, filters or shards.
Spectral descriptors come from one STFT, by librosa, of the middle of the recording.

The same input gives the same figures on one machine as long as the thread pools of BLAS and
Numba keep their size: the mel and chroma filters are matrix products. The caller limits both to
one thread, which is also the fastest where every core works on another recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis import keys, note_figures
from deep_piano.analysis.tempo import tempo_of, tempo_of_periods
from deep_piano.infra.backend import load_librosa
from deep_piano.music.audio import SILENCE_DBFS, Samples
from deep_piano.music.loudness import integrated_lufs
from deep_piano.music.notes import Notes
from deep_piano.music.tuning import tuning_of

EXCERPT_S = 30.0
MFCC = 13

_FFT_AT_16_KHZ = 2048
_MEL_BANDS = 64
_SILENT_PEAK = 1e-5  # -100 dBFS: below it there is nothing but rounding to describe
_SILENCE_FRAME_S = 0.05
_CLIPPED = 0.99  # resampling and lossy coding make a clipped top uneven
_SHORTEST_CLIPPED_RUN = 3


@dataclass(frozen=True, kw_only=True)
class AudioFeatures:
    """A recording's figures; None where there is no value. The defaults are those of silence.

    Of the whole recording are `duration_s` as decoded; `peak_dbfs`; `clipping_share`, of samples
    in runs of three or more within 1 % of full scale or beyond it (what was clipped and then made
    quieter is not seen); `silence_share`, of 50 ms frames with no sample above -60 dBFS; and
    `zero_crossing_rate`, of samples whose sign is not the one of the sample before.

    Of the excerpt are all others. But for the loudness they do not change with a gain: `mfcc` is
    that of the excerpt brought to a peak of 1.0. `spectral_rolloff_hz` is where 85 % of the
    magnitude lies below, `chroma` is from C and sums to 1, `tuning_strength` is described at
    `describe_audio`. `key` is "none" where no key fits; partials count as notes, so that it is
    the key of the notes about every second time, and mostly a neighbour of it else.
    """

    duration_s: float
    loudness_lufs: float | None = None
    peak_dbfs: float | None
    clipping_share: float
    silence_share: float
    spectral_centroid_hz: float | None = None
    spectral_rolloff_hz: float | None = None
    zero_crossing_rate: float
    mfcc: tuple[float, ...] | None = None
    chroma: tuple[float, ...] | None = None
    tempo_bpm: float | None = None
    key: str = "none"
    tuning_strength: float = 0.0


@dataclass(frozen=True)
class NoteFeatures:
    """The figures of a note array; None where there is no value.

    `duration_s` is from the first onset to the last offset, `density_per_s` the notes over it.
    """

    notes: int
    density_per_s: float
    lowest_pitch: int | None
    highest_pitch: int | None
    velocity_mean: float | None
    velocity_sd: float | None
    pedal_share: float | None
    tempo_bpm: float | None
    key: str
    duration_s: float


def describe_audio(samples: Samples, *, sr: int, excerpt_s: float = EXCERPT_S) -> AudioFeatures:
    """Describe a recording.

    `tuning_strength` says how well the spectral peaks from 200 to 2,500 Hz agree on one
    twelve-tone tuning, wherever that lies: the length of the mean of unit vectors that turn once
    a semitone, weighted by magnitude. Near 0 for noise, speech and most drums, 0.6 to 0.85 for a
    piano. It does not know a piano: an organ, a guitar or a singer passes, so may a steady hum.

    Parameters
    ----------
    samples : ndarray, shape (n,), dtype float32
        Mono, full scale 1.0, finite; n may be 0.
    sr : int
        Sampling rate in Hz.
    excerpt_s : float
        Length of the stretch from the middle that the spectral figures and the loudness describe;
        0 for all, which takes two gigabytes for an hour at 16 kHz.

    Returns
    -------
    AudioFeatures
        Finite and JSON-ready.

    References
    ----------
    D. Ellis, "Beat tracking by dynamic programming", JNMR 36, 2007 (tempo, as in librosa);
    ITU-R BS.1770-4 (loudness); `keys.estimate_of_weights` (key).
    """
    level = np.abs(samples)
    peak = float(level.max(initial=0))
    middle = _middle(samples, round(excerpt_s * sr) or len(samples))
    return AudioFeatures(
        duration_s=len(samples) / sr,
        peak_dbfs=_dbfs(peak) if peak else None,
        clipping_share=_clipping_share(level),
        silence_share=_silence_share(level, sr=sr),
        zero_crossing_rate=_zero_crossing_rate(samples),
        **_describe_excerpt(middle, sr=sr),
    )


def describe_notes(notes: Notes, *, pedal_share: float | None = None) -> NoteFeatures:
    """Describe a note array.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset
        May be empty.
    pedal_share : float, optional
        The share of the time in which the sustain pedal is down, where known: a note array has
        it folded into its offsets.

    Returns
    -------
    NoteFeatures
        Finite and JSON-ready.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> describe_notes(make_notes([0, 0.5], [0.5, 2], [60, 64], [80, 90])).density_per_s
    1.0
    """
    some = len(notes) > 0
    return NoteFeatures(
        notes=len(notes),
        density_per_s=note_figures.density_per_s(notes),
        lowest_pitch=int(notes["pitch"].min()) if some else None,
        highest_pitch=int(notes["pitch"].max()) if some else None,
        velocity_mean=float(notes["velocity"].mean()) if some else None,
        velocity_sd=float(notes["velocity"].std()) if some else None,
        pedal_share=pedal_share,
        tempo_bpm=tempo_of(notes["onset"]).bpm,
        key=keys.estimate_key(notes).name,
        duration_s=float(notes["offset"].max() - notes["onset"].min()) if some else 0.0,
    )


def certainties(notes: Notes) -> dict[str, str]:
    """Return in words how certain the "key" and the "tempo" of `describe_notes` are."""
    return {
        "key": keys.estimate_key(notes).certainty,
        "tempo": tempo_of(notes["onset"]).certainty,
    }


def _describe_excerpt(excerpt: Samples, *, sr: int) -> dict[str, Any]:
    """Return the fields of `AudioFeatures` that describe the excerpt; none of silence."""
    peak = float(np.abs(excerpt).max(initial=0))
    if peak < _SILENT_PEAK:
        return {}
    # As loud as can be, so that the standard's gate at -70 LUFS is far below the music, and so
    # that no square of a sample overflows.
    excerpt = excerpt / np.float32(peak)
    loudness = integrated_lufs(excerpt, sr=sr) + _dbfs(peak)
    return {
        "loudness_lufs": loudness if math.isfinite(loudness) else None,
        **_describe_spectrum(excerpt, sr=sr),
    }


def _describe_spectrum(excerpt: Samples, *, sr: int) -> dict[str, Any]:
    """Return the fields that one STFT of the excerpt, peak 1.0, gives."""
    librosa = load_librosa()
    n_fft = max(256, round(_FFT_AT_16_KHZ * 2.0 ** math.floor(math.log2(sr / 16_000))))
    hop = n_fft // 4  # 32 ms at 16 kHz: less often, and 117 and 134 quarters a minute are one
    excerpt = np.pad(excerpt, (0, max(0, n_fft - len(excerpt))))
    magnitude = np.abs(librosa.stft(excerpt, n_fft=n_fft, hop_length=hop))  # (bins, frames)
    power = magnitude**2
    mean = magnitude.mean(axis=1, keepdims=True)  # a mean over frames would describe its rests
    mel = librosa.feature.melspectrogram(S=power, sr=sr, n_mels=_MEL_BANDS)
    mel_db = librosa.power_to_db(mel)
    tuning, strength = tuning_of(magnitude, bin_hz=sr / n_fft)
    by_frame = librosa.feature.chroma_stft(S=magnitude, sr=sr, n_fft=n_fft, tuning=tuning)
    chroma = by_frame.mean(axis=1).astype(float)
    chroma /= chroma.sum()
    key = keys.estimate_of_weights(chroma)
    onset = librosa.onset.onset_strength(S=mel_db, sr=sr, hop_length=hop)
    # Of the whole excerpt at once: librosa's tempogram, 8 s at a time, costs as much as the STFT.
    alike = librosa.autocorrelate(onset - onset.mean(), max_size=math.ceil(2 * sr / hop) + 2)
    return {
        "spectral_centroid_hz": float(librosa.feature.spectral_centroid(S=mean, sr=sr)[0, 0]),
        "spectral_rolloff_hz": float(librosa.feature.spectral_rolloff(S=mean, sr=sr)[0, 0]),
        "mfcc": tuple(librosa.feature.mfcc(S=mel_db, n_mfcc=MFCC).mean(axis=1).tolist()),
        "chroma": tuple(chroma.tolist()),
        "tempo_bpm": tempo_of_periods(alike, step_s=hop / sr).bpm,
        "key": key.name,
        "tuning_strength": strength,
    }


def _clipping_share(level: Samples) -> float:
    """Return the share of samples in runs at or beyond full scale."""
    clipped = np.flatnonzero(level >= _CLIPPED)
    run_ends = np.flatnonzero(np.diff(clipped, append=-1) != 1)
    runs = np.diff(run_ends, prepend=-1)
    return int(runs[runs >= _SHORTEST_CLIPPED_RUN].sum()) / max(1, len(level))


def _silence_share(level: Samples, *, sr: int) -> float:
    """Return the share of frames that are silent throughout; of nothing, all is silent."""
    size = max(1, round(_SILENCE_FRAME_S * sr))
    whole = len(level) // size * size
    loudest = level[:whole].reshape(-1, size).max(axis=1) if whole else level.max(initial=0)
    return float(np.mean(loudest < 10 ** (SILENCE_DBFS / 20)))


def _zero_crossing_rate(samples: Samples) -> float:
    negative = np.signbit(samples)
    return int(np.count_nonzero(negative[1:] != negative[:-1])) / max(1, len(samples))


def _dbfs(level: float) -> float:
    return 20 * math.log10(level)


def _middle(values: NDArray[Any], count: int) -> NDArray[Any]:
    start = max(0, len(values) - count) // 2
    return values[start : start + count]
