"""Work on folders from Python: the same as at the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deep_piano as dp
from deep_piano.errors import ConfigError, InputError
from deep_piano.music.midi import write_midi
from tests.support.fakes import arpeggios
from tests.support.rows import arpeggio_rows, write_dataset

pytestmark = pytest.mark.usefixtures("desk")


@pytest.mark.tf
def test_training_comparing_and_scoring():
    write_dataset(Path("dataset"), arpeggio_rows(6, held_out=2))
    told = []
    settings = {"preset": "tiny", "steps": 2, "batch": 4, "eval_every_steps": 1, "window": 16}
    best = dp.train_checkpoint("dataset", "runs/one", progress=told.append, **settings)
    assert best.facts["step"] in (1, 2)
    assert {now.what for now in told} == {"training"}
    [one] = dp.compare_runs("runs")
    assert one.name == "one"
    assert dp.load_checkpoint(Path("runs")).digest == best.digest
    scores = dp.evaluate(best, "dataset")
    assert scores.table() == dp.evaluate("runs", Path("dataset")).table()


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_is_continued(weights):
    for number in range(2):
        music = arpeggios(9, rng=np.random.default_rng(number))
        write_midi(Path(f"seeds/{number}.mid"), music)
    records = dp.continue_folder(
        "seeds", Path("pieces"), checkpoint=weights, seconds=20, format="mid", takes=2
    )
    assert [(record.seed, record.take, record.status) for record in records.all] == [
        (f"{number}.mid", take, "done") for number in range(2) for take in (1, 2)
    ]
    one = dp.continue_piece("seeds/0.mid", checkpoint=weights, seconds=20)
    one.save("take-1.mid")
    there = Path("pieces/0.mid/take-1.mid").read_bytes()
    assert Path("take-1.mid").read_bytes() == there


def test_a_setting_belongs_to_its_section(weights):
    with pytest.raises(ConfigError, match=r"'bulk.format' must be .*\(in the call\)"):
        dp.continue_folder("seeds", "pieces", checkpoint=weights, format="exe")
    with pytest.raises(ConfigError, match=r"no setting 'prepare\.codek': did you mean"):
        dp.prepare_dataset("corpus", "dataset", codek="notes")
    with pytest.raises(ConfigError, match=r"'train.preset'"):
        dp.train_checkpoint("dataset", "run", preset="enormous")
    with pytest.raises(InputError, match="not one of the stages"):
        dp.submit_job("dance", address="http://127.0.0.1:1")
