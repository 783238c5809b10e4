"""The processes that train one model together, each on its share of the batch.

One process is the common case and needs nothing. Several are TensorFlow's: its
`MultiWorkerMirroredStrategy` starts the servers that talk to each other, and its replica context
adds up. The model's variables stay ordinary ones: Keras 3 cannot yet train those that the strategy
would mirror (keras#20585), and its optimizer, called within a replica, would add up gradients again
after they were clipped. This module knows tensors; it knows neither models nor Ray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Workers:
    """One process that trains alone.

    Attributes
    ----------
    rank, size : int
        Which of the workers this is, from 0, and how many there are.
    """

    rank = 0
    size = 1

    def mean(self, tensors: list[Any]) -> list[Any]:
        """Return the mean of each tensor over the workers, the same on all; within a graph."""
        return tensors

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all workers, stacked in the order of their ranks."""
        return array[None]


class TensorFlowWorkers(Workers):
    """Several processes, each of which ``TF_CONFIG`` tells of the others.

    Make it before anything else is done with TensorFlow.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        self.rank = int(resolver.task_id or 0)
        self.size = int(self._strategy.num_replicas_in_sync)

    def mean(self, tensors: list[Any]) -> list[Any]:
        """Return the mean of each tensor over the workers: all of them in one reduction."""
        import tensorflow as tf

        flat = tf.concat([tf.reshape(tf.cast(tensor, tf.float32), [-1]) for tensor in tensors], 0)
        total = self._run(
            lambda value: tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, value
            ),
            flat,
        )
        parts = tf.split(total / self.size, [tensor.shape.num_elements() for tensor in tensors])
        return [
            tf.cast(tf.reshape(part, tensor.shape), tensor.dtype)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all workers, stacked in the order of their ranks."""
        import tensorflow as tf

        @tf.function
        def run(value: Any) -> Any:
            return self._run(
                lambda mine: tf.distribute.get_replica_context().all_gather(mine[None], axis=0),
                value,
            )

        return np.asarray(run(tf.convert_to_tensor(array)))

    def _run(self, what: Any, value: Any) -> Any:
        """Run something in this worker's replica; there is one, on its one GPU or its CPUs."""
        import tensorflow as tf

        # A copy lies on the replica's device, which the strategy asks for.
        result = self._strategy.run(lambda mine: what(tf.identity(mine)), args=(value,))
        (mine,) = self._strategy.experimental_local_results(result)
        return mine
