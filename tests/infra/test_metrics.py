"""What can be watched of the stages on real Ray: the workers' log, and what Prometheus reads."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from deep_piano.config.load import load_config
from deep_piano.generate.on_ray import generate
from deep_piano.infra.cluster import metrics
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.logs import set_up_logging
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.prepare.on_ray import prepare
from tests.support.fakes import arpeggios
from tests.support.hostile import improvised


def test_without_ray_nothing_is_measured_and_nothing_breaks(monkeypatch):
    monkeypatch.setattr(metrics, "_made", None)
    metrics.count("deep_piano_notes", 3)
    metrics.level("deep_piano_training_updates", 3)


COUNTED = {
    ("ray_deep_piano_recordings_total", 'outcome="read"'): 3,
    ("ray_deep_piano_recordings_total", 'outcome="failed"'): 1,
    ("ray_deep_piano_pieces_total", 'outcome="done"'): 2,
    ("ray_deep_piano_pieces_total", 'outcome="failed"'): 2,
    ("ray_deep_piano_training_updates",): 7,
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory, weights):
    """Make a dataset and pieces, a file and a seed of them broken; return logs and measures."""
    folder = tmp_path_factory.mktemp("watched")
    for number in range(3):
        write_midi(folder / f"corpus/{number}.mid", improvised(random_state=number))
    write_midi(folder / "seeds/good.mid", arpeggios(9, rng=np.random.default_rng(0)))
    for name in ("corpus/bad.mid", "seeds/bad.mid"):
        (folder / name).write_bytes(b"no music")
    generated = {"checkpoint": str(weights), "seconds": 15.0, "takes": 2}
    config = load_config(None, {"generate": generated, "bulk": {"format": "mid"}})
    levels = []
    with pytest.MonkeyPatch.context() as environment:
        tell = metrics.level
        environment.setattr(
            metrics,
            "level",
            lambda *told, **tags: levels.append((*told, tags)) or tell(*told, **tags),
        )
        environment.setenv("RAY_metrics_report_interval_ms", "500")  # each 10 s usually
        set_up_logging(debug=False, as_json=True)
        try:
            with connected(cpus=2):
                prepare(open_folder(folder / "corpus"), open_folder(folder / "set"), config)
                generate(open_folder(folder / "seeds"), open_folder(folder / "pieces"), config)
                records, found = told_by_workers(), read_by_prometheus()
            yield records, found, levels
        finally:
            set_up_logging(debug=False)


def told_by_workers():
    """Return the records in the workers' logs, once the last piece is told of."""
    import ray

    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    end = time.monotonic() + 120
    while True:
        lines = [line for path in logs.glob("worker-*.err") for line in path.open()]
        records = [json.loads(line) for line in lines if line.startswith("{")]
        if sum(r.get("event") == "written" for r in records) == 2 or time.monotonic() > end:
            return records
        time.sleep(0.2)


def read_by_prometheus():
    """Return the last value of each of our measures, once all that happened is counted.

    Ray forgets a level once it was read, and reports counts and levels of different processes at
    different times: what one reading shows, the next may lack.
    """
    import ray

    place = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    end = time.monotonic() + 120
    found = {}
    while time.monotonic() < end and not found.items() >= COUNTED.items():
        metrics.level("deep_piano_training_updates", 7)
        said = b""
        with suppress(OSError), urlopen(place, timeout=10) as answer:  # it may not be there yet
            said = answer.read()
        for line in said.decode().splitlines():
            if line.startswith("ray_deep_piano"):
                name, _, rest = line.partition("{")
                tags, _, value = rest.rpartition("} ")
                ours = [t for t in tags.split(",") if t.split("=")[0] in ("outcome", "where")]
                found[name, *ours] = float(value)
        time.sleep(0.5)
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_workers_log_as_json_with_the_same_ids(watched):
    records, _, _ = watched
    read = {r["recording"]: r for r in records if r.get("stage") == "prepare"}
    assert set(read) == {"0.mid", "1.mid", "2.mid", "bad.mid"}
    assert [r["event"] for r in read.values()].count("read") == 3
    assert read["bad.mid"]["event"] == "failed"
    assert "MidiError" in read["bad.mid"]["exc_text"]
    written = {(r["seed"], r["take"]) for r in records if r.get("event") == "written"}
    assert written == {("good.mid", 1), ("good.mid", 2)}
    known = {"asctime", "levelname", "message", "filename", "lineno", "process", "name"}
    assert all(record.keys() >= known | {"timestamp_ns", "node_id"} for record in read.values())


@pytest.mark.ray
@pytest.mark.slow
def test_prometheus_reads_what_became_of_recordings_and_pieces(watched):
    _, found, _ = watched
    found = {key: value for key, value in found.items() if "on_the_way" not in key[0]}
    assert found.pop(("ray_deep_piano_music_seconds_total",)) > 1
    assert found.pop(("ray_deep_piano_notes_total",)) > 0
    assert found == COUNTED
    assert {name for name, *_ in found} <= metrics.exported()


@pytest.mark.ray
@pytest.mark.slow
def test_every_piece_is_somewhere_until_none_is_left(watched):
    *_, levels = watched
    told = [(tags["where"], n) for name, n, tags in levels if name.endswith("on_the_way")]
    rounds = [dict(told[start : start + 5]) for start in range(0, len(told), 5)]
    assert all(len(one) == 5 and min(one.values()) >= 0 for one in rounds)
    sums = [sum(one.values()) for one in rounds]
    assert sums == sorted(sums, reverse=True)
    assert sums[0] == 4
    assert sums[-1] == 0
    assert any(one["composing"] for one in rounds)
    assert any(one["finishing"] for one in rounds)
