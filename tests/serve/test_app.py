"""What the server answers: recordings, pieces, files, progress and plain sentences."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import socket
import time
import wave
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import symusic

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.music.audio import decode
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import excerpt
from deep_piano.serve import store
from deep_piano.serve.jobs import MOST_WAITING
from deep_piano.serve.uploads import MOST_BYTES
from tests.support import errands, recordings
from tests.support.commands import in_a_process, made, run
from tests.support.fakes import arpeggios
from tests.support.serving import LONGEST_S, Serving, small_config, small_server


@pytest.fixture(scope="module")
def seed(served, sketch):
    return served.seed(sketch)


@pytest.fixture(scope="module")
def piece(served, seed):
    """A piece in two takes."""
    return served.piece(served.compose(seed, begin=1, end=11, takes=2))


def slow(served, seed):
    """Begin a piece that takes long, and return its job."""
    return served.compose(seed, seconds=600, takes=4, candidates=16)


def test_a_sketch_is_heard_with_its_last_ten_seconds(served, seed):
    _, heard = served.ask("GET", f"/api/seeds/{seed}")
    assert heard["name"] == "sketch.mid"
    begin, end = heard["window"]
    assert end - begin == pytest.approx(10)
    assert end <= heard["seconds"] + 0.1
    assert len(heard["notes"]) == 60
    assert max(heard["peaks"]) == 1
    _, facts = served.ask("GET", f"/api/seeds/{seed}/window?begin=0&end=4")
    assert re.fullmatch(r"\d\d notes, C major \(.*sure\)", facts["text"])
    status, _, sound = served.request("GET", f"/api/seeds/{seed}/sound", Cookie=served.cookie)
    assert (status, sound[:3]) == (200, b"ID3")


def test_the_first_window_is_read_while_it_is_looked_at(served, tmp_path):
    recordings.write_tone(tmp_path / "tone.wav", seconds=12)
    seed = served.seed(tmp_path / "tone.wav")
    begin, end = served.store.seed(seed)["window"]
    _, state = served.ask("GET", "/api/state")
    job = served.compose(seed, begin=begin, end=end)
    served.piece(job)
    stages = {facts["stage"] for _, facts in listened(served, state["last"], job)}
    assert "composing" in stages
    assert "transcribing" not in stages
    job = served.compose(seed, begin=begin - 1, end=end)
    served.piece(job)
    stages = {facts["stage"] for _, facts in listened(served, state["last"], job)}
    assert "transcribing" in stages


def test_a_recording_is_heard_its_last_minute_of_more(served, tmp_path):
    recordings.write_tone(tmp_path / "tone.wav", seconds=70)
    _, heard = served.ask("GET", f"/api/seeds/{served.seed(tmp_path / 'tone.wav')}")
    assert (heard["from_s"], heard["seconds"], heard["whole_s"]) == pytest.approx((10, 60, 70))
    assert heard["window"] == pytest.approx([50, 60], abs=0.5)


def test_every_download_opens(served, piece, tmp_path):
    assert [take["take"] for take in piece["takes"]] == [1, 2]
    path = f"/api/pieces/{piece['id']}/2"
    sounds = {}
    for kind in ("mp3", "wav"):
        status, content = served.ask("GET", f"{path}/{kind}")
        assert status == 200
        (tmp_path / f"take.{kind}").write_bytes(content)
        sounds[kind] = decode(tmp_path / f"take.{kind}", sr=8000)
        assert len(sounds[kind]) == pytest.approx(20 * 8000, abs=800)
    heard = [sounds["mp3"][lag : lag + 40_000] for lag in range(1000)]  # an encoder is late
    assert max(np.corrcoef(one, sounds["wav"][500:40_500])[0, 1] for one in heard) > 0.99
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 44_100)
    _, content = served.ask("GET", f"{path}/midi")
    score = symusic.Score.from_midi(content, ttype="second")
    assert sum(len(track.notes) for track in score.tracks) == piece["takes"][1]["notes"]
    _, roll = served.ask("GET", f"{path}/roll")
    assert len(roll) == piece["takes"][1]["notes"]
    _, content = served.ask("GET", f"{path}/score")
    import music21

    parsed = music21.converter.parseData(content.decode(), format="musicxml")
    assert len(parsed.parts) == 2
    assert b"Continuation" in content
    _, facts = served.ask("GET", f"{path}/facts")
    assert json.loads(facts)["take"] == 2
    status, page = served.ask("GET", f"{path}/page")
    assert b"data:audio/mpeg;base64,SUQz" in page
    assert b"@" not in re.sub(rb"<style>.*?</style>|base64,[^\"]*", b"", page, flags=re.S)
    assert [*(served.folder / "work").iterdir()] == []


def test_a_take_may_have_any_number(served, piece):
    for number in (3, 8, 12):
        status, answer = served.ask("GET", f"/api/pieces/{piece['id']}/{number}/mp3")
        assert (status, answer["error"][:21]) == (404, "there is no such take")
    for number in (0, "01", "9" * 5000):
        assert served.ask("GET", f"/api/pieces/{piece['id']}/{number}/mp3")[0] == 404


def test_a_file_has_a_name_and_can_be_played_from_anywhere(served, piece):
    path = f"/api/pieces/{piece['id']}/1/mp3"
    own = {"Cookie": served.cookie}
    _, headers, whole = served.request("GET", path, **own)
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''sketch%2C%20take%201.mp3"
    status, headers, part = served.request("GET", f"{path}?play", Range="bytes=100-199", **own)
    assert (status, part) == (206, whole[100:200])
    assert headers["Content-Type"] == "audio/mpeg"
    assert "Content-Disposition" not in headers


@pytest.mark.usefixtures("desk")
def test_the_same_settings_give_the_same_bytes_as_the_command(
    served, seed, piece, sketch, weights, small_piano, tmp_path
):
    again = served.piece(served.compose(seed, begin=1, end=11, takes=2))
    assert [take["files"] for take in again["takes"]] == [take["files"] for take in piece["takes"]]
    other = served.piece(served.compose(seed, begin=1, end=11, random_state=1))
    assert other["takes"][0]["files"]["piece.mid"] not in piece["takes"][0]["files"].values()
    for name, takes in (("piece.mp3", 2), ("alone.wav", 1)):
        made(
            run("generate", sketch, "-o", name, "--seed-start", 1, "--seed-seconds", 10,
                "--takes", takes, "--seconds", 20, "--candidates", 1, "--checkpoint", weights,
                "--sound", small_piano)
        )  # fmt: skip
    _, wav = served.ask("GET", f"/api/pieces/{piece['id']}/1/wav")
    assert wav == Path("alone.wav").read_bytes()
    for number, take in enumerate(piece["takes"], 1):
        facts = json.loads(Path(f"piece-{number}.json").read_text())
        mine = {name: sha for name, sha in take["files"].items() if name in facts["files"]}
        assert mine == facts["files"]
        assert facts["seed"]["seconds"] == pytest.approx(piece["seed_seconds"])


def test_trimming_stands_in_the_facts(served, seed):
    trimmed = served.piece(served.compose(seed, begin=3.5, end=7.5))
    _, facts = served.ask("GET", f"/api/pieces/{trimmed['id']}/1/facts")
    facts = json.loads(facts)
    assert (facts["settings"]["seed_start"], facts["settings"]["seed_seconds"]) == (3.5, 4)
    assert 3 < facts["seed"]["seconds"] <= 4


def test_what_is_kept_is_the_same_and_what_follows_differs(served, piece):
    asked = {"piece": piece["id"], "take": 1, "keep_until": 12.5}
    asked["controls"] = {"random_state": 1, "seconds": 24}
    status, answer = served.tell("POST", "/api/pieces", asked)
    assert status == 202
    new = served.piece(answer["job"])
    old, other = (
        read_midi(served.folder / "pieces" / one["id"] / f"{one['takes'][0]['stem']}.mid")
        for one in (piece, new)
    )
    assert new["title"] == "sketch, differently"
    assert new["seed"] == piece["seed"]
    kept, mine = excerpt(old, 0, 12.5), excerpt(other, 0, 12.5)
    assert np.array_equal(kept["pitch"], mine["pitch"])
    assert np.abs(kept["onset"] - mine["onset"]).max() < 0.0011  # two ticks, half of one each time
    follows = [excerpt(notes, 12.5, 20)["pitch"].tolist() for notes in (old, other)]
    assert follows[0] != follows[1]


def test_each_that_continues_differently_is_another(served, piece):
    asked = {"piece": piece["id"], "take": 1, "keep_until": 11.5, "another": True}
    asked["controls"] = {"random_state": 5}
    jobs = [served.tell("POST", "/api/pieces", asked)[1]["job"] for _ in range(2)]
    made = [served.piece(job)["takes"][0] for job in jobs]
    jobs = [served.tell("POST", "/api/pieces", asked)[1]["job"]]
    made += [served.piece(job)["takes"][0] for job in jobs]
    assert [take["random_state"] for take in made] == [5, 6, 7]
    assert len({take["files"]["piece.mid"] for take in made}) == 3


def test_a_span_of_a_take_is_made_anew_and_all_else_stays(served, piece):
    asked = {"piece": piece["id"], "take": 1, "between": [9.0, 14.0]}
    status, answer = served.tell("POST", "/api/pieces", asked | {"controls": {"random_state": 1}})
    assert status == 202
    new = served.piece(answer["job"])
    assert new["title"] == "sketch, differently"
    assert new["seed"] == piece["seed"]
    assert new["window"]["between"] == new["takes"][0]["new"] == [9, 14]
    assert new["window"]["seed_seconds"] == piece["seed_seconds"]
    old, other = (
        read_midi(served.folder / "pieces" / one["id"] / f"{one['takes'][0]['stem']}.mid")
        for one in (piece, new)
    )
    for inside in (excerpt(old, 9.01, 13.99), excerpt(other, 9.01, 13.99)):
        assert len(inside)
    for span in ((0, 8.99), (14.01, 99)):
        kept, mine = excerpt(old, *span), excerpt(other, *span)
        assert kept["pitch"].tolist() == mine["pitch"].tolist()
        assert np.abs(kept["onset"] - mine["onset"]).max() < 0.0011
    _, page = served.ask("GET", f"/api/pieces/{new['id']}/1/page")
    assert b'"fresh":[9.0,14.0]' in page
    _, score = served.ask("GET", f"/api/pieces/{new['id']}/1/score")
    assert b"</score-partwise>" in score
    assert b"Continuation" not in score


@pytest.mark.usefixtures("desk")
def test_a_remix_of_a_window_is_that_of_the_command(served, seed, sketch, weights, small_piano):
    asked = {"seed": seed, "begin": 1, "end": 9, "remix": "rhythm", "controls": {}}
    new = served.piece(served.tell("POST", "/api/pieces", asked)[1]["job"])
    assert new["title"] == "sketch, remixed"
    assert new["window"] == {"seed_start": 1, "seed_end": 9, "remix": "rhythm"}
    [take] = new["takes"]
    assert take["new"] == [0, take["seconds"]]
    made(
        run("generate", sketch, "-o", "piece.mp3", "--seed-start", 1, "--seed-end", 9, "--remix",
            "rhythm", "--candidates", 1, "--checkpoint", weights, "--sound", small_piano)
    )  # fmt: skip
    facts = json.loads(Path("piece.json").read_text())
    assert take["files"].items() >= facts["files"].items()


def test_what_cannot_be_made_anew_costs_the_sentence_of_the_command(served, seed, piece):
    of_take = {"piece": piece["id"], "take": 1, "controls": {}}
    of_seed = {"seed": seed, "begin": 1, "end": 9, "controls": {}}
    for asked, said in (
        (of_take | {"between": [9.0, 9.5]}, "lasts 1 to 60 s"),
        (of_take | {"between": [9.0]}, "generate.between"),
        (of_take | {"between": ["a", "b"]}, "between is missing or cannot be understood"),
        (of_take | {"between": 9}, "between is missing or cannot be understood"),
        (of_take | {"between": [float("nan"), 12]}, "generate.between"),
        (of_take | {"between": [9, 14], "controls": {"form": "aba"}},
         "only one of between and form"),
        (of_seed | {"remix": "tempo"}, "generate.remix"),
        (of_seed | {"remix": None}, "remix is missing or cannot be understood"),
        (of_seed | {"remix": "pitches", "controls": {"most_shared": 12}},
         "only one of remix and most_shared"),
    ):  # fmt: skip
        status, answer = served.tell("POST", "/api/pieces", asked)
        assert status == 400
        assert said in answer["error"]
        assert "\n" not in answer["error"]
    for asked, said in (
        (of_take | {"between": [12.0, 40.0]}, "nothing is struck after 40 s"),
        (of_take | {"between": [50.0, 60.0]}, "a span cannot begin at 50 s"),
        (of_seed | {"controls": {"most_shared": 12}}, "--most-shared needs an index"),
    ):
        job = served.wait(served.tell("POST", "/api/pieces", asked)[1]["job"])
        assert job["state"] == "failed"
        assert said in job["message"]


@pytest.mark.slow
def test_a_piece_is_kept_apart_from_the_corpus(tmp_path, weights, three_keys, sketch):
    notes = arpeggios(60, rng=np.random.default_rng(0))
    CorpusIndex.build([("some", encode(notes))]).save(tmp_path / "corpus.index")
    options = {"index": str(tmp_path / "corpus.index")}
    server = small_server(tmp_path / "music", weights, three_keys, **options)
    try:
        piece = server.piece(server.compose(server.seed(sketch), most_shared=8))
        _, facts = server.ask("GET", f"/api/pieces/{piece['id']}/1/facts")
        facts = json.loads(facts)
        assert facts["settings"]["most_shared"] == 8
        assert facts["originality"]["longest_shared_run_notes"] <= 8
        asked = {"most_shared": 7}
        job = {"seed": server.seed(sketch), "begin": 0, "end": 10, "controls": asked}
        status, answer = server.tell("POST", "/api/pieces", job)
        assert (status, "must be between 8 and 1024" in answer["error"]) == (400, True)
    finally:
        server.close()


def write_second(path):
    recordings.write_tone(path, seconds=1)


def write_few(path):
    write_midi(path, arpeggios(1, rng=np.random.default_rng(0))[:3])


@pytest.mark.parametrize(
    ("write", "name", "said"),
    [
        (recordings.write_text, "letter.mp3", "letter.mp3 is not audio that can be read"),
        (recordings.write_silence, "quiet.wav", "the seed is silent"),
        (write_second, "one.wav", "the seed is too short: 1.00 s"),
        (recordings.write_half, "half.flac", "half.flac is damaged"),
        (lambda path: path.write_bytes(b"MThd"), "broken.mid", "broken.mid"),
        (write_few, "few.mid", "the seed is too short"),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_costs_one_sentence(served, tmp_path, write, name, said):
    write(tmp_path / name)
    before = {*(served.folder / "seeds").iterdir()}
    job = served.wait(served.send(tmp_path / name))
    assert job["state"] == "failed"
    assert said in job["message"]
    assert str(served.folder) not in job["message"]
    assert job["message"].isprintable()
    assert {*(served.folder / "seeds").iterdir()} == before
    assert [*(served.folder / "work").iterdir()] == []
    assert served.ask("GET", "/api/state")[0] == 200


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.tf
def test_speech_is_refused_as_the_command_refuses_it(tmp_path, weights, three_keys):
    from deep_piano.serve.worker import work

    recordings.write_sound(tmp_path / "speech.wav", recordings.speech_like())
    server = Serving(tmp_path / "music", small_config(weights, three_keys), work)
    try:
        job = server.wait(server.send(tmp_path / "speech.wav"))
        assert job["state"] == "failed"
        assert re.search(r"piano notes?|as in speech", job["message"])
        assert "Give a recording of a piano" in job["message"]
    finally:
        server.close()


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LONGEST_S)
    connection.putrequest("POST", "/api/seeds")
    for name, value in {"X-Deep-Piano": "1", "Cookie": served.cookie}.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(51_000_000))
    connection.endheaders()
    with closing(connection), connection.getresponse() as answer:
        said = json.loads(answer.read())["error"]
    assert (answer.status, MOST_BYTES) == (413, 50_000_000)
    assert said.startswith("the file has more than 50 MB (51 MB). Cut out the minute")


def test_a_body_that_hides_its_length_is_cut_off(served):
    def endless():
        for _ in range(900):
            yield b"\0" * 65_536

    try:
        status, answer = served.ask("POST", "/api/seeds", endless())
    except (BrokenPipeError, ConnectionResetError):
        status, answer = 413, {}  # refused while it was still being sent
    assert status == 413
    assert "50 MB" in answer.get("error", "50 MB")
    assert [*(served.folder / "work").iterdir()] == []
    assert served.ask("GET", "/api/state")[0] == 200


def test_an_empty_body_is_refused(served):
    status, answer = served.ask("POST", "/api/seeds", b"")
    assert (status, answer["error"][:17]) == (400, "the file is empty")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"controls": {"takes": 9}}, "Takes must be between 1 and 4"),
        ({"controls": {"checkpoint": "x"}}, "no control 'checkpoint'"),
        ({"controls": [1]}, "controls is missing or cannot be understood"),
        ({"begin": 3, "end": 4}, "must last 2 to 60 seconds"),
        ({"begin": -1}, "must last 2 to 60 seconds"),
        ({"begin": "0"}, "begin is missing"),
        ({"end": float("nan")}, "must last 2 to 60 seconds"),
        ({"seed": 3}, "seed is missing"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(served, seed, change, said):
    asked = {"seed": seed, "begin": 0, "end": 10, "controls": {}} | change
    status, answer = served.tell("POST", "/api/pieces", asked)
    assert status == 400
    assert said in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 60_000, b"x" * 70_000])
def test_a_request_that_is_no_json_is_refused(served, body):
    assert served.ask("POST", "/api/pieces", body)[0] in (400, 413)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/seeds/0123456789abcdef"), ("GET", "/api/seeds/0123456789abcdef/sound"),
     ("GET", "/api/pieces/0123456789abcdef/1/mp3"), ("DELETE", "/api/pieces/0123456789abcdef"),
     ("DELETE", "/api/jobs/0123456789abcdef"), ("GET", "/nothing")],
)  # fmt: skip
def test_what_is_not_there_is_not_found(served, method, path):
    status, answer = served.ask(method, path)
    assert status == 404
    assert answer["error"]


def test_progress_never_falls_and_goes_on_after_a_break(served, seed):
    _, state = served.ask("GET", "/api/state")
    job = served.compose(seed, takes=2)
    served.piece(job)
    events = listened(served, state["last"], job)
    percents = [facts["percent"] for _, facts in events]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len({*percents}) > 5
    middle = len(events) // 2
    assert listened(served, events[middle][0], job) == events[middle + 1 :]
    assert listened(served, "of-another-run", None) == "reload"


def listened(served, last, job):
    """Return the events of a job after the last one seen, as a browser asks for them."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LONGEST_S)
    connection.request("GET", "/api/events", headers={"Last-Event-ID": last})
    with closing(connection), connection.getresponse() as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        return of_job(answer, job)


def of_job(lines, job):
    found, name = [], None
    for line in lines:
        what, _, value = line.decode().strip().partition(": ")
        if (what, value) == ("event", "reload"):
            return "reload"
        if what == "id":
            name = value
        elif what == "data" and (facts := json.loads(value)).get("job") == job:
            found.append((name, facts))
            if facts["state"] not in ("waiting", "running"):
                return found
    raise AssertionError("the stream has ended")


def test_cancelling_ends_a_job_soon_and_leaves_nothing(served, seed):
    pieces = {*(served.folder / "pieces").iterdir()}
    job = slow(served, seed)
    until = time.monotonic() + LONGEST_S
    while served.job(job)["stage"] != "composing" and time.monotonic() < until:
        time.sleep(0.01)
    assert served.ask("DELETE", f"/api/jobs/{job}")[0] == 200
    assert served.wait(job)["state"] == "cancelled"
    assert {*(served.folder / "pieces").iterdir()} == pieces
    assert [*(served.folder / "work").iterdir()] == []
    served.piece(served.compose(seed))


def test_the_ninth_that_waits_is_sent_away(served, seed):
    jobs = [slow(served, seed)]
    served.wait(jobs[0], ("running",))
    jobs += [slow(served, seed) for _ in range(MOST_WAITING)]
    asked = {"seed": seed, "begin": 0, "end": 10, "controls": {}}
    status, answer = served.tell("POST", "/api/pieces", asked)
    assert (status, answer["error"][:26]) == (429, "8 jobs are waiting already")
    for job in reversed(jobs):
        served.ask("DELETE", f"/api/jobs/{job}")
    assert {served.wait(job)["state"] for job in jobs} == {"cancelled"}
    assert [*(served.folder / "work").iterdir()] == []


def test_a_recording_stays_while_a_piece_of_it_waits(
    tmp_path, weights, three_keys, sketch, monkeypatch
):
    monkeypatch.setattr(store, "MOST_SEEDS", 1)
    server = small_server(tmp_path / "music", weights, three_keys)
    try:
        first = server.seed(sketch)
        running = slow(server, first)
        other = server.send(sketch)
        waiting = server.compose(first, begin=1)  # which is not read yet
        server.ask("DELETE", f"/api/jobs/{running}")
        assert server.wait(other)["state"] == "done"
        assert server.piece(waiting)["seed"]["id"] == first
    finally:
        server.close()


def test_a_piece_stays_while_something_is_made_of_it(served, seed):
    new = served.piece(served.compose(seed))["id"]
    running = slow(served, seed)
    asked = {"piece": new, "take": 1, "keep_until": 12.0, "controls": {}}
    waiting = served.tell("POST", "/api/pieces", asked)[1]["job"]
    status, answer = served.ask("DELETE", f"/api/pieces/{new}")
    assert (status, answer["error"][:37]) == (400, "something is being made of this piece")
    served.ask("DELETE", f"/api/jobs/{running}")
    served.piece(waiting)
    assert served.ask("DELETE", f"/api/pieces/{new}")[0] == 200


def test_a_piece_is_renamed_starred_and_deleted(served, seed):
    new = served.piece(served.compose(seed))["id"]
    status, facts = served.tell("PATCH", f"/api/pieces/{new}", {"title": "雨だれ/2", "starred": 1})
    assert (status, facts["title"], facts["takes"][0]["starred"]) == (200, "雨だれ/2", True)
    assert served.tell("PATCH", f"/api/pieces/{new}", {"title": 3})[0] == 400
    _, headers, _ = served.request("GET", f"/api/pieces/{new}/1/mp3", Cookie=served.cookie)
    assert headers["Content-Disposition"].endswith("%E9%9B%A8%E3%81%A0%E3%82%8C-2.mp3")
    assert served.ask("DELETE", f"/api/pieces/{new}")[0] == 200
    assert new not in [piece["id"] for piece in served.ask("GET", "/api/state")[1]["pieces"]]
    assert served.ask("GET", f"/api/pieces/{new}/1/mp3")[0] == 404


def test_a_full_folder_says_so(tmp_path, weights, three_keys, sketch):
    server = small_server(tmp_path / "music", weights, three_keys, most_bytes=1)
    try:
        status, answer = server.ask("POST", "/api/seeds", sketch.read_bytes())
        assert status == 400
        assert "Delete some that you no longer need" in answer["error"]
    finally:
        server.close()


def test_what_is_taken_out_of_a_full_folder_is_not_refused(
    served, piece, tmp_path, weights, three_keys
):
    server = small_server(tmp_path / "music", weights, three_keys, most_bytes=1)
    kept = f"pieces/{piece['id']}"
    shutil.copytree(served.folder / kept, tmp_path / "music" / kept)
    try:
        for kind in ("wav", "score"):
            assert server.ask("GET", f"/api/{kept}/1/{kind}")[0] == 200
        assert server.ask("POST", "/api/example")[0] == 400
    finally:
        server.close()


def waiting_work(pipe, config):
    """Run a worker that ends its work only when that is cancelled."""
    os.setsid()
    with suppress(EOFError):
        while True:
            job, task = pipe.recv()
            if task is not None:
                pipe.send((job, *errands.do(pipe, job, "wait")))


@pytest.fixture
def exporting(served, piece, tmp_path, weights, three_keys):
    """Return a server that is making a file, the folder it writes to, and who asked for it."""
    folder = tmp_path / "music"
    server = Serving(folder, small_config(weights, three_keys), waiting_work)
    shutil.copytree(served.folder / "pieces" / piece["id"], folder / "pieces" / piece["id"])
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST_S)
    asking.request("GET", f"/api/pieces/{piece['id']}/1/wav", headers={"Cookie": server.cookie})
    assert soon(lambda: [*(folder / "work").iterdir()])
    yield server, folder / "work", asking
    asking.close()


def soon(condition):
    """Tell whether a condition comes true."""
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_a_file_that_nobody_waits_for_any_more_is_not_made(exporting):
    server, work, asking = exporting
    [kept] = (piece.name for piece in (work.parent / "pieces").iterdir())
    assert server.ask("DELETE", f"/api/pieces/{kept}")[0] == 400
    asking.close()
    gone = soon(lambda: not [*work.iterdir()])
    server.close()
    assert gone


def test_a_server_ends_while_a_file_is_made_and_leaves_none_of_it(exporting):
    server, work, asking = exporting
    server.close()  # an error in one of its threads fails the test
    with pytest.raises(http.client.RemoteDisconnected):
        asking.getresponse()
    assert [*work.iterdir()] == []


def started(tmp_path, *options):
    """Start the command, and return it with its address."""
    server = in_a_process(
        "serve",
        "--port",
        0,
        "--folder",
        tmp_path / "music",
        *options,
        stdout=-1,
        stderr=-1,
        bufsize=0,
    )
    line = server.stdout.readline().decode()
    return server, line.split(" ")[0]


def test_sigterm_ends_it_without_half_a_file(tmp_path, weights, small_piano, sketch):
    options = ("--checkpoint", weights, "--sound", small_piano)
    server, url = started(tmp_path, *options)
    port = int(re.search(r":(\d+)/", url)[1])

    def ask(method, path, body=None, **headers):
        with closing(
            http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_S)
        ) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.headers, answer.read()

    cookie = ask("GET", "/")[0]["Set-Cookie"].partition(";")[0]
    own = {"X-Deep-Piano": "1", "Cookie": cookie}
    ask("POST", "/api/seeds", sketch.read_bytes(), **own)
    state = {"jobs": [{"state": "waiting"}]}
    until = time.monotonic() + LONGEST_S
    while state["jobs"][0]["state"] != "done" and time.monotonic() < until:
        state = json.loads(ask("GET", "/api/state")[1])
        time.sleep(0.02)
    seed = state["jobs"][0]["result"]["seed"]
    asked = {"seed": seed, "begin": 0, "end": 10, "controls": {"seconds": 600, "takes": 4}}
    ask("POST", "/api/pieces", json.dumps(asked), **own)
    while "composing" not in str(state) and time.monotonic() < until:
        state = json.loads(ask("GET", "/api/state")[1])
        time.sleep(0.02)
    assert [*(tmp_path / "music" / "work").iterdir()] != []
    server.terminate()
    output, errors = server.communicate(timeout=LONGEST_S)
    assert (server.returncode, errors) == (0, b"")
    assert b"Nothing leaves this computer." in output
    assert [*(tmp_path / "music" / "work").iterdir()] == []
    assert [*(tmp_path / "music" / "pieces").iterdir()] == []
    assert (tmp_path / "music" / "seeds" / seed / "about.json").exists()


@pytest.mark.parametrize("name", ["Piano.local", None])
def test_beyond_this_machine_a_token_is_printed_once_and_tls_is_named(
    tmp_path, weights, small_piano, name
):
    options = ["--checkpoint", weights, "--sound", small_piano, "--host", "0.0.0.0"]
    server, url = started(tmp_path, *options, *(["--name", name] if name else []))
    shown = name or socket.gethostname()
    found = re.fullmatch(rf"http://{re.escape(shown)}:(\d+)/\?token=(\S{{32}})", url)
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=LONGEST_S)
    statuses = []
    for path in ("/", f"/?token={found[2]}"):
        host = f"{shown.lower()}:{found[1]}"  # as browsers write it
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [403, 200]
    server.terminate()
    output, errors = server.communicate(timeout=LONGEST_S)
    assert (server.returncode, errors) == (0, b"")
    assert b"not encrypted (no TLS)" in output
    assert found[2].encode() not in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint", "nothing"], "no checkpoint"),
        (["--checkpoint", "mulaw"], "notes"),
        (["--sound", "nothing"], "there is no sound 'nothing'"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--folder", "/dev/null/music"], "Choose another --folder"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, options, said):
    result = run("serve", "--port", 0, "--folder", tmp_path / "music", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert os.linesep not in result.stderr.strip()


def test_a_port_that_is_taken_is_one_line(served, tmp_path):
    result = run("serve", "--port", served.port, "--folder", tmp_path / "music")
    assert result.exit_code == 2
    assert f"port {served.port} is in use. Give another --port" in result.stderr
    assert os.linesep not in result.stderr.strip()
