"""Keras's LSTM, with a training pass that suits a CPU better.

On GPUs every Keras backend has a fused kernel, and this layer leaves the work to it. On a CPU
TensorFlow steps through the sequence and adds up the gradient of every weight at each step: four
megabytes read and written a step at 512 units, while the matrix units wait. `LSTM` computes what
does not depend on the step before (the projection of the input, the gradients of the weights) in
one large product over all the steps. Weights, states and results are those of `keras.layers.LSTM`.
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
        if backend == "torch":  # where the state is written anew before the gradient has read it
            initial_state = [keras.ops.copy(state) for state in initial_state]
        if backend != "tensorflow" or mask is not None or gpus():
            return super().inner_loop(sequences, initial_state, mask, training)
        import tensorflow as tf

        dtype = tf.as_dtype(self.compute_dtype)
        outputs, h, c = _lstm(
            tf.cast(sequences, dtype),
            tf.cast(initial_state[0], dtype),
            tf.cast(initial_state[1], tf.float32),
            tf.cast(self.cell.kernel, dtype),
            tf.cast(self.cell.recurrent_kernel, dtype),
            tf.cast(self.cell.bias, tf.float32),
        )
        return h, outputs, [h, tf.cast(c, dtype)]


def _lstm(x: Any, h0: Any, c0: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    """Return the outputs (batch, steps, units), the last h and the last c.

    Gates in Keras's order: input, forget, cell, output. Products run in the dtype of `x`, the
    cell in float32.
    """
    import tensorflow as tf

    dtype, units = x.dtype, recurrent.shape[0]

    def time_first(array: Any) -> Any:
        return tf.transpose(array, [1, 0, 2])

    @tf.custom_gradient
    def run(x: Any, h0: Any, c0: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        batch, steps = tf.shape(x)[0], tf.shape(x)[1]
        x_rows = tf.reshape(time_first(x), [-1, x.shape[2]])  # (T * B, D)

        def per_step(width: int, dtype: Any) -> Any:
            return tf.TensorArray(dtype, steps, element_shape=[None, width])

        projected = tf.cast(tf.matmul(x_rows, kernel), tf.float32) + bias
        inputs = per_step(4 * units, tf.float32).unstack(
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
            return t + 1, h, c, hs.write(t, h), cs.write(t, c), gates.write(t, _join(ifo, g))

        state = (0, h0, c0, per_step(units, dtype), per_step(units, tf.float32))
        _, h, c, hs, cs, gates = tf.while_loop(
            lambda t, *_: t < steps, forward, (*state, per_step(4 * units, tf.float32))
        )
        hs, cs, gates = hs.stack(), cs.stack(), gates.stack()  # (T, B, ...)

        def gradient(d_outputs: Any, d_h: Any, d_c: Any) -> Any:
            d_hs = per_step(units, dtype).unstack(time_first(d_outputs))
            c_before = tf.concat([c0[None], cs[:-1]], 0)
            i, f, o, g = tf.split(gates, 4, 2)
            tanh_c = tf.tanh(cs)
            from_h = per_step(3 * units, tf.float32).unstack(
                tf.concat([tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c), f], 2)
            )
            from_c = per_step(3 * units, tf.float32).unstack(
                tf.concat([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], 2)
            )

            def backward(t: Any, d_h: Any, d_c: Any, d_zs: Any) -> Any:
                d_h = d_h + tf.cast(d_hs.read(t), tf.float32)
                to_o, to_c, f = tf.split(from_h.read(t), 3, 1)
                d_c = d_c + d_h * to_c
                d_ifg = tf.tile(d_c, [1, 3]) * from_c.read(t)
                d_z = tf.cast(_join(d_ifg, d_h * to_o), dtype)
                d_h = tf.cast(tf.matmul(d_z, recurrent, transpose_b=True), tf.float32)
                return t - 1, d_h, d_c * f, d_zs.write(t, d_z)

            _, d_h, d_c, d_zs = tf.while_loop(
                lambda t, *_: t >= 0,
                backward,
                (steps - 1, tf.cast(d_h, tf.float32), d_c, per_step(4 * units, dtype)),
            )
            d_z = tf.reshape(d_zs.stack(), [-1, 4 * units])  # (T * B, 4 * units)
            h_before = tf.reshape(tf.concat([h0[None], hs[:-1]], 0), [-1, units])
            d_x = tf.matmul(d_z, kernel, transpose_b=True)
            return (
                time_first(tf.reshape(d_x, [steps, batch, x.shape[2]])),
                tf.cast(d_h, dtype),
                d_c,
                tf.matmul(x_rows, d_z, transpose_a=True),
                tf.matmul(h_before, d_z, transpose_a=True),
                tf.reduce_sum(tf.cast(d_z, tf.float32), 0),
            )

        return (time_first(hs), h, c), gradient

    def _join(first: Any, second: Any) -> Any:
        return tf.concat([first, second], 1)

    return run(x, h0, c0, kernel, recurrent, bias)
