"""The pieces of work of a preparation: files are hashed, shards looked up and built."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow.parquet as pq
import pytest
import threadpoolctl

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Reject, SetAside
from deep_piano.dataset.shards import read_rows, write_shard
from deep_piano.errors import AssetError, DeepPianoError
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.prepare import tasks
from deep_piano.prepare.ingest import TranscriberLostError
from deep_piano.prepare.plan import ShardPlan, reading_digest
from deep_piano.prepare.sources import Source
from deep_piano.prepare.tasks import build_shard, hash_files, look_up
from tests.support.fakes import fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import write_sound
from tests.support.rows import note_row, reject, sha

SETTINGS = PrepareConfig(row_group_mb=0.001)
NAME = "00000-of-00001-0123456789abcdef.parquet"
OLD = "00000-of-00001-00000000000000aa.parquet"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    return open_folder(tmp_path / "corpus")


@pytest.fixture
def dataset(tmp_path):
    return open_folder(tmp_path / "dataset")


@pytest.fixture
def make(corpus, dataset):
    """Build a shard of these sources; return what is known of it, and its rows by name."""

    def call(sources, *, set_aside=(), rejects=None, rows_in=None, transcribe=None):
        facts = build_shard(
            corpus,
            dataset,
            ShardPlan(NAME, tuple(sources), tuple(set_aside)),
            SETTINGS,
            rejects=rejects or {},
            rows_in=rows_in or {},
            transcribe=transcribe or fake_transcriber(),
        )
        return facts, {row.name: row for row in read_rows(dataset.root / "shards" / NAME)}

    return call


@pytest.fixture
def reads(monkeypatch):
    """Return the names of the files that are read, as they are."""
    names = []

    def ingest(path, source, *rest, **options):
        names.append(source.name)
        return real(path, source, *rest, **options)

    real = tasks.ingest
    monkeypatch.setattr(tasks, "ingest", ingest)
    return names


def midi(corpus, name, *, number=0):
    """Write a MIDI file of its own music; return its source."""
    write_midi(corpus.root / name, improvised(random_state=number))
    return source_of(corpus, name)


def source_of(corpus, name):
    data = (corpus.root / name).read_bytes()
    return Source(name, len(data), hashlib.sha256(data).hexdigest())


def old_shard(dataset, rows, *, rejects=()):
    with dataset.write(f"shards/{OLD}") as path:
        write_shard(
            path,
            rows,
            rejects=rejects,
            set_aside=(),
            spec=CODECS["notes"].spec,
            digest=reading_digest(SETTINGS),
            row_group_bytes=1e6,
        )
    return dataset.root / "shards" / OLD


def test_files_are_hashed_in_the_order_in_which_they_are_named(corpus):
    names = ["b.mp3", "sub/a b.mp3", "two\nlines.mp3"]
    for name in names:
        (corpus.root / name).parent.mkdir(exist_ok=True)
        (corpus.root / name).write_text(name)
    assert hash_files(corpus, names) == [(name, sha(name), "") for name in names]
    assert hash_files(corpus, []) == []


def test_files_that_cannot_be_hashed_cost_only_themselves(corpus, tmp_path):
    (corpus.root / "good.mp3").write_text("good")
    (corpus.root / "folder.mp3").mkdir()
    os.mkfifo(corpus.root / "pipe.mp3")
    (corpus.root / "nowhere.mp3").symlink_to("nothing")
    names = ["gone.mp3", "folder.mp3", "pipe.mp3", "nowhere.mp3", "good.mp3"]
    found = hash_files(corpus, names)
    assert [bool(problem) for *_, problem in found] == [True] * 4 + [False]
    assert [sha256 for _, sha256, _ in found] == [""] * 4 + [sha("good")]
    problems = " ".join(problem for *_, problem in found)
    assert str(tmp_path) not in problems
    assert found[0][2] == "cannot read it: No such file or directory. Check it and its permissions."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named_as_such(corpus):
    (corpus.root / "secret.mp3").touch(0)
    [(_, sha256, problem)] = hash_files(corpus, ["secret.mp3"])
    assert (sha256, "Permission denied" in problem) == ("", True)


def test_a_file_that_vanishes_while_it_is_looked_at_costs_only_itself(corpus, monkeypatch):
    (corpus.root / "a.mp3").write_text("a")

    def gone(self, *_):
        raise FileNotFoundError(2, "No such file or directory", str(self))

    monkeypatch.setattr("pathlib.PosixPath.open", gone)
    [(_, sha256, problem)] = hash_files(corpus, ["a.mp3"])
    assert (sha256, "No such file or directory" in problem) == ("", True)
    assert str(corpus.root) not in problem


def test_a_shard_that_is_there_is_known(dataset):
    path = old_shard(dataset, [note_row("a.mid")], rejects=[reject()])
    facts = look_up(dataset, OLD)
    assert (facts.name, facts.bytes) == (OLD, path.stat().st_size)
    assert facts.rejects == (reject(),)


def test_of_a_shard_that_is_broken_or_gone_nothing_is_known(dataset, rng):
    assert look_up(dataset, OLD) is None
    path = old_shard(dataset, [note_row(f"{n}.mid", seed=n) for n in range(3)])
    whole = path.read_bytes()
    for kept in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert look_up(dataset, OLD) is None
    for _ in range(200):  # wherever it is damaged, it is known or it is not
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole) - 6000, len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        assert look_up(dataset, OLD) is None or look_up(dataset, OLD).name == OLD


def test_a_shard_with_a_row_group_that_is_empty_or_of_two_splits_is_broken(dataset):
    path = old_shard(dataset, [note_row("a.mid"), note_row("b.mid", seed=1, split="test")])
    with pq.ParquetFile(path) as file:
        whole = file.read()
        metadata = file.schema_arrow.metadata
    for groups in ([whole], [whole[:1], whole[:0], whole[1:]]):
        with pq.ParquetWriter(path, whole.schema.with_metadata(metadata)) as writer:
            for group in groups:
                writer.write_table(group)
        assert look_up(dataset, OLD) is None


def test_a_machine_that_has_run_out_is_no_fault_of_a_file(corpus, monkeypatch):
    def fail(path):
        raise OSError(errno.EMFILE, "Too many open files")

    (corpus.root / "a.mid").write_bytes(b"MThd")
    monkeypatch.setattr(tasks, "sha256_of", fail)
    with pytest.raises(DeepPianoError, match="this machine cannot go on: Too many open files"):
        hash_files(corpus, ["a.mid"])


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"", 0, 1, ""), KeyError("rejects")])
def test_a_shard_that_cannot_be_understood_counts_as_broken(dataset, monkeypatch, error):
    old_shard(dataset, [note_row()])

    def read_facts(path, name):
        raise error

    monkeypatch.setattr(tasks, "read_facts", read_facts)
    assert look_up(dataset, OLD) is None


def test_files_become_rows_and_rejects(corpus, make):
    sources = [midi(corpus, f"{n}.mid", number=n) for n in range(3)]
    write_sound(corpus.root / "s.wav", played(improvised(random_state=9), sr=16_000), sr=16_000)
    (corpus.root / "bad.mid").write_text("no MIDI")
    (corpus.root / "bad.wav").write_text("no sound")
    sources += [source_of(corpus, name) for name in ("s.wav", "bad.mid", "bad.wav")]
    facts, rows = make(sources)
    assert set(rows) == {"0.mid", "1.mid", "2.mid", "s.wav"}
    assert {source.sha256 for source in sources[:4]} == {r.source_sha256 for r in rows.values()}
    assert [(r.name, r.rule) for r in facts.rejects] == [
        ("bad.mid", "unreadable"),
        ("bad.wav", "unreadable"),
    ]
    assert facts.digest == reading_digest(SETTINGS)
    assert sum(group["recordings"] for group in facts.row_groups) == 4


def test_the_same_sources_give_the_same_bytes(corpus, dataset, make):
    sources = [midi(corpus, f"{n}.mid", number=n) for n in range(3)]
    path = dataset.root / "shards" / NAME
    make(sources)
    first = path.read_bytes()
    make(sources[::-1])
    assert path.read_bytes() == first


def test_only_what_is_unknown_is_read(corpus, dataset, make, reads):
    known, bad, aside, new = (midi(corpus, f"{n}.mid", number=n) for n in range(4))
    row = replace(note_row("old name.mid"), source_sha256=known.sha256)
    old_shard(dataset, [row, note_row("someone else's.mid", seed=1)])
    twin = SetAside(reject("2.mid", kind="drop", rule="duplicate"), "its id", tuple(range(64)))
    twin = replace(twin, reject=replace(twin.reject, source_sha256=aside.sha256))
    facts, rows = make(
        [known, bad, aside, new],
        set_aside=[twin],
        rejects={bad.sha256: reject("old bad name.mid")},
        rows_in={known.sha256: OLD},
    )
    assert reads == ["3.mid"]
    assert set(rows) == {"0.mid", "3.mid"}
    assert [r.name for r in facts.rejects] == ["1.mid"]
    assert facts.set_aside == (twin,)


def test_what_is_taken_over_gets_its_new_name_and_split_and_keeps_the_rest(corpus, dataset, make):
    before = [note_row("a.mid", split="train"), note_row("b.mid", split="train", seed=1)]
    old_shard(dataset, before)
    failed = Reject("c.mid", "failure", "unreadable", "it is broken", 1.5, 2.5, sha("c.mid"))
    sources = [
        Source("new/a.mid", 1, sha("a.mid"), split="test"),
        Source("b.mid", 1, sha("b.mid")),
        Source("new/c.mid", 1, sha("c.mid"), split="test"),
    ]
    facts, rows = make(
        sources,
        rows_in=dict.fromkeys((sha("a.mid"), sha("b.mid")), OLD),
        rejects={sha("c.mid"): failed},
    )
    assert (rows["new/a.mid"].split, rows["b.mid"].split) == ("test", "train")
    assert facts.rejects == (replace(failed, name="new/c.mid"),)
    a = rows["new/a.mid"]
    assert np.array_equal(a.sequence, before[0].sequence)
    assert np.array_equal(a.fingerprint, before[0].fingerprint)
    assert (a.id, a.duration_s, a.notes) == (before[0].id, before[0].duration_s, before[0].notes)


def test_rows_of_a_shard_that_broke_or_left_are_read_again(corpus, dataset, make, caplog):
    sources = [midi(corpus, f"{n}.mid", number=n) for n in range(2)]
    _, fresh = make(sources)
    rows = [replace(row, name="before", sequence=row.sequence[:50]) for row in fresh.values()]
    path = old_shard(dataset, rows)
    rows_in = {source.sha256: OLD for source in sources}
    taken, _ = make(sources, rows_in=rows_in)
    assert sum(group["steps"] for group in taken.row_groups) == 100
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-9]), path.unlink):
        damage()
        caplog.clear()
        _, again = make(sources, rows_in=rows_in)
        assert {name: len(row.sequence) for name, row in again.items()} == {
            name: len(row.sequence) for name, row in fresh.items()
        }
        assert f"{OLD} is broken; its recordings are read again" in caplog.text


def test_a_file_that_vanished_since_it_was_hashed_is_a_failure(corpus, make, tmp_path):
    source = midi(corpus, "a.mid")
    (corpus.root / "a.mid").unlink()
    facts, rows = make([source])
    [one] = facts.rejects
    assert rows == {}
    assert (one.name, one.kind, one.rule) == ("a.mid", "failure", "unreadable")
    assert one.source_sha256 == source.sha256
    assert one.reason == "cannot read it: No such file or directory. Check it and its permissions."


def test_a_shard_may_hold_nothing_at_all(make):
    facts, rows = make([])
    assert (facts.table.num_rows, facts.rejects, rows) == (0, (), {})


@pytest.mark.parametrize("error", [AssetError("no weights"), TranscriberLostError("all gone")])
def test_without_a_transcriber_there_is_no_shard(corpus, dataset, make, error):
    write_sound(corpus.root / "s.wav", played(improvised(random_state=9), sr=16_000), sr=16_000)

    def transcribe(samples, sr):
        raise error

    with pytest.raises(type(error)):
        make([source_of(corpus, "s.wav")], transcribe=transcribe)
    assert dataset.entries("shards") == []


def test_nothing_is_published_when_writing_fails(corpus, dataset, make, monkeypatch):
    source = midi(corpus, "a.mid")
    make([source])
    path = dataset.root / "shards" / NAME
    whole = path.read_bytes()

    def full(path, *_, **__):
        path.write_bytes(b"half a sh")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tasks, "write_shard", full)
    with pytest.raises(DeepPianoError, match="there is no room for"):
        make([source])
    assert path.read_bytes() == whole
    path.unlink()
    with pytest.raises(DeepPianoError, match="there is no room for"):
        make([source])
    assert list((dataset.root / "shards").iterdir()) == []


def test_a_row_that_a_damaged_shard_holds_twice_is_taken_once(corpus, dataset, make):
    row = replace(note_row("a.mid"), source_sha256=midi(corpus, "a.mid").sha256)
    old_shard(dataset, [row, row])
    _, rows = make([midi(corpus, "a.mid")], rows_in={row.source_sha256: OLD})
    assert set(rows) == {"a.mid"}


def test_recordings_are_read_on_one_thread_and_pools_looked_for_once(corpus, monkeypatch):
    (corpus.root / "a.mid").write_bytes(b"MThd")
    [(_, sha256, _)] = hash_files(corpus, ["a.mid"])
    source, looked, threads = Source("a.mid", 1, sha256), [], []

    class Controller(tasks.ThreadpoolController):
        def __init__(self) -> None:
            looked.append(len(sys.modules))
            super().__init__()

    def ingest(*args, **named):
        pools = threadpoolctl.threadpool_info()
        threads.extend(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")
        return reject("a.mid")

    monkeypatch.setattr(tasks, "ThreadpoolController", Controller)
    monkeypatch.setattr(tasks, "ingest", ingest)
    monkeypatch.setattr(
        tasks, "_thread_pools", lru_cache(maxsize=1)(tasks._thread_pools.__wrapped__)
    )
    for _ in range(3):
        tasks.read(corpus, source, SETTINGS, transcribe=fake_transcriber())
    assert len(looked) == 1
    assert set(threads) <= {1}
    monkeypatch.setitem(sys.modules, "one_more_module", sys)
    tasks.read(corpus, source, SETTINGS, transcribe=fake_transcriber())
    assert len(looked) == 2
