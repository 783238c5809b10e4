"""GENERATE in bulk: a folder of seeds becomes a folder of pieces, on Ray tasks and composers.

Three kinds of work, each where it belongs: tasks read seeds (and transcribe them), a pool of actors
composes many pieces at once, tasks play, draw and write them. With a checkpoint of sound and no
GPUs a task does all that a piece needs, as one core steps one take. One loop in the driver hands
the work on, and bounds how many pieces are anywhere on the way. A piece depends on its seed's
content, the checkpoint, the settings and its take alone, so that whoever makes it, and how often it
is begun anew, changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import BulkConfig, Config
from deep_piano.decoding.open import open_decoder
from deep_piano.decoding.wave import require_sound
from deep_piano.errors import DeepPianoError, one_line
from deep_piano.generate import notes, wave
from deep_piano.generate.composers import (
    ComposerActor,
    Crew,
    DecoderFactory,
    Place,
    SoundComposerActor,
    crew_for,
)
from deep_piano.generate.gallery import write_gallery
from deep_piano.generate.piece import best_first
from deep_piano.generate.records import (
    Key,
    Record,
    Records,
    read_records,
    require_same_run,
    write_manifest,
    write_records,
)
from deep_piano.generate.seeds import Seed
from deep_piano.generate.tasks import (
    Run,
    continue_recording,
    known_of,
    prefill_recording,
    read_seed,
    write_piece,
    write_recording,
)
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.cluster.scheduling import Silence, busy, next_done, outcome
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.infra.storage.open import require_apart
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music.recordings import survey

logger = logging.getLogger(__name__)

_RETRIES = 2
_LOSSES = 2  # a piece that ends so many composers, alone with each, is given up
_STARTS = 9  # a composer that dies so often before it answers is given up: after about a minute
_PAUSE_S = 0.25
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
        Of the codec "notes"; used instead of the one that the settings name.
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
    begun = time.monotonic()
    require_apart(seeds, pieces)
    settings = config.generate
    loaded = checkpoint or checkpoints.load(settings.checkpoint, storage=config.storage)
    of_sound = loaded.spec.codec != SPEC.codec
    if of_sound:
        require_sound(loaded)
        wave.require_no_notes(Path(f"take.{config.bulk.format}"), settings)
    index = CorpusIndex.load(Path(settings.index)) if settings.index is not None else None
    entries, _ = survey(seeds)
    mute = of_sound or config.bulk.format == "mid"
    sound = None if mute else notes.ready_sound(settings.sound, no_progress)
    pieces.require_writable()
    about = {
        "settings": settings.model_dump(exclude={"takes", "keep", "checkpoint", "index"}),
        "best_of": [settings.keep, settings.takes] if settings.keep is not None else None,
        "only_new": only_new,
        "format": config.bulk.format,
        "sound": sound,
        "checkpoint_sha256": loaded.digest,
    }
    require_same_run(pieces, about, force=force)
    common = Run(pieces, settings, config.bulk.format, sound, loaded.digest, only_new)
    known = Records() if force else _still_good(pieces, entries)
    bulk = _Bulk(seeds, common, config.bulk, known, progress)
    facts = dict(stage="generate", seeds=len(entries))
    logger.info("generate: %d seeds", len(entries), extra=dict(facts, event="begun"))
    todo = bulk.missing(entries)
    write_manifest(pieces, bulk.records)  # what a killed run left becomes part of it
    if todo:
        with connected():
            crew = crew_for(config.bulk, pieces=sum(len(takes) for _, takes in todo))
            require_same_run(pieces, about | {"composed_on": crew.device}, force=force)
            bulk.engage(crew)
            if not of_sound:
                bulk.compose_notes(todo, loaded, index, opened)
            elif crew.gpus:
                bulk.compose_sound(todo, loaded)
            else:
                bulk.continue_recordings(todo, loaded)
        write_manifest(pieces, bulk.records)
    write_gallery(pieces, bulk.records)
    asked = {entry.name for entry in entries}
    for key in [k for k in bulk.records if k[0] not in asked or k[1] >= settings.takes]:
        del bulk.records[key]
    counts = Counter(record.status for record in bulk.records.all)
    took_s = round(time.monotonic() - begun, 3)
    logger.info("generate: ended", extra=dict(facts, event="ended", took_s=took_s, **counts))
    return bulk.records


def _still_good(pieces: Folder, entries: Sequence[Entry]) -> Records:
    """Return the records of pieces that are whole and whose seeds have not changed."""
    stamps = {entry.name: entry.stamp for entry in entries}
    there = {entry.name for entry in pieces.entries() if not entry.problem}
    return Records(
        record
        for record in read_records(pieces).all
        if not record.failed
        and record.seed_stamp == stamps.get(record.seed, record.seed_stamp)
        and there.issuperset(record.files)
    )


class _Bulk:
    """One bulk run at work."""

    def __init__(
        self,
        seeds: Folder,
        run: Run,
        bulk: BulkConfig,
        known: Records,
        progress: Tell,
    ) -> None:
        self._seeds, self._run, self._bulk = seeds, run, bulk
        self._settings = run.settings
        self.records = known
        self._progress = progress
        self._stamps: dict[str, str] = {}
        self._unread: set[str] = set()
        self._crew: Crew
        self._reading: Callable[[str], Any]
        self._writing: Callable[[str, Any], Any]
        self._heard: dict[str, Seed | wave.Prompt] = {}
        self._seed_files: dict[str, dict[str, str]] = {}
        self._left: Counter[str] = Counter()  # takes of each seed that are on the way
        self._ready: deque[Key] = deque()  # to be composed
        self._suspects: deque[Key] = deque()  # to be composed with nothing beside them
        self._losses: Counter[Key] = Counter()
        self._deaths = 0  # of composers
        self._compared: defaultdict[str, dict[int, notes.Take]] = defaultdict(dict)
        self._waiting: dict[Any, Callable[[Any], None]] = {}
        self._unkept: list[Record] = []
        self._batches = itertools.count()
        self._kept_at = time.monotonic()
        self._failures, self._failure = 0, ""
        self._made, self._asked, self._music_s = 0, 0, 0.0

    def missing(self, entries: Sequence[Entry]) -> list[tuple[str, list[int]]]:
        """Return the seeds and takes that are to be made; note those that cannot be."""
        todo = []
        for entry in entries:
            self._stamps[entry.name] = entry.stamp
            takes = list(range(self._settings.takes))
            there = [(entry.name, take) in self.records for take in takes]
            if self._settings.keep is None:  # otherwise all are needed to tell the best
                takes = [take for take in takes if not there[take]]
            elif all(there):
                takes = []
            self._asked += len(takes)
            if entry.problem:
                self._fail(entry.name, takes, entry.problem)
            elif takes:
                todo.append((entry.name, takes))
        return todo

    def engage(self, crew: Crew) -> None:
        """Take these composers for what is to be made."""
        self._crew = crew
        self._run = replace(self._run, composed_on=crew.device)

    def compose_notes(
        self,
        todo: Sequence[tuple[str, list[int]]],
        loaded: Checkpoint,
        index: CorpusIndex | None,
        opened: DecoderFactory,
    ) -> None:
        """Make what is missing by a checkpoint of notes."""
        import ray

        reading, writing = _task(read_seed), _task(write_piece)
        self._reading = lambda name: reading.remote(self._run, self._seeds, name)
        self._writing = lambda name, take: writing.remote(self._run, name, self._heard[name], take)
        given = [ray.put(one) for one in (loaded, index)]
        self._compose(todo, ComposerActor, *given, self._run, self._crew, opened)

    def compose_sound(self, todo: Sequence[tuple[str, list[int]]], loaded: Checkpoint) -> None:
        """Make what is missing by a checkpoint of sound, on GPUs."""
        import ray

        reading, writing, given = _task(prefill_recording), _task(write_recording), ray.put(loaded)
        self._reading = lambda name: reading.remote(self._run, self._seeds, given, name)
        self._writing = lambda name, take: writing.remote(
            self._run, given, name, self._heard[name], take
        )
        self._compose(todo, SoundComposerActor, given, self._run, self._crew)

    def _compose(self, todo: Sequence[tuple[str, list[int]]], actor: type, *arguments: Any) -> None:
        """Make what is missing by composers: read, compose, finish."""
        import ray

        crew = self._crew
        remote: Any = ray.remote(num_cpus=0, num_gpus=crew.gpus, scheduling_strategy="SPREAD")(
            actor
        )
        places = [
            Place(lambda: remote.remote(*arguments))
            for _ in range(min(crew.composers, sum(len(takes) for _, takes in todo)))
        ]
        try:
            self._work(todo, self._read, places, most=busy() + 2 * crew.batch * len(places))
        finally:
            for place in places:
                place.end()

    def continue_recordings(
        self, todo: Sequence[tuple[str, list[int]]], loaded: Checkpoint
    ) -> None:
        """Make what is missing by a checkpoint of sound, on CPUs: a task does all of a piece."""
        import ray

        task, given = _task(continue_recording), ray.put(loaded)

        def begin(name: str, takes: Sequence[int]) -> None:
            self._left[name] = len(takes)
            for take in takes:
                reference = task.remote(self._run, self._seeds, given, name, take)
                self._waiting[reference] = partial(self._finished, (name, take))

        self._work(todo, begin, [], most=busy())

    def _work(
        self,
        todo: Sequence[tuple[str, list[int]]],
        begin: Callable[[str, Sequence[int]], None],
        places: Sequence[Place],
        *,
        most: int,
    ) -> None:
        """Begin one seed after another, at most so many pieces; every piece ends with a record."""
        import ray

        coming = iter(todo)
        silence = Silence(self._bulk.silence_seconds, "bulk.silence_seconds")
        self._require_few_failures()
        try:
            while True:
                while self._on_the_way() < most and (seed := next(coming, None)):
                    begin(*seed)
                for place in places:
                    self._give(place)
                self._measure(places)
                if not self._on_the_way():
                    break
                if not self._waiting:  # all composers are to be started again, in a moment
                    time.sleep(_PAUSE_S)
                    continue
                if not (done := next_done(self._waiting)):
                    silence.require_short(len(self._waiting))
                for reference in done:
                    silence.end()
                    self._waiting.pop(reference)(outcome(reference))
                self._show()
                self._keep_records()
                self._require_few_failures()
        finally:
            for reference in self._waiting.keys() - {place.reference for place in places}:
                ray.cancel(reference, force=True)
            self._keep_records(now=True)

    def _on_the_way(self) -> int:
        """Return how many pieces are being read for, composed or finished."""
        return self._left.total()

    def _read(self, name: str, takes: Sequence[int]) -> None:
        """Have a seed read, and its takes composed afterwards."""
        self._left[name] = len(takes)
        self._unread.add(name)

        def heard(result: Any) -> None:
            self._unread.remove(name)
            if isinstance(result, Exception):
                self._fail(name, takes, _reason(result))
                return
            self._heard[name], self._seed_files[name] = result
            self._ready.extend((name, take) for take in takes)

        self._waiting[self._reading(name)] = heard

    def _give(self, place: Place) -> None:
        """Give an idle composer pieces to begin, or let it go on with what it has.

        After a death it must answer before it gets more: what died may have been the node, and
        nothing is to be blamed on a piece that was given to a composer already dead.
        """
        if place.reference is not None or time.monotonic() < place.paused_until:
            return
        new: list[Key] = []
        if place.answered_after == self._deaths:
            if self._suspects and not place.composing:
                new.append(self._suspects.popleft())
            elif not place.alone:
                while self._ready and len(place.composing) + len(new) < self._crew.batch:
                    new.append(self._ready.popleft())
            if not new and not place.composing:
                return
            place.alone |= any(key in self._losses for key in new)
        asked = {key: self._heard[key[0]] for key in new}
        place.composing |= set(new)
        place.reference = place.actor.work.remote(asked)
        self._waiting[place.reference] = lambda result: self._composed(place, result)

    def _composed(self, place: Place, result: Any) -> None:
        """Have the pieces finished that a composer has completed, or mourn it."""
        place.reference = None
        if isinstance(result, Exception):
            self._mourn(place, result)
            return
        place.answered_after, place.starts = self._deaths, 0
        place.composing -= result.keys()
        place.alone = place.alone and bool(place.composing)
        for key, take in result.items():
            if isinstance(take, notes.Take):
                composed = take.notes["onset"] >= take.seed_ends_s
                metrics.count("deep_piano_notes", int(composed.sum()))
            if self._settings.keep is None:
                self._finish(key, take)
            else:
                self._compared[key[0]][key[1]] = take
                self._keep_best(key[0])

    def _mourn(self, place: Place, error: Exception) -> None:
        """Put another composer into a place; what the dead one had in the making is suspected."""
        import ray

        died = isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed
        if not died or place.starts == _STARTS:
            raise DeepPianoError(
                f"a composer failed: {type(error).__name__}: {one_line(error)}"
            ) from error
        logger.warning(
            "a composer died; another one takes its place",
            extra=dict(stage="generate", event="lost", pieces=len(place.composing)),
        )
        metrics.count("deep_piano_workers_lost", kind="composer")
        self._deaths += 1
        for key in sorted(place.composing):
            self._losses[key] += place.alone
            if self._losses[key] < _LOSSES:
                self._suspects.append(key)
            else:
                self._fail(key[0], [key[1]], "what composed it died, again and again")
        place.end()
        place.begin()

    def _keep_best(self, name: str) -> None:
        """Have the best takes of a seed finished, once the last of them is composed."""
        if len(self._compared[name]) < self._left[name]:
            return
        takes = [take for _, take in sorted(self._compared.pop(name).items())]
        order = best_first([take.figures for take in takes])
        for place, index in enumerate(order):
            if place < (self._settings.keep or len(takes)):
                self._finish((name, takes[index].index), takes[index])
            else:
                self._leave_out(name, takes[index], f"place {place + 1} of {len(takes)}")

    def _finish(self, key: Key, take: notes.Take | wave.Take) -> None:
        """Have a piece played, drawn and written."""
        self._waiting[self._writing(key[0], take)] = partial(self._finished, key)

    def _finished(self, key: Key, result: Any) -> None:
        """Take note of a piece that was written, or why not."""
        name, take = key
        if isinstance(result, Exception):
            self._fail(name, [take], _reason(result))
        else:
            files = self._seed_files.get(name, {}) | result.files
            self._done(replace(result, files=files, seed_stamp=self._stamps[name]))

    def _leave_out(self, name: str, take: notes.Take, reason: str) -> None:
        known = known_of(self._run, name, take)
        stamp, sha256 = self._stamps[name], self._heard[name].digest
        self._done(
            Record(**known, status="left out", reason=reason, seed_stamp=stamp, seed_sha256=sha256)
        )

    def _fail(self, name: str, takes: Iterable[int], reason: str) -> None:
        reason, stamp = one_line(reason), self._stamps[name]
        for take in takes:
            self._done(Record(name, take + 1, "failed", reason, seed_stamp=stamp))

    def _done(self, record: Record) -> None:
        self.records.add(record)
        _tell(record)
        self._unkept.append(record)
        self._made += 1
        self._music_s += record.seconds
        if record.failed:
            self._failures += 1
            self._failure = self._failure or f"{one_line(record.seed)}: {record.reason}"
        name = record.seed
        self._left[name] -= 1
        if self._left[name] <= 0:
            del self._left[name]
            self._heard.pop(name, None)
            self._seed_files.pop(name, None)
        elif name in self._compared:  # a take that failed is not waited for
            self._keep_best(name)

    def _require_few_failures(self) -> None:
        limit = self._bulk.max_failures
        if limit is not None and self._failures > limit:
            raise DeepPianoError(
                f"stopped: {self._failures} pieces failed and {limit} may (one is of "
                f"{self._failure}). What was made is kept, and the same command goes on from here: "
                "mend or remove such seeds, or raise max_failures."
            )

    def _keep_records(self, *, now: bool = False) -> None:
        if self._unkept and (now or time.monotonic() - self._kept_at > _FLUSH_S):
            write_records(self._run.pieces, next(self._batches), self._unkept)
            self._unkept = []
            self._kept_at = time.monotonic()

    def _show(self) -> None:
        now = Progress(
            "writing pieces", self._made, self._asked, self._failures, duration_s=self._music_s
        )
        self._progress(now)

    def _measure(self, places: Iterable[Place]) -> None:
        """Tell how many pieces are where."""
        ahead = {
            "reading": sum(self._left[name] for name in self._unread),
            "ready": len(self._ready) + len(self._suspects),
            "composing": sum(len(place.composing) for place in places),
            "comparing": sum(len(takes) for takes in self._compared.values()),
        }
        for where, pieces in ahead.items():
            metrics.level("deep_piano_pieces_on_the_way", pieces, where=where)
        finishing = self._on_the_way() - sum(ahead.values())
        metrics.level("deep_piano_pieces_on_the_way", finishing, where="finishing")


def _tell(record: Record) -> None:
    """Log what became of a piece, and count it."""
    logger.log(
        logging.WARNING if record.failed else logging.INFO,
        "%s, take %d: %s",
        one_line(record.seed),
        record.take,
        record.reason or record.status,
        extra=dict(
            stage="generate",
            event=record.status,
            seed=record.seed,
            take=record.take,
            reason=record.reason,
            duration_s=record.seconds,
            notes=record.notes,
        ),
    )
    metrics.count("deep_piano_pieces", outcome=record.status)


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
