"""The composers of GENERATE in bulk: how many a cluster holds, the actor, and its place.

A composer makes many pieces side by side. Its place outlives it: where one dies another is put, and
what it had in the making is suspected of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.config.sections import BulkConfig
from deep_piano.decoding.base import Decoder
from deep_piano.decoding.open import Device, open_decoder
from deep_piano.decoding.rules import NoteContinuation
from deep_piano.errors import InputError
from deep_piano.generate import notes, seeds, wave
from deep_piano.generate.records import Key
from deep_piano.generate.tasks import Run
from deep_piano.infra.backend import load_tensorflow
from deep_piano.infra.cluster.connection import ask_for, gpus_each, total
from deep_piano.infra.cluster.scheduling import outcome
from deep_piano.models.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

DecoderFactory = Callable[..., Decoder[Any, Any]]
"""Opens the decoder of a composer, as `open_decoder` does; called in the actor's own process."""

_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0  # between starts, doubled each time: a node may be leaving
_CPUS_A_COMPOSER = 8
_BATCH = 16
_BATCH_ON_A_GPU = 128


@dataclass(frozen=True)
class Crew:
    """The composers of a run: how many, the share of a GPU that each has, and its pieces at once.

    On GPUs the width of the compiled loop decides over the last bits, on CPUs nothing does. There
    sound needs no composers.
    """

    composers: int
    gpus: float
    batch: int

    @property
    def device(self) -> str:
        """The kind of device: pieces of another one are not the same to the last bit."""
        return f"gpu, {self.batch} at once" if self.gpus else "cpu"


def crew_for(bulk: BulkConfig, *, pieces: int) -> Crew:
    """Return the composers that the settings and the cluster allow, once its nodes are there."""
    if bulk.workers and bulk.nodes_within_seconds:
        count, share = min(bulk.workers, pieces), bulk.gpus_per_worker
        each_cpus = [{"CPU": float(_CPUS_A_COMPOSER)}] * count
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
    return Crew(bulk.workers or -(-cpus // _CPUS_A_COMPOSER), 0.0, bulk.batch or _BATCH)


def _tensorflow_sees_gpus(each: float) -> bool:
    """Ask a process that has a share of a GPU."""
    import ray

    return outcome(ray.remote(num_cpus=0, num_gpus=each)(_sees_a_gpu).remote()) is True


def _sees_a_gpu() -> bool:
    return bool(load_tensorflow().config.list_physical_devices("GPU"))


class Place:
    """A place for a composer: the actor in it, and what that has to do.

    Attributes
    ----------
    reference : ObjectRef or None
        Of the call that is at work.
    composing : set of Key
    alone : bool
        What it composes is suspected of having ended another composer.
    answered_after : int or None
        How many composers had died when this one last answered.
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
        self.actor = self._start()
        self.reference: Any = None
        self.composing: set[Key] = set()
        self.alone = False
        self.answered_after: int | None = None
        pause = _PAUSE_S * 2**self.starts if self.starts else 0.0
        self.paused_until = time.monotonic() + min(pause, _LONGEST_PAUSE_S)
        self.starts += 1

    def end(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self.actor)


class ComposerActor:
    """The actor for a checkpoint of notes: pieces composed side by side, as many as it is given."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        index: CorpusIndex | None,
        run: Run,
        crew: Crew,
        opened: DecoderFactory,
    ) -> None:
        device: Device = "gpu" if crew.gpus else "cpu"
        self._decoder = opened(checkpoint, run.settings, device=device, width=crew.batch)
        self._index, self._run = index, run
        self._seeds: dict[Key, seeds.Seed] = {}

    def work(self, asked: Mapping[Key, seeds.Seed]) -> dict[Key, notes.Take]:
        """Begin pieces, and go on with all until some are complete; return those."""
        settings, only_new = self._run.settings, self._run.only_new
        for key, seed in asked.items():
            self._seeds[key] = seed
            self._decoder.add(key, notes.task_of(seed, settings, take=key[1], only_new=only_new))
        done: dict[Any, NoteContinuation] = {}
        while len(self._decoder) and not done:
            done = self._decoder.step()
        return {
            key: notes.take_of(
                self._seeds.pop(key), new, take=key[1], only_new=only_new, index=self._index
            )
            for key, new in done.items()
        }


class SoundComposerActor:
    """The actor for a checkpoint of sound: recordings continued side by side on a GPU."""

    def __init__(self, checkpoint: Checkpoint, run: Run, crew: Crew) -> None:
        self._run = run
        self._decoder = open_decoder(checkpoint, run.settings, device="gpu", width=crew.batch)

    def work(self, asked: Mapping[Key, wave.Prompt]) -> dict[Key, wave.Take]:
        """Begin continuations, and go on with all until some are complete; return those."""
        for key, prompt in asked.items():
            self._decoder.add(key, wave.task_of(prompt, self._run.settings, key[1]))
        done: dict[Any, Any] = {}
        while len(self._decoder) and not done:
            done = self._decoder.step()
        return {key: wave.Take(key[1], steps) for key, steps in done.items()}
