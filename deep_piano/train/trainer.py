"""Updates of a model: the model, its optimizer, and the state to resume from.

On TensorFlow an update is our own graph, in one worker or several; on torch and jax it is Keras's.
This module knows batches and models; it knows nothing of datasets or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import SequenceSpec
from deep_piano.codecs.registry import codec_of
from deep_piano.config.sections import TrainConfig
from deep_piano.errors import CheckpointError
from deep_piano.infra.backend import load_keras, mixed_precision
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.config import ModelConfig, weight_shapes
from deep_piano.models.note_network import build_model, carried, carry_state, nats_of
from deep_piano.train.windows import Batch
from deep_piano.train.workers import Workers

if TYPE_CHECKING:
    from deep_piano.train.optimizer import AveragingAdamW


class Trainer:
    """A model in training.

    Parameters
    ----------
    spec : SequenceSpec
    config : ModelConfig
    settings : TrainConfig
        Its `batch` is that of all workers together.
    workers : Workers, optional

    Attributes
    ----------
    step : int
        Updates made so far.
    model : keras.Model
    """

    def __init__(
        self,
        spec: SequenceSpec,
        config: ModelConfig,
        settings: TrainConfig,
        workers: Workers | None = None,
    ) -> None:
        keras = load_keras()
        self.spec, self.config, self.step = spec, config, 0
        self._workers = workers or Workers()
        keras.utils.set_random_seed(settings.random_state)
        self.model = build_model(
            spec,
            config,
            batch=settings.batch // self._workers.size,
            window=settings.window,
            precision=mixed_precision() if settings.precision == "auto" else settings.precision,
        )
        self._adam = _adam(settings)
        # Small gradients would vanish in float16.
        scaled = settings.precision == "mixed_float16"
        self._optimizer = keras.optimizers.LossScaleOptimizer(self._adam) if scaled else self._adam
        widths = codec_of(spec).log_widths
        losses = [
            _squared_error(config.scale) if field.continuous else nats_of(field, widths[index])
            for index, field in enumerate(spec.fields)
        ]
        backend = keras.backend.backend()
        # On a CPU TensorFlow's XLA is slower and takes four times the memory; jax needs it.
        self.model.compile(self._optimizer, loss=losses, jit_compile=backend == "jax")
        self._optimizer.build(self.model.trainable_variables)
        self._update = self._tensorflow_step() if backend == "tensorflow" else self._keras_step
        self._sums = np.zeros(2)

    @property
    def learning_rate(self) -> float:
        """The rate of the next update."""
        return float(self._optimizer.learning_rate)

    def train(self, batch: Batch) -> float:
        """Make one update; return the mean loss of a step since `reset_figures`.

        In nats on the codec's finest grid, or the squared error.

        Raises
        ------
        FloatingPointError
            When the loss is NaN or infinite; on all workers at once.
        """
        loss, count = self._update(batch, float(batch.weights.sum()))
        self.step += 1
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        # Keras divides by the size of the batch, with the positions after a recording's end.
        loss *= self.config.scale**2 if self.spec.continuous else 1.0
        self._sums += loss * batch.weights.size, count
        return float(self._sums[0] / self._sums[1])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the mean of its weights within the block, for scoring and saving."""
        variables = self.model.trainable_variables
        own = [np.asarray(variable.numpy()).copy() for variable in variables]
        self._adam.put_mean(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def reset_figures(self) -> None:
        """Begin a new mean."""
        self._sums[:] = 0

    def _targets(self, batch: Batch) -> tuple[Any, Any]:
        """Return targets and their weights for Keras: lists of several, or one of each."""
        targets, copied = [], 0
        for index, field in enumerate(self.spec.fields):
            target = batch.targets[..., index : index + 1]
            if field.copies:
                mine = batch.known.copied[..., copied : copied + field.copies]
                target = np.concatenate([target, mine.astype(target.dtype)], -1)
                copied += field.copies
            targets.append(target)
        if len(targets) == 1:
            return targets[0], batch.weights
        return targets, [batch.weights] * len(targets)

    def _tensorflow_step(self) -> Any:
        import tensorflow as tf

        model, optimizer, workers = self.model, self._optimizer, self._workers
        variables = [variable.value for variable in model.trainable_variables]
        states = carried(model)

        @tf.function(jit_compile=False)
        def update(inputs: Any, targets: Any, weights: Any, keep: Any, count: Any) -> Any:
            for state in states:
                state.assign(state * tf.cast(keep[:, None], state.dtype))
            with tf.GradientTape() as tape:
                outputs = model(inputs, training=True)
                loss = model.compute_loss(
                    x=inputs,
                    y=targets,
                    y_pred=outputs,
                    sample_weight=weights,
                    training=True,
                )
                scaled = optimizer.scale_loss(loss)
            # Dense: Adam would square the parts of a sparse gradient without adding them up.
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)]
            *gradients, loss, count = workers.mean([*gradients, loss, count])
            optimizer.apply(gradients, model.trainable_variables)
            return tf.stack([loss, count])

        def step(batch: Batch, count: float) -> NDArray[np.float32]:
            given = (batch.inputs, *self._targets(batch), batch.keep, np.float32(count))
            tensors = tf.nest.map_structure(tf.convert_to_tensor, given)
            return np.asarray(update(*tensors))

        return step

    def _keras_step(self, batch: Batch, count: float) -> tuple[float, float]:
        carry_state(self.model, batch.keep)
        targets, weights = self._targets(batch)
        logs = self.model.train_on_batch(
            batch.inputs, targets, sample_weight=weights, return_dict=True
        )
        self.model.reset_metrics()
        return float(logs["loss"]), count

    def checkpoint(self, facts: Mapping[str, Any]) -> Checkpoint:
        """Return the weights as a checkpoint."""
        return Checkpoint(self.spec, self.config, checkpoints.weights_of(self.model), facts=facts)

    def training_state(self) -> dict[str, NDArray[Any]]:
        """Return the optimizer's variables and the carried state of all slots of the batch.

        Every worker must call it; all get the same result.
        """
        arrays = {
            f"optimizer/{index:03d}": np.asarray(variable.numpy())
            for index, variable in enumerate(self._optimizer.variables)
        }
        for index, state in enumerate(carried(self.model)):
            # (workers, batch / workers, units)
            every = self._workers.gather(np.asarray(state.numpy()))
            # Slot j of worker r is slot j * workers + r of the whole batch.
            arrays[f"carried/{index:03d}"] = np.ascontiguousarray(
                every.swapaxes(0, 1).reshape(-1, every.shape[-1])
            )
        return arrays

    def restore(
        self, weights: Mapping[str, NDArray[np.float32]], state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Resume from weights and a `training_state`, on any number of workers.

        Raises
        ------
        CheckpointError
            When they do not fit this model.
        """
        workers = self._workers
        shapes = {name: one.shape for name, one in weights.items()}
        if shapes != weight_shapes(self.spec, self.config):
            raise CheckpointError(
                "the last checkpoint has another network than the run's settings say, as where two "
                "trainings wrote into one folder. Begin a new run, with --init to start from its "
                "weights."
            )
        checkpoints.assign_weights(self.model, weights)
        try:
            for index, variable in enumerate(self._optimizer.variables):
                variable.assign(state[f"optimizer/{index:03d}"])
            for index, variable in enumerate(carried(self.model)):
                variable.assign(state[f"carried/{index:03d}"][workers.rank :: workers.size])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the last checkpoint does not fit the run's settings: {error}. Begin a new run, "
                "with --init to start from its weights."
            ) from error

    def begin_from(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Begin with the weights, and only the weights, of another checkpoint.

        LSTM layers that it does not have come after its own. Their cell gate begins at zero, so
        that they add nothing: the network is the same at first, as in Net2Net (Chen, Goodfellow and
        Shlens, ICLR 2016).
        """
        units, grown = self.config.units, dict(weights)
        for name, own in checkpoints.weights_of(self.model).items():
            if name not in weights:
                grown[name] = own.copy()
                if name.startswith("lstm_"):  # Keras's gates: input, forget, cell, output
                    grown[name][..., 2 * units : 3 * units] = 0
        checkpoints.assign_weights(self.model, grown)
        self._adam.begin_mean(self.model.trainable_variables)


def _squared_error(scale: float) -> Any:
    """Return the squared error of scaled numbers, comparable between codecs."""

    def squared_error(target: Any, output: Any) -> Any:
        from keras import ops

        return ops.mean(ops.square((target - output) / scale), axis=-1)

    return squared_error


def _adam(settings: TrainConfig) -> AveragingAdamW:
    """Return AdamW (Loshchilov and Hutter, ICLR 2019) with these settings."""
    from deep_piano.train.optimizer import AveragingAdamW, WarmupStableDecay

    schedule = WarmupStableDecay(
        settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        steps=settings.steps,
        decay_steps=settings.decay,
    )
    adam = AveragingAdamW(
        schedule,
        weight_decay=settings.weight_decay,
        beta_2=0.98,
        global_clipnorm=settings.clip_norm,
        use_ema=settings.mean_of_weights > 0,
        ema_momentum=settings.mean_of_weights or None,
    )
    adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam
