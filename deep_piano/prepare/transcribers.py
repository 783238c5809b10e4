"""A pool of transcribers: Ray actors that load the network once for many recordings."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import total
from deep_piano.infra.cluster.scheduling import Silence
from deep_piano.music.audio import Samples
from deep_piano.music.notes import Notes
from deep_piano.prepare.ingest import Transcribe, TranscriberLostError
from deep_piano.prepare.plan import ShardPlan
from deep_piano.prepare.sources import Source

Factory = Callable[[], Transcribe]
"""Makes a `Transcribe`; called in the actor's process."""

_SETTLING_S = 30
_TRIED = 2  # transcribers for a recording: it shall not kill all of them

logger = logging.getLogger(__name__)


def transkun() -> Transcribe:
    """Load the Transkun network, its weights fetched where they are missing.

    Raises
    ------
    AssetError
        When the weights are missing and cannot be fetched, or are broken.
    """
    from deep_piano.infra.assets import cache
    from deep_piano.music.transcription import Transcriber

    network = Transcriber(cache.ensure("transkun"), threads=1)  # there is one a CPU

    def transcribe(samples: Samples, sr: int) -> tuple[Notes, float]:
        return network.performance(samples, sr=sr).notes_and_pedal()

    return transcribe


class _Transcriber:
    """The actor that holds the network."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._transcribe: Transcribe | None = None

    def is_placed(self) -> bool:
        """Return once Ray has placed this actor."""
        return True

    def live(self) -> None:
        """Never return, so that the reference fails when the actor is lost."""
        threading.Event().wait()

    def transcribe(self, samples: Samples, sr: int) -> tuple[Notes, float]:
        """Return a recording's notes and its share of time with the pedal down."""
        if self._transcribe is None:
            self._transcribe = self._factory()
        return self._transcribe(samples, sr)


class _Tally:
    """The actor that counts the recordings transcribed for shards that are still being built."""

    def __init__(self) -> None:
        self._lengths_s: dict[str, list[float]] = {}

    def record(self, shard: str, lengths_s: list[float]) -> None:
        """Store the lengths of the recordings of a shard that were transcribed so far."""
        self._lengths_s[shard] = lengths_s

    def lengths_s(self, shards: Collection[str]) -> list[float]:
        """Return the lengths of the recordings transcribed for some shards."""
        return [length for shard in shards for length in self._lengths_s.get(shard, [])]


class Pool:
    """Transcribers, started when the first recording needs one.

    Only transcribers that Ray has placed get work, and lost ones are replaced, so that a smaller
    cluster is slower but does not stall. Ray's own restarts are not used: a call to an actor that
    waits for a place waits with it.

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
        self._tally: Any = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """End the transcribers, which would otherwise hold their CPUs for as long as Ray runs."""
        import ray

        for actor in filter(None, (*self._actors.values(), self._tally)):
            ray.kill(actor)

    @property
    def cpus_beside(self) -> float:
        """CPUs of a task that uses the pool.

        0 where transcribers hold the CPUs, since the tasks that feed them mostly wait.
        """
        return 0.0 if self._actors else 1.0

    @property
    def in_flight(self) -> int:
        """Tasks that keep the pool busy: two for each transcriber; 0 without a pool."""
        return 2 * max(1, len(self._placed())) if self._actors else 0

    def start_for(self, sources: Iterable[Source]) -> None:
        """Start the transcribers if any of these files needs one."""
        if self._actors or not CODECS[self._settings.codec].encodes_notes:
            return
        if all(source.is_midi for source in sources):
            return
        import ray

        self._tally = ray.remote(num_cpus=0, max_restarts=-1)(_Tally).remote()
        count = max(1, int(total("CPU")))
        count = min(count, self._settings.workers or count)
        for _ in range(self._settings.transcribers or count):
            self._start()
        # Wait, so that the first shards are shared by as many as possible.
        ray.wait(list(self._place_of), num_returns=len(self._place_of), timeout=_SETTLING_S)

    def transcribed_s(self) -> list[float]:
        """Return the lengths, in seconds, of the recordings transcribed for unfinished shards.

        Empty where the tally cannot be reached.
        """
        import ray

        if self._tally is None:
            return []
        try:
            return list(ray.get(self._tally.lengths_s.remote(list(self._taken)), timeout=1))
        except ray.exceptions.RayError:
            return []

    def take(self, plan: ShardPlan, silence: Silence) -> RemoteTranscriber | None:
        """Return a handle to the least busy transcriber and one other; None without a pool.

        Waits until Ray has placed one.

        Raises
        ------
        DeepPianoError
            When there is no progress for too long.
        """
        if not self._actors:
            return None
        warned = time.monotonic()
        while not (placed := self._placed(wait_s=1)):
            silence.require_short(len(self._taken) + 1, self.transcribed_s())
            if time.monotonic() - warned > _SETTLING_S:
                warned = time.monotonic()
                logger.warning("no transcriber is placed in the cluster yet: each needs a CPU")
        first = min(placed, key=lambda number: self._load[number])
        self._load[first] += 1
        self._taken[plan.name] = first
        others = [self._actors[number] for number in placed if number != first]
        tried = [self._actors[first], *others[: _TRIED - 1]]
        return RemoteTranscriber(tried, self._tally, plan.name)

    def release(self, plan: ShardPlan) -> None:
        """Release the transcriber of a plan."""
        if plan.name in self._taken:
            self._load[self._taken.pop(plan.name)] -= 1

    def _start(self) -> None:
        import ray

        kind = ray.remote(concurrency_groups={"life": 1}, num_cpus=1)(_Transcriber)
        actor = kind.remote(self._factory)
        number = next(self._numbers)
        self._actors[number] = actor
        self._life_of[actor.live.options(concurrency_group="life").remote()] = number
        self._place_of[actor.is_placed.remote()] = number

    def _placed(self, *, wait_s: float = 0) -> list[int]:
        """Return the placed transcribers, after replacing lost ones."""
        import ray

        lives = list(self._life_of)
        for life in ray.wait(lives, num_returns=len(lives), timeout=0)[0]:
            number = self._life_of.pop(life)
            logger.warning(
                "a transcriber was lost; a new one replaces it",
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


class RemoteTranscriber:
    """A `Transcribe` that calls the first of several actors, or the next one where it is lost.

    Parameters
    ----------
    actors : sequence
    tally : actor
        Counts the recordings transcribed.
    shard : str
        The shard that they belong to.

    Raises
    ------
    TranscriberLostError
        When it is called and all actors are lost.
    """

    def __init__(self, actors: Sequence[Any], tally: Any, shard: str) -> None:
        self._actors, self._tally, self._shard = actors, tally, shard
        self._lengths_s: list[float] = []

    def __call__(self, samples: Samples, sr: int) -> tuple[Notes, float]:
        """Return the notes as they sound, and the share of time with the pedal down."""
        import ray

        lost: Exception | None = None
        for actor in self._actors:
            try:
                notes, share = ray.get(actor.transcribe.remote(samples, sr))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                lost = error
            else:
                self._lengths_s.append(len(samples) / sr)
                self._tally.record.remote(self._shard, self._lengths_s)
                return notes, share
        raise TranscriberLostError(f"no transcriber is left: {lost}")


def no_transcriber(samples: Samples, sr: int) -> tuple[Notes, float]:
    """Raise: stands in where no recording needs a transcriber."""
    raise TranscriberLostError("no transcriber was started")
