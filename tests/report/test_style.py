"""Pictures are the same whatever is set around them, and one that fails is said in a line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import matplotlib as mpl
import pytest

from deep_piano.errors import InputError, PictureError
from deep_piano.report import curves
from deep_piano.report.style import clock_ticks, drawing, if_possible

ROWS = [{"seen": 10, "train_loss": 3.0, "validation_loss": 2.0, "validation_pitch": 1.0}]
DRAW = """
import sys
from pathlib import Path
from deep_piano.music.notes import make_notes
from deep_piano.report.roll import piano_roll
notes = make_notes([0.0, 3.0], [1.0, 5.0], [60, 72], [80, 90])
piano_roll(Path(sys.argv[1]), notes, seconds=6, seed_seconds=2, title="a_1 and $x")
"""


def drawn(folder, **env):
    """Draw in a process of its own, in a folder; return the picture."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", DRAW, "roll.png"],
        cwd=folder, env={"HOME": str(folder)} | known | env, stderr=PIPE, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    return (folder / "roll.png").read_bytes()


def test_a_picture_is_the_same_whatever_a_user_has_set(tmp_path):
    plain = drawn(tmp_path)
    for backend in ("module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"):
        assert drawn(tmp_path, MPLBACKEND=backend) == plain
    for settings in ("text.usetex: True", "savefig.bbox: tight\nfont.size: 30\nbackend: TkAgg"):
        (tmp_path / "matplotlibrc").write_text(settings)
        assert drawn(tmp_path) == plain
    (tmp_path / "matplotlibrc").unlink()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "matplotlibrc").write_text("savefig.dpi: 300")
    assert drawn(tmp_path, MPLCONFIGDIR=str(tmp_path / "config")) == plain


def test_settings_are_put_back(tmp_path):
    with mpl.rc_context({"font.size": 30, "savefig.bbox": "tight"}):
        curves.history(tmp_path / "a.png", ROWS)
        assert (mpl.rcParams["font.size"], mpl.rcParams["savefig.bbox"]) == (30, "tight")
    curves.history(tmp_path / "b.png", ROWS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@drawing()
def draw(error):
    """Draw nothing."""
    raise error


def test_a_picture_that_fails_is_one_line_of_warning_where_that_will_do(caplog):
    error = RuntimeError("latex\nis missing")
    with pytest.raises(PictureError, match="RuntimeError: latex"):
        draw(error)
    assert caplog.records == []
    if_possible(draw)(error)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "could not be drawn: RuntimeError: latex\\nis missing. All else" in record.getMessage()
    with pytest.raises(InputError):  # of the folder, which all else needs as well
        if_possible(draw)(InputError("cannot write"))


@pytest.mark.parametrize("end_s", [0.5, 20, 21, 180, 3600, 12_000, 12_001, 86_400, 3e8, 1e15])
def test_a_time_axis_has_few_ticks_however_long_it_is(end_s):
    ticks, labels = clock_ticks(end_s)
    steps = set(ticks[1:] - ticks[:-1])
    assert len(ticks) == len(labels) <= 21
    assert ticks[0] == 0
    assert ticks[-1] <= end_s
    assert len(steps) <= 1
    assert end_s < 1 or len(ticks) > 8
    assert labels[0] == "0:00"
