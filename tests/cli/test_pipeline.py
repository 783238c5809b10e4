"""`pipeline` at the command line: from a corpus to pieces, and what it refuses before any work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from deep_piano.music.midi import write_midi
from tests.support.clusters import contents
from tests.support.commands import everything, refused, run
from tests.support.fakes import arpeggios
from tests.support.hostile import improvised

SETTINGS = """
prepare: {validation_share: 0.3, test_share: 0.1}
train: {preset: tiny, batch: 4, window: 16, steps: 4, eval_every_steps: 2, precision: float32}
generate: {seconds: 20}
bulk: {format: mid}
"""


def pipeline(*arguments):
    return run("--config", "settings.yaml", "pipeline", "corpus", "seeds", "-o", "out", *arguments)


@pytest.fixture(autouse=True)
def _files(desk):
    Path("settings.yaml").write_text(SETTINGS)
    for number in range(8):
        write_midi(Path(f"corpus/{number}.mid"), improvised(random_state=number))
    for number in range(2):
        write_midi(Path(f"seeds/{number}.mid"), arpeggios(9, rng=np.random.default_rng(number)))


@pytest.mark.ray
@pytest.mark.tf
def test_a_corpus_becomes_pieces_and_each_stage_goes_on_where_it_stopped(cluster):
    result = pipeline()
    assert result.exit_code == 0, result.output
    asked, page = result.stdout.splitlines()
    assert asked == "out: pieces asked for: 2 = 2 there + 0 failed"
    assert page == "to hear and compare them, open out/pieces/index.html"
    assert "training: 4 of 4" in result.stderr
    before = contents(Path("out"))
    facts = json.loads(before["pieces/0.mid/take-1.json"])
    assert facts["checkpoint"]["name"] == "run/checkpoint/best"
    assert {name.split("/")[0] for name in before} == {"dataset", "run", "pieces"}

    again = pipeline()
    assert again.exit_code == 0, again.output
    assert contents(Path("out")) == before

    write_midi(Path("seeds/2.mid"), arpeggios(9, rng=np.random.default_rng(2)))
    assert pipeline().stdout.startswith("out: pieces asked for: 3 = 3 there + 0 failed\n")
    more = contents(Path("out"))
    kept = re.compile(r"dataset/|run/|pieces/.+/")
    assert {n: b for n, b in before.items() if kept.match(n)}.items() <= more.items()

    refused(pipeline("--preset", "small"), "begun with other settings", "preset tiny -> small")


@pytest.fixture
def cluster():
    from tests.support.clusters import one_node

    with one_node():
        yield


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["-o", "corpus/out"], ["contain each other"]),
        (["-o", "seeds"], ["contain each other"]),
        (["--preset", "huge"], ["train.preset", "'huge'"]),
        (["--format", "exe"], ["bulk.format"]),
        (["--takes", "0"], ["generate.takes"]),
        (["-o", "ftp://host/out"], ["unknown kind"]),
        (["--profile", "cluster"], ["no profile 'cluster'", "there are none"]),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(arguments, fragments):
    before = everything()
    refused(pipeline(*arguments), *fragments)
    assert everything() == before


def test_seeds_and_codec_are_looked_at_before_the_training():
    Path("settings.yaml").write_text("{prepare: {codec: mulaw}, bulk: {format: mid}}")
    refused(pipeline(), "run/checkpoint/best", "sound is written, and no notes")
    Path("settings.yaml").write_text(SETTINGS)
    for seed in Path("seeds").iterdir():
        seed.unlink()
    refused(pipeline(), "seeds holds no recording")
    assert not Path("out").exists()
