"""GENERATE in bulk where Ray says that there is a GPU, and TensorFlow that there is none."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano import device_composer, piece
from deep_piano.checkpoint import load
from deep_piano.codecs.notes import SPEC
from deep_piano.config import BulkConfig, load_config
from deep_piano.decode import Engine
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.notes import write_midi
from deep_piano.stages import composers
from deep_piano.stages.composers import ComposerActor, Crew, crew_for
from deep_piano.stages.generate import generate
from deep_piano.stages.piece_tasks import Run
from deep_piano.storage import open_folder
from deep_piano.terminal import no_progress
from tests.clusters import one_node
from tests.fakes import arpeggios

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


def test_composers_share_the_gpus_that_tensorflow_sees(seen):
    assert crew() == Crew(1, 1.0, 128)
    assert crew(gpus_per_worker=0.3, batch=7) == Crew(3, 0.3, 7)
    assert crew(gpus_per_worker=0.5, workers=2).device == "gpu, 128 at once"
    assert crew(gpus_per_worker=0) == Crew(1, 0.0, 16)
    assert crew(workers=2) == Crew(2, 0.0, 16)  # not a GPU for each
    with pytest.raises(InputError, match=r"2 composers with 0.6 .* cluster's 1 GPUs.*--gpus-per"):
        crew(gpus_per_worker=0.6, workers=2)


def test_a_gpu_that_tensorflow_does_not_see_is_left_alone_unless_it_was_asked_for(caplog):
    assert crew() == Crew(1, 0.0, 16)
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


def test_the_actor_composes_on_its_gpu_what_one_composes_on_a_cpu(monkeypatch, weights, tmp_path):
    monkeypatch.setattr(device_composer, "prepare_gpu", lambda: None)
    write_midi(tmp_path / "0.mid", arpeggios(9, rng=np.random.default_rng(0)))
    seed = piece.read_seed(tmp_path / "0.mid", start_s=0, seconds=10, progress=no_progress)
    settings = load_config(None, {"generate": {"checkpoint": str(weights), "seconds": 25.0}})
    run = Run(open_folder(tmp_path), settings.generate, "mid", None, "", False)
    made = {}
    for gpus in (0.0, 1.0):
        actor = ComposerActor(
            load(str(weights), codec=SPEC.codec), None, run, Crew(1, gpus, 2), Engine
        )
        assert isinstance(actor._composer, device_composer.DeviceComposer) == bool(gpus)
        made[gpus] = actor.work({("0.mid", take): seed for take in (0, 1)})
        while len(actor._composer):
            made[gpus] |= actor.work({})
    assert made[0.0].keys() == made[1.0].keys() == {("0.mid", 0), ("0.mid", 1)}
    for key, take in made[0.0].items():
        np.testing.assert_array_equal(made[1.0][key].notes, take.notes)
