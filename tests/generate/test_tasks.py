"""A task's error about an unreadable seed gives its name within the folder, and no other path."""

from __future__ import annotations

import pytest

from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import InputError
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.tasks import Run, read_seed
from deep_piano.infra.storage.open import open_folder
from tests.support.fakes import random_checkpoint


@pytest.mark.parametrize("kind", ["relative", "absolute", "s3"])
@pytest.mark.parametrize(
    ("name", "data"),
    [("deep/bad.mid", b"MThd no more"), ("bad.mid", b"letter"), ("gone.mid", None)],
)
def test_a_reason_names_the_seed_by_its_path_in_the_folder(
    desk, tmp_path, request, kind, name, data
):
    if kind == "s3":
        server = request.getfixturevalue("s3")
        uri = f"s3://{server.bucket()}/my/seeds"
        seeds = open_folder(uri, endpoint=server.endpoint)
    else:
        uri = "seeds" if kind == "relative" else str(tmp_path / "seeds")
        seeds = open_folder(uri)
    with seeds.write("good.mid") as path:
        path.write_bytes(b"")
    if data is not None:
        with seeds.write(name) as path:
            path.write_bytes(data)
    road = NoteRoad(random_checkpoint(), GenerateConfig(), mute=True)
    run = Run(seeds, open_folder(tmp_path / "out"), "mid", road)
    with pytest.raises(InputError) as caught:
        read_seed(run, name)
    said = str(caught.value)
    assert name in said
    assert not {"/" + name, str(tmp_path), "/tmp"} & set(said.replace(name, "").split())
    assert f"/{name}" not in said
    assert "seeds/" not in said
    assert "file.mid" not in said
