"""The work of the page on a Ray cluster: the same bytes, progress, cancelling, plain sentences."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from deep_piano.config.sections import Config
from deep_piano.serve import on_ray
from deep_piano.serve.worker import Look
from tests.support import recordings
from tests.support.serving import LONGEST_S, Serving, small_config

pytestmark = pytest.mark.ray


def work(home, pipe, config):
    import os

    os.environ["DEEP_PIANO_HOME"] = home
    on_ray.work(pipe, config, address="local")


@pytest.fixture(scope="module")
def on_a_cluster(tmp_path_factory, weights, three_keys):
    home = str(three_keys.with_name("home"))
    config = small_config(weights, three_keys)
    server = Serving(tmp_path_factory.mktemp("on-ray"), config, functools.partial(work, home))
    yield server
    server.close()


def test_a_piece_of_a_cluster_has_the_bytes_of_one_made_here(on_a_cluster, served, sketch):
    pieces = [
        server.piece(server.compose(server.seed(sketch), begin=1, end=11, takes=2))
        for server in (on_a_cluster, served)
    ]
    assert pieces[0]["takes"][1]["files"] == pieces[1]["takes"][1]["files"]
    path = f"/api/pieces/{pieces[0]['id']}/2/wav"
    other = f"/api/pieces/{pieces[1]['id']}/2/wav"
    assert on_a_cluster.ask("GET", path)[1] == served.ask("GET", other)[1]


def test_what_cannot_be_continued_costs_one_sentence(on_a_cluster, tmp_path):
    recordings.write_text(tmp_path / "letter.mp3")
    job = on_a_cluster.wait(on_a_cluster.send(tmp_path / "letter.mp3"))
    assert job["message"].startswith("letter.mp3 is not audio that can be read")


def test_cancelling_ends_it_there(on_a_cluster, sketch):
    seed = on_a_cluster.seed(sketch)
    job = on_a_cluster.compose(seed, seconds=600, takes=4, candidates=16)
    until = time.monotonic() + LONGEST_S
    while on_a_cluster.job(job)["stage"] != "composing" and time.monotonic() < until:
        time.sleep(0.02)
    assert on_a_cluster.ask("DELETE", f"/api/jobs/{job}")[0] == 200
    assert on_a_cluster.wait(job)["state"] == "cancelled"
    on_a_cluster.piece(on_a_cluster.compose(seed))


def test_of_what_an_actor_was_given_the_last_eight_are_kept(tmp_path, monkeypatch):
    class Idle:
        def __init__(self, config):
            pass

        def warm_up(self):
            pass

    given = []

    def answered(worker, task, share):
        given.append((task.path.parent, task.path.read_bytes()))
        return "done", {}

    monkeypatch.setattr(on_ray, "Worker", Idle)
    monkeypatch.setattr(on_ray, "answered", answered)
    actor = on_ray.Composer(Config())
    contents = [f"{number}".encode() for number in (*range(12), 4, 12)]
    for content in contents:
        actor.do(Look(Path("recording.mp3"), "song.mp3", tmp_path), content)
    assert [content for _, content in given] == contents
    folder = given[0][0].parent
    kept = {place for place, content in given if content in (b"4", *contents[6:])}
    assert {*folder.iterdir()} == kept
    assert len(kept) == 8
    actor._seeds.cleanup()


def test_where_no_cluster_answers_every_job_says_so(tmp_path, weights, three_keys, sketch):
    config = small_config(weights, three_keys)
    nowhere = functools.partial(on_ray.work, address="127.0.0.1:1")
    server = Serving(tmp_path / "music", config, nowhere)
    try:
        for _ in range(2):
            job = server.wait(server.send(sketch))
            assert "no Ray cluster answers" in job["message"]
    finally:
        server.close()
