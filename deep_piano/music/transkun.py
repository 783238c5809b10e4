"""The network of Transkun 2.0: sixteen seconds of piano in, scored note intervals out.

A log-mel front end with one fixed and five learned windows; convolutions that make patches of
8 frames x 4 mel bands; a transformer over (time, band) in which 90 further tokens a time step stand
for the 88 keys and two pedals; a semi-CRF that scores every interval [begin, end] of each of these
symbols and picks the best set that does not overlap; two small heads that read velocity and
sub-frame times off the two ends of each chosen interval.

All of it runs on the CPU, on the decoder's own products (`infra.kernels`): a row's result does not
depend on the rows beside it, so the notes are the same on any number of threads. The module knows
arrays of samples, frames and the checkpoint's names; it knows nothing of note arrays, files or
longer recordings.

Yan, Cwitkowitz, Duan: Skipping the Frame-Level, NeurIPS 2021. Yan, Duan: Scoring Time Intervals
using Non-Hierarchical Transformer for Automatic Piano Transcription, ISMIR 2024,
https://arxiv.org/abs/2404.09466
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AssetError
from deep_piano.infra.kernels import Kernel
from deep_piano.music.segments import (
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    SYMBOLS,
    Intervals,
    best_intervals,
)
from deep_piano.music.transkun_layers import (
    AROUND,
    Block,
    Convolution,
    Floats,
    Mlp,
    Position,
    Team,
    Weights,
    group_norm,
    norm_of,
    parts_of,
)

HOP, WINDOW = 1024, 4096
FRAMES = math.ceil(SEGMENT_SAMPLES / HOP) + 1
FRAME_S = HOP / SAMPLE_RATE

_LAYERS = 6
_LOG_FLOOR = 1e-5
_FRAMES_AT_ONCE = 64
_SYMBOLS_AT_ONCE = 9  # a tenth, so that their scores stay small
_BANDS_AT_ONCE = 2
_SCORED_AT_ONCE = 128  # begins; ends before them are not scored


class Transkun:
    """The network with its weights, for segments of exactly 16 s.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The arrays of the checkpoint under its own names.
    threads : int
        How many to use; the notes do not depend on it.

    Raises
    ------
    AssetError
        When an array is missing or has another shape than the network needs.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]], *, threads: int = 1) -> None:
        w = Weights(weights)
        self._threads = threads
        try:
            self.log_mel = FrontEnd(w)
            self._patches = _Patches(w)
            self._encoder = _Encoder(w)
            self._scorer = _Scorer(w)
            size = self._scorer.size
            self._velocity = Mlp(w, "velocityPredictor", 3 * size, 128)
            self._ends = Mlp(w, "refinedOFPredictor", 3 * size, 4)
        except ValueError as error:
            raise AssetError(
                f"the transcription weights do not fit the network ({error}): "
                "fetch the asset again."
            ) from error

    def __call__(self, samples: Floats) -> Intervals:
        """Transcribe one segment.

        Parameters
        ----------
        samples : ndarray, shape (705600,), float32
            Sixteen seconds at 44,100 Hz; shorter audio ends in zeros. Its gain does not matter.

        Returns
        -------
        Intervals
            In seconds from the first sample, sorted by symbol, then begin.
        """
        with Team(self._threads) as team:
            context = self.context(self.log_mel(samples, team), team)
            # Symbol by symbol, from the scores to the ends: all scores together take 172 MB.
            found = team(self._intervals, parts_of(len(SYMBOLS), _SYMBOLS_AT_ONCE), context)
        symbol, begin, end, velocity, shift, present = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        begin_s, end_s = _in_order(
            symbol, (begin + shift[:, 0]) * FRAME_S, (end + shift[:, 1]) * FRAME_S
        )
        return Intervals(
            pitch=np.array(SYMBOLS)[symbol],
            begin_s=begin_s,
            end_s=end_s,
            velocity=velocity,
            has_begin=(begin > 0) | present[:, 0],
            has_end=(end < SEGMENT_SAMPLES // HOP) | present[:, 1],
        )

    def context(self, mel: Floats, team: Team) -> Floats:
        """Return what the transformer knows of each symbol: (90, T / 8, 256)."""
        return self._encoder(self._patches(mel, team), team)

    def scored(self, context: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the scores of some symbols, as `best_intervals` takes them, and their frames.

        Parameters
        ----------
        context : ndarray, shape (n, T / 8, 256), float32

        Returns
        -------
        score, single, frames : ndarray
            Shapes (n, T, T), (n, T) and (n, T, 256).
        """
        return self._scorer(context)

    def _intervals(self, part: slice, context: Floats) -> tuple[NDArray[Any], ...]:
        score, single, frames = self.scored(context[part])
        symbol, begin, end = best_intervals(score, single)
        heads = self._read_heads(frames[symbol, begin], frames[symbol, end])
        return symbol + part.start, begin, end, *heads

    def _read_heads(self, at_begin: Floats, at_end: Floats) -> tuple[NDArray[Any], ...]:
        """Read velocities (n,), shifts in frames (n, 2) and presences (n, 2) off both ends."""
        pair = np.concatenate([at_begin, at_end, at_begin * at_end], axis=-1)
        velocity = np.argmax(self._velocity(pair), axis=-1)
        shift, presence = np.split(self._ends(pair), 2, -1)
        shift = np.clip((_continuous_bernoulli_mean(shift) - 0.5) / 0.99, -0.5, 0.5)
        return velocity, shift, presence > 0


class FrontEnd:
    """Six log-mel spectrograms: through a Hann window, and Gaussians of learned centre and width.

    A late or narrow window places an onset within the frame.
    """

    def __init__(self, w: Weights) -> None:
        name = "framewiseFeatureExtractor"
        windows = f"{name}.spectrogramExtractor"
        centers, sigmas = (
            1 / (1 + np.exp(-w(f"{windows}.winGen.{kind}", 5).astype("f8")))
            for kind in ("center", "sigma")
        )
        time = np.arange(WINDOW)
        gaussians = [
            np.exp(-0.5 * ((time - WINDOW * center) / (sigma * WINDOW / 2)) ** 2).astype("f4")
            for center, sigma in zip(centers, sigmas, strict=True)
        ]
        self._windows = [w(f"{windows}.win", WINDOW), *gaussians]
        self._mel = Kernel(w(f"{name}.freq2mels", WINDOW // 2 + 1, None))

    def __call__(self, samples: Floats, team: Team) -> Floats:
        """Return shape (FRAMES, 229, 6), near 0 (silence) to 1."""
        tail = (FRAMES - 1) * HOP + WINDOW // 2 - SEGMENT_SAMPLES
        padded = np.pad(samples, (WINDOW // 2, tail))
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]  # (T, WINDOW)
        # The gain is normalised over frames, not samples: so it was when the weights were learnt.
        mean = frames.mean(dtype="f8")
        deviation = math.sqrt(np.square(frames - mean).sum() / (frames.size - 1))

        def mels(part: slice) -> Floats:
            normal = ((frames[part] - mean) / (deviation + 1e-8)).astype(np.float32)
            seen = []
            for window in self._windows:
                spectrum = np.fft.rfft(normal * window)
                power = (spectrum.real**2 + spectrum.imag**2) / np.float32(WINDOW)
                seen.append(self._mel(np.asarray(power, np.float32)))
            logs = np.log(np.stack(seen, axis=-1) + np.float32(_LOG_FLOOR))
            return (logs - np.float32(math.log(_LOG_FLOOR))) / np.float32(-math.log(_LOG_FLOOR))

        return np.concatenate(team(mels, parts_of(FRAMES, _FRAMES_AT_ONCE)))


class _Patches:
    """Turns (T, 229, 6) into patches of 8 frames x 4 bands: (T / 8, 58, 256)."""

    def __init__(self, w: Weights) -> None:
        self._first = Convolution(w, "backbone.inputConv", (1, 1))
        bands = np.arange(w("framewiseFeatureExtractor.freq2mels", None, None).shape[1])
        self._bands = Position(w, "backbone.posEmbedBuilder", 1)(bands[:, None])
        self._rest = [
            (Convolution(w, f"backbone.downConv.{index}", strides), norm_of(w, index + 1), active)
            for index, strides, active in (
                (1, (2, 1), True),
                (5, (2, 2), True),
                (9, (2, 2), True),
                (13, (1, 1), False),
            )
        ]

    def __call__(self, mel: Floats, team: Team) -> Floats:
        h = self._first(mel, team)
        h += self._bands
        around = ((5, 4), (3, 2))
        for convolution, norm, active in self._rest:
            h = convolution(h, team, around)
            group_norm(h, *norm, team, active=active)
            around = AROUND
        return h


class _Encoder:
    """The transformer, over patches and symbols."""

    def __init__(self, w: Weights) -> None:
        self._size = len(w("backbone.upConv1dSkip.weight", None, None, 8))
        self._of_bands = Position(w, "backbone.posEmbedBuilderAttnTF", 2)
        self._of_symbols = Position(w, "backbone.posEmbedBuilderAttnTE", 2)
        self._layers = [
            [Block(w, f"backbone.encoderLayers.{layer}", axis, self._size) for axis in "FT"]
            for layer in range(_LAYERS)
        ]

    def __call__(self, patches: Floats, team: Team) -> Floats:
        """Return what it knows of each symbol: (90, T / 8, 256).

        One zero row and one zero column before the patches gather what concerns all of them.
        """
        times, bands = len(patches) + 1, patches.shape[1] + 1
        x = np.zeros((times, bands + len(SYMBOLS), self._size), np.float32)
        x[1:, 1:bands] = patches
        every = np.arange(times)

        def place(part: slice) -> None:
            x[part, :bands] += self._of_bands(_grid(every[part], np.arange(bands)))
            x[part, bands:] = self._of_symbols(_grid(every[part], np.array(SYMBOLS)))

        team(place, parts_of(times, _FRAMES_AT_ONCE // 8))
        for layer, (along_bands, along_time) in enumerate(self._layers):
            # The last layer computes only the symbols: its bands are not used.
            first = bands if layer == _LAYERS - 1 else 0
            x = _layer(along_bands, along_time, x, first, team)
        return np.ascontiguousarray(x[1:].transpose(1, 0, 2))


def _layer(along_bands: Block, along_time: Block, x: Floats, first: int, team: Team) -> Floats:
    """Attend along the bands and symbols of a moment, then along time; x: (T, F, D).

    Both attentions take keys and values from the layer's input, unnormalised. What comes before
    column `first` is left out.
    """
    h = np.empty((len(x), x.shape[1] - first, x.shape[2]), np.float32)

    def moment(index: int) -> None:
        h[index] = along_bands(x[index : index + 1, first:], x[index : index + 1])[0]

    def bands(part: slice) -> None:
        known = x[:, part.start + first : part.stop + first].transpose(1, 0, 2)
        h[:, part] = along_time(h[:, part].transpose(1, 0, 2), known).transpose(1, 0, 2)

    team(moment, range(len(x)))
    team(bands, parts_of(h.shape[1], _BANDS_AT_ONCE))
    return h


class _Scorer:
    """Scores intervals by inner products of their ends, and single frames."""

    def __init__(self, w: Weights) -> None:
        kernel = w("backbone.upConv1dSkip.weight", None, None, 8)  # (in, out, 8)
        self.size = kernel.shape[1]
        self._up = Kernel(kernel.transpose(0, 2, 1).reshape(len(kernel), -1))
        self._bias = w("backbone.upConv1dSkip.bias", self.size)
        self._map = w.dense("scorer.map.0", self.size, 2 * self.size + 1)

    def __call__(self, context: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Transkun.scored`. Each patch of time is turned back into its 8 frames."""
        frames = self._up(context.reshape(-1, context.shape[-1]))
        frames = frames.reshape(len(context), -1, self.size)[:, :FRAMES] + self._bias
        mapped = self._map(frames.reshape(-1, self.size)).reshape(*frames.shape[:2], -1)
        at_end, at_begin = (mapped[..., n * self.size : (n + 1) * self.size] for n in (0, 1))
        at_end = at_end.transpose(0, 2, 1) / np.float32(math.sqrt(self.size))
        score = np.empty((len(context), FRAMES, FRAMES), np.float32)
        for symbol, (begins, ends) in enumerate(zip(at_begin, at_end, strict=True)):
            for part in parts_of(FRAMES, _SCORED_AT_ONCE):
                later = slice(part.start, None)
                score[symbol, part, later] = Kernel(ends[:, later])(begins[part])
        return score, mapped[..., -1], frames


def _in_order(
    symbol: NDArray[np.int64], begin_s: NDArray[np.float64], end_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move beginnings so that no interval begins before the one before it on its symbol ended."""
    begin_s, end_s = begin_s.copy(), end_s.copy()
    for i in range(len(symbol)):
        earlier = end_s[i - 1] if i and symbol[i] == symbol[i - 1] else 0.0
        begin_s[i] = max(begin_s[i], earlier)
        end_s[i] = max(end_s[i], begin_s[i] + 1e-8)
    return begin_s, end_s


def _continuous_bernoulli_mean(logit: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean, in (0, 1), of a continuous Bernoulli (Loaiza-Ganem, Cunningham 2019)."""
    size = np.abs(logit.astype("f8"))
    near_zero = size < 1e-3
    safe = np.where(near_zero, 1.0, size)
    above_half = np.where(near_zero, size / 12, -1 / np.expm1(-safe) - 1 / safe - 0.5)
    return 0.5 + np.copysign(above_half, logit)


def _grid(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
