from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import PrepareConfig, StorageConfig
from deep_piano.errors import CheckpointError
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.note_network import build_model
from tests.support.fakes import TINY, random_checkpoint, sound_checkpoint

SOUND = sound_checkpoint("mulaw", frame=4)
STATE = {"optimizer/000": np.ones(3), "carried/000": np.zeros((2, 4), np.float32)}


def weights_file(folder, kind="weights"):
    [path] = folder.glob(f"{kind}-*.safetensors")
    return path


def test_round_trip(tmp_path):
    saved = replace(random_checkpoint(), facts={"step": 7})
    checkpoints.save(tmp_path / "c", saved)
    loaded = checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)
    assert (loaded.spec, loaded.config, loaded.facts) == (SPEC, TINY, {"step": 7})
    assert len(loaded.digest) == 64
    for name, array in saved.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_an_index_of_the_corpus_is_part_of_it(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    folder = open_folder(tmp_path / "c")
    assert checkpoints.load(folder).corpus is None
    digest = checkpoints.load(folder).digest
    for notes in (100, 200):  # the second one replaces the first
        bits = np.full(128, notes, np.uint8)
        checkpoints.save_corpus(folder, CompactIndex(bits, 2, notes, "d" * 64), digest=digest)
        loaded = checkpoints.load(folder)
        found = loaded.corpus
        assert (found.recordings, found.notes, found.dataset) == (2, notes, "d" * 64)
        assert np.array_equal(found.bits, bits)
        assert len(list((tmp_path / "c").iterdir())) == 3
    with pytest.raises(CheckpointError, match="has other weights than its corpus was made for"):
        checkpoints.save_corpus(folder, found, digest="0" * 64)
    checkpoints.save(tmp_path / "again", loaded)
    assert checkpoints.load(open_folder(tmp_path / "again")).corpus.notes == 200
    weights_file(tmp_path / "c", "corpus").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(folder)


def test_round_trip_in_s3(s3):
    place = open_folder(f"s3://{s3.bucket()}/runs/one")
    checkpoints.save(place, random_checkpoint(seed=1), training=STATE)
    checkpoints.save(place, random_checkpoint(seed=2), training=STATE)
    assert len(place.entries()) == 3
    loaded = checkpoints.load(place.uri)
    expected = random_checkpoint(seed=2).weights["input/kernel"]
    np.testing.assert_array_equal(loaded.weights["input/kernel"], expected)
    assert checkpoints.load_training(place).keys() == STATE.keys()


def test_the_settings_say_where_s3_is(s3, monkeypatch):
    place = open_folder(f"s3://{s3.bucket()}/one")
    checkpoints.save(place, random_checkpoint())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage = StorageConfig(endpoint=s3.endpoint, region="us-east-1")
    assert checkpoints.load(place.uri, storage=storage).spec == SPEC


def test_half_precision_is_near_and_half_the_size(tmp_path):
    saved = random_checkpoint()
    checkpoints.save(tmp_path / "full", saved)
    checkpoints.save(tmp_path / "half", saved, half=True)
    sizes = [weights_file(tmp_path / name).stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = checkpoints.load(str(tmp_path / "half"), codec=SPEC.codec)
    for name, array in saved.weights.items():
        assert loaded.weights[name].dtype == np.float32
        np.testing.assert_allclose(loaded.weights[name], array, rtol=1e-3, atol=1e-4)


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint(seed=1), training=STATE)
    checkpoints.save(tmp_path / "c", random_checkpoint(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert sorted(p.name.split("-")[0] for p in (tmp_path / "c").iterdir()) == [
        "checkpoint.json",
        "weights",
    ]
    loaded = checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)
    expected = random_checkpoint(seed=2).weights["input/kernel"]
    np.testing.assert_array_equal(loaded.weights["input/kernel"], expected)
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        checkpoints.load_training(open_folder(tmp_path / "c"))


@pytest.mark.parametrize("at", ["weights", "training", checkpoints.CARD])
def test_what_was_there_stays_whole_however_saving_fails(tmp_path, monkeypatch, at):
    checkpoints.save(tmp_path / "c", random_checkpoint(seed=1), training=STATE)
    write = LocalFolder.write

    def fail(self, name):
        if name.startswith(at):
            raise OSError(28, "No space left on device")
        return write(self, name)

    monkeypatch.setattr(LocalFolder, "write", fail)
    more = STATE | {"optimizer/000": np.zeros(3)}
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path / "c", random_checkpoint(seed=2), training=more)
    monkeypatch.undo()
    loaded = checkpoints.load(str(tmp_path / "c"))
    expected = random_checkpoint(seed=1).weights["input/kernel"]
    np.testing.assert_array_equal(loaded.weights["input/kernel"], expected)
    state = checkpoints.load_training(open_folder(tmp_path / "c"))
    np.testing.assert_array_equal(state["optimizer/000"], np.ones(3))


def test_others_may_read_what_is_saved(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint(), training=STATE)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "c").iterdir())


@pytest.mark.parametrize("wrong", [[], 3, {"layers": "two"}])
@pytest.mark.parametrize("part", ["config", "files", "spec"])
def test_a_card_of_the_wrong_shape_is_refused(tmp_path, part, wrong):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content[part] = wrong
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)


def test_a_card_names_no_file_elsewhere(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    checkpoints.save(tmp_path / "other", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content["files"]["weights"]["name"] = f"../other/{content['files']['weights']['name']}"
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"is damaged.*not the name of a file"):
        checkpoints.load(str(tmp_path / "c"))


def test_a_missing_one_names_those_that_are_shipped():
    with pytest.raises(CheckpointError, match=r"no checkpoint 'nowhere'.*shipped checkpoint \("):
        checkpoints.load("nowhere", codec=SPEC.codec)


@pytest.fixture(params=["local", "s3"])
def runs(request, tmp_path):
    """A folder for runs."""
    if request.param == "local":
        return open_folder(tmp_path / "runs")
    return open_folder(f"s3://{request.getfixturevalue('s3').bucket()}/my/runs")


def test_a_run_stands_for_its_best_and_a_folder_of_runs_for_the_one_that_is_named(runs):
    best = runs.inner(f"first/{checkpoints.BEST_OF_RUN}")
    checkpoints.save(best, random_checkpoint())
    assert checkpoints.find(best.uri).uri == best.uri
    assert checkpoints.find(f"{runs.uri}/first").uri == best.uri
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoints.find(runs.uri)

    def name(text):
        with runs.write(checkpoints.BEST) as path:
            path.write_text(text)

    name('{"run": "first"}')
    assert checkpoints.find(runs.uri).uri == best.uri
    assert checkpoints.load(runs.uri).spec == SPEC
    for broken in ("", "[]", "{}", '{"run": "../first"}'):
        name(broken)
        with pytest.raises(CheckpointError, match=r"deep-piano runs .*runs` again"):
            checkpoints.find(runs.uri)


def test_another_codec_is_refused(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    with pytest.raises(CheckpointError, match="belongs to the codec 'notes-2', not 'mulaw-1'"):
        checkpoints.load(str(tmp_path / "c"), codec="mulaw-1")


@pytest.mark.parametrize("part", ["card", "weights"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage", "gone"])
def test_a_damaged_one_is_refused(tmp_path, part, damage):
    folder = tmp_path / "c"
    checkpoints.save(folder, random_checkpoint())
    path = folder / checkpoints.CARD if part == "card" else weights_file(folder)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        wrong = {"truncated": content[: len(content) // 2], "emptied": b""}
        path.write_bytes(wrong.get(damage, b"\x93"))
    missing = part == "card" and damage == "gone"
    with pytest.raises(CheckpointError, match="no checkpoint" if missing else "is damaged"):
        checkpoints.load(str(folder), codec=SPEC.codec)


def test_weights_of_another_shape_are_refused(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content["config"]["units"] = 32
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"is damaged: .*input/kernel"):
        checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)


@pytest.mark.tf
def test_weights_go_into_a_keras_model_and_come_back():
    model = build_model(SPEC, TINY, batch=1, window=2)
    saved = random_checkpoint().weights
    checkpoints.assign_weights(model, saved)
    again = checkpoints.weights_of(model)
    assert again.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(again[name], array)
    one, other = checkpoints.digest_of(saved), checkpoints.digest_of(again)
    np.testing.assert_array_equal(one, other)
    again["norm_out/beta"][0] += 1e-6
    assert (checkpoints.digest_of(again) != one).any()


@pytest.mark.parametrize(
    "config", [{"layers": 10**9}, {"units": 0}, {"scale": 0}, {"head_units": 10**30}, {"past": 2}]
)
def test_sizes_beyond_reason_are_refused_at_once(tmp_path, config):
    """A billion of layers would be looked for one by one."""
    checkpoints.save(tmp_path / "c", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content["config"] |= config
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(str(tmp_path / "c"))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    saved = random_checkpoint()
    saved.weights["input/bias"][0] = np.nan
    checkpoints.save(tmp_path / "c", saved)
    with pytest.raises(CheckpointError, match=r"is damaged: input/bias"):
        checkpoints.load(str(tmp_path / "c"))


@pytest.mark.parametrize("sr", ["x", None, 0, 1, True, 3_999, 192_001, float("nan"), []])
def test_a_sampling_rate_beyond_reason_is_refused(tmp_path, sr):
    checkpoints.save(tmp_path / "c", replace(SOUND, facts={"sr": sr}))
    with pytest.raises(CheckpointError, match=r"is damaged: its sampling rate is"):
        checkpoints.load(str(tmp_path / "c"))


@pytest.mark.parametrize("sr", [4_000, 192_000])
def test_what_can_be_prepared_can_be_loaded(tmp_path, sr):
    PrepareConfig(sr=sr)
    checkpoints.save(tmp_path / "c", replace(SOUND, facts={"sr": sr}))
    assert checkpoints.load(str(tmp_path / "c")).facts["sr"] == sr
