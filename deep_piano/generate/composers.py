"""The composers of GENERATE in bulk: how many a cluster holds, the actor, and its place.

A composer decodes many pieces side by side. Its place outlives it: another one is put there where
it is lost.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deep_piano.config.sections import BulkConfig
from deep_piano.decoding.base import Decoder
from deep_piano.decoding.open import Device
from deep_piano.errors import InputError
from deep_piano.generate.on_the_way import Slot
from deep_piano.generate.records import Key
from deep_piano.generate.tasks import Run
from deep_piano.infra.backend import load_tensorflow
from deep_piano.infra.cluster.connection import ask_for, gpus_each, total
from deep_piano.infra.cluster.scheduling import outcome

logger = logging.getLogger(__name__)

DecoderFactory = Callable[..., Decoder[Any, Any]]
"""Opens the decoder of a composer, as `open_decoder` does; called in the actor's own process."""

_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0  # between starts, doubled each time: a node may be leaving
_BATCH_ON_A_GPU = 128
# On CPUs: composing is nearly half the work of a piece of notes, and a few pieces at once already
# share its products; of sound a core decodes one stream.
_NOTES, _SOUND = (2, 8), (1, 1)  # CPUs a composer, and its pieces at once


@dataclass(frozen=True)
class Crew:
    """The composers of a run: how many, the share of a GPU that each has, and its pieces at once.

    On GPUs the width of the compiled loop decides over the last bits, on CPUs nothing does.
    """

    composers: int
    gpus: float
    batch: int

    @property
    def device(self) -> str:
        """The kind of device: pieces of another one are not the same to the last bit."""
        return f"gpu, {self.batch} at once" if self.gpus else "cpu"


def crew_for(bulk: BulkConfig, *, pieces: int, of_notes: bool = True) -> Crew:
    """Return the composers that the settings and the cluster allow, once its nodes are there."""
    cpus_each, batch = _NOTES if of_notes else _SOUND
    if bulk.workers and bulk.nodes_within_seconds:
        count, share = min(bulk.workers, pieces), bulk.gpus_per_worker
        each_cpus = [{"CPU": float(cpus_each)}] * count
        all_gpus = [{"GPU": 1.0}] * math.ceil(count * (share or 0.0))
        ask_for(all_gpus or each_cpus, within_s=bulk.nodes_within_seconds)
    gpus, each = int(total("GPU")), gpus_each(bulk.gpus_per_worker, bulk.workers or 1)
    room = gpus * int(1 / each) if each else 0
    if each and (bulk.workers or 1) > room:
        raise InputError(
            f"{bulk.workers or 1} composers with {each:g} of a GPU each do not fit on the "
            f"cluster's {gpus} GPUs. Give fewer --workers, --gpus-per-worker 0 to compose on CPUs, "
            "or add nodes."
        )
    if each and not _tensorflow_sees_gpus(each):
        advice = "pip install '.[gpu]' on every node is what it needs."
        if bulk.gpus_per_worker:
            raise InputError(f"the cluster has GPUs, but TensorFlow sees none there: {advice}")
        logger.warning("composing on CPUs: TensorFlow does not see the cluster's GPUs. %s", advice)
        each = 0.0
    if each:
        return Crew(bulk.workers or room, each, bulk.batch or _BATCH_ON_A_GPU)
    cpus = max(1, round(total("CPU")))
    return Crew(bulk.workers or -(-cpus // cpus_each), 0.0, bulk.batch or batch)


def _tensorflow_sees_gpus(each: float) -> bool:
    """Ask a process that has a share of a GPU."""
    import ray

    return outcome(ray.remote(num_cpus=0, num_gpus=each)(_sees_a_gpu).remote()) is True


def _sees_a_gpu() -> bool:
    return bool(load_tensorflow().config.list_physical_devices("GPU"))


class Place:
    """A place for a composer: the actor in it, one after another where actors are lost.

    Attributes
    ----------
    actor : actor handle
    slot : Slot
        What it composes.
    asked : bool
        It is at work on a call.
    starts : int
        How many composers were put here since one answered.
    paused_until : float
        Nothing is asked of the composer before this time, on the monotonic clock.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self.starts = 0
        self.begin()

    def begin(self) -> None:
        """Put a new actor into the place."""
        self.actor, self.slot, self.asked = self._start(), Slot(), False
        pause = _PAUSE_S * 2**self.starts if self.starts else 0.0
        self.paused_until = time.monotonic() + min(pause, _LONGEST_PAUSE_S)
        self.starts += 1

    def end(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self.actor)


class ComposerActor:
    """The actor: sequences decoded side by side, as many as it is given."""

    def __init__(self, run: Run, crew: Crew, opened: DecoderFactory) -> None:
        self._road = run.road
        device: Device = "gpu" if crew.gpus else "cpu"
        self._decoder = opened(
            self._road.checkpoint, self._road.settings, device=device, width=crew.batch
        )
        self._seeds: dict[Key, Any] = {}

    def work(self, asked: Mapping[Key, Any]) -> dict[Key, Any]:
        """Begin pieces of these seeds, and go on with all until some are decoded; return those."""
        for key, seed in asked.items():
            self._seeds[key] = seed
            self._decoder.add(key, self._road.task(seed, key[1]))
        done: dict[Any, Any] = {}
        while len(self._decoder) and not done:
            done = self._decoder.step()
        return {
            key: self._road.join(self._seeds.pop(key), new, key[1]) for key, new in done.items()
        }
