"""Damaged inputs of every stage end in a result or in an error for people, and touch nothing else.

Everything is damaged by chance from a fixed seed; `FUZZ=5000` in the environment tries so many
inputs a stage. No input may take more than a minute, or two gigabytes of memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from deep_piano.analysis.compact_index import CompactIndex, open_index
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import SPEC
from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig, PrepareConfig, TrainConfig
from deep_piano.dataset import manifest
from deep_piano.dataset.indexing import index_of
from deep_piano.dataset.reader import Dataset
from deep_piano.dataset.rows import Reject, Row
from deep_piano.dataset.shards import SHARDS
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import DeepPianoError
from deep_piano.generate.gallery import write_gallery
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.piece import decode_takes
from deep_piano.generate.records import (
    MANIFEST,
    RUN,
    Record,
    Records,
    read_records,
    require_same_run,
    write_manifest,
)
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from deep_piano.music.recordings import survey
from deep_piano.prepare import commit, plan, tasks
from deep_piano.prepare.sources import Source, Splits
from deep_piano.report import inspection
from deep_piano.train import runs
from deep_piano.train.start import begin
from deep_piano.train.windows import training_batches
from tests.support.damage import damaged, odd_json, odd_table
from tests.support.fakes import fake_transcriber, random_checkpoint
from tests.support.hostile import improvised, played
from tests.support.recordings import ffmpeg, write_sound
from tests.support.rows import arpeggio_rows, write_dataset

INPUTS = int(os.environ.get("FUZZ", "200"))
"""Of each stage."""
LIMIT_S = 10.0
"""Of FFmpeg, for each file."""
MEMORY, LONGEST_S = 2 * 2**30, 60
SOUNDS = ("wav", "mp3", "flac", "ogg", "m4a", "opus", "aiff", "wv")
TRANSCRIBED = PrepareConfig(
    codec="mulaw", time_limit_seconds=LIMIT_S, min_seconds=1, descriptor_seconds=1
)
NOTES = PrepareConfig(time_limit_seconds=LIMIT_S, min_notes=16, min_seconds=1)
SHORT = GenerateConfig(seconds=10, seed_seconds=4)
TRAIN = TrainConfig(preset="tiny", batch=8, window=8, steps=10, workers=None)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Whole files of every kind, small, by what they are."""
    folder = tmp_path_factory.mktemp("good")
    notes = improvised(4.0, random_state=1)
    write_sound(folder / "take.wav", played(notes, seconds=4.0, sr=16_000), sr=16_000)
    for suffix in SOUNDS[1:]:
        ffmpeg("-i", folder / "take.wav", folder / f"take.{suffix}")
    write_midi(folder / "take.mid", notes)
    files = {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}
    place = write_dataset(folder / "dataset", arpeggio_rows(6, seconds=12, held_out=3))
    [shard, *_] = place.entries(SHARDS)
    entries = [SimpleNamespace(name="a.mid", size=1, stamp="1", problem=None)]
    commit.write_ledger(place, entries, {"a.mid": "ab"})
    checkpoint.save(folder / "c", random_checkpoint(), training={"optimizer/000": np.ones(3)})
    with Dataset(place) as dataset:
        begin(dataset, open_folder(folder / "run"), TRAIN)
        index_of(dataset, CorpusIndex).save(folder / "corpus.index")
        index_of(dataset, CompactIndex).save(folder / "small.index")
    known = arpeggio_rows(6, seconds=12, held_out=3)
    row = {"step": 5, "seen": 9, "hours": 0.1, "train_loss": 2.0, "validation_loss": 1.0}
    runs.write_history(open_folder(folder / "run"), [row], unit="nats a note")
    pieces = open_folder(folder / "pieces")
    hashes = {"a.mid/take-1.mid": "ab", "a.mid/take-1.json": "cd"}
    figures = {"adherence": 0.5, "key": "C major"}
    records = [Record("a.mid", n, "done", figures=figures, files=hashes) for n in (1, 2)]
    write_manifest(pieces, Records(records))
    require_same_run(pieces, {"settings": SHORT.model_dump(), "checkpoint_sha256": ""}, force=False)
    return SimpleNamespace(folder=folder, files=files, shard=shard.name, dataset=place, rows=known)


def prepare_sound(rng, good, place, settings=TRANSCRIBED):
    """One file of sound is read as a task of PREPARE does."""
    suffix = str(rng.choice(SOUNDS))
    other = good.files[str(rng.choice([*SOUNDS, "mid"]))]
    return read_one(place / f"a.{suffix}", damaged(good.files[suffix], rng, other), settings)


def prepare_midi(rng, good, place):
    return read_one(place / "a.mid", damaged(good.files["mid"], rng, good.files["mid"]), NOTES)


def read_one(path, data, settings):
    """Have one file read as a task of PREPARE does."""
    path.write_bytes(data)
    source = Source(path.name, len(data), hashlib.sha256(data).hexdigest())
    outcome = tasks.read(open_folder(path.parent), source, settings, transcribe=fake_transcriber())
    assert isinstance(outcome, Row | Reject)
    if isinstance(outcome, Reject):
        assert outcome.reason.isprintable()
        assert outcome.reason
    return outcome


def prepare_manifest(rng, good, place):
    dataset = copied(good.dataset, place)
    odd = odd_json(good.dataset.read_bytes(manifest.MANIFEST), rng)
    (place / manifest.MANIFEST).write_bytes(odd)
    found = manifest.read_manifest(dataset)
    commit.is_current(found, PrepareConfig(), "c", dataset)
    commit.require_same_settings(found, PrepareConfig(), dataset.uri)


def prepare_ledger(rng, good, place):
    (place / manifest.LEDGER).write_bytes(odd_table(good.dataset.read_bytes(manifest.LEDGER), rng))
    ledger = commit.read_ledger(open_folder(place))
    entries = [SimpleNamespace(name="a.mid", size=1, stamp="1", problem=None)]
    commit.remembered(entries, ledger)
    commit.require_same_corpus(ledger, {"a.mid": "ab"}, "dataset")


def prepare_shard(rng, good, place):
    """A shard that is there is looked up, and its rows are taken over into another one."""
    dataset = copied(good.dataset, place)
    name = good.shard.rpartition("/")[2]
    (place / good.shard).write_bytes(odd_table(good.dataset.read_bytes(good.shard), rng))
    known, settings = plan.Known(plan.reading_digest(NOTES)), NOTES
    facts = tasks.look_up(dataset, name)
    if facts is None:
        return
    known._digest = facts.digest
    known.add(facts)
    sources = [Source(row.name, 1, row.source_sha256) for row in good.rows]
    for one in plan.plan(sources, known, settings):
        tasks.build_shard(
            open_folder(good.folder),
            dataset,
            one,
            settings,
            rejects=known.rejects,
            rows_in=known.shard_of,
            transcribe=fake_transcriber(),
        )


def prepare_splits(rng, good, place):
    table = b"split,midi_filename,audio_filename\ntrain,a.mid,a.wav\ntest,b/c.mid,b/c.wav\n" * 3
    (place / "table.csv").write_bytes(damaged(table, rng, table))
    (place / "a.mid").write_bytes(b"x")
    folder = open_folder(place)
    splits = Splits(folder, *survey(folder), PrepareConfig())
    assert splits.of("a.mid") in (None, "train", "validation", "test")


def train_manifest(rng, good, place):
    copied(good.dataset, place)
    odd = odd_json(good.dataset.read_bytes(manifest.MANIFEST), rng)
    (place / manifest.MANIFEST).write_bytes(odd)
    train_on(place)


def train_shard(rng, good, place):
    copied(good.dataset, place)
    (place / good.shard).write_bytes(odd_table(good.dataset.read_bytes(good.shard), rng))
    train_on(place)


def train_on(place):
    with Dataset(open_folder(place)) as dataset:
        begin(dataset, open_folder(place / "out"), TRAIN)
        with training_batches(dataset, TRAIN) as batches:
            for _ in range(4):
                next(batches)
        for split in ("train", "validation"):  # as the baselines of `evaluate` read them
            for row in dataset.recordings(split):
                assert row.sequence.shape[1] == len(dataset.spec.fields)


def train_resumed(rng, good, place):
    (place / runs.RUN).write_bytes(odd_json((good.folder / "run" / runs.RUN).read_bytes(), rng))
    with Dataset(good.dataset) as dataset:
        begin(dataset, open_folder(place), TrainConfig(), resume=True)


def train_state(rng, good, place):
    odd_checkpoint(rng, good, place, "training")
    checkpoint.load_training(open_folder(place))


def train_history(rng, good, place):
    run = place / "one"
    run.mkdir()
    (run / runs.RUN).write_bytes(odd_json((good.folder / "run" / runs.RUN).read_bytes(), rng))
    history = (good.folder / "run" / "history.parquet").read_bytes()
    history = odd_table(history, rng) if rng.random() < 0.7 else history
    (run / "history.parquet").write_bytes(history)
    found = runs.find_runs(open_folder(place))
    runs.table(found)
    runs.best_run(found)


def settings(rng, good, place):
    text = Path(__file__).parents[2].joinpath("ray_config.yaml").read_bytes()
    if rng.random() < 0.6:  # JSON is YAML
        odd = odd_json(json.dumps(yaml.safe_load(text)).encode(), rng)
    else:
        odd = damaged(text, rng, text)
    (place / "odd.yaml").write_bytes(odd)
    load_config(place / "odd.yaml", profile=str(rng.choice(["laptop", "cluster"])))


def generate_midi(rng, good, place):
    path = place / "seed.mid"
    path.write_bytes(damaged(good.files["mid"], rng, good.files["mid"]))
    continued(path, place)


def generate_sound(rng, good, place):
    suffix = str(rng.choice(SOUNDS))
    path = place / f"seed.{suffix}"
    path.write_bytes(damaged(good.files[suffix], rng, good.files[str(rng.choice(SOUNDS))]))
    continued(path, place)


def continued(path, place, weights=None, index=None):
    """Read a seed, compose a short piece and write its notes."""
    road = NoteRoad(weights or random_checkpoint(), SHORT, index=index)
    seed = road.read(path, nothing)
    [take] = decode_takes(road, open_decoder(road.checkpoint, SHORT), seed)
    write_midi(place / "out" / "piece.mid", take.notes)


def generate_checkpoint(rng, good, place):
    odd_checkpoint(rng, good, place, "weights")
    weights = checkpoint.load(str(place), codec=SPEC.codec)
    continued(good.folder / "take.mid", place, weights=weights)


def odd_checkpoint(rng, good, place, kind):
    """Damage a checkpoint; where a file of arrays is damaged, its hash may be set right."""
    card = json.loads((good.folder / "c" / checkpoint.CARD).read_text())
    about = card["files"][kind]
    data = (good.folder / "c" / about["name"]).read_bytes()
    if rng.random() < 0.6:
        data = odd_arrays(data, rng)
        if rng.random() < 0.9:
            about["sha256"] = hashlib.sha256(data).hexdigest()
        text = json.dumps(card).encode()
    else:
        text = odd_json(json.dumps(card).encode(), rng)
    (place / about["name"]).write_bytes(data)
    (place / checkpoint.CARD).write_bytes(text)


def odd_arrays(data, rng):
    """Damage safetensors: the JSON of its header, or its bytes."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = odd_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def generate_index(rng, good, place):
    good_index = good.folder / str(rng.choice(["corpus.index", "small.index"]))
    (place / "odd.index").write_bytes(odd_arrays(good_index.read_bytes(), rng))
    index = open_index(place / "odd.index")
    continued(good.folder / "take.mid", place, index=index)


def generate_records(rng, good, place):
    """What an earlier run left is looked at, and becomes the manifest and the page."""
    names = (RUN, MANIFEST)
    odd = str(rng.choice(names))
    for name in names:
        data = (good.folder / "pieces" / name).read_bytes()
        lines = data.splitlines(keepends=True) if name == MANIFEST else [data]
        if name == odd:
            lines = [odd_json(line, rng) + b"\n" for line in lines]
        (place / name).write_bytes(b"".join(lines))
    pieces = open_folder(place)
    records = read_records(pieces)
    about = {"settings": SHORT.model_dump(), "checkpoint_sha256": ""}
    require_same_run(pieces, about, force=False)
    write_manifest(pieces, records)
    write_gallery(pieces, records)


def inspect_dataset(rng, good, place):
    odd = odd_json(good.dataset.read_bytes(manifest.MANIFEST), rng)
    (place / manifest.MANIFEST).write_bytes(odd)
    inspection.inspect_dataset(str(place), load_config().storage)


def inspect_midi(rng, good, place):
    (place / "a.mid").write_bytes(damaged(good.files["mid"], rng, good.files["mid"]))
    inspection.inspect_recording(place / "a.mid")


def inspect_sound(rng, good, place):
    prepare_sound(rng, good, place, settings=NOTES)


def inspect_history(rng, good, place):
    train_history(rng, good, place)


def nothing(*_):
    pass


def copied(folder, place):
    """Copy a dataset to a place; return it."""
    for entry in folder.entries():
        path = place / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(folder.read_bytes(entry.name))
    return open_folder(place)


# A target stands so often in its stage's list as it is to be tried.
STAGES = {
    "prepare": [
        *[prepare_sound, prepare_midi] * 4,
        *[prepare_manifest, prepare_shard] * 2,
        *(prepare_ledger, prepare_splits, settings),
    ],
    "train": [
        *[train_manifest, train_shard, train_resumed] * 2,
        *(train_state, train_history, settings),
    ],
    "generate": [
        *[generate_midi, generate_sound] * 4,
        *[generate_checkpoint] * 2,
        *(generate_index, generate_records, settings),
    ],
    "inspect": [inspect_dataset, inspect_midi, inspect_sound, inspect_history],
}


@contextmanager
def limited():
    """Let this process take only so much more memory, and so long."""

    def too_long(*_):
        raise TimeoutError(f"it took more than {LONGEST_S} s")

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def state(folder):
    """Return what lies below a folder: the bytes of each file."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_damaged_inputs_end_well(stage, good, tmp_path, monkeypatch):
    transcribe = fake_transcriber()
    monkeypatch.setattr(
        "deep_piano.music.transcription.transcribe",
        lambda samples, sr, progress: transcribe(samples, sr)[0],
    )
    monkeypatch.setattr("deep_piano.infra.assets.cache.ensure", lambda *_, **__: None)
    continued(good.folder / "take.mid", tmp_path)  # compiles, which takes a while
    before, targets = state(good.folder), STAGES[stage]
    given, ended = {tmp_path / "out"}, Counter()
    for number in range(INPUTS):
        target = targets[number % len(targets)]
        rng = np.random.default_rng([list(STAGES).index(stage), number])
        place = tmp_path / f"{number}"
        place.mkdir()
        given.add(place)
        try:
            with limited():
                target(rng, good, place)
            ended["result"] += 1
        except DeepPianoError as error:
            ended["error" if str(error) and str(error).isprintable() else "unclear"] += 1
        except BaseException as error:
            error.add_note(f"{stage}: {target.__name__}, number {number}")
            raise
    assert not ended["unclear"]  # nothing said, or not in one line
    assert min(ended["result"], ended["error"]) > INPUTS / 20, ended
    assert set(tmp_path.iterdir()) == given, "something was written beside the folders"
    assert state(good.folder) == before, "what was given has changed"
