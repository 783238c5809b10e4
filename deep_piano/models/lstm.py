"""Keras's LSTM, with a faster training pass on CPUs.

On GPUs every Keras backend has a fused kernel, and this layer uses it. On a CPU TensorFlow steps
through the sequence and accumulates the gradient of every weight at each step: at 512 units it
reads and writes four megabytes a step. `LSTM` computes whatever does not depend on the step before
(the projection of the input, the gradients of the weights) in one large product over all steps.
Weights, states and results are those of `keras.layers.LSTM`.
"""

from __future__ import annotations

from typing import Any

import keras

from deep_piano.infra.backend import gpus


@keras.saving.register_keras_serializable(package="deep_piano")
class LSTM(keras.layers.LSTM):
    """Long short-term memory layer; parameters as for `keras.layers.LSTM`.

    The forget gate, input gate, output gate and cell follow Gers, Schmidhuber and Cummins 2000,
    "Learning to Forget". Only the default activations are supported, without dropout or mask.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """Run over a batch: (batch, steps, features) to (batch, steps, units)."""
        backend = keras.backend.backend()
        if backend == "torch":  # it overwrites the state before the gradient has read it
            initial_state = [keras.ops.copy(state) for state in initial_state]
        if backend != "tensorflow" or mask is not None or gpus():
            return super().inner_loop(sequences, initial_state, mask, training)
        import tensorflow as tf

        dtype = tf.as_dtype(self.compute_dtype)
        outputs, h, c = tf.custom_gradient(_lstm)(
            tf.cast(sequences, dtype),
            tf.cast(initial_state[0], dtype),
            tf.cast(initial_state[1], tf.float32),
            tf.cast(self.cell.kernel, dtype),
            tf.cast(self.cell.recurrent_kernel, dtype),
            tf.cast(self.cell.bias, tf.float32),
        )
        return h, outputs, [h, tf.cast(c, dtype)]


def _lstm(x: Any, h0: Any, c0: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    """Return the outputs (batch, steps, units), the last h and the last c; then their gradient.

    Gates in Keras's order: input, forget, cell, output. Products run in the dtype of `x`, the
    cell in float32.
    """
    import tensorflow as tf

    dtype, units = x.dtype, recurrent.shape[0]
    batch, steps = tf.shape(x)[0], tf.shape(x)[1]  # apart: TensorFlow then sees which it knows
    x_rows = tf.reshape(_time_first(x), [-1, x.shape[2]])  # (T * B, D)
    projected = tf.cast(tf.matmul(x_rows, kernel), tf.float32) + bias
    inputs = _per_step(steps, 4 * units, tf.float32).unstack(
        tf.reshape(projected, [steps, batch, 4 * units])
    )

    def forward(t: Any, h: Any, c: Any, hs: Any, cs: Any, gates: Any) -> Any:
        z = inputs.read(t) + tf.cast(tf.matmul(h, recurrent), tf.float32)
        i, f, g, o = tf.split(z, 4, 1)
        ifo = tf.sigmoid(tf.concat([i, f, o], 1))
        i, f, o = tf.split(ifo, 3, 1)
        g = tf.tanh(g)
        c = f * c + i * g
        h = tf.cast(o * tf.tanh(c), dtype)
        gates = gates.write(t, tf.concat([ifo, g], 1))
        return t + 1, h, c, hs.write(t, h), cs.write(t, c), gates

    written = [
        _per_step(steps, width, kind)
        for width, kind in ((units, dtype), (units, tf.float32), (4 * units, tf.float32))
    ]
    _, h, c, *written = tf.while_loop(lambda t, *_: t < steps, forward, (0, h0, c0, *written))
    hs, cs, gates = (array.stack() for array in written)  # (T, B, ...)

    def gradient(d_outputs: Any, d_h: Any, d_c: Any) -> Any:
        d_z, d_h, d_c = _through_time(d_outputs, d_h, d_c, recurrent, c0, cs, gates)
        h_before = tf.reshape(tf.concat([h0[None], hs[:-1]], 0), [-1, units])
        d_x = tf.matmul(d_z, kernel, transpose_b=True)
        return (
            _time_first(tf.reshape(d_x, [steps, batch, x.shape[2]])),
            d_h,
            d_c,
            tf.matmul(x_rows, d_z, transpose_a=True),
            tf.matmul(h_before, d_z, transpose_a=True),
            tf.reduce_sum(tf.cast(d_z, tf.float32), 0),
        )

    return (_time_first(hs), h, c), gradient


def _through_time(
    d_outputs: Any, d_h: Any, d_c: Any, recurrent: Any, c0: Any, cs: Any, gates: Any
) -> Any:
    """Return the gradients of the gates (steps * batch, 4 * units), of the first h and first c."""
    import tensorflow as tf

    dtype, units, steps = recurrent.dtype, recurrent.shape[0], tf.shape(cs)[0]
    d_hs = _per_step(steps, units, dtype).unstack(_time_first(d_outputs))
    c_before = tf.concat([c0[None], cs[:-1]], 0)
    i, f, o, g = tf.split(gates, 4, 2)
    tanh_c = tf.tanh(cs)
    from_h = _per_step(steps, 3 * units, tf.float32).unstack(
        tf.concat([tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c), f], 2)
    )
    from_c = _per_step(steps, 3 * units, tf.float32).unstack(
        tf.concat([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], 2)
    )

    def backward(t: Any, d_h: Any, d_c: Any, d_zs: Any) -> Any:
        d_h = d_h + tf.cast(d_hs.read(t), tf.float32)
        to_o, to_c, f = tf.split(from_h.read(t), 3, 1)
        d_c = d_c + d_h * to_c
        d_ifg = tf.tile(d_c, [1, 3]) * from_c.read(t)
        d_z = tf.cast(tf.concat([d_ifg, d_h * to_o], 1), dtype)
        d_h = tf.cast(tf.matmul(d_z, recurrent, transpose_b=True), tf.float32)
        return t - 1, d_h, d_c * f, d_zs.write(t, d_z)

    _, d_h, d_c, d_zs = tf.while_loop(
        lambda t, *_: t >= 0,
        backward,
        (steps - 1, tf.cast(d_h, tf.float32), d_c, _per_step(steps, 4 * units, dtype)),
    )
    return tf.reshape(d_zs.stack(), [-1, 4 * units]), tf.cast(d_h, dtype), d_c


def _per_step(steps: Any, width: int, dtype: Any) -> Any:
    import tensorflow as tf

    return tf.TensorArray(dtype, steps, element_shape=[None, width])


def _time_first(array: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(array, [1, 0, 2])
