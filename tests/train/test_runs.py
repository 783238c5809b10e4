from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_piano.errors import InputError
from deep_piano.infra.storage.open import open_folder
from deep_piano.train import runs

ROW = {"seen": 4096, "hours": 0.5, "train_loss": 11.0, "train_rate": 0.003}


def write(folder, name, found, *, digest="ab" * 32):
    run = open_folder(folder).inner(name)
    settings = {"preset": "tiny", "batch": 8, "window": 16, "learning_rate": 0.003}
    codec = {"codec": "notes-2"}
    about = {"settings": settings, "dataset": {"digest": digest, "codec": codec}}
    runs.write_about(run, about)
    rows = [
        {"step": 10 * n, **ROW, "validation_loss": loss, "validation_pitch": loss}
        for n, loss in enumerate(found, 1)
    ]
    if rows:
        runs.write_history(run, rows, unit="nats a note")
    return rows


def test_a_history_comes_back(tmp_path):
    rows = write(tmp_path, "one", [12.0, 11.5])
    assert runs.read_history(open_folder(tmp_path / "one")) == rows
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        *("history.parquet", "history.png", "run.json", "tensorboard"),
    ]


def test_a_picture_never_costs_a_training(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("deep_piano.report.curves._draw_curves", fail)
    rows = write(tmp_path, "one", [12.0])
    assert runs.read_history(open_folder(tmp_path / "one")) == rows
    assert (tmp_path / "one" / "tensorboard").exists()
    assert not (tmp_path / "one" / "history.png").exists()
    [record] = caplog.records
    assert "no fonts" in record.getMessage()


def test_a_run_is_begun_once(tmp_path):
    write(tmp_path, "one", [12.0])
    with pytest.raises(InputError, match=r"run\.json appeared"):
        write(tmp_path, "one", [11.0])


def test_tensorboard_can_read_its_log(tmp_path):
    write(tmp_path, "one", [12.0, 11.5])
    from tensorboardX.proto.event_pb2 import Event

    [path] = (tmp_path / "one" / "tensorboard").iterdir()
    data, found = path.read_bytes(), {}
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
        data = data[16 + size :]
    assert found[10, "validation/loss"] == 12.0
    assert found[20, "validation/pitch"] == 11.5
    assert found[20, "train/loss"] == 11.0


def test_the_best_run_is_named(tmp_path):
    write(tmp_path, "good", [12.0, 11.0, 11.2])
    write(tmp_path, "better", [13.0, 10.5])
    write(tmp_path, "young", [])
    (tmp_path / "no run").mkdir()
    found = runs.find_runs(open_folder(tmp_path))
    assert [run.name for run in found] == ["better", "good", "young"]
    lines = runs.table(found).splitlines()
    assert len(lines) == 5
    assert "| 11.0000 | 20 | 30 |" in lines[3]
    best = runs.best_run(found)
    runs.name_best(open_folder(tmp_path), best)
    assert json.loads((tmp_path / "best.json").read_text())["run"] == "better"


def test_runs_of_different_datasets_are_not_compared(tmp_path):
    write(tmp_path, "one", [12.0])
    write(tmp_path, "other", [2.0], digest="cd" * 32)
    assert runs.best_run(runs.find_runs(open_folder(tmp_path))) is None


def test_runs_of_different_batches_are_validated_on_other_recordings(tmp_path):
    write(tmp_path, "one", [12.0])
    write(tmp_path, "other", [2.0])
    about = json.loads((tmp_path / "other/run.json").read_text())
    about["settings"]["batch"] += 1
    (tmp_path / "other/run.json").write_text(json.dumps(about))
    assert runs.best_run(runs.find_runs(open_folder(tmp_path))) is None


def test_runs_that_were_never_validated_have_no_best(tmp_path):
    write(tmp_path, "one", [])
    assert runs.best_run(runs.find_runs(open_folder(tmp_path))) is None


def test_runs_in_s3_are_compared_too(s3):
    folder = open_folder(f"s3://{s3.bucket()}/runs")
    for name, loss in (("one", 12.0), ("other", 11.0)):
        write(folder.uri, name, [loss])
    assert [run.name for run in runs.find_runs(folder)] == ["other", "one"]


def test_a_folder_without_runs_and_a_broken_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        runs.find_runs(open_folder(tmp_path))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json is broken"):
        runs.find_runs(open_folder(tmp_path))


def test_the_network_is_shown_where_it_is_known(tmp_path):
    write(tmp_path, "old", [12.0])
    write(tmp_path, "tuned", [11.0])
    run = open_folder(tmp_path / "tuned")
    network = {"layers": 4, "units": 640, "head_units": 384}
    runs.write_about(run, runs.read_about(run) | {"network": network}, replace=True)
    head, _, tuned, old = runs.table(runs.find_runs(open_folder(tmp_path))).splitlines()
    assert head.startswith("| run | dataset | layers x units |")
    assert "| 4 x 640 | 11.0000 |" in tuned
    assert "| tiny | 12.0000 |" in old


@pytest.mark.parametrize("part", ["settings", "dataset"])
@pytest.mark.parametrize("wrong", [None, [], "a\nb", {}])
def test_a_run_of_another_shape_is_named(tmp_path, part, wrong):
    write(tmp_path, "one", [12.0])
    about = runs.read_about(open_folder(tmp_path / "one"))
    (tmp_path / "one" / runs.RUN).write_text(json.dumps(about | {part: wrong}))
    with pytest.raises(InputError, match=rf"run.json is broken: {part}") as raised:
        runs.find_runs(open_folder(tmp_path))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("damage", ["cut", "a column less", "text for a number"])
def test_a_broken_history_is_named(tmp_path, damage):
    rows = write(tmp_path, "one", [12.0, 11.0])
    path = tmp_path / "one" / "history.parquet"
    if damage == "cut":
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes(40) + data[80:])
    else:
        wrong = {"seen": "many"} if damage == "text for a number" else {}
        rows = [{k: v for k, v in row.items() if k != "seen"} | wrong for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError, match=r"history.parquet is broken"):
        runs.find_runs(open_folder(tmp_path))
