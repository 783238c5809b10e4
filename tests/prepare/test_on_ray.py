"""PREPARE on a real Ray cluster: everything is accounted for, and a rerun does what is missing."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from deep_piano.config.load import load_config
from deep_piano.dataset.shards import read_rows
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.prepare import on_ray as module
from deep_piano.prepare import tasks
from deep_piano.prepare.on_ray import prepare
from tests.support.clusters import contents, one_node
from tests.support.fakes import fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_sound

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with one_node():
        yield


@pytest.fixture
def corpus(tmp_path):
    """Twelve MIDI files, all of music of their own: they need no transcribers, and little time."""
    folder = tmp_path / "corpus"
    for number in range(12):
        write_midi(folder / f"{number:02d}.mid", improvised(random_state=number))
    return folder


@pytest.fixture
def recordings(corpus):
    """Two recordings more, in the corpus."""
    for number in (20, 21):
        write_sound(corpus / f"{number}.wav", played(improvised(random_state=number)), sr=SR)


@pytest.fixture
def run(tmp_path, corpus):
    """Prepare the corpus with these settings; return the manifest."""

    def call(name="dataset", *, source=corpus, rebuild=False, retry_failures=False, **settings):
        small = {"shard_mb": 0.002, "validation_share": 0.2, "test_share": 0.2}
        return prepare(
            open_folder(source),
            open_folder(tmp_path / name),
            load_config(None, {"prepare": small | settings}),
            rebuild=rebuild,
            retry_failures=retry_failures,
            transcriber=fake_transcriber,
        )

    return call


def reconciles(manifest):
    totals = manifest.totals
    rejects = manifest.rejects
    assert totals.files == totals.recordings + totals.drops + totals.failures
    assert totals.drops + totals.failures == len(rejects)
    groups = [group for shard in manifest.shards for group in shard.row_groups]
    assert totals.recordings == sum(group.recordings for group in groups)
    assert totals.recordings == sum(s.recordings for s in totals.splits.values())
    return totals


def rows(folder):
    return [row for path in sorted((folder / "shards").iterdir()) for row in read_rows(path)]


@pytest.mark.usefixtures("recordings")
def test_a_corpus_becomes_a_dataset(run, corpus, tmp_path):
    (corpus / "readme.txt").write_text("hello")
    manifest = run()
    totals = reconciles(manifest)
    assert (totals.files, totals.recordings, totals.ignored) == (14, 14, 1)
    assert len(manifest.shards) > 4
    found = {row.name: row for row in rows(tmp_path / "dataset")}
    assert set(found) == {path.name for path in corpus.iterdir()} - {"readme.txt"}
    assert found["20.wav"].audio is not None
    assert found["20.wav"].notes.pedal_share == 0.5
    assert found["03.mid"].audio is None
    notes = read_midi(corpus / "03.mid")
    assert np.array_equal(found["03.mid"].sequence[:, 1], notes["pitch"] - 21)
    assert json.loads((tmp_path / "dataset/manifest.json").read_text()) == manifest.to_json()
    assert manifest.summary.to_json()["notes"]["count"] == 14


def test_the_manifest_describes_the_shards_that_are_there(run, tmp_path):
    manifest = run()
    for shard in manifest.shards:
        path = tmp_path / "dataset" / "shards" / shard.name
        assert path.stat().st_size == shard.bytes
        with pq.ParquetFile(path) as file:
            assert file.num_row_groups == len(shard.row_groups)


@pytest.mark.usefixtures("recordings")
def test_sound_codecs_leave_midi_out(run, tmp_path):
    manifest = run(codec="mulaw")
    totals = reconciles(manifest)
    assert (totals.recordings, totals.drops) == (2, 12)
    assert {reject.rule for reject in manifest.rejects} == {"no_audio"}
    [row] = [row for row in rows(tmp_path / "dataset") if row.name == "20.wav"]
    assert abs(len(row.sequence) / 16_000 - row.duration_s) < 0.01
    assert row.sequence.dtype == np.uint8


def test_a_rerun_changes_nothing_and_reads_nothing(run, corpus, tmp_path, monkeypatch):
    manifest = run()
    before = contents(tmp_path / "dataset")
    monkeypatch.setattr("deep_piano.prepare.on_ray.connected", None)  # not even Ray is needed
    assert run() == manifest
    assert contents(tmp_path / "dataset") == before


def test_a_file_with_a_new_time_is_hashed_again_and_nothing_more(run, corpus, tmp_path):
    run()
    before = contents(tmp_path / "dataset")
    (corpus / "03.mid").touch()
    run()
    after = contents(tmp_path / "dataset")
    assert {name for name in after if after[name] != before[name]} == {"files.parquet"}


def test_added_changed_renamed_and_removed_files_are_as_if_from_the_beginning(
    run, corpus, tmp_path
):
    run()
    write_midi(corpus / "new.mid", improvised(random_state=30))
    write_midi(corpus / "04.mid", improvised(random_state=31))
    (corpus / "05.mid").rename(corpus / "renamed.mid")
    (corpus / "06.mid").unlink()
    first = {path.name for path in (tmp_path / "dataset/shards").iterdir()}
    manifest = run()
    assert reconciles(manifest).recordings == 12
    fresh = run("fresh")
    assert manifest == fresh
    assert contents(tmp_path / "dataset") == contents(tmp_path / "fresh")
    kept = first & {shard.name for shard in manifest.shards}
    assert kept, "shards that nothing changed in stay"


def test_only_what_is_missing_is_made_again(run, tmp_path):
    run()
    whole = contents(tmp_path / "dataset")
    shards = sorted((tmp_path / "dataset/shards").iterdir())
    kept = {path: path.stat().st_mtime_ns for path in shards[1:]}
    shards[0].unlink()
    (tmp_path / "dataset/manifest.json").unlink()
    run()
    assert contents(tmp_path / "dataset") == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_broken_shard_is_made_again(run, tmp_path):
    run()
    whole = contents(tmp_path / "dataset")
    shard = min((tmp_path / "dataset/shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-10])
    run()
    assert contents(tmp_path / "dataset") == whole


@pytest.mark.slow
def test_a_shard_that_kills_what_looks_at_it_is_made_again(run, tmp_path, monkeypatch):
    run()
    whole, shard = contents(tmp_path / "dataset"), min((tmp_path / "dataset/shards").iterdir())
    look_up = tasks.look_up

    def look_up_or_die(dataset, name):
        return os._exit(1) if name == shard.name else look_up(dataset, name)

    (tmp_path / "dataset/manifest.json").unlink()
    monkeypatch.setattr(tasks, "look_up", look_up_or_die)
    run()
    assert contents(tmp_path / "dataset") == whole


def test_other_settings_are_refused_and_named_before_any_work(run):
    run()
    with pytest.raises(InputError, match=r"min_notes 64 -> 50\): every recording would be read"):
        run(min_notes=50)
    with pytest.raises(InputError, match=r"test_share 0.2 -> 0.3\): its shards would be writ"):
        run(test_share=0.3)


def test_rebuild_makes_what_the_new_settings_say(run, tmp_path):
    run()
    run(rebuild=True, test_share=0.5, shard_mb=0.004)
    run("fresh", test_share=0.5, shard_mb=0.004)
    assert contents(tmp_path / "dataset") == contents(tmp_path / "fresh")


@pytest.mark.usefixtures("recordings")
def test_another_layout_reads_no_recording_again(run, corpus, tmp_path):
    run()
    kept = tmp_path / "kept"
    corpus.rename(kept)
    # The same names, sizes and times, but nothing to read in them.
    shutil.copytree(kept, corpus)
    for path in corpus.iterdir():
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, (kept / path.name).stat().st_mtime_ns))
    assert reconciles(run(rebuild=True, shard_mb=0.004)).recordings == 14


def test_running_settings_may_change(run):
    assert run() == run(workers=1, time_limit_seconds=100.0, max_failures=3)


@pytest.mark.usefixtures("recordings")
def test_one_worker_or_several_make_the_same_bytes(run, tmp_path):
    run("one", workers=1)
    run("several")
    assert contents(tmp_path / "one") == contents(tmp_path / "several")


def test_too_many_failures_end_the_run_and_what_was_done_is_kept(run, corpus, tmp_path):
    for number in range(4):
        (corpus / f"bad{number}.mid").write_text(f"no MIDI {number}")
    with pytest.raises(DeepPianoError, match=r"files failed and 1 may .*bad\d.mid: .*'MThd'"):
        run(max_failures=1, workers=1)
    assert not (tmp_path / "dataset/manifest.json").exists()
    assert list((tmp_path / "dataset/shards").iterdir())
    manifest = run()
    assert reconciles(manifest).failures == 4
    run("fresh")
    assert contents(tmp_path / "dataset") == contents(tmp_path / "fresh")


def test_the_same_command_stops_again_however_much_is_done(run, corpus):
    (corpus / "bad.mid").write_text("no MIDI")
    (corpus / "empty.mid").touch()
    for _ in range(2):  # the second run has nothing left to read
        with pytest.raises(DeepPianoError, match="2 files failed and 1 may"):
            run(max_failures=1, shard_mb=10.0)
    manifest = run(max_failures=2, shard_mb=10.0)
    assert reconciles(manifest).failures == 2
    with pytest.raises(DeepPianoError, match="2 files failed and 0 may"):
        run(max_failures=0, shard_mb=10.0)


@pytest.mark.usefixtures("recordings")
def test_a_recording_that_comes_back_is_heard_again(run, corpus, monkeypatch):
    quiet = played(improvised(random_state=20)) / 2
    write_sound(corpus / "30.wav", quiet, sr=SR)
    assert reconciles(run()).drops == 1
    (corpus / "20.wav").unlink()
    # At once: it is known only by its fingerprint, and no shard is lost for want of a transcriber.
    monkeypatch.setattr("deep_piano.prepare.on_ray._LOSSES", 0)
    assert reconciles(run()).recordings == 14
    fresh = run("fresh")
    assert reconciles(fresh).recordings == 14


def test_shards_of_other_settings_are_spoken_of(run, tmp_path, caplog):
    run()
    (tmp_path / "dataset/manifest.json").unlink()  # as if it had been killed
    run()
    assert not caplog.records
    (tmp_path / "dataset/manifest.json").unlink()
    run(min_notes=50)
    assert "from a run with other settings, and of no use to this one" in caplog.text


def test_failures_are_read_again_when_asked(run, corpus, monkeypatch, tmp_path):
    (corpus / "bad.mid").write_text("no MIDI")
    assert reconciles(run()).failures == 1
    assert reconciles(run(retry_failures=True)).failures == 1
    whole = contents(tmp_path / "dataset")
    run("fresh")
    assert contents(tmp_path / "fresh") == whole


def test_rejects_are_listed_for_people(run, corpus, tmp_path):
    (corpus / 'odd,"na\nme.mid').write_text("no MIDI")
    shutil.copy(corpus / "00.mid", corpus / "zz.mid")
    manifest = run()
    with (tmp_path / "dataset/rejects.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [row["name"] for row in listed] == ['odd,"na\nme.mid', "zz.mid"]
    assert [row["rule"] for row in listed] == ["unreadable", "duplicate"]
    assert listed[1]["reason"] == "the same file as 00.mid"
    assert reconciles(manifest).drops == 1


@pytest.mark.usefixtures("recordings")
def test_a_transcriber_that_cannot_be_had_ends_the_run(corpus, tmp_path):
    with pytest.raises(DeepPianoError, match="no weights today"):
        prepare(
            open_folder(corpus),
            open_folder(tmp_path / "dataset"),
            load_config(),
            transcriber=_missing,
        )


def _missing():
    from deep_piano.errors import AssetError

    raise AssetError("no weights today")


@pytest.mark.usefixtures("recordings")
def test_progress_counts_up_to_all(corpus, tmp_path):
    seen = []
    prepare(
        open_folder(corpus),
        open_folder(tmp_path / "dataset"),
        load_config(),
        transcriber=fake_transcriber,
        progress=seen.append,
    )
    assert {now.what for now in seen} == {"looking", "preparing"}
    last = seen[-1]
    assert (last.done, last.total, last.failures) == (14, 14, 0)
    assert last.duration_s > 100


def test_another_corpus_does_not_replace_a_dataset_unless_asked(run, corpus, tmp_path):
    run()
    other = tmp_path / "other"
    for number in range(60, 63):
        write_midi(other / f"{number}.mid", improvised(random_state=number))
    before = contents(tmp_path / "dataset")
    with pytest.raises(InputError, match="was made of other files, none of which is in this"):
        run(source=other)
    assert contents(tmp_path / "dataset") == before
    assert reconciles(run(source=other, rebuild=True)).recordings == 3


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_removed(run, corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    for number in range(3):
        (corpus / f"{number:02d}.mid").rename(disk / f"{number}.mid")
    (corpus / "disk").symlink_to(disk)
    manifest = run()
    before = contents(tmp_path / "dataset")
    disk.rename(tmp_path / "away")
    with pytest.raises(DeepPianoError, match=r"disk holds 3 files that .*dataset was made of, and"):
        run()
    assert contents(tmp_path / "dataset") == before
    (tmp_path / "away").rename(disk)
    assert run() == manifest
    disk.rename(tmp_path / "away")
    assert reconciles(run(rebuild=True)).recordings == 9


def test_what_cannot_be_read_is_looked_at_once(run, corpus, tmp_path, monkeypatch):
    (corpus / "empty.mid").touch()
    manifest = run()
    assert reconciles(manifest).failures == 1
    monkeypatch.setattr(module, "connected", lambda **_: pytest.fail("work was begun"))
    assert run() == manifest
    monkeypatch.undo()
    (corpus / "empty.mid").rename(corpus / "hollow.mid")
    assert [reject.name for reject in run().rejects] == ["hollow.mid"]


def test_a_shard_that_rotted_is_built_anew(run, corpus, tmp_path):
    manifest = run()
    whole = contents(tmp_path / "dataset")
    path = tmp_path / "dataset" / "shards" / manifest.shards[0].name
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(file.metadata.num_columns - 1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(data)
    assert run(rebuild=True) == manifest
    assert contents(tmp_path / "dataset")[f"shards/{path.name}"] == whole[f"shards/{path.name}"]
