"""The processes that train one model together, each on its share of the batch.

One process is the common case and needs nothing. Several processes on CPUs of one machine reduce
in shared memory. All others use TensorFlow: its `MultiWorkerMirroredStrategy` starts the servers
and its replica context reduces; on one machine that takes ten times as long. The model's variables
stay ordinary ones: Keras 3 cannot yet train mirrored ones (keras#20585), and its optimizer, called
within a replica, would sum the gradients again after clipping. This module knows tensors; it knows
neither models nor Ray.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.backend import gpus

_MEETING_S = 120.0


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


def join(key: bytes) -> Workers:
    """Join the workers that ``TF_CONFIG`` names.

    Call it before any other use of TensorFlow.

    Parameters
    ----------
    key : bytes
        A secret of this training's workers.
    """
    cluster = json.loads(os.environ["TF_CONFIG"])
    addresses, rank = cluster["cluster"]["worker"], int(cluster["task"]["index"])
    hosts = {address.rpartition(":")[0] for address in addresses}
    if len(hosts) > 1 or gpus():
        return TensorFlowWorkers()
    port = int(addresses[0].rpartition(":")[2])
    return OneMachine(rank, len(addresses), port, key)


class TensorFlowWorkers(Workers):
    """Several processes that find each other through ``TF_CONFIG``.

    Make it before any other use of TensorFlow.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        self.rank = int(resolver.task_id or 0)
        self.size = int(self._strategy.num_replicas_in_sync)

    def mean(self, tensors: list[Any]) -> list[Any]:
        """Return the mean of each tensor over the workers, in one reduction."""
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
        """Run a function in this worker's only replica."""
        import tensorflow as tf

        # A copy lies on the replica's device, which the strategy asks for.
        result = self._strategy.run(lambda mine: what(tf.identity(mine)), args=(value,))
        (mine,) = self._strategy.experimental_local_results(result)
        return mine


class OneMachine(Workers):
    """Several processes on one machine, with shared memory; rank 0 is connected to all others.

    Parameters
    ----------
    rank, size : int
        This worker's rank, and the number of workers.
    port : int
        At which rank 0 waits for the others.
    key : bytes
        A secret that all of them know.

    Raises
    ------
    OSError, EOFError
        When another worker does not connect, or has ended; all methods raise them too.
    """

    def __init__(self, rank: int, size: int, port: int, key: bytes) -> None:
        self.rank, self.size = rank, size
        address = ("127.0.0.1", port)
        self._others: list[Connection]  # of rank 0: to all others by rank; of others: to rank 0
        if rank:
            self._others = [_connection(address, key)]
            self._others[0].send(rank)
        else:
            met: dict[int, Connection] = {}
            with Listener(address, backlog=size, authkey=key) as listener:
                while len(met) < size - 1:
                    with suppress(AuthenticationError):  # a stranger
                        other = listener.accept()
                        met[other.recv()] = other
            self._others = [met[other] for other in range(1, size)]
        self._shared: NDArray[np.float32] | None = None  # (workers, length)

    def mean(self, tensors: list[Any]) -> list[Any]:
        """Return the mean of each tensor over the workers, the same on all; within a graph."""
        import tensorflow as tf

        means = tf.numpy_function(
            self._means,
            [tf.cast(tensor, tf.float32) for tensor in tensors],
            [tf.float32] * len(tensors),
        )
        return [
            tf.cast(tf.ensure_shape(mean, tensor.shape), tensor.dtype)
            for mean, tensor in zip(means, tensors, strict=True)
        ]

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all workers, stacked in the order of their ranks."""
        if self.rank:
            self._others[0].send(array)
            stacked: NDArray[Any] = self._others[0].recv()
            return stacked
        stacked = np.stack([array, *(other.recv() for other in self._others)])
        for other in self._others:
            other.send(stacked)
        return stacked

    def _means(self, *arrays: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the means over the workers, bit for bit the same on all of them."""
        ends = np.cumsum([array.size for array in arrays])
        if self._shared is None:
            self._shared = self._share(int(ends[-1]))
        places = [slice(end - array.size, end) for array, end in zip(arrays, ends, strict=True)]
        for array, place in zip(arrays, places, strict=True):
            self._shared[self.rank, place] = array.ravel()
        self._wait_for_all()
        means = []
        for array, place in zip(arrays, places, strict=True):
            mean = self._shared[0, place] + self._shared[1, place]
            for rank in range(2, self.size):
                mean += self._shared[rank, place]
            mean /= self.size
            means.append(mean.reshape(array.shape))
        self._wait_for_all()  # or a fast worker would overwrite what others still read
        return means

    def _share(self, length: int) -> NDArray[np.float32]:
        """Return an array with a row for each worker, in memory that ends with the processes."""
        shape = (self.size, length)
        if self.rank:
            shared = np.memmap(self._others[0].recv(), np.float32, "r+", shape=shape)
            self._wait_for_all()
            return shared
        with _written_file(4 * self.size * length) as file:
            for other in self._others:
                other.send(file.name)
            shared = np.memmap(file.name, np.float32, "r+", shape=shape)
            self._wait_for_all()
        return shared

    def _wait_for_all(self) -> None:
        """Return when all workers have called this."""
        self.gather(np.empty(0, np.uint8))


def _connection(address: tuple[str, int], key: bytes) -> Connection:
    """Return a connection to an address; retry until something listens there."""
    given_up = time.monotonic() + _MEETING_S
    while True:
        try:
            return Client(address, authkey=key)
        except ConnectionRefusedError:
            if time.monotonic() > given_up:
                raise
            time.sleep(0.05)


def _written_file(size: int) -> IO[bytes]:
    """Return a temporary file of zeros, in memory where there is room.

    It is written, not only extended: a page that cannot be allocated later would kill the process.
    """
    try:
        return _filled("/dev/shm", size)
    except OSError:
        return _filled(None, size)


def _filled(folder: str | None, size: int) -> IO[bytes]:
    with ExitStack() as stack:
        file = stack.enter_context(NamedTemporaryFile(prefix="deep-piano-", dir=folder))
        file.write(bytes(size))
        file.flush()
        stack.pop_all()
        return file
