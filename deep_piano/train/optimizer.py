"""The optimizer: AdamW that keeps a mean of the weights, and the learning rate schedule.

This module loads Keras when it is imported; it knows nothing of models or data.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, constant rate, and a decay of 1 - sqrt at the end.

    After Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations" (arXiv:2405.18392): the end need not be known in advance, and a decay can start from
    any checkpoint.

    Parameters
    ----------
    rate : float
        The constant rate.
    warmup_steps, steps, decay_steps : int
        Updates of the warm-up, of the whole run, and of the decay at its end.
    """

    def __init__(self, rate: float, *, warmup_steps: int, steps: int, decay_steps: int) -> None:
        self.rate, self.warmup_steps = rate, warmup_steps
        self.steps, self.decay_steps = steps, decay_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of the update with this number, counted from 0."""
        step = ops.cast(step, "float32")
        rise = ops.minimum(1.0, (step + 1) / max(1, self.warmup_steps))
        fallen = (step - (self.steps - self.decay_steps)) / max(1, self.decay_steps)
        return self.rate * rise * (1 - ops.sqrt(ops.clip(fallen, 0.0, 1.0)))

    def get_config(self) -> dict[str, Any]:
        """Return the parameters."""
        return dict(vars(self))


class AveragingAdamW(keras.optimizers.AdamW):
    """AdamW whose exponential mean of the weights begins with a shorter memory.

    The mean's momentum is (1 + n) / (10 + n) after n updates, until that reaches `ema_momentum`,
    so that the initial weights do not dominate the mean of a short run.
    """

    def begin_mean(self, variables: Any) -> None:
        """Set the mean to the present values of its variables."""
        for variable, mean in zip(variables, self._means, strict=self.use_ema):
            mean.assign(ops.copy(variable))

    def put_mean(self, variables: Any) -> None:
        """Assign the mean to its variables."""
        for variable, mean in zip(variables, self._means, strict=self.use_ema):
            variable.assign(ops.copy(mean))  # jax lets no two variables share an array

    @property
    def _means(self) -> Any:
        return self._model_variables_moving_average if self.use_ema else []

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        if not self.use_ema:
            return
        done = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, (1 + done) / (10 + done))
        for variable, mean in zip(trainable_variables, self._means, strict=True):
            mean.assign(mean + (variable - mean) * ops.cast(1 - momentum, mean.dtype))
