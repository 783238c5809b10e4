"""`prepare --dry-run`: reports what a corpus holds, what would be left out, and the time it takes.

It opens some files and reads a few to measure; it writes nothing and does not start Ray.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.manifest import read_manifest
from deep_piano.dataset.rows import Reject, Row
from deep_piano.dataset.shards import write_shard
from deep_piano.errors import AudioError, FileError, MidiError, one_line
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import require_apart
from deep_piano.music import audio
from deep_piano.music.audio import Samples
from deep_piano.music.midi import holds_midi, read_midi
from deep_piano.music.notes import NOTE, Notes
from deep_piano.music.recordings import in_words, kinds, survey
from deep_piano.prepare import filters, tasks
from deep_piano.prepare.commit import (
    read_ledger,
    remembered,
    require_folders,
    require_same_settings,
    shards_there,
)
from deep_piano.prepare.plan import Known, reading_digest, shard_bits
from deep_piano.prepare.sources import Source, Splits, hash_share

OPENED, MEASURED, EXAMPLES = 200, 6, 3
TRANSCRIBED_S = 28.0  # two segments of the network


T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class _Opened:
    """A file, its length by its header, and the rule that would leave it out ("": none)."""

    source: Source
    is_midi: bool
    duration_s: float | None
    rule: str


@dataclass(frozen=True)
class _Rates:
    """Measured on some files of a kind: CPU-seconds and Parquet bytes for each byte of them."""

    measured: int
    seconds: float
    parquet: float


def preview(
    corpus: Folder,
    dataset: Folder,
    settings: PrepareConfig,
    *,
    rebuild: bool = False,
    progress: Tell = no_progress,
) -> str:
    """Return what a preparation would find and do, as text.

    Lengths are those of the headers; where more than 200 files are new, they are estimated from a
    random sample.

    Parameters
    ----------
    corpus, dataset : Folder
    settings : PrepareConfig
    rebuild : bool
        As for `on_ray.prepare`.
    progress : callable
        Called after each step.

    Raises
    ------
    InputError
        As `on_ray.prepare` raises before it begins work.
    """
    require_apart(corpus, dataset)
    manifest = read_manifest(dataset)
    if manifest is not None and not rebuild:
        require_same_settings(manifest, settings, dataset.uri)
    entries, others = survey(corpus)
    splits = Splits(corpus, entries, others, settings)
    ledger = read_ledger(dataset)
    if not rebuild:
        require_folders(ledger, entries, dataset.uri)
    hashes = remembered(entries, ledger)
    known = _known(dataset, settings, progress)
    lost = [entry.name for entry in entries if entry.problem]
    chosen = [entry for entry in entries if not entry.problem]
    files = [Source(e.name, e.size, hashes.get(e.name, "")) for e in chosen]
    new = [source for source in files if not known.has(source.sha256)]
    left_out = defaultdict(list, unreadable=lost)
    left_out["duplicate"] = _same_bytes(corpus, files, progress)
    again = {*left_out["duplicate"]}
    distinct = [source for source in new if source.name not in again]
    sample = sorted(distinct, key=lambda source: hash_share(source.name))[:OPENED]
    opened = []
    for one in _at_once(lambda source: _open(corpus, source, settings), sample):
        opened.append(one)
        progress(Progress("opening files", len(opened), len(sample)))
    for one in opened:
        if one.rule:
            left_out[one.rule].append(one.source.name)
    useful = [one for one in opened if not one.rule]
    rates = _measure(corpus, useful, settings, progress)
    share = len(distinct) / max(1, len(opened))
    hours = sum(one.duration_s or 0.0 for one in useful) * share / 3600
    measured = [(rates[s.is_midi], s.size) for s in distinct if s.is_midi in rates]
    cpu_s = sum(rate.seconds * size for rate, size in measured)
    parquet = sum(rate.parquet * size for rate, size in measured)
    parquet += sum(facts.bytes for facts in known.shards.values())
    cpus = settings.workers or os.cpu_count() or 1
    about = "about " if share > 1 else ""
    lines = [
        f"{len(entries):,} files that are recordings by their names, "
        f"{sum(s.size for s in files) / 1e6:,.1f} MB; {len(others):,} others are ignored"
        + (f" ({in_words(kinds(others))})" if others else ""),
        f"{len(files) - len(new):,} of them already read, {len(new):,} new or changed: "
        f"{about}{hours:.2f} hours by their headers",
    ]
    for rule, names in sorted(left_out.items()):
        of = f" of {len(opened)} opened" if about and rule != "duplicate" else ""
        lines += [f"would be left out as {rule}: {len(names)}{of} ({_some(names)})"] * bool(names)
    lines += splits.doubts
    lines += [
        f"shards: at most {1 << shard_bits(files, settings):,}, about {parquet / 1e6:,.1f} MB",
        f"time: about {_minutes(cpu_s / cpus)} on {cpus} CPUs, measured on "
        f"{sum(rate.measured for rate in rates.values())} files" + _unmeasured(distinct, settings),
    ]
    return "\n".join(lines)


def _known(dataset: Folder, settings: PrepareConfig, progress: Tell) -> Known:
    """Return what earlier runs have read, finished or not, with the same reading settings."""
    known = Known(reading_digest(settings))
    names = [*shards_there(dataset)]
    for done, facts in enumerate(_at_once(lambda name: tasks.look_up(dataset, name), names), 1):
        if facts is not None:
            known.add(facts)
        progress(Progress("looking at shards", done, len(names)))
    return known


def _at_once(work: Callable[[T], U], things: Sequence[T]) -> Iterator[U]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(work, things)


def _open(corpus: Folder, source: Source, settings: PrepareConfig) -> _Opened:
    is_midi = source.is_midi
    try:
        with corpus.local(source.name) as path:
            is_midi = holds_midi(path, source.name)
            if is_midi and not CODECS[settings.codec].encodes_notes:
                return _Opened(source, is_midi, None, "no_audio")
            duration_s = _claimed_s(path, is_midi=is_midi)
    except (AudioError, MidiError, FileError, OSError):
        return _Opened(source, is_midi, None, "unreadable")
    if duration_s is None:
        return _Opened(source, is_midi, None, "")
    left_s = duration_s - settings.trim_start_seconds - settings.trim_end_seconds
    broken = filters.broken_by_maximum(duration_s, settings)
    broken = broken or filters.broken_by_minimum(left_s, settings)
    return _Opened(source, is_midi, duration_s, broken.rule if broken else "")


def _claimed_s(path: Path, *, is_midi: bool) -> float | None:
    if is_midi:
        return float(read_midi(path)["offset"].max(initial=0.0))
    audio.decode(path, sr=8_000, seconds=1.0)  # the header alone may be wrong
    return audio.duration_s(path)


def _same_bytes(corpus: Folder, sources: Sequence[Source], progress: Tell) -> list[str]:
    """Return the names of files that hold the same bytes as an earlier one."""
    sizes = Counter(source.size for source in sources)
    same_size = [source for source in sources if sizes[source.size] > 1]
    seen: set[str] = set()
    found = []
    hashed = _at_once(lambda source: source.sha256 or _sha256(corpus, source), same_size)
    for done, (source, sha256) in enumerate(zip(same_size, hashed, strict=True), 1):
        if sha256 in seen:
            found.append(source.name)
        elif sha256:
            seen.add(sha256)
        progress(Progress("comparing files", done, len(same_size)))
    return found


def _sha256(corpus: Folder, source: Source) -> str:
    [(_, sha256, _)] = tasks.hash_files(corpus, [source.name])
    return sha256


def _measure(
    corpus: Folder, useful: Iterable[_Opened], settings: PrepareConfig, progress: Tell
) -> dict[bool, _Rates]:
    """Read a few files of each kind; return the rates by whether they are MIDI."""
    rates = {}
    for is_midi in (False, True):
        chosen = [one for one in useful if one.is_midi == is_midi][:MEASURED]
        outcomes: list[Row | Reject] = []
        took_s: list[float] = []
        for one in chosen:
            begun = time.monotonic()
            outcomes.append(tasks.read(corpus, one.source, settings, transcribe=_no_notes))
            took_s.append(time.monotonic() - begun)
            progress(Progress("measuring", len(took_s), len(chosen)))
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        decoded = [
            one
            for one, outcome in zip(chosen, outcomes, strict=True)
            if isinstance(outcome, Row) or outcome.kind == "drop"
        ]
        if chosen:
            seconds = float(np.median(took_s)) * len(chosen)
            parquet = _parquet(rows, settings) - _parquet([], settings)
            if decoded and _is_transcribed(is_midi, settings):
                length_s = sum(one.duration_s or 0.0 for one in decoded)
                a_second, notes = _transcribing(corpus, decoded[0].source)
                seconds, parquet = seconds + a_second * length_s, 4 * notes * length_s
            size = sum(one.source.size for one in chosen)
            rates[is_midi] = _Rates(len(chosen), seconds / size, parquet / size)
    return rates


def _no_notes(samples: Samples, sr: int) -> tuple[Notes, float]:
    """Replace the network, which is measured separately."""
    return np.empty(0, NOTE), 0.0


def _is_transcribed(is_midi: bool, settings: PrepareConfig) -> bool:
    return CODECS[settings.codec].encodes_notes and not is_midi


def _transcribing(corpus: Folder, source: Source) -> tuple[float, float]:
    """Return CPU-seconds and notes for a second of sound; 0 without the weights."""
    from deep_piano.infra.assets import cache
    from deep_piano.music import transcription

    folder = cache.path("transkun")
    if folder is None:
        return 0.0, 0.0
    transcribe = transcription.Transcriber(folder)
    sr = transcription.SAMPLE_RATE
    with corpus.local(source.name) as path:
        samples = audio.decode(path, sr=sr, seconds=TRANSCRIBED_S)
    transcribe(samples[:sr], sr=sr)  # the first call compiles the network
    begun = time.process_time()  # of all threads: in a pool each network has only one
    notes = transcribe(samples, sr=sr)
    length_s = len(samples) / sr
    return (time.process_time() - begun) / length_s, len(notes) / length_s


def _parquet(rows: Sequence[Row], settings: PrepareConfig) -> float:
    """Return the size of a shard with these rows, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.parquet"
        write_shard(
            path,
            rows,
            rejects=(),
            set_aside=(),
            spec=CODECS[settings.codec].spec,
            digest="",
            row_group_bytes=settings.row_group_mb * 1e6,
        )
        return path.stat().st_size


def _some(names: Sequence[str]) -> str:
    shown = [one_line(name) for name in names[:EXAMPLES]]
    return ", ".join(shown + ["..."] * (len(names) > EXAMPLES))


def _unmeasured(new: Sequence[Source], settings: PrepareConfig) -> str:
    from deep_piano.infra.assets import cache

    needed = any(_is_transcribed(source.is_midi, settings) for source in new)
    if needed and cache.path("transkun") is None:
        return "; the time of transcription is not included (its weights are not fetched yet)"
    return ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
