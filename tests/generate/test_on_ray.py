"""GENERATE in bulk on real Ray: every seed has its pieces or its reason, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.config.load import load_config
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.open import drawing, open_decoder
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.generate import on_ray
from deep_piano.generate.gallery import PAGE
from deep_piano.generate.on_ray import generate
from deep_piano.generate.piece import make_pieces
from deep_piano.generate.ranking import best_first
from deep_piano.generate.records import MANIFEST, RECORDS, read_records, read_run
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.music.midi import read_midi, write_midi
from tests.support.clusters import contents, killing, several_nodes
from tests.support.commands import in_a_process
from tests.support.fakes import arpeggios, sound_checkpoint
from tests.support.recordings import SR, struck, write_sound
from tests.support.rows import note_row

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GOOD = 4
TAKES = 2


@pytest.fixture(scope="module")
def cluster(_s3_server):
    """Two nodes whose workers know, from their start on, where S3 is."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in _s3_server.env.items():
            environment.setenv(name, value)
        with several_nodes(2) as nodes:
            yield nodes


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "seeds"
    for number in range(GOOD):
        music = arpeggios(9 + number, rng=np.random.default_rng(number), tonic=48 + 3 * number)
        write_midi(folder / ("inner/" * (number % 2)) / f"{number}.mid", music)
    return folder


@pytest.fixture(scope="module")
def bulk(weights):
    """Return a function that makes pieces; `disturb` is called when some are there."""

    def bulk(seeds, pieces, *, disturb=None, opened=open_decoder, force=False, batch=4, **settings):
        waiting = [disturb] if disturb else []

        def watch(report):
            if 0 < report.done < report.total and waiting:
                waiting.pop()()

        of_bulk = {"format": "mid", "batch": batch} | {
            name: settings.pop(name)
            for name in ("workers", "max_failures", "format", "nodes_within_seconds")
            if name in settings
        }
        settings = {"checkpoint": str(weights), "seconds": 25.0, "takes": TAKES} | settings
        return generate(
            open_folder(seeds),
            open_folder(pieces),
            load_config(None, {"generate": settings, "bulk": of_bulk}),
            opened=opened,
            force=force,
            progress=watch,
        )

    return bulk


@pytest.fixture(scope="module")
def undisturbed(cluster, seeds, bulk, tmp_path_factory):
    """What a run makes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "pieces"
    records = bulk(seeds, folder)
    assert all(record.done for record in records.values())
    return files(folder)


def files(folder):
    """Return every piece's files."""
    return {
        name: data
        for name, data in contents(folder).items()
        if "/take-" in name or "/seed." in name
    }


def test_every_seed_has_its_takes_and_the_manifest_names_their_files(
    undisturbed, seeds, tmp_path, bulk
):
    shutil.copytree(seeds, tmp_path / "seeds")
    records = bulk(tmp_path / "seeds", tmp_path / "pieces")
    assert len(records) == GOOD * TAKES
    assert files(tmp_path / "pieces") == undisturbed
    assert "inner/3.mid/take-2.png" in undisturbed
    lines = (tmp_path / "pieces" / MANIFEST).read_text().splitlines()
    table = pq.read_table(tmp_path / "pieces" / "pieces.parquet").to_pylist()
    assert [json.loads(line)["seed"] for line in lines] == [row["seed"] for row in table]
    assert [(row["seed"], row["take"]) for row in table] == sorted(
        (name, take)
        for name in (p.relative_to(seeds).as_posix() for p in seeds.rglob("*.mid"))
        for take in (1, 2)
    )
    named = {name for record in records.values() for name in record.files}
    assert named == set(undisturbed)
    assert not list((tmp_path / "pieces" / RECORDS).iterdir())


def test_a_piece_is_that_of_generate_alone(undisturbed, seeds, weights, tmp_path):
    settings = {"checkpoint": str(weights), "seconds": 25.0, "takes": TAKES}
    config = load_config(None, {"generate": settings}).generate
    make_pieces(seeds / "inner" / "3.mid", tmp_path / "take.mid", config)
    for take in (1, 2):
        for suffix in (".mid", ".json"):
            alone = (tmp_path / f"take-{take}{suffix}").read_bytes()
            assert alone == undisturbed[f"inner/3.mid/take-{take}{suffix}"]


def test_pieces_are_kept_apart_from_a_corpus_as_one_alone_is(
    undisturbed, seeds, bulk, weights, tmp_path
):
    known = {}
    for name in ("0.mid", "inner/3.mid"):
        (tmp_path / "known.mid").write_bytes(undisturbed[f"{name}/take-1.mid"])
        notes = read_midi(tmp_path / "known.mid")
        ends_s = json.loads(undisturbed[f"{name}/take-1.json"])["seed"]["seconds"]
        known[name] = encode(notes[notes["onset"] >= ends_s])
    CompactIndex.build(known.items(), dataset="d" * 64).save(tmp_path / "index")
    options = {"index": str(tmp_path / "index"), "most_shared": 12}
    records = bulk(seeds, tmp_path / "pieces", **options)
    assert all(record.shared_run_notes <= 12 for record in records.values())
    settings = {"checkpoint": str(weights), "seconds": 25.0, "takes": TAKES, **options}
    config = load_config(None, {"generate": settings}).generate
    make_pieces(seeds / "inner" / "3.mid", tmp_path / "take.mid", config)
    mine = files(tmp_path / "pieces")
    for take in (1, 2):
        alone = (tmp_path / f"take-{take}.mid").read_bytes()
        assert alone == mine[f"inner/3.mid/take-{take}.mid"]
    assert max(map(len, known.values())) > 12
    CompactIndex.build(known.items(), dataset="e" * 64).save(tmp_path / "index")
    with pytest.raises(InputError, match=r"other settings \(apart_from\)"):
        bulk(seeds, tmp_path / "pieces", **options)


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (3, 16)])
def test_the_same_bytes_however_many_composers_and_pieces_at_once(
    undisturbed, seeds, bulk, tmp_path, workers, batch
):
    begun = time.monotonic()
    bulk(seeds, tmp_path, workers=workers, batch=batch, nodes_within_seconds=0.5)
    assert time.monotonic() - begun >= 0.5  # for nodes that no autoscaler brings
    assert files(tmp_path) == undisturbed


def test_a_rerun_makes_only_what_is_missing_failed_or_changed(undisturbed, seeds, bulk, tmp_path):
    mine, pieces = tmp_path / "seeds", tmp_path / "pieces"
    shutil.copytree(seeds, mine)
    (mine / "bad.mid").write_bytes(b"MThd")
    records = bulk(mine, pieces)
    assert [key for key, record in records.items() if not record.done] == [
        ("bad.mid", 0),
        ("bad.mid", 1),
    ]
    before = {path: path.stat().st_mtime_ns for path in pieces.rglob("take*.mid")}
    (pieces / "0.mid/take-1.png").unlink()
    write_midi(mine / "bad.mid", arpeggios(9, rng=np.random.default_rng(99)))
    write_midi(mine / "2.mid", arpeggios(12, rng=np.random.default_rng(98)))
    assert all(record.done for record in bulk(mine, pieces).values())
    after = {path: path.stat().st_mtime_ns for path in pieces.rglob("take*.mid")}
    made = {
        path.relative_to(pieces).as_posix() for path in after if after[path] != before.get(path)
    }
    assert made == {
        "0.mid/take-1.mid",
        *(f"{name}/take-{take}.mid" for name in ("2.mid", "bad.mid") for take in (1, 2)),
    }
    assert files(pieces)["0.mid/take-1.png"] == undisturbed["0.mid/take-1.png"]


def test_more_takes_are_added_and_other_settings_refused(undisturbed, seeds, bulk, tmp_path):
    bulk(seeds, tmp_path, takes=1)
    assert len(bulk(seeds, tmp_path, takes=2)) == 2 * GOOD
    assert files(tmp_path) == undisturbed
    with pytest.raises(InputError, match=r"other settings \(settings.seconds\)"):
        bulk(seeds, tmp_path, seconds=20.0)
    assert files(tmp_path) == undisturbed
    bulk(seeds, tmp_path, seconds=20.0, force=True)
    assert files(tmp_path).keys() == undisturbed.keys()
    assert files(tmp_path) != undisturbed


def test_once_forced_no_old_piece_counts(cluster, seeds, bulk, tmp_path, monkeypatch):
    bulk(seeds, tmp_path, takes=1)
    pieces = open_folder(tmp_path)
    assert len(read_records(pieces))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(on_ray, "OnTheWay", stopped)
    with pytest.raises(KeyboardInterrupt):
        bulk(seeds, tmp_path, takes=1, seconds=20.0, force=True)
    assert read_run(pieces)["settings"]["seconds"] == 20.0
    assert not len(read_records(pieces))


def test_the_best_takes_are_kept_and_the_others_known(undisturbed, seeds, bulk, tmp_path):
    records = bulk(seeds, tmp_path, keep=1)
    assert len(records) == GOOD * TAKES
    kept = [record for record in records.values() if record.done]
    assert len(kept) == GOOD == len({record.seed for record in kept})
    for record in records.values():
        if record.done:
            other = next(r for r in records.values() if r.seed == record.seed and r is not record)
            assert best_first([record.figures, other.figures])[0] == 0 or record.take < other.take
        else:
            assert (record.status, record.reason) == ("left out", "place 2 of 2")
    before = files(tmp_path)
    assert before.keys() < undisturbed.keys()
    for name, content in before.items():
        if name.endswith(".json"):  # it says why the take was kept as well
            facts = json.loads(content)
            ranking = facts.pop("ranking")
            assert (ranking[0]["take"], len(ranking)) == (facts["take"], TAKES)
            assert facts == json.loads(undisturbed[name])
        else:
            assert content == undisturbed[name]
    bulk(seeds, tmp_path, keep=1)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match=r"other settings \(best_of\)"):
        bulk(seeds, tmp_path)


def test_of_a_seed_that_changed_no_old_take_stays(seeds, bulk, tmp_path):
    mine, pieces = tmp_path / "seeds", tmp_path / "pieces"
    mine.mkdir()
    for number in range(3):
        shutil.copyfile(next(seeds.glob("*.mid")), mine / f"{number}.mid")
    for random_state in range(4):
        records = bulk(mine, pieces, keep=1, format="mp3", force=True, random_state=random_state)
        named = {name for record in records.values() for name in record.files}
        assert {name for name in contents(pieces) if "/" in name} == named
        write_midi(mine / "1.mid", arpeggios(12, rng=np.random.default_rng(random_state)))
        records = bulk(mine, pieces, keep=1, format="mp3", random_state=random_state)
        named = {name for record in records.values() for name in record.files}
        assert {name for name in contents(pieces) if "/" in name} == named


def test_every_bad_seed_has_its_reason_and_the_good_ones_their_pieces(
    undisturbed, seeds, bulk, tmp_path
):
    mine = tmp_path / "seeds"
    shutil.copytree(seeds, mine)
    (mine / "empty.mp3").touch()
    (mine / "noise.mp3").write_bytes(os.urandom(5000))
    (mine / "text.mid").write_text("not MIDI")
    (mine / "notes.txt").write_text("not a seed at all")
    write_midi(mine / "short.mid", arpeggios(1, rng=np.random.default_rng(0)))
    (mine / "folder.mid").mkdir()
    (mine / "gone.mid").symlink_to("nowhere.mid")
    records = bulk(mine, tmp_path / "pieces", takes=1)
    reasons = {key[0]: record.reason for key, record in records.items() if not record.done}
    assert reasons.keys() == {"empty.mp3", "noise.mp3", "text.mid", "short.mid", "gone.mid"}
    assert "0 bytes" in reasons["empty.mp3"]
    assert "too short" in reasons["short.mid"]
    assert all(reason.isprintable() for reason in reasons.values())
    ours = files(tmp_path / "pieces")
    assert ours == {name: data for name, data in undisturbed.items() if "take-1" in name}


def test_too_many_failures_stop_the_run_and_keep_what_was_made(seeds, bulk, tmp_path):
    mine = tmp_path / "seeds"
    shutil.copytree(seeds, mine)
    for number in range(3):
        (mine / f"bad-{number}.mid").write_text("not MIDI")
    with pytest.raises(DeepPianoError, match="stopped: 3 pieces failed and 2 may"):
        bulk(mine, tmp_path / "pieces", takes=1, max_failures=2)
    for number in range(3):
        (mine / f"bad-{number}.mid").unlink()
    assert all(r.done for r in bulk(mine, tmp_path / "pieces", takes=1, max_failures=2).values())


@pytest.mark.parametrize(("title", "pieces"), [("ComposerActor", 1), ("write_piece", 0)])
def test_a_process_that_dies_is_replaced_and_its_pieces_are_the_same(
    undisturbed, seeds, bulk, tmp_path, title, pieces
):
    with killing(title, when=lambda: len(list(tmp_path.rglob("take-*.json"))) >= pieces):
        records = bulk(seeds, tmp_path)
    assert all(record.done for record in records.values())
    assert files(tmp_path) == undisturbed


class Mortal(Engine):
    """An engine whose process ends at the highest key there is."""

    def step(self, state, steps, known):
        if (steps[:, 1] == 87).any():
            os._exit(1)
        return super().step(state, steps, known)


def mortal(checkpoint, settings, **_):
    return NoteDecoder(Mortal(checkpoint), *drawing(settings))


def test_a_seed_that_ends_its_composer_is_set_aside(undisturbed, seeds, bulk, tmp_path):
    mine = tmp_path / "seeds"
    shutil.copytree(seeds, mine)
    poison = arpeggios(9, rng=np.random.default_rng(0))
    poison["pitch"][-3] = 108
    write_midi(mine / "poison.mid", poison)
    records = bulk(mine, tmp_path / "pieces", opened=mortal, top_k={"pitch": 1}, takes=1)
    failed = [key for key, record in records.items() if not record.done]
    assert failed == [("poison.mid", 0)]
    assert "died" in records["poison.mid", 0].reason


def test_a_node_that_leaves_takes_nothing_with_it(cluster, undisturbed, seeds, bulk, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    records = bulk(seeds, tmp_path, workers=3, disturb=lambda: cluster.remove_node(node))
    assert all(record.done for record in records.values())
    assert files(tmp_path) == undisturbed


def test_a_composer_that_never_starts_ends_the_run_with_the_reason(
    cluster, seeds, bulk, tmp_path, monkeypatch
):
    with pytest.raises(DeepPianoError, match=r"a composer failed: .*no such weights"):
        bulk(seeds, tmp_path / "a", opened=unable)
    monkeypatch.setattr("deep_piano.generate.on_ray._STARTS", 2)
    with pytest.raises(DeepPianoError, match="a composer failed: ActorDiedError"):
        bulk(seeds, tmp_path / "b", opened=stillborn)
    assert not files(tmp_path)


def unable(*_, **__):
    raise ValueError("no such weights")


def stillborn(*_, **__):
    os._exit(1)


def test_a_driver_that_was_killed_goes_on_where_it_stopped(
    undisturbed, seeds, weights, bulk, tmp_path
):
    pieces = tmp_path / "pieces"
    options = ("--checkpoint", weights, "--seconds", 25, "--takes", TAKES, "--format", "mid")
    driver = in_a_process(
        seeds,
        "-o",
        pieces,
        *options,
        module="jobs.generate",
        env={"RAY_ADDRESS": ""},
        stderr=subprocess.DEVNULL,
    )
    try:
        while driver.poll() is None and len(list(pieces.rglob("take-*.json"))) < 3:
            time.sleep(0.05)
        assert driver.poll() is None
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert not any(
        path.name.startswith("take") and not path.stat().st_size for path in pieces.rglob("*")
    )
    assert all(record.done for record in bulk(seeds, pieces).values())
    assert files(pieces) == undisturbed


def test_seeds_and_pieces_may_lie_in_s3(undisturbed, seeds, bulk, s3):
    bucket = s3.bucket()
    for path in seeds.rglob("*.mid"):
        name = path.relative_to(seeds).as_posix()
        s3.client.put_object(Bucket=bucket, Key=f"seeds/{name}", Body=path.read_bytes())
    records = bulk(f"s3://{bucket}/seeds", f"s3://{bucket}/out")
    assert all(record.done for record in records.values())
    out = open_folder(f"s3://{bucket}/out")
    named = {name for record in records.values() for name in record.files}
    assert {name: out.read_bytes(name) for name in named} == undisturbed
    kind = s3.client.head_object(Bucket=bucket, Key=f"out/{PAGE}")["ContentType"]
    assert kind == "text/html"  # a browser shows it


def test_sound_and_an_index(cluster, seeds, bulk, tmp_path, small_piano):
    rows = [note_row(f"{n}.mid", seed=n) for n in range(3)]
    index = tmp_path / "corpus.index"
    CorpusIndex.build([(row.name, row.sequence) for row in rows]).save(index)
    mine = tmp_path / "seeds"
    mine.mkdir()
    shutil.copy(seeds / "0.mid", mine)
    settings = {"index": str(index), "sound": str(small_piano), "format": "wav", "seconds": 20.0}
    records = bulk(mine, tmp_path / "pieces", takes=1, **settings)
    [record] = records.values()
    take = {Path(name).name for name in record.files}
    assert take == {"seed.wav", "take-1.wav", "take-1.mid", "take-1.png", "take-1.json"}
    for name in ("seed.wav", "take-1.wav"):
        samples, sr = soundfile.read(tmp_path / "pieces" / "0.mid" / name)
        seconds = record.seed_seconds if name == "seed.wav" else 20.0
        assert len(samples) == pytest.approx(seconds * sr, abs=1)
        assert 0.1 < np.abs(samples).max() <= 1
    page = (tmp_path / "pieces" / PAGE).read_text()
    assert all(name in page for name in record.files)
    assert record.shared_run_notes is not None


@pytest.mark.parametrize("kind", ["rhythm", "pitches"])
def test_remixes_are_those_of_generate_alone(cluster, seeds, bulk, weights, tmp_path, kind):
    records = bulk(seeds, tmp_path / "pieces", remix=kind)
    assert {record.seed_seconds for record in records.values()} == {0.0}
    settings = {"checkpoint": str(weights), "seconds": 25.0, "takes": TAKES, "remix": kind}
    config = load_config(None, {"generate": settings}).generate
    make_pieces(seeds / "inner" / "3.mid", tmp_path / "take.mid", config)
    for name in ("take-1.mid", "take-2.mid", "take-1.json"):
        made = tmp_path / "pieces/inner/3.mid" / name
        assert made.read_bytes() == (tmp_path / name).read_bytes()


def test_a_span_is_of_one_piece(seeds, bulk, tmp_path):
    with pytest.raises(InputError, match="--between is a span of one piece, not of a folder"):
        bulk(seeds, tmp_path / "pieces", between=[4.0, 6.0])
    assert not (tmp_path / "pieces").exists()


def test_recordings_are_continued_by_a_checkpoint_of_sound(cluster, tmp_path):
    checkpoint = str(tmp_path / "sound")
    checkpoints.save(Path(checkpoint), sound_checkpoint("mulaw", frame=4))
    seeds = tmp_path / "seeds"
    (seeds / "inner").mkdir(parents=True)
    for number, pitch in enumerate((60, 64)):
        write_sound(seeds / f"inner/{number}.wav", struck(pitch, sr=SR), sr=SR)
    write_midi(seeds / "notes.mid", arpeggios(9, rng=np.random.default_rng(0)))
    settings = {"checkpoint": checkpoint, "seconds": 8.0, "takes": TAKES}
    config = load_config(None, {"generate": settings, "bulk": {"format": "wav"}})
    places = open_folder(seeds), open_folder(tmp_path / "pieces")
    records = generate(*places, config)
    reasons = {record.seed: record.reason for record in records.values() if not record.done}
    assert reasons.keys() == {"notes.mid"}
    assert len(records) == 3 * TAKES
    made = files(tmp_path / "pieces")
    assert set(made) == {name for record in records.values() for name in record.files}
    make_pieces(seeds / "inner/1.wav", tmp_path / "take.wav", config.generate)  # one alone
    for name in ("take-1.wav", "take-2.wav", "take-1.png", "take-1.json", "take-2.json"):
        assert made[f"inner/1.wav/{name}"] == (tmp_path / name).read_bytes()
    page = (tmp_path / "pieces" / PAGE).read_text()
    assert '"chart":"inner/1.wav/take-2.png"' in page
    assert '"roll":' not in page
    (tmp_path / "pieces/inner/0.wav/take-2.wav").unlink()
    begun = dict.fromkeys(made, 0)
    generate(*places, config, progress=lambda report: begun.update({report.total: 1}))
    assert files(tmp_path / "pieces") == made
    assert 1 + TAKES in begun  # what was missing, and what had failed
