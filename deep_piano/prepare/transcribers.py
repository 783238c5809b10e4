"""A pool of transcribers: Ray actors that load the network once and hear many recordings."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import total
from deep_piano.music.audio import Samples
from deep_piano.music.notes import Notes
from deep_piano.prepare.ingest import Transcribe, TranscriberLostError
from deep_piano.prepare.plan import ShardPlan
from deep_piano.prepare.sources import Source

Factory = Callable[[], Transcribe]
"""Makes a `Transcribe`; called in the actor's own process."""

_SETTLING_S = 30
_ASKED = 2

logger = logging.getLogger(__name__)


def transkun() -> Transcribe:
    """Load the Transkun network, its weights fetched where they are missing.

    Raises
    ------
    AssetError
        When the weights are missing and cannot be fetched, or are broken.
    """
    # One thread, so that a recording has the same notes whatever machine hears it.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    from deep_piano.infra.assets import cache
    from deep_piano.music.transcription import Transcriber

    network = Transcriber(cache.ensure("transkun"))

    def transcribe(samples: Samples, sr: int) -> tuple[Notes, float]:
        return network.listen(samples, sr=sr).heard()

    return transcribe


class _Transcriber:
    """The actor."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._transcribe: Transcribe | None = None

    def is_placed(self) -> bool:
        """Answer, and so say that there is a place for this actor."""
        return True

    def live(self) -> None:
        """Never answer, so that what this returns fails when the actor is gone."""
        threading.Event().wait()

    def hear(self, samples: Samples, sr: int) -> tuple[Notes, float]:
        """Return a recording's notes and its pedal's share."""
        if self._transcribe is None:
            self._transcribe = self._factory()
        return self._transcribe(samples, sr)


class _Tally:
    """The actor that is told of every recording heard, for shards that are still being built."""

    def __init__(self) -> None:
        self._heard: dict[str, list[float]] = {}

    def note(self, shard: str, lengths_s: list[float]) -> None:
        """Take note of the lengths of the recordings of a shard that were heard so far."""
        self._heard[shard] = lengths_s

    def heard(self, shards: Collection[str]) -> list[float]:
        """Return the lengths of the recordings heard for some shards."""
        return [length for shard in shards for length in self._heard.get(shard, [])]


class Pool:
    """Transcribers, started when the first recording needs one.

    Only those that Ray has found a place for are given work, and those that die are replaced, so
    that a cluster which is or becomes smaller than it seemed is slower and no more. Ray's own
    restarts do not serve here: what is asked of an actor that waits for a place waits with it.

    Parameters
    ----------
    factory : callable
    settings : PrepareConfig
    """

    def __init__(self, factory: Factory, settings: PrepareConfig) -> None:
        self._factory, self._settings = factory, settings
        self._actors: dict[int, Any] = {}
        self._numbers = itertools.count()
        self._life_of: dict[Any, int] = {}
        self._place_of: dict[Any, int] = {}
        self._load: Counter[int] = Counter()
        self._taken: dict[str, int] = {}
        self._options: dict[str, float] = {}
        self._tally: Any = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """End the transcribers: they would hold their CPUs for as long as Ray runs."""
        import ray

        for actor in filter(None, (*self._actors.values(), self._tally)):
            ray.kill(actor)

    @property
    def cpus_beside(self) -> float:
        """CPUs that a task asks for which uses the pool.

        0 where the transcribers hold the CPUs: what feeds them is little work and mostly waits.
        """
        return 0.0 if self._options.get("num_cpus") else 1.0

    @property
    def in_flight(self) -> int:
        """Tasks that keep the pool busy, one heard and one decoded; 0 where there is no pool."""
        return 2 * max(1, len(self._placed())) if self._actors else 0

    def start_for(self, sources: Iterable[Source]) -> None:
        """Start the transcribers if any of these files needs one."""
        if self._actors or not CODECS[self._settings.codec].encodes_notes:
            return
        if all(source.is_midi for source in sources):
            return
        import ray

        self._tally = ray.remote(num_cpus=0, max_restarts=-1)(_Tally).remote()
        gpus, share = total("GPU"), self._settings.gpus_per_transcriber
        if gpus and share:
            count = max(1, int(gpus / share))
            self._options = {"num_gpus": share, "num_cpus": 0}
        else:
            count = max(1, int(total("CPU")))
            self._options = {"num_cpus": 1}
        count = min(count, self._settings.workers or count)
        for _ in range(self._settings.transcribers or count):
            self._start()
        # Those that are there at once share the first shards; late ones join in.
        ray.wait(list(self._place_of), num_returns=len(self._place_of), timeout=_SETTLING_S)

    def heard_s(self) -> list[float]:
        """Return the lengths of the recordings heard for shards that are being built, in seconds.

        Empty where nobody can say.
        """
        import ray

        if self._tally is None:
            return []
        try:
            return list(ray.get(self._tally.heard.remote(list(self._taken)), timeout=1))
        except ray.exceptions.RayError:
            return []

    def take(self, plan: ShardPlan) -> Ears | None:
        """Return the way to the transcribers, to the one with the least to do first.

        Waits until one of them has a place; None where there is no pool.
        """
        if not self._actors:
            return None
        told = time.monotonic()
        while not (placed := self._placed(wait_s=1)):
            if time.monotonic() - told > _SETTLING_S:
                told = time.monotonic()
                logger.warning(
                    "no transcriber has a place in the cluster yet: each needs %s", self._options
                )
        first = min(placed, key=lambda number: self._load[number])
        self._load[first] += 1
        self._taken[plan.name] = first
        others = [self._actors[number] for number in placed if number != first]
        # A recording that kills transcribers shall not kill them all.
        return Ears([self._actors[first], *others[: _ASKED - 1]], self._tally, plan.name)

    def release(self, plan: ShardPlan) -> None:
        """Say that a plan no longer uses its transcriber."""
        if plan.name in self._taken:
            self._load[self._taken.pop(plan.name)] -= 1

    def _start(self) -> None:
        import ray

        kind = ray.remote(concurrency_groups={"life": 1}, **self._options)(_Transcriber)
        actor = kind.remote(self._factory)
        number = next(self._numbers)
        self._actors[number] = actor
        self._life_of[actor.live.options(concurrency_group="life").remote()] = number
        self._place_of[actor.is_placed.remote()] = number

    def _placed(self, *, wait_s: float = 0) -> list[int]:
        """Return the transcribers that have a place, after replacing those that have died."""
        import ray

        lives = list(self._life_of)
        for life in ray.wait(lives, num_returns=len(lives), timeout=0)[0]:
            number = self._life_of.pop(life)
            logger.warning(
                "a transcriber died; another one takes its place",
                extra=dict(stage="prepare", event="lost"),
            )
            metrics.count("deep_piano_workers_lost", kind="transcriber")
            del self._actors[number]
            self._place_of = {ref: n for ref, n in self._place_of.items() if n != number}
            self._start()
        if waiting := list(self._place_of):
            if len(waiting) == len(self._actors):
                ray.wait(waiting, num_returns=1, timeout=wait_s)
            for reference in ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
                del self._place_of[reference]
        without = set(self._place_of.values())
        return [number for number in self._actors if number not in without]


class Ears:
    """A `Transcribe` that asks the first of some transcribers, or the next where one is gone.

    Parameters
    ----------
    actors : sequence
    tally : actor
        Is told of every recording that was heard.
    shard : str
        For which they are heard.

    Raises
    ------
    TranscriberLostError
        When called and none of the transcribers is left.
    """

    def __init__(self, actors: Sequence[Any], tally: Any, shard: str) -> None:
        self._actors, self._tally, self._shard = actors, tally, shard
        self._heard_s: list[float] = []

    def __call__(self, samples: Samples, sr: int) -> tuple[Notes, float]:
        """Return the notes as they sound, and the pedal's share."""
        import ray

        lost: Exception | None = None
        for actor in self._actors:
            try:
                notes, share = ray.get(actor.hear.remote(samples, sr))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                lost = error  # killed at work, or gone with its node
            else:
                self._heard_s.append(len(samples) / sr)
                self._tally.note.remote(self._shard, self._heard_s)
                return notes, share
        raise TranscriberLostError(f"no transcriber is left: {lost}")


def no_ears(samples: Samples, sr: int) -> tuple[Notes, float]:
    """Stand where no transcriber is needed."""
    raise TranscriberLostError("no transcriber was started")
