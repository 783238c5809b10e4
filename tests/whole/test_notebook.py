"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "continue.ipynb"


def test_the_notebook_holds_no_output():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebook_runs(tmp_path, small_piano, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    shutil.copy(ROOT / "examples" / "seed.mid", tmp_path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = notebook.cells[1]
    assert "SOUND = None" in first.source
    first.source = first.source.replace("SOUND = None", f"SOUND = {str(small_piano)!r}")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    nbclient.NotebookClient(
        notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = notebook.cells[2].outputs[-1]["data"]["text/html"]
    assert "<img " in shown
    assert "<audio controls " in shown
    written = {path.name for path in tmp_path.iterdir()}
    assert {"piece.mp3", "piece.mid", "piece.json"} <= written
