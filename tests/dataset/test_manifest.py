"""The manifest, the list of rejects and the ledger: what is written last, and read first."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import ValidationError

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.manifest import LEDGER, MANIFEST, REJECTS, Manifest, read_manifest
from deep_piano.dataset.rows import SetAside
from deep_piano.dataset.shards import read_facts, write_shard
from deep_piano.errors import InputError
from deep_piano.infra.storage.folder import Entry
from deep_piano.infra.storage.open import open_folder
from deep_piano.prepare.commit import (
    Remembered,
    commit,
    corpus_digest,
    descriptors,
    is_current,
    make_manifest,
    read_ledger,
    remembered,
    require_same_settings,
    shards_there,
    write_ledger,
)
from deep_piano.prepare.plan import reading_digest
from deep_piano.prepare.sources import Source
from tests.support.rows import note_row, reject, sha, sound_row

SETTINGS = PrepareConfig()
NAMES = [f"{n:05d}-of-00002-{n:016x}.parquet" for n in range(3)]
ODD_NAMES = [
    "a b.mp3",
    'it\'s "quoted", twice.mp3',
    "two\nlines\r\nand a tab\t.mp3",
    "\N{MUSICAL KEYBOARD}\N{HIRAGANA LETTER A}.mp3",
    "=1+1;-2.mp3",
    r"caf\xe9.mp3",
    "x" * 250,
]


@pytest.fixture
def dataset(tmp_path):
    return open_folder(tmp_path / "year=2004" / "dataset")


@pytest.fixture
def shard(dataset):
    """Write a shard into the dataset; return what is known of it."""

    def write(name=NAMES[0], rows=(), *, rejects=(), set_aside=(), codec="notes"):
        with dataset.write(f"shards/{name}") as path:
            write_shard(
                path,
                rows,
                rejects=rejects,
                set_aside=set_aside,
                spec=CODECS[codec].spec,
                digest=reading_digest(SETTINGS),
                row_group_bytes=1e6,
            )
            return read_facts(path, name)

    return write


def a_manifest(shards=(), *, rejects=(), settings=SETTINGS, files=None, digest="d"):
    found = [*rejects]
    for facts in shards:
        found += [*facts.rejects, *facts.set_aside, *facts.table["id"]]
    return make_manifest(
        "s3://music/all",
        settings,
        corpus_digest=digest,
        files=len(found) if files is None else files,
        ignored={".jpg": 4, "": 3},
        shards=shards,
        rejects=rejects,
        versions={"python": "3.11", "ffmpeg": None},
    )


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_a_manifest_adds_up(shard):
    aside = SetAside(reject("twin.mid", kind="drop", rule="duplicate"), "id", ())
    shards = [
        shard(NAMES[0], [note_row("a.mid"), note_row("b.mid", split="test", seed=1)]),
        shard(NAMES[1], [note_row("c.mid", seed=2)], rejects=[reject()], set_aside=[aside]),
    ]
    others = [reject("z.mid", kind="drop", rule="duplicate"), reject("A.mp3")]
    manifest = a_manifest(shards, rejects=others, files=7)
    totals = manifest.totals
    assert (totals.files, totals.ignored) == (7, 7)
    assert totals.left_alone == {".jpg": 4, "": 3}
    assert (totals.recordings, totals.drops, totals.failures) == (3, 2, 2)
    assert [r.name for r in manifest.rejects] == ["A.mp3", "bad.mp3", "twin.mid", "z.mid"]
    assert totals.bytes == sum(facts.bytes for facts in shards)
    by_split = totals.splits
    assert {name: split.recordings for name, split in by_split.items()} == {
        **{"train": 2, "validation": 0, "test": 1}
    }
    assert totals.steps == sum(split.steps for split in by_split.values())
    length_s = sum(split.duration_s for split in by_split.values())
    assert totals.duration_s == pytest.approx(length_s)
    assert manifest.summary.to_json()["notes"]["count"] == 3
    assert [one.name for one in manifest.shards] == NAMES[:2]
    assert manifest.shards[0].sha256 == shards[0].sha256
    assert manifest.corpus.to_json() == {"uri": "s3://music/all", "digest": "d"}
    assert "workers" not in manifest.settings.to_json()


def test_a_manifest_of_nothing_adds_up(dataset):
    manifest = a_manifest()
    assert manifest.totals.recordings == manifest.totals.bytes == 0
    assert manifest.summary.to_json() == {}
    commit(dataset, manifest)
    assert read_manifest(dataset) == manifest


def test_notes_tell_key_and_tempo_and_the_recording_its_length(shard):
    both = replace(note_row("a.mp3"), kind="audio", duration_s=99.5, audio=sound_row("mulaw").audio)
    found = descriptors([shard(NAMES[0], [both]), shard(NAMES[1], [note_row("b.mid", seed=1)])])
    b = note_row("b.mid", seed=1)
    assert found["key"] == [both.notes.key, b.notes.key]
    assert found["tempo_bpm"] == [both.notes.tempo_bpm, b.notes.tempo_bpm]
    assert found["duration_s"] == [99.5, b.duration_s]
    assert found["peak_dbfs"] == [both.audio.peak_dbfs, None]
    assert {len(column) for column in found.values()} == {2}


def test_a_manifest_does_not_depend_on_the_order_of_rejects(shard):
    rejects = [reject(f"{n}.mp3") for n in range(5)]
    assert a_manifest(rejects=rejects) == a_manifest(rejects=rejects[::-1])


def test_a_manifest_is_read_as_it_was_written(dataset, shard):
    manifest = a_manifest(
        [shard(NAMES[0], [note_row()])],
        rejects=[reject(name) for name in ODD_NAMES],
        settings=PrepareConfig(group="(é.)", trim_silence_db=None),
    )
    commit(dataset, manifest)
    assert read_manifest(dataset) == manifest
    first = (dataset.root / MANIFEST).read_bytes()
    commit(dataset, Manifest.model_validate(dict(reversed(manifest.to_json().items()))))
    assert (dataset.root / MANIFEST).read_bytes() == first


def test_what_was_read_is_written_as_it_was_and_cannot_be_changed(dataset, shard):
    """Whole numbers stay whole, what no model names stays, and what was left out stays out."""
    content = a_manifest([shard(NAMES[0], [note_row()], rejects=[reject()])]).to_json()
    assert type(content["totals"]["splits"]["test"]["duration_s"]) is int
    content["codec"]["fields"][0]["beside"] = {"features": 3}
    content["rejects"][0] |= {"value": 5, "limit": 0.5}
    del content["rejects"][0]["source_sha256"]
    (dataset.root / MANIFEST).write_text(json.dumps(content))
    manifest = read_manifest(dataset)
    assert json.dumps(manifest.to_json(), sort_keys=True) == json.dumps(content, sort_keys=True)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.totals.recordings = 7


def test_without_a_manifest_there_is_no_dataset(dataset):
    assert read_manifest(dataset) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is broken: Expecting value"),
        ('{"format": 1', "is broken: "),
        ("[1, 2]", "is broken: "),
        ("7", "is broken: "),
        (b'"\xff"', "is broken: 'utf-8' codec can't decode"),
        ("{}", "has the format None, and this version writes 1"),
        ('{"format": 2}', "has the format 2, and this version writes 1"),
        ('{"format": "a\\nb"}', r"has the format 'a\nb', and"),
        ('{"format": 1, "codec": {}, "totals": {}}', "is broken: it lacks corpus, reading_digest"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_named(dataset, text, problem):
    dataset.root.mkdir(parents=True)
    (dataset.root / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as raised:
        read_manifest(dataset)
    message = str(raised.value)
    assert message.startswith(f"{dataset.uri}/manifest.json {problem}")
    assert message.endswith("Prepare into another folder, or remove that file.")
    assert message.isprintable()


def test_the_same_settings_are_no_reason_to_refuse():
    manifest = Manifest.model_validate_json(json.dumps(a_manifest().to_json()))
    require_same_settings(manifest, SETTINGS, "dataset")
    require_same_settings(manifest, PrepareConfig(workers=3, max_failures=1), "dataset")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_notes": 7}, r"\(min_notes 64 -> 7\): every recording would be read again"),
        ({"codec": "mulaw"}, r"\(codec notes -> mulaw\): every recording"),
        ({"sr": 8000}, r"\(sr None -> 8000\): every recording"),
        ({"shard_mb": 1}, r"\(shard_mb 32.0 -> 1.0\): its shards would be written again"),
        ({"group": "(a\nb)"}, r"\(group None -> \(a\\nb\)\): its shards"),
        (
            {"test_share": 0.2, "min_density": 1},
            r"\(min_density 0.2 -> 1.0; test_share 0.05 -> 0.2\): every recording",
        ),
    ],
)
def test_other_settings_are_named_with_what_they_would_cost(settings, message):
    manifest = Manifest.model_validate_json(json.dumps(a_manifest().to_json()))
    with pytest.raises(InputError, match=f"^data was made with other settings {message}") as raised:
        require_same_settings(manifest, PrepareConfig(**settings), "data")
    assert str(raised.value).endswith(
        "Give another folder, the settings it was made with, or --rebuild."
    )


def test_another_way_of_reading_is_another_setting(monkeypatch):
    manifest = a_manifest()
    monkeypatch.setattr("deep_piano.prepare.plan.READING_VERSION", 10**6)
    with pytest.raises(InputError, match=r"\(how this version of deep_piano reads recordings\)"):
        require_same_settings(manifest, SETTINGS, "dataset")


def test_settings_that_came_or_went_are_named():
    content = a_manifest(settings=PrepareConfig(min_notes=7)).to_json()
    content["settings"]["old"] = content["settings"].pop("max_density")
    manifest = Manifest.model_validate(content)
    with pytest.raises(InputError, match=r"max_density None -> 50.0; .*; old 50.0 -> None"):
        require_same_settings(manifest, SETTINGS, "dataset")


def test_a_corpus_is_known_by_names_contents_splits_and_number_of_other_files():
    sources = [Source(name, 1, sha(name)) for name in ODD_NAMES]
    digests = {corpus_digest(sources, 0), corpus_digest(sources, 1), corpus_digest([], 0)}
    for change in ({"name": "n"}, {"sha256": "s"}, {"split": "test"}, {"group": "g"}):
        digests.add(corpus_digest([replace(sources[0], **change), *sources[1:]], 0))
    assert len(digests) == 7
    assert corpus_digest(list(sources), 0) in digests


def test_a_dataset_is_current_until_anything_changes(dataset, shard):
    manifest = a_manifest([shard(name, [note_row(name)]) for name in NAMES[:2]])
    assert not is_current(manifest, SETTINGS, "d", dataset)  # not committed
    commit(dataset, manifest)
    manifest = read_manifest(dataset)
    assert is_current(manifest, SETTINGS, "d", dataset)
    assert not is_current(manifest, SETTINGS, "another corpus", dataset)
    assert not is_current(manifest, PrepareConfig(test_share=0.1), "d", dataset)
    kept = dataset.root.with_name("kept")
    shutil.copytree(dataset.root, kept)
    path = dataset.root / "shards" / NAMES[0]
    for change in (
        path.unlink,
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        lambda: shard(NAMES[2]),
        (dataset.root / REJECTS).unlink,
    ):
        change()
        assert not is_current(manifest, SETTINGS, "d", dataset)
        shutil.rmtree(dataset.root)
        shutil.copytree(kept, dataset.root)
        assert is_current(manifest, SETTINGS, "d", dataset)


def test_rejects_are_listed_for_people_with_any_name(dataset):
    rejects = [reject(name) for name in ODD_NAMES]
    rejects.append(replace(reject("drop", kind="drop"), value=1.5, limit=2.0))
    commit(dataset, a_manifest(rejects=rejects))
    with (dataset.root / REJECTS).open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    expected = sorted(rejects, key=lambda one: one.name)
    assert [row["name"] for row in listed] == [one.name for one in expected]
    texts = [{k: "" if v is None else str(v) for k, v in asdict(one).items()} for one in expected]
    assert listed == texts


def test_the_manifest_is_written_after_everything_else(dataset, shard, monkeypatch):
    old = a_manifest([shard(NAMES[0])])
    commit(dataset, old)
    new = a_manifest([shard(NAMES[1])], rejects=[reject()])
    happened = []
    kind = type(dataset)

    def noting(name, method):
        def call(self, target):
            happened.append((name, target))
            return method(self, target)

        return call

    monkeypatch.setattr(kind, "write", noting("write", kind.write))
    monkeypatch.setattr(kind, "remove", noting("remove", kind.remove))
    commit(dataset, new)
    assert happened == [
        ("write", REJECTS),
        ("write", MANIFEST),
        ("remove", f"shards/{NAMES[0]}"),
    ]


def test_a_commit_that_fails_leaves_the_old_manifest_and_its_shards(dataset, shard, monkeypatch):
    old = a_manifest([shard(NAMES[0])])
    commit(dataset, old)
    before = (dataset.root / MANIFEST).read_bytes()
    new = a_manifest([shard(NAMES[1])])
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        commit(dataset, new)
    assert (dataset.root / MANIFEST).read_bytes() == before
    assert set(shards_there(dataset)) == set(NAMES[:2])
    assert not [name for name in names(dataset.root) if ".tmp" in name]


def test_stale_shards_and_what_a_killed_run_left_go_and_all_else_stays(dataset, shard):
    facts = [shard(name) for name in NAMES]
    kept = [
        "notes.txt",
        f"{NAMES[0]}",  # not where shards lie
        "shards/readme.md",
        f"shards/{NAMES[0]}.bak",
        "shards/part-0.parquet",
        "deep/.hidden.tmp",
        ".0123456789ag.tmp",
    ]
    left = ["shards/.0123456789ab.tmp.parquet", ".0123456789ab.tmp.json", "deep/.0123456789ab.tmp"]
    (dataset.root / "deep").mkdir()
    for name in kept + left:
        (dataset.root / name).write_text("x")
    commit(dataset, a_manifest(facts[1:2]))
    assert names(dataset.root) == sorted([*kept, MANIFEST, REJECTS, f"shards/{NAMES[1]}"])


def test_the_shards_that_are_there_are_known_by_their_names(dataset, shard):
    assert shards_there(dataset) == {}
    facts = shard(NAMES[0])
    (dataset.root / "shards" / "other.parquet").write_text("x")
    assert shards_there(dataset) == {NAMES[0]: facts.bytes}


def entries_of(names, *, stamp="1"):
    return [Entry(name, 10 + n, stamp) for n, name in enumerate(names)]


def test_a_ledger_is_read_as_it_was_written(dataset):
    entries = entries_of(ODD_NAMES)
    hashes = {name: sha(name) for name in ODD_NAMES}
    write_ledger(dataset, entries, hashes)
    assert read_ledger(dataset) == {
        entry.name: Remembered(entry.size, "1", sha(entry.name)) for entry in entries
    }
    assert remembered(entries, read_ledger(dataset)) == hashes
    first = (dataset.root / LEDGER).read_bytes()
    write_ledger(dataset, entries, dict(reversed(hashes.items())))
    assert (dataset.root / LEDGER).read_bytes() == first


def test_a_ledger_holds_only_what_was_hashed_and_may_be_empty(dataset):
    assert read_ledger(dataset) == {}
    write_ledger(dataset, entries_of(["a", "b"]), {"b": "s", "gone": "t"})
    assert list(read_ledger(dataset)) == ["b"]
    write_ledger(dataset, [], {})
    assert read_ledger(dataset) == {}


def test_a_file_of_another_size_or_time_or_with_a_problem_is_not_remembered():
    ledger = {"a": Remembered(10, "1", "s")}
    assert remembered([Entry("a", 10, "1")], ledger) == {"a": "s"}
    for entry in (
        Entry("a", 11, "1"),
        Entry("a", 10, "2"),
        Entry("a", 10, "1", "cannot be read"),
        Entry("b", 10, "1"),
    ):
        assert remembered([entry], ledger) == {}


def test_a_broken_ledger_only_costs_time(dataset, rng):
    write_ledger(dataset, entries_of(ODD_NAMES), {name: sha(name) for name in ODD_NAMES})
    whole = (dataset.root / LEDGER).read_bytes()
    for kept in (0, 4, len(whole) // 2, len(whole) - 1):
        (dataset.root / LEDGER).write_bytes(whole[:kept])
        assert read_ledger(dataset) == {}
    for place in rng.integers(0, len(whole), 300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[place] ^= rng.integers(1, 256)
        (dataset.root / LEDGER).write_bytes(damaged.tobytes())
        assert isinstance(read_ledger(dataset), dict)


def test_a_ledger_of_other_columns_only_costs_time(dataset):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for columns in ({"name": ["a"], "size": [1]}, {"x": [1]}, {"name": ["a"], "sha256": ["b"]}):
        with dataset.write(LEDGER) as path:
            pq.write_table(pa.table(columns), path)
        assert read_ledger(dataset) == {}


def test_a_file_that_is_neither_a_row_nor_a_reject_is_noticed(shard):
    with pytest.raises(AssertionError, match="every file is a row or a reject"):
        a_manifest([shard(rows=[note_row()])], files=2)


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("corpus",), 5),
        (("totals", "recordings"), -1),
        (("totals", "splits", "train"), []),
        (("codec", "fields", 0, "size"), "many"),
        (("shards", 0, "name"), "../../elsewhere.parquet"),
        (("shards", 0, "row_groups", 0, "steps"), 1e308),
        (("summary", "tempo_bpm", "histogram", "edges", 3), 0),
        (("summary", "tempo_bpm", "mean"), None),
        (("rejects", 0, "reason"), None),
    ],
)
def test_a_part_of_another_kind_is_named(dataset, shard, where, wrong):
    """What comes of a manifest is read by many; none of them has to doubt it."""
    commit(dataset, a_manifest([shard(rows=[note_row()], rejects=[reject("bad.mp3")])]))
    manifest = json.loads((dataset.root / MANIFEST).read_text())
    *path, last = where
    part = manifest
    for key in path:
        part = part[key]
    part[last] = wrong
    (dataset.root / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"is broken: {where[0]}.*another folder") as raised:
        read_manifest(dataset)
    assert str(raised.value).isprintable()
