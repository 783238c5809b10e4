"""PREPARE: a corpus becomes a dataset, on Ray tasks and a pool of transcribers.

Hash, plan, build, commit. Planning and building alternate until nothing is missing: what a round
reads decides which recordings are superfluous, and so the next plan. Every shard is written whole,
under a name that says what is in it, so that what is there after a kill is used.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from deep_piano import versions
from deep_piano.config.sections import Config, PrepareConfig
from deep_piano.dataset.manifest import Manifest, read_manifest
from deep_piano.dataset.rows import Reject, ShardFacts
from deep_piano.errors import DeepPianoError, one_line
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.cluster.scheduling import Silence, busy, completed
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.infra.storage.open import require_apart
from deep_piano.music.recordings import kinds, survey
from deep_piano.prepare import tasks
from deep_piano.prepare.commit import (
    Remembered,
    commit,
    corpus_digest,
    is_current,
    make_manifest,
    read_ledger,
    remembered,
    require_folders,
    require_same_corpus,
    require_same_settings,
    require_there,
    shards_there,
    write_ledger,
)
from deep_piano.prepare.ingest import Transcribe, TranscriberLostError
from deep_piano.prepare.plan import Known, ShardPlan, plan, reading_digest
from deep_piano.prepare.sources import Source, Splits, sources_of
from deep_piano.prepare.transcribers import Factory, Pool, no_transcriber, transkun

logger = logging.getLogger(__name__)

_FILES_A_TASK, _BYTES_A_TASK = 256, 256e6
_RETRIES, _LOSSES = 3, 3
_UNTIL_KNOWN_S = 2  # that a process has died


def prepare(
    corpus: Folder,
    dataset: Folder,
    config: Config,
    *,
    rebuild: bool = False,
    retry_failures: bool = False,
    transcriber: Factory = transkun,
    progress: Tell = no_progress,
) -> Manifest:
    """Make a dataset of a corpus, or bring one up to date.

    Parameters
    ----------
    corpus, dataset : Folder
        Neither may lie in the other. The corpus is only read.
    config : Config
    rebuild : bool
        Go on although the dataset was made with other settings.
    retry_failures : bool
        Read files again that failed before.
    transcriber : callable
        Makes a `Transcribe`; called once by each transcriber of the pool.
    progress : callable
        Called whenever some work is done.

    Returns
    -------
    Manifest
        Of the dataset.

    Raises
    ------
    InputError
        When corpus or dataset cannot be used, or the settings differ and `rebuild` is not given.
    DeepPianoError
        When too many files failed, or Ray did. What was done is kept: the same call goes on there.
    """
    begun = time.monotonic()
    require_apart(corpus, dataset)
    old = read_manifest(dataset)
    if old is not None and not rebuild:
        require_same_settings(old, config.prepare, dataset.uri)
    entries, ignored = survey(corpus)
    extra = dict(stage="prepare", event="begun", files=len(entries))
    logger.info("prepare: %d files", len(entries), extra=extra)
    splits = Splits(corpus, entries, ignored, config.prepare)
    splits.tell()
    ledger = read_ledger(dataset)
    if not rebuild:
        require_folders(ledger, entries, dataset.uri)
    limit = config.prepare.max_failures
    if old is not None and not (rebuild or retry_failures):
        known_hashes = remembered(entries, ledger)
        few = limit is None or old.totals.failures <= limit
        if few and all(entry.name in known_hashes or entry.problem for entry in entries):
            known_sources = sources_of(entries, known_hashes, splits)
            digest = corpus_digest(known_sources, kinds(ignored), entries)
            if is_current(old, config.prepare, digest, dataset):
                _ended(old, begun)
                return old
    dataset.require_writable()
    with connected(cpus=config.prepare.workers), Pool(transcriber, config.prepare) as pool:
        run = _Run(corpus, dataset, config, pool, progress)
        hashes = run.hash_files(entries, ledger)
        if old is not None and not rebuild:
            require_same_corpus(ledger, hashes, dataset.uri)
        write_ledger(dataset, entries, hashes)
        sources = sources_of(entries, hashes, splits)
        others = run.learn({} if old is None else {s.name: s.sha256 for s in old.shards})
        if others and old is None:  # what a killed run left; a manifest would have refused
            logger.warning(
                "%d shards are there from a run with other settings, and of no use to this one. "
                "If that is a mistake, stop it now: they stay until it ends.",
                others,
            )
        shards = run.build(run.distinct(sources), retry_failures=retry_failures)
        manifest = make_manifest(
            corpus.uri,
            config.prepare,
            corpus_digest=corpus_digest(sources, kinds(ignored), entries),
            files=len(entries),
            ignored=kinds(ignored),
            shards=shards,
            rejects=run.rejects,
            versions=versions.of_a_dataset(),
        )
        require_there(dataset, shards)
        commit(dataset, manifest)
    _ended(manifest, begun)
    return manifest


def _ended(manifest: Manifest, begun: float) -> None:
    facts = dict(stage="prepare", event="ended", took_s=round(time.monotonic() - begun, 3))
    logger.info("prepare: ended", extra=dict(facts, **manifest.totals.to_json()))


class _Run:
    """One preparation at work."""

    def __init__(
        self,
        corpus: Folder,
        dataset: Folder,
        config: Config,
        pool: Pool,
        progress: Tell,
    ) -> None:
        self._corpus, self._dataset, self._settings = corpus, dataset, config.prepare
        self._pool, self._progress = pool, progress
        self._known = Known(reading_digest(config.prepare))
        self._wanted: set[str] = set()
        self._unreadable: list[Reject] = []
        self._copies: list[tuple[Source, Source]] = []
        self._show_again = 0.0
        limit_s = config.prepare.silence_seconds
        self._silence = Silence(limit_s, "prepare.silence_seconds")

    def hash_files(self, entries: Sequence[Entry], ledger: dict[str, Remembered]) -> dict[str, str]:
        """Return the SHA-256 of every file that can be read, by name; note the others."""
        hashes = remembered(entries, ledger)
        for entry in entries:
            if entry.problem:
                self._fail(entry.name, entry.problem)
        todo = [entry for entry in entries if entry.name not in hashes and not entry.problem]
        task = _remote(tasks.hash_files)
        done = 0
        for names, result in completed(
            lambda names: task.remote(self._corpus, names),
            _batches(todo),
            in_flight=self._in_flight,
            silence=self._silence,
        ):
            for name, sha256, problem in _raised(result):
                if problem:
                    self._fail(name, problem)
                else:
                    hashes[name] = sha256
            done += len(names)
            self._progress(Progress("looking", done, len(todo), len(self._unreadable)))
            self._require_few_failures()
        return hashes

    def distinct(self, sources: Iterable[Source]) -> list[Source]:
        """Return the files of different content; of those with the same bytes the first stays."""
        first: dict[str, Source] = {}
        for source in sources:
            kept = first.setdefault(source.sha256, source)
            if kept is not source:
                self._copies.append((source, kept))
        return list(first.values())

    @property
    def rejects(self) -> list[Reject]:
        """The files that stand in no shard; a copy of one is rejected as that was."""
        found = [*self._unreadable]
        for copy, kept in self._copies:
            known = self._known.rejects.get(copy.sha256)
            if known:
                found.append(replace(known, name=copy.name))
            else:
                reason = f"the same file as {one_line(kept.name)}"
                found.append(
                    Reject(copy.name, "drop", "duplicate", reason, source_sha256=copy.sha256)
                )
        return found

    def learn(self, committed: Mapping[str, str]) -> int:
        """Take note of the shards that are there; return how many other settings made.

        One that is not as it was `committed` (name to SHA-256) has rotted, and is built anew.
        """
        task = _remote(tasks.look_up)
        names = shards_there(self._dataset)
        others = 0
        for done, (name, facts) in enumerate(
            completed(
                lambda name: task.remote(self._dataset, name),
                names,
                in_flight=self._in_flight,
                silence=self._silence,
            ),
            1,
        ):
            # What kills everyone who looks at it is broken too.
            facts = None if _crashed(facts) else _raised(facts)
            if facts is not None and committed.get(name, facts.sha256) == facts.sha256:
                others += not self._known.add(facts)
            self._progress(Progress("looking at shards", done, len(names)))
        return others

    def build(self, sources: Sequence[Source], *, retry_failures: bool) -> list[ShardFacts]:
        """Build what is missing until nothing is; return the facts of all shards."""
        self._wanted = {source.sha256 for source in sources}
        self._known.forget_misnamed(sources)
        if retry_failures:
            self._known.forget_failures()
        losses: Counter[str] = Counter()
        while True:
            plans = plan(sources, self._known, self._settings)
            missing = [one for one in plans if one.name not in self._known.shards]
            if not missing:
                self._show_again = 0.0
                self._show()
                self._require_few_failures()  # they may all have been known before
                return [self._known.shards[one.name] for one in plans]
            self._show()
            self._pool.start_for(source for one in missing for source in self._known.unread(one))
            for one, result in completed(
                self._submit,
                missing,
                in_flight=lambda: self._pool.in_flight or self._in_flight(),
                silence=self._silence,
                meanwhile=self._progress_of_all,
            ):
                self._pool.release(one)
                if _crashed(result):
                    losses[one.name] += 1
                    if not self._known.unread(one):  # rows that stood in a broken shard
                        self._known.forget(one.sources)
                    # Ray has tried a task several times, but a transcriber only once or twice.
                    again = isinstance(result, TranscriberLostError) and losses[one.name] == 1
                    if not (again or self._isolate(one, result)) and losses[one.name] > _LOSSES:
                        raise DeepPianoError(
                            f"the work on the shard {one.name} died again and again, and no file "
                            f"of it is to blame: {result}. Run the same command again; it goes on "
                            "from here."
                        )
                else:
                    self._take_in(_raised(result))
                self._show()
                self._require_few_failures()

    def _take_in(self, built: ShardFacts) -> None:
        """Take note of a shard that was built, and tell what is new in it."""
        known = self._known
        for reject in built.rejects:
            if reject.source_sha256 not in known.rejects:
                _tell(reject)
        rows = built.table.select(["source_sha256", "duration_s"]).to_pylist()
        new = [row["duration_s"] for row in rows if row["source_sha256"] not in known.shard_of]
        metrics.count("deep_piano_recordings", len(new), outcome="read")
        metrics.count("deep_piano_music_seconds", sum(new))
        known.add(built)
        extra = dict(stage="prepare", event="written", shard=built.name, recordings=len(rows))
        logger.info("%s: written", built.name, extra=extra)

    def _submit(self, one: ShardPlan) -> Any:
        known = self._known
        hashes = [source.sha256 for source in one.sources]
        task = _remote(tasks.build_shard, cpus=self._pool.cpus_beside)
        return task.remote(
            self._corpus,
            self._dataset,
            one,
            self._settings,
            rejects={sha: known.rejects[sha] for sha in hashes if sha in known.rejects},
            rows_in={sha: known.shard_of[sha] for sha in hashes if sha in known.shard_of},
            transcribe=self._pool.take(one, self._silence) or no_transcriber,
        )

    def _isolate(self, one: ShardPlan, error: Exception) -> bool:
        """Find the files that end what reads them; say whether there are any."""
        logger.warning("the work on %s died, each file alone now: %s", one.name, one_line(error))
        quarantined = []
        for source in self._known.unread(one):
            # Twice: its transcriber may have been lost with another file.
            if self._kills(one, source) and self._kills(one, source):
                quarantined.append(source)
        for source in quarantined:
            reason = "what read it died, again and again"
            reject = Reject(source.name, "failure", "crashed", reason, source_sha256=source.sha256)
            self._known.rejects[source.sha256] = reject
            _tell(reject)
        return bool(quarantined)

    def _kills(self, one: ShardPlan, source: Source) -> bool:
        """Read a file with nothing else of its shard at work; say whether a process died of it."""
        task = _remote(_try, cpus=self._pool.cpus_beside, retries=1)
        transcribe = self._pool.take(one, self._silence) or no_transcriber
        [(_, result)] = completed(
            lambda source: task.remote(self._corpus, source, self._settings, transcribe),
            [source],
            in_flight=lambda: 1,
            silence=self._silence,
        )
        self._pool.release(one)
        if not _crashed(result):
            _raised(result)
            return False
        time.sleep(_UNTIL_KNOWN_S)
        return True

    def _in_flight(self) -> int:
        return self._settings.workers or busy()

    def _fail(self, name: str, problem: str) -> None:
        self._unreadable.append(Reject(name, "failure", "unreadable", problem))
        _tell(self._unreadable[-1])

    def _failures(self) -> list[Reject]:
        known = (self._known.rejects[sha] for sha in self._wanted & self._known.rejects.keys())
        return [reject for reject in (*self.rejects, *known) if reject.kind == "failure"]

    def _require_few_failures(self) -> None:
        limit = self._settings.max_failures
        if limit is not None and len(failures := self._failures()) > limit:
            some = min(failures, key=lambda reject: reject.name)
            raise DeepPianoError(
                f"stopped: {len(failures)} files failed and {limit} may (one is "
                f"{one_line(some.name)}: {some.reason}). What was done is kept, and the same "
                "command goes on from here: mend or remove such files, or raise max_failures."
            )

    def _progress_of_all(self) -> list[float]:
        self._show()
        return self._pool.transcribed_s()

    def _show(self) -> None:
        begun = time.monotonic()
        if begun < self._show_again:
            return
        known = self._known
        done = [sha for sha in self._wanted if known.has(sha)]
        transcribed_s = self._pool.transcribed_s()
        self._progress(
            Progress(
                "preparing",
                min(len(done) + len(transcribed_s), len(self._wanted)),
                len(self._wanted),
                failures=len(self._failures()),
                drops=sum(
                    known.rejects[sha].kind == "drop" for sha in done if sha in known.rejects
                ),
                duration_s=sum(known.duration_s.get(sha, 0.0) for sha in done) + sum(transcribed_s),
            )
        )
        # Counting a million recordings takes a while: it may cost a twentieth of the time.
        self._show_again = time.monotonic() + 20 * (time.monotonic() - begun)


def _tell(reject: Reject) -> None:
    """Log that a file is no recording, and count it."""
    failed = reject.kind == "failure"
    outcome = "failed" if failed else "dropped"
    logger.log(
        logging.WARNING if failed else logging.INFO,
        "%s: %s",
        one_line(reject.name),
        one_line(reject.reason),
        extra=dict(
            stage="prepare",
            event=outcome,
            recording=reject.name,
            source_sha256=reject.source_sha256,
            rule=reject.rule,
            reason=reject.reason,
        ),
    )
    metrics.count("deep_piano_recordings", outcome=outcome)


def _try(corpus: Folder, source: Source, settings: PrepareConfig, transcribe: Transcribe) -> None:
    tasks.read(corpus, source, settings, transcribe=transcribe)


def _remote(function: Callable[..., Any], *, cpus: float = 1, retries: int = _RETRIES) -> Any:
    """Make a task of a function, tried again when the process or the node that runs it dies."""
    import ray

    return ray.remote(function).options(
        num_cpus=cpus, max_retries=retries, scheduling_strategy="SPREAD"
    )


def _batches(entries: Iterable[Entry]) -> Iterator[list[str]]:
    """Cut files into batches that one task hashes."""
    names: list[str] = []
    size = 0
    for entry in entries:
        names.append(entry.name)
        size += entry.size
        if len(names) == _FILES_A_TASK or size > _BYTES_A_TASK:
            yield names
            names, size = [], 0
    if names:
        yield names


def _crashed(result: Any) -> bool:
    """Say whether a process died that was at work, rather than the work having failed."""
    import ray

    died = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
    return isinstance(result, (*died, TranscriberLostError))


def _raised(result: Any) -> Any:
    """Return a task's result, or raise what it failed with as an error of ours."""
    if not isinstance(result, Exception):
        return result
    if isinstance(result, DeepPianoError):
        raise result
    raise DeepPianoError(
        f"a task failed: {type(result).__name__}: {result}. What was done is kept: run the same "
        "command again, and it goes on from here."
    ) from result
