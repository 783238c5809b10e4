"""GENERATE in bulk where Ray says that there is a GPU, and TensorFlow that there is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import SPEC, encode
from deep_piano.config.load import load_config
from deep_piano.config.sections import BulkConfig
from deep_piano.decoding import notes_xla, xla
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.generate import composers, piece
from deep_piano.generate import on_ray as bulk
from deep_piano.generate.composers import ComposerActor, Crew, crew_for
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.on_ray import generate
from deep_piano.generate.tasks import Run
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import load
from deep_piano.music.midi import write_midi
from tests.support.clusters import contents, killing, one_node
from tests.support.fakes import ComposerWithoutGpu, arpeggios, sound_checkpoint
from tests.support.recordings import SR, struck, write_sound

pytestmark = [pytest.mark.tf, pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with one_node(cpus=2, gpus=1):
        yield


@pytest.fixture
def seen(monkeypatch):
    """Believe Ray."""
    monkeypatch.setattr(composers, "_tensorflow_sees_gpus", lambda each: True)


def crew(**settings):
    return crew_for(BulkConfig(**settings), pieces=9)


def test_composers_share_mocked_gpus(seen):
    assert crew() == Crew(1, 1.0, 128)
    assert crew(gpus_per_worker=0.3, batch=7) == Crew(3, 0.3, 7)
    assert crew(gpus_per_worker=0.5, workers=2).device == "gpu, 128 at once"
    assert crew(gpus_per_worker=0) == Crew(1, 0.0, 8)
    assert crew(workers=2) == Crew(2, 0.0, 8)  # not a GPU for each
    assert crew_for(BulkConfig(gpus_per_worker=0), pieces=9, of_notes=False) == Crew(2, 0.0, 1)
    with pytest.raises(InputError, match=r"2 composers with 0.6 .* cluster's 1 GPUs.*--gpus-per"):
        crew(gpus_per_worker=0.6, workers=2)


def test_a_gpu_that_tensorflow_does_not_see_is_left_alone_unless_it_was_asked_for(caplog):
    assert crew() == Crew(1, 0.0, 8)
    assert "TensorFlow does not see the cluster's GPUs" in caplog.text
    with pytest.raises(InputError, match=r"TensorFlow sees none there: pip install"):
        crew(gpus_per_worker=0.5)


def test_a_composer_without_its_gpu_ends_the_run_with_its_reason(seen, weights, tmp_path):
    write_midi(tmp_path / "seeds" / "0.mid", arpeggios(9, rng=np.random.default_rng(0)))
    settings = {"checkpoint": str(weights), "seconds": 20.0}
    config = load_config(None, {"generate": settings, "bulk": {"format": "mid"}})
    folders = [open_folder(tmp_path / name) for name in ("seeds", "pieces")]
    with pytest.raises(DeepPianoError, match="TensorFlow sees no GPU in a process that has one"):
        generate(*folders, config)
    # What a GPU has begun, a CPU does not go on with unasked.
    on_cpus = load_config(
        None, {"generate": settings, "bulk": {"format": "mid", "gpus_per_worker": 0}}
    )
    with pytest.raises(InputError, match=r"other settings \(composed_on\)"):
        generate(*folders, on_cpus)
    assert all(record.done for record in generate(*folders, on_cpus, force=True).values())


def test_the_actor_composes_on_a_mocked_gpu_what_one_composes_on_a_cpu(
    monkeypatch, weights, tmp_path
):
    monkeypatch.setattr(xla, "prepare_gpu", lambda: None)
    write_midi(tmp_path / "0.mid", arpeggios(9, rng=np.random.default_rng(0)))
    settings = load_config(None, {"generate": {"checkpoint": str(weights), "seconds": 25.0}})
    free = NoteRoad(load(str(weights), codec=SPEC.codec), settings.generate)
    seed = free.read(tmp_path / "0.mid", no_progress)

    def composed(road, gpus):
        run = Run(open_folder(tmp_path), open_folder(tmp_path), "mid", road)
        actor = ComposerActor(run, Crew(1, gpus, 2), open_decoder)
        engine = actor._decoder._decoder  # below the one that chooses among candidates
        assert isinstance(engine, notes_xla.NoteDecoderXla) == bool(gpus)
        made = actor.work({("0.mid", take): seed for take in (0, 1)})
        while len(actor._decoder):
            made |= actor.work({})
        return [made.pop(("0.mid", take)) for take in (0, 1)]

    known = [take.notes[take.notes["onset"] >= 9.5] for take in composed(free, 0.0)]
    index = CorpusIndex.build([(str(n), encode(notes)) for n, notes in enumerate(known)])
    asked = settings.generate.model_copy(update={"most_shared": 8})
    apart = replace(free, settings=asked, index=index)
    for road in (replace(free, index=index), apart):
        made = [composed(road, gpus) for gpus in (0.0, 1.0)]
        for mine, other in zip(*made, strict=True):
            np.testing.assert_array_equal(mine.notes, other.notes)
            assert mine.shared == other.shared
            assert (mine.shared.notes <= 8) == (road is apart)


def test_recordings_are_continued_on_mocked_gpus(seen, monkeypatch, tmp_path):
    monkeypatch.setattr(bulk, "ComposerActor", ComposerWithoutGpu)
    checkpoints.save(tmp_path / "sound", sound_checkpoint("mulaw", frame=4))
    (tmp_path / "seeds").mkdir()
    for number, pitch in enumerate((60, 64, 67)):
        write_sound(tmp_path / "seeds" / f"{number}.wav", struck(pitch, sr=SR), sr=SR)
    write_midi(tmp_path / "seeds" / "notes.mid", arpeggios(9, rng=np.random.default_rng(0)))
    settings = {"checkpoint": str(tmp_path / "sound"), "seconds": 8.0, "takes": 2}

    def made(name, **more):
        config = load_config(
            None, {"generate": settings, "bulk": {"format": "wav", "batch": 4} | more}
        )
        return generate(open_folder(tmp_path / "seeds"), open_folder(tmp_path / name), config)

    records = made("pieces")
    reasons = [record.reason for record in records.values() if not record.done]
    assert len(reasons) == 2
    assert all("notes.mid" in reason for reason in reasons), reasons
    found = contents(tmp_path / "pieces")
    assert {name for record in records.values() for name in record.files} <= set(found)
    facts = json.loads(found["1.wav/take-2.json"])
    assert facts["composed_on"] == "gpu, 4 at once"

    # But for rounding, what one core makes of the seed alone.
    config = load_config(None, {"generate": settings}).generate
    piece.make_pieces(tmp_path / "seeds/1.wav", tmp_path / "take.wav", config)
    for take in ("take-1.wav", "take-2.wav"):
        alone, _ = soundfile.read(tmp_path / take)
        together, _ = soundfile.read(tmp_path / "pieces" / "1.wav" / take)
        assert len(alone) == len(together) == 8 * 16_000
        assert np.mean(np.abs(alone - together) > 1e-3) < 0.01
    assert json.loads((tmp_path / "take-2.json").read_text())["composed_on"] == "cpu"
    with pytest.raises(InputError, match=r"other settings \(composed_on\)"):
        made("pieces", gpus_per_worker=0)

    # Whoever dies, and whatever was there already.
    shutil.rmtree(tmp_path / "pieces/0.wav")
    with killing("ComposerWithoutGpu.work"):
        made("pieces", gpus_per_worker=0.5)
    again = contents(tmp_path / "pieces")
    assert {name: data for name, data in again.items() if "/" in name} == {
        name: data for name, data in found.items() if "/" in name
    }
