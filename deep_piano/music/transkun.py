"""The network of Transkun 2.0: sixteen seconds of piano in, scored note intervals out.

A log-mel front end with one fixed and five learned windows; convolutions that make patches of
8 frames x 4 mel bands; a transformer over (time, band) in which 90 further tokens a time step stand
for the 88 keys and two pedals; a semi-CRF that scores every interval [begin, end] of each of these
symbols and picks the best set that does not overlap; two small heads that read velocity and
sub-frame times off the two ends of each chosen interval.

The module knows arrays of samples, frames and the checkpoint's names; it knows nothing of note
arrays, files or longer recordings. It loads TensorFlow: import it inside a function.

Yan, Cwitkowitz, Duan: Skipping the Frame-Level, NeurIPS 2021. Yan, Duan: Scoring Time Intervals
using Non-Hierarchical Transformer for Automatic Piano Transcription, ISMIR 2024,
https://arxiv.org/abs/2404.09466
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from deep_piano.errors import AssetError
from deep_piano.music.segments import (
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    SYMBOLS,
    Intervals,
    best_intervals,
)

HOP, WINDOW = 1024, 4096
FRAMES = math.ceil(SEGMENT_SAMPLES / HOP) + 1
FRAME_S = HOP / SAMPLE_RATE

_HEADS = 8
_LAYERS = 6
_LOG_FLOOR = 1e-5

Floats = NDArray[np.float32]


class Transkun:
    """The network with its weights, compiled once for segments of exactly 16 s.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The arrays of the checkpoint under its own names.

    Raises
    ------
    AssetError
        When an array is missing or has another shape than the network needs.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._weights = _Weights(weights)
        self._network = tf.function(
            self._trace,
            input_signature=[tf.TensorSpec([SEGMENT_SAMPLES], tf.float32)],
            autograph=False,
        )
        try:
            context = self._network.get_concrete_function().structured_outputs[2]
            nothing = np.zeros((0, context.shape[-1]), np.float32)
            self._read_heads(nothing, nothing)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise AssetError(
                "the transcription weights do not fit the network "
                f"({str(error).splitlines()[0]}): fetch the asset again."
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
        score, single, context = (
            output.numpy() for output in self._network(tf.constant(samples, tf.float32))
        )
        symbol, begin, end = best_intervals(score, single)
        velocity, shift, present = self._read_heads(context[symbol, begin], context[symbol, end])
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

    def _trace(self, samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        w = self._weights
        context = _upsample(w, _encode(w, _patches(w, log_mel(w, samples))))
        return *_score(w, context), context

    def _read_heads(
        self, at_begin: Floats, at_end: Floats
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Read velocities (n,), shifts in frames (n, 2) and presences (n, 2) off both ends."""
        pair = tf.constant(np.concatenate([at_begin, at_end, at_begin * at_end], axis=-1))
        velocity = np.argmax(_mlp(self._weights, "velocityPredictor", pair).numpy(), axis=-1)
        shift, presence = np.split(_mlp(self._weights, "refinedOFPredictor", pair).numpy(), 2, -1)
        shift = np.clip((_continuous_bernoulli_mean(shift) - 0.5) / 0.99, -0.5, 0.5)
        return velocity, shift, presence > 0


class _Weights:
    """The checkpoint's arrays as tensors, by name."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __call__(self, name: str) -> tf.Tensor:
        return self.constant(self.array(name))

    @staticmethod
    def constant(array: NDArray[Any]) -> tf.Tensor:
        with tf.init_scope():  # an input of the graph: as a part of it, tracing takes a second more
            return tf.constant(array)

    def array(self, name: str) -> NDArray[Any]:
        try:
            return self._arrays[name]
        except KeyError:
            raise AssetError(
                f"the transcription weights have no array {name!r}: fetch the asset again."
            ) from None


def log_mel(w: _Weights, samples: tf.Tensor) -> tf.Tensor:
    """Return six log-mel spectrograms, shape (1, FRAMES, 229, 6), near 0 (silence) to 1.

    The first is seen through a Hann window, the others through Gaussians of learned centre and
    width: a late or narrow one places an onset within the frame.
    """
    tail = (FRAMES - 1) * HOP + WINDOW // 2 - SEGMENT_SAMPLES
    padded = tf.pad(samples, [[WINDOW // 2, tail]])
    frames = tf.signal.frame(padded, WINDOW, HOP)  # (T, WINDOW)
    # The gain is normalised over frames, not samples: so it was when the weights were learnt.
    mean = tf.reduce_mean(frames)
    variance = tf.reduce_sum(tf.square(frames - mean)) / (FRAMES * WINDOW - 1)
    frames = (frames - mean) / (tf.sqrt(variance) + 1e-8)
    windows = _windows(w)
    mel_bands = w("framewiseFeatureExtractor.freq2mels")  # (2049, 229)
    mels = []
    for window in windows:
        spectrum = tf.signal.rfft(frames * window) / math.sqrt(WINDOW)
        power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
        mels.append(power @ mel_bands)
    mel = tf.stack(mels, axis=-1)[tf.newaxis]
    return (tf.math.log(mel + _LOG_FLOOR) - math.log(_LOG_FLOOR)) / -math.log(_LOG_FLOOR)


def _windows(w: _Weights) -> list[Floats]:
    extractor = "framewiseFeatureExtractor.spectrogramExtractor"
    learned = {
        name: 1 / (1 + np.exp(-w.array(f"{extractor}.winGen.{name}").astype("f8")))
        for name in ("center", "sigma")
    }
    time = np.arange(WINDOW)
    gaussians = [
        np.exp(-0.5 * ((time - WINDOW * center) / (sigma * WINDOW / 2)) ** 2).astype("f4")
        for center, sigma in zip(learned["center"], learned["sigma"], strict=True)
    ]
    return [w.array(f"{extractor}.win"), *gaussians]


def _patches(w: _Weights, mel: tf.Tensor) -> tf.Tensor:
    """Turn (1, T, 229, 6) into patches of 8 frames x 4 bands: (T / 8, 58, 256)."""
    bands = tf.range(mel.shape[2], dtype=tf.float32)[:, tf.newaxis]
    h = _conv(w, "backbone.inputConv", mel) + _position(w, "backbone.posEmbedBuilder", bands)
    h = tf.pad(h, [[0, 0], [4, 3], [2, 1], [0, 0]])
    for index, strides in ((1, (2, 1)), (5, (2, 2)), (9, (2, 2))):
        h = _conv(w, f"backbone.downConv.{index}", h, strides=strides)
        h = _gelu(_group_norm(w, f"backbone.downConv.{index + 1}", h))
    h = _group_norm(w, "backbone.downConv.14", _conv(w, "backbone.downConv.13", h))
    return h[0]


def _encode(w: _Weights, patches: tf.Tensor) -> tf.Tensor:
    """Run the transformer; return what it knows of each symbol: (90, T / 8, 256).

    One zero row and one zero column before the patches gather what concerns all of them.
    """
    h = tf.pad(patches, [[1, 0], [1, 0], [0, 0]])
    time = tf.range(h.shape[0], dtype=tf.float32)
    band = tf.range(h.shape[1], dtype=tf.float32)
    symbol = tf.constant(SYMBOLS, tf.float32)
    h += _position(w, "backbone.posEmbedBuilderAttnTF", _grid(time, band))
    h = tf.concat([h, _position(w, "backbone.posEmbedBuilderAttnTE", _grid(time, symbol))], axis=1)
    for layer in range(_LAYERS):
        # The last layer computes only the symbols: its bands are not used.
        wanted = h[:, -len(SYMBOLS) :] if layer == _LAYERS - 1 else h
        h = _encoder_layer(w, f"backbone.encoderLayers.{layer}", wanted, h)
    return tf.transpose(h[1:], [1, 0, 2])


def _encoder_layer(w: _Weights, name: str, x: tf.Tensor, everything: tf.Tensor) -> tf.Tensor:
    """Attend along the bands and symbols of a moment, then along time; x: (T, F, D).

    Both attentions take keys and values from the layer's input, unnormalised.
    """
    h = _attend(w, f"{name}.mhaBlockF", x, everything)
    h = _feed_forward(w, f"{name}.fnnBlockF", h)
    h, x = tf.transpose(h, [1, 0, 2]), tf.transpose(x, [1, 0, 2])
    h = _attend(w, f"{name}.mhaBlockT", h, x)
    h = _feed_forward(w, f"{name}.fnnBlockT", h)
    return tf.transpose(h, [1, 0, 2])


def _attend(w: _Weights, name: str, h: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
    def heads(x: tf.Tensor, kind: str) -> tf.Tensor:
        y = tf.tensordot(x, w(f"{name}.module.{kind}_proj_weight"), 1)
        return tf.transpose(tf.reshape(y, [*y.shape[:2], _HEADS, -1]), [0, 2, 1, 3])

    q, k, v = heads(_rms_norm(h), "q"), heads(memory, "k"), heads(memory, "v")
    weight = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(q.shape[-1]))
    found = tf.reshape(tf.transpose(weight @ v, [0, 2, 1, 3]), h.shape)
    return h + _dense(w, f"{name}.module.out_proj", found) * w(f"{name}.scale")


def _feed_forward(w: _Weights, name: str, h: tf.Tensor) -> tf.Tensor:
    return h + _mlp(w, f"{name}.module", _rms_norm(h)) * w(f"{name}.scale")


def _upsample(w: _Weights, h: tf.Tensor) -> tf.Tensor:
    """Turn each patch of time back into its 8 frames: (90, T / 8, 256) to (90, T, 256)."""
    kernel = w.array("backbone.upConv1dSkip.weight")  # (in, out, 8)
    kernel = kernel.transpose(0, 2, 1).reshape(kernel.shape[0], -1)
    frames = tf.reshape(tf.tensordot(h, w.constant(kernel), 1), [len(SYMBOLS), -1, h.shape[-1]])
    return frames[:, :FRAMES] + w("backbone.upConv1dSkip.bias")


def _score(w: _Weights, context: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Score intervals: inner products (symbol, begin, end) and single frames (symbol, frame)."""
    mapped = _dense(w, "scorer.map.0", context)
    size = mapped.shape[-1] // 2
    at_end, at_begin, single = tf.split(mapped, [size, size, 1], axis=-1)
    at_end /= math.sqrt(size)
    return tf.matmul(at_begin, at_end, transpose_b=True), single[..., 0]


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


def _dense(w: _Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    kernel = np.ascontiguousarray(w.array(f"{name}.weight").T)
    return tf.tensordot(x, w.constant(kernel), 1) + w(f"{name}.bias")


def _mlp(w: _Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    return _dense(w, f"{name}.3", _gelu(_dense(w, f"{name}.0", x)))


def _gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=False)


def _rms_norm(x: tf.Tensor) -> tf.Tensor:
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + 1e-6)


def _conv(w: _Weights, name: str, x: tf.Tensor, *, strides: tuple[int, int] = (1, 1)) -> tf.Tensor:
    kernel = w.array(f"{name}.weight").transpose(2, 3, 1, 0)  # to (time, band, in, out)
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    return tf.nn.conv2d(x, w.constant(kernel), strides, around) + w(f"{name}.bias")


def _group_norm(w: _Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """Normalise each of four groups of channels over time, band and channel; x: (1, T, F, C)."""

    def mean(y: tf.Tensor) -> tf.Tensor:
        # Axis by axis: float32 sums of millions of numbers in one go are off by 1e-3.
        channels = tf.reduce_mean(tf.reduce_mean(y, axis=1), axis=1)
        groups = tf.reduce_mean(tf.reshape(channels, [4, -1]), axis=1)
        return tf.repeat(groups, x.shape[-1] // 4)

    centred = x - mean(x)
    normal = centred * tf.math.rsqrt(mean(tf.square(centred)) + 1e-5)
    return normal * w(f"{name}.weight") + w(f"{name}.bias")


def _position(w: _Weights, name: str, coordinates: tf.Tensor) -> tf.Tensor:
    """Embed coordinates (..., 1 or 2) by learned Fourier features and an MLP: (..., D)."""
    phase = _dense(w, f"{name}.proj", coordinates)
    return _mlp(w, f"{name}.mlp", tf.cos(phase) / math.sqrt(phase.shape[-1] / 2))


def _grid(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    return tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1)
