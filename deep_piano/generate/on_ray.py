"""GENERATE in bulk: a folder of seeds becomes a folder of pieces, on Ray tasks and composers.

Three kinds of work, each where it belongs: tasks read seeds (and transcribe them), a pool of actors
composes many pieces at once, tasks play, draw and write them. `on_the_way` says what is to be done
next, and bounds how many pieces are anywhere on the way. A piece depends on its seed's content, the
checkpoint, the settings and its take alone, so that whoever makes it, and how often it is begun
anew, changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from deep_piano.config.sections import Config
from deep_piano.decoding.open import judge_of, open_decoder
from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.generate.composers import ComposerActor, Crew, DecoderFactory, Place, crew_for
from deep_piano.generate.gallery import write_gallery
from deep_piano.generate.notes import index_for
from deep_piano.generate.on_the_way import OnTheWay
from deep_piano.generate.piece import road_of
from deep_piano.generate.records import (
    RUN,
    Key,
    Records,
    read_records,
    read_run,
    require_same_run,
    write_manifest,
    write_records,
    write_table,
)
from deep_piano.generate.tasks import Run, read_seed, write_piece
from deep_piano.infra import extras
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.cluster.scheduling import Silence, busy, completed
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.infra.storage.open import require_apart
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music.recordings import survey

logger = logging.getLogger(__name__)

_RETRIES = 2
_STARTS = 9  # a composer that dies so often before it answers is given up: after about a minute
_FLUSH_S = 20.0


def generate(
    seeds: Folder,
    pieces: Folder,
    config: Config,
    *,
    only_new: bool = False,
    force: bool = False,
    checkpoint: Checkpoint | None = None,
    opened: DecoderFactory = open_decoder,
    progress: Tell = no_progress,
) -> Records:
    """Write pieces that continue every seed of a folder, as far as they are not there already.

    Parameters
    ----------
    seeds, pieces : Folder
        Neither may lie in the other. The seeds are only read.
    config : Config
    only_new : bool
        Leave the seeds out of the pieces.
    force : bool
        Make everything anew where the pieces were made with other settings.
    checkpoint : Checkpoint, optional
        Used instead of the one that the settings name.
    opened : callable
        Opens a composer's decoder, as `open_decoder` does.
    progress : callable
        Called whenever something is done.

    Returns
    -------
    Records
        By seed and take, of every piece that was asked for; it stands in the manifest too.

    Raises
    ------
    InputError
        When seeds, checkpoint or settings cannot be used.
    DeepPianoError
        When too many pieces failed, or Ray did. What was done is kept: the same call goes on there.
    """
    extras.require("ray")
    begun = time.monotonic()
    require_apart(seeds, pieces)
    settings, bulk = config.generate, config.bulk
    if settings.between:
        raise InputError("--between is a span of one piece, not of a folder. Give one file.")
    loaded = checkpoint or checkpoints.load(settings.checkpoint, storage=config.storage)
    road = road_of(loaded, settings, Path(f"take.{bulk.format}"), only_new=only_new)
    entries, _ = survey(seeds)
    road = road.ready(no_progress)
    pieces.require_writable()
    run = Run(seeds, pieces, bulk.format, road)
    about = _in_common(run)
    if pieces.exists(RUN) and "made_by" in (made := read_run(pieces)):
        raise InputError(
            f"the pieces in {one_line(pieces.uri)} are those of `{one_line(made['made_by'])}`. "
            "Give another folder."
        )
    before = read_records(pieces)
    if force:  # whatever was there does not count, even if this run ends with its new settings
        write_manifest(pieces, Records())
    require_same_run(pieces, about, force=force)
    records = Records() if force else _still_good(before, pieces, entries)
    dropped = len(records) < len(before)
    state = OnTheWay(run, records, max_failures=bulk.max_failures)
    facts = dict(stage="generate", seeds=len(entries))
    logger.info("generate: %d seeds", len(entries), extra=dict(facts, event="begun"))
    todo = state.missing(entries)
    write_table(pieces, records)
    write_manifest(pieces, records)  # what a killed run left becomes part of it
    if settings.keep is not None and dropped:
        _remove_dropped(pieces, before, records)
    if todo:
        progress(Progress("starting Ray", 0, 1))
        with connected():
            count = sum(len(takes) for _, takes in todo)
            crew = crew_for(bulk, pieces=count, of_notes=road.of_notes)
            require_same_run(pieces, about | {"composed_on": crew.device}, force=force)
            run = replace(run, composed_on=crew.device)
            silence = Silence(bulk.silence_seconds, "bulk.silence_seconds")
            _Driver(run, state, crew, opened, progress).work(todo, silence)
        write_table(pieces, records)
        write_manifest(pieces, records)
    write_gallery(pieces, records)
    asked = {entry.name for entry in entries}
    for key in [k for k in records if k[0] not in asked or k[1] >= settings.takes]:
        del records[key]
    counts = Counter[str](record.status for record in records.all)
    took_s = round(time.monotonic() - begun, 3)
    logger.info("generate: ended", extra=dict(facts, event="ended", took_s=took_s, **counts))
    return records


def _in_common(run: Run) -> dict[str, Any]:
    """Return what decides over the bytes of all pieces, but for where they are composed."""
    settings = run.road.settings
    judge = judge_of(run.road.checkpoint, settings)
    apart = settings.most_shared is not None
    corpus = index_for(run.road.checkpoint, settings) if apart else None
    return {
        "settings": settings.model_dump(exclude={"takes", "keep", "checkpoint", "index"}),
        "best_of": [settings.keep, settings.takes] if settings.keep is not None else None,
        "only_new": run.road.only_new,
        "format": run.format,
        "sound": run.road.sound,
        "checkpoint_sha256": run.road.checkpoint.digest,
        "judge_sha256": judge.digest if judge is not None else None,
        "apart_from": [corpus.dataset, corpus.exact] if corpus is not None else None,
    }


def _still_good(before: Records, pieces: Folder, entries: Sequence[Entry]) -> Records:
    """Return the records of pieces that are whole and whose seeds have not changed."""
    stamps = {entry.name: entry.stamp for entry in entries}
    there = {entry.name for entry in pieces.entries() if not entry.problem}
    return Records(
        record
        for record in before.all
        if not record.failed
        and record.seed_stamp == stamps.get(record.seed, record.seed_stamp)
        and there.issuperset(record.files)
    )


def _remove_dropped(pieces: Folder, before: Records, records: Records) -> None:
    """Remove the files of pieces that are made anew: now the best takes may be others."""
    for _, takes in itertools.groupby(before.all, key=lambda record: record.seed):
        dropped, needed = set[str](), set[str]()  # the seed's own sound may be in both
        for record in takes:
            (needed if record.key in records else dropped).update(record.files)
        for name in sorted(dropped - needed):
            pieces.remove(name)


class _Job(NamedTuple):
    """A task or a call: what begins it, and what becomes of its result."""

    begin: Callable[[], Any]
    end: Callable[[Any], None]


class _Driver:
    """One bulk run at work."""

    def __init__(
        self, run: Run, state: OnTheWay, crew: Crew, opened: DecoderFactory, progress: Tell
    ) -> None:
        import ray

        self._pieces, self._state, self._crew, self._progress = run.pieces, state, crew, progress
        self._run = ray.put(run)
        self._read_seed, self._write_piece = _task(read_seed), _task(write_piece)
        self._opened = opened
        self._places: list[Place] = []
        self._batches = itertools.count()
        self._kept_at = time.monotonic()

    def work(self, todo: Sequence[tuple[str, list[int]]], silence: Silence) -> None:
        """Make what is missing; every piece ends with a record."""
        import ray

        state, crew = self._state, self._crew
        state.require_few_failures()
        actor: Any = ray.remote(num_cpus=0, num_gpus=crew.gpus, scheduling_strategy="SPREAD")(
            ComposerActor
        )
        count = min(crew.composers, sum(len(takes) for _, takes in todo))
        try:
            for _ in range(count):
                self._places.append(Place(lambda: actor.remote(self._run, crew, self._opened)))
            jobs = self._jobs(todo, most=busy() + 2 * crew.batch * count)
            with closing(
                completed(
                    lambda job: job.begin(), jobs, in_flight=lambda: sys.maxsize, silence=silence
                )
            ) as results:
                for job, result in results:
                    job.end(result)
                    self._progress(state.progress)
                    self._keep_records()
                    state.require_few_failures()
        finally:
            for place in self._places:
                place.end()
            self._keep_records(now=True)

    def _jobs(self, todo: Sequence[tuple[str, list[int]]], *, most: int) -> Iterator[_Job | None]:
        """Yield what can be begun, None where nothing can; `most` pieces are on the way at once."""
        state, coming = self._state, iter(todo)
        while True:
            if state.to_write:
                yield self._write(*state.to_write.popleft())
            elif len(state) < most and (seed := next(coming, None)):
                yield self._read(*seed)
            elif job := next(filter(None, map(self._compose, self._places)), None):
                yield job
            else:
                counts = state.counts(place.slot for place in self._places)
                for where, pieces in counts.items():
                    metrics.level("deep_piano_pieces_on_the_way", pieces, where=where)
                if not len(state):
                    return
                yield None

    def _read(self, name: str, takes: Sequence[int]) -> _Job:
        """Have a seed read."""
        self._state.begin(name, takes)

        def end(result: Any) -> None:
            if isinstance(result, Exception):
                self._state.unreadable(name, _reason(result))
            else:
                self._state.read(name, *result)

        return _Job(partial(self._read_seed.remote, self._run, name), end)

    def _compose(self, place: Place) -> _Job | None:
        """Have an idle composer begin pieces, or go on with what it has; None: it has nothing."""
        if place.asked or time.monotonic() < place.paused_until:
            return None
        seeds = self._state.give(place.slot, self._crew.batch)
        if seeds is None:
            return None
        place.asked = True

        def end(result: Any) -> None:
            place.asked = False
            if isinstance(result, Exception):
                self._replace(place, result)
            else:
                place.starts = 0
                self._state.composed(place.slot, result)

        return _Job(partial(place.actor.work.remote, seeds), end)

    def _replace(self, place: Place, error: Exception) -> None:
        """Put another composer into the place of one that was lost."""
        import ray

        died = isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed
        if not died or place.starts == _STARTS:
            raise DeepPianoError(
                f"a composer failed: {type(error).__name__}: {one_line(error)}"
            ) from error
        logger.warning(
            "a composer died; another one takes its place",
            extra=dict(stage="generate", event="lost", pieces=len(place.slot.composing)),
        )
        metrics.count("deep_piano_workers_lost", kind="composer")
        self._state.lost(place.slot)
        place.end()
        place.begin()

    def _write(self, key: Key, take: Any) -> _Job:
        """Have a piece played, drawn and written."""

        def end(result: Any) -> None:
            if isinstance(result, Exception):
                self._state.unwritten(key, _reason(result))
            else:
                self._state.written(result)

        seed = self._state.seed(key[0])
        return _Job(partial(self._write_piece.remote, self._run, key[0], seed, take), end)

    def _keep_records(self, *, now: bool = False) -> None:
        unkept = self._state.unkept
        if unkept and (now or time.monotonic() - self._kept_at > _FLUSH_S):
            write_records(self._pieces, next(self._batches), unkept)
            unkept.clear()
            self._kept_at = time.monotonic()


def _task(function: Callable[..., Any]) -> Any:
    """Make a task of a function, tried again when the process or the node that runs it dies."""
    import ray

    return ray.remote(function).options(max_retries=_RETRIES, scheduling_strategy="SPREAD")


def _reason(error: Exception) -> str:
    """Say why a task failed."""
    import ray

    if isinstance(error, DeepPianoError):
        return str(error)
    if isinstance(error, ray.exceptions.RayError) and not isinstance(
        error, ray.exceptions.RayTaskError
    ):
        return f"what worked on it died, again and again ({type(error).__name__})"
    return f"{type(error).__name__}: {error}"
