"""Where stages read and write, and what two runs of them must have in common."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_piano.errors import DeepPianoError
from deep_piano.infra.storage.open import open_folder
from tests.support.bucket import ENVIRONMENT


class Place:
    """A bucket, what stages are given in it, and the way to it that no fault disturbs."""

    def __init__(self, bed, settings):
        self.bucket, self.settings = bed.server.bucket(), settings
        self._server = bed.server

    def __enter__(self):
        self._patch = pytest.MonkeyPatch()
        for name, value in ENVIRONMENT.items():  # what this process reads it with
            self._patch.setenv(name, value)
        return self

    def __exit__(self, *_):
        self._patch.undo()

    def open(self, out):
        return open_folder(out, endpoint=self._server.endpoint, region="us-east-1")

    def put(self, folder, prefix):
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self._server.client.put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes())

    def names(self, out):
        with suppress(DeepPianoError):
            return {entry.name: entry.stamp for entry in self.open(out).entries()}
        return {}

    def holds(self, out, name):
        return name in self.names(out)

    def files(self, out):
        return {name: self.open(out).read_bytes(name) for name in self.names(out)}


def lasting(files):
    """Return what two runs must have in common: everything except durations."""
    return {
        name: _without_times(name.removeprefix("run/").removeprefix("pieces/"), data)
        for name, data in files.items()
        if not re.match(r"(run/)?(ray/|tensorboard/|history\.png$)", name)
    }


def _without_times(name, data):
    if name == "history.parquet":
        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
        return [row | {"hours": 0} for row in rows]
    if name == "run.json":  # of training or of pieces
        about = json.loads(data)
        about.get("dataset", {}).pop("uri", None)
        return about
    if name == "checkpoint/last/checkpoint.json":
        card = json.loads(data)
        for row in card["facts"]["history"]:
            row["hours"] = 0
        return card
    if name == "pieces.jsonl":
        return [json.loads(line) | {"wall_s": 0} for line in data.splitlines()]
    if name == "pieces.parquet":
        return [row | {"wall_s": 0} for row in pq.read_table(pa.BufferReader(data)).to_pylist()]
    return data
