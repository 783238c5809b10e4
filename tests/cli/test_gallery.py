"""`gallery` at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from deep_piano.generate.records import Record, Records, require_same_run, write_manifest
from deep_piano.infra.storage.open import open_folder
from tests.support.commands import made, refused, run


@pytest.fixture(autouse=True)
def folders(desk):
    for name in ("a", "b"):
        folder = open_folder(name)
        require_same_run(folder, {"checkpoint_sha256": name}, force=False)
        write_manifest(folder, Records([Record("seed.mp3", 1, "done")]))


def test_a_page_is_made_anew_or_elsewhere():
    assert made(run("gallery", "a/")) == "a/index.html\n"
    assert "seed.mp3" in Path("a/index.html").read_text()
    made(run("gallery", "a/"))
    assert made(run("gallery", "a", "b", "-o", "both.html")) == "both.html\n"
    assert '"name":"b"' in Path("both.html").read_text()
    refused(run("gallery", "a", "b", "-o", "both.html"), "already exists", "--force")
    made(run("gallery", "a", "-o", "both.html", "--force"))
    assert '"name":"b"' not in Path("both.html").read_text()


def test_what_makes_no_page_is_refused():
    refused(run("gallery", "a", "b"), "several folders need one page", "-o")
    refused(run("gallery", "a", "--single-file"), "needs a name of its own", "-o")
    refused(run("gallery", "none"), "none holds no pieces")
    Path("empty").mkdir()
    refused(run("gallery", "empty"), "holds no pieces", "deep-piano generate")
    refused(run("gallery", "a", "s3://music/b", "-o", "p.html"), "not on this machine")
    assert not Path("p.html").exists()
