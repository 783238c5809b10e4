from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.tf


def losses_and_weights(layer, x, y, *, weights=None):
    import keras

    inputs = keras.Input(batch_shape=x.shape)
    outputs = keras.layers.Dense(4, dtype="float32")(
        layer(8, return_sequences=True, stateful=True)(inputs)
    )
    model = keras.Model(inputs, outputs)
    if weights is not None:
        model.set_weights(weights)
    start = model.get_weights()
    model.compile(keras.optimizers.SGD(0.5), keras.losses.MeanSquaredError(), jit_compile=False)
    losses = []
    for _ in range(3):  # the state is carried from one call to the next
        losses.append(float(model.train_on_batch(x, y)))
    return losses, model.get_weights(), start


def test_it_is_the_lstm_of_keras(rng):
    import keras

    from deep_piano.models.lstm import LSTM

    x = rng.normal(size=(5, 11, 6)).astype(np.float32)
    y = rng.normal(size=(5, 11, 4)).astype(np.float32)
    losses, weights, start = losses_and_weights(LSTM, x, y)
    expected_losses, expected, _ = losses_and_weights(keras.layers.LSTM, x, y, weights=start)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for mine, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(weights, start, strict=True))


def test_bfloat16_is_near_float32(rng):
    import keras

    from deep_piano.models.lstm import LSTM

    x = rng.normal(size=(4, 20, 8)).astype(np.float32)
    exact, rough = (
        LSTM(16, return_sequences=True),
        LSTM(16, return_sequences=True, dtype="mixed_bfloat16"),
    )
    expected = keras.ops.convert_to_numpy(exact(x))
    rough.build(x.shape)
    rough.set_weights(exact.get_weights())
    found = keras.ops.convert_to_numpy(keras.ops.cast(rough(x), "float32"))
    np.testing.assert_allclose(found, expected, atol=0.03)
