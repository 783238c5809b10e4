from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deep_piano.analysis.keys import note_name
from deep_piano.errors import InputError
from deep_piano.music.notes import NOTE, make_notes
from deep_piano.report.curves import history, likelihoods
from deep_piano.report.roll import ROLL_AXES, piano_roll

EMPTY = np.empty(0, NOTE)
SEED_COLOUR, CONTINUATION_COLOUR = (198, 77, 5), (8, 48, 107)


@pytest.fixture
def piece(rng):
    onset = np.sort(rng.uniform(0, 60, 300))
    pitch, velocity = rng.integers(30, 90, 300), rng.integers(20, 120, 300)
    return make_notes(onset, onset + 0.5, pitch, velocity)


@pytest.fixture
def rows():
    return [
        {
            "step": step,
            "seen": 4096 * step,
            "train_loss": 12.0 - step / 1000,
            "validation_loss": 12.5 - step / 1000,
            "validation_onset": 3.0,
            "validation_pitch": 4.0 - step / 1000,
        }
        for step in (500, 1000, 1500)
    ]


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def count(image, colour):
    return int((np.abs(image.astype(int) - colour).max(axis=2) <= 6).sum())


def test_a_piano_roll_tells_seed_and_continuation_apart(tmp_path):
    loud = make_notes([0.0, 5.0], [4.0, 9.0], [60, 64], [120, 120])
    path = tmp_path / "roll.png"
    piano_roll(path, loud, seconds=9.0, seed_seconds=5.0, title="two notes")
    image = pixels(path)
    assert image.shape == (640, 1800, 3)
    body = image[80:560, 100:1770]
    assert count(body, SEED_COLOUR) > 2000
    assert count(body, CONTINUATION_COLOUR) > 2000
    # Higher is further up, later is further right.
    seed = np.argwhere(np.abs(body.astype(int) - SEED_COLOUR).max(axis=2) <= 6)
    rest = np.argwhere(np.abs(body.astype(int) - CONTINUATION_COLOUR).max(axis=2) <= 6)
    assert np.median(seed, axis=0)[0] > np.median(rest, axis=0)[0]
    assert np.median(seed, axis=0)[1] < np.median(rest, axis=0)[1]


def test_what_stays_after_a_span_has_the_colour_of_what_stays_before_it(tmp_path):
    notes = make_notes([0.0, 4.0, 7.9, 8.0], [3.0, 7.0, 8.0, 11.0], [60, 64, 64, 67], [120] * 4)
    span = {"seed_seconds": 4.0, "new_until_s": 8.0, "names": ("kept", "made anew")}
    piano_roll(tmp_path / "fill.png", notes, seconds=12.0, title="", **span)
    body = pixels(tmp_path / "fill.png")[80:560, 94:1777]
    coloured = [
        np.argwhere(np.abs(body.astype(int) - colour).max(axis=2) <= 6)[:, 1] / body.shape[1] * 12
        for colour in (SEED_COLOUR, CONTINUATION_COLOUR)
    ]
    assert ((coloured[0] < 4.1) | (coloured[0] > 7.9)).all()
    assert (coloured[0] > 8.1).mean() > 0.4
    assert coloured[1].min() > 3.9
    assert coloured[1].max() < 8.1


def test_the_axes_are_where_they_are_said_to_be_and_as_long_as_the_piece(tmp_path):
    path = tmp_path / "roll.png"
    piano_roll(
        path, make_notes([30.0], [60.0], [60], [127]), seconds=120.0, seed_seconds=0, title=""
    )
    image = pixels(path)
    left, bottom, width, height = ROLL_AXES
    found = np.argwhere(np.abs(image.astype(int) - CONTINUATION_COLOUR).max(axis=2) <= 6)
    rows = found[(found[:, 0] > 640 * (1 - bottom - height)) & (found[:, 0] < 640 * (1 - bottom))]
    ends = (rows[:, 1].min() / 1800 - left) / width, (rows[:, 1].max() / 1800 - left) / width
    assert ends == pytest.approx((0.25, 0.5), abs=0.002)


def test_a_louder_note_is_darker(tmp_path):
    means = []
    for velocity in (20, 60, 110):
        path = tmp_path / f"{velocity}.png"
        notes = make_notes([0.0], [10.0], [60], [velocity])
        piano_roll(path, notes, seconds=10.0, seed_seconds=0.0, title="")
        means.append(pixels(path)[80:560, 100:1770].mean())
    assert means[0] > means[1] > means[2]


def test_without_a_seed_nothing_is_in_its_colour(tmp_path, piece):
    path = tmp_path / "roll.png"
    piano_roll(path, piece, seconds=180.0, seed_seconds=0.0, title="only new")
    assert count(pixels(path), SEED_COLOUR) == 0


def test_the_same_piece_is_the_same_bytes(tmp_path, piece):
    for name in ("a.png", "b.png"):
        piano_roll(tmp_path / name, piece, seconds=180.0, seed_seconds=10.0, title="piece")
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in first.lower()


@pytest.mark.parametrize(
    ("notes", "seconds", "seed_seconds"),
    [
        (EMPTY, 5.0, 0.0),
        (EMPTY, 15.0, 10.0),
        (make_notes([0.0], [0.001], [21], [1]), 15.0, 10.0),
        (make_notes([0.0, 3599.0], [1.0, 3600.0], [21, 108], [127, 127]), 3600.0, 60.0),
    ],
)
def test_the_ends_of_what_can_be_drawn(tmp_path, notes, seconds, seed_seconds):
    path = tmp_path / "roll.png"
    piano_roll(path, notes, seconds=seconds, seed_seconds=seed_seconds, title="ends")
    assert pixels(tmp_path / "roll.png").shape == (640, 1800, 3)


@pytest.mark.parametrize("title", ["", "$x_1$ \\frac {", "日本の曲.mp3", "a\nb\tc", "long " * 100])
def test_any_title_is_drawn_as_it_is(tmp_path, piece, title):
    piano_roll(tmp_path / "roll.png", piece, seconds=180.0, seed_seconds=10.0, title=title)
    assert (tmp_path / "roll.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path, piece):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write to"):
        piano_roll(
            tmp_path / "file" / "roll.png", piece, seconds=180.0, seed_seconds=10.0, title=""
        )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_history_draws_every_row(tmp_path, rows):
    history(tmp_path / "history.png", rows)
    image = pixels(tmp_path / "history.png")
    assert image.shape == (560, 1400, 3)
    first = (tmp_path / "history.png").read_bytes()
    history(tmp_path / "again.png", rows)
    assert (tmp_path / "again.png").read_bytes() == first
    history(tmp_path / "shorter.png", rows[:2])
    assert (tmp_path / "shorter.png").read_bytes() != first


@pytest.mark.parametrize("how_many", [0, 1])
def test_a_history_may_be_young(tmp_path, rows, how_many):
    history(tmp_path / "history.png", rows[:how_many])
    assert pixels(tmp_path / "history.png").shape == (560, 1400, 3)


def test_a_history_may_have_gaps(tmp_path, rows):
    rows[1]["train_loss"] = float("nan")
    del rows[2]["validation_onset"]
    history(tmp_path / "history.png", rows)
    assert (tmp_path / "history.png").is_file()


def test_names_at_the_ends_of_lines_do_not_stand_over_one_another(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("deep_piano.report.curves.save", lambda figure, path: drawn.append(figure))
    drawn = []
    for row in rows:
        row |= {"validation_onset": 2.0, "validation_pitch": 2.001, "validation_velocity": 2.0}
    history(tmp_path / "history.png", rows)
    [figure] = drawn
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.axes[1].texts), key=lambda b: b.y0)
    assert len(boxes) >= 3
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in itertools.pairwise(boxes))


def test_a_history_of_one_field_has_one_panel(tmp_path, monkeypatch):
    monkeypatch.setattr("deep_piano.report.curves.save", lambda figure, path: drawn.append(figure))
    drawn = []
    row = {"seen": 1e6, "train_loss": 2.0, "validation_loss": 2.1, "validation_sample": 2.1}
    history(tmp_path / "history.png", [row, row | {"seen": 2e6}])
    assert len(drawn[0].axes) == 1


@pytest.mark.parametrize(("pitch", "name"), [(21, "A0"), (60, "C4"), (61, "C#4"), (108, "C8")])
def test_note_names(pitch, name):
    assert note_name(pitch) == name


def test_drawing_loads_no_pyplot(tmp_path):
    program = (
        "import sys; from pathlib import Path; from deep_piano.music.notes import make_notes\n"
        "from deep_piano.report.roll import piano_roll\n"
        "assert 'matplotlib' not in sys.modules\n"
        "notes = make_notes([0], [1], [60], [80])\n"
        "piano_roll(Path(sys.argv[1]), notes, seconds=5, seed_seconds=1, title='')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "roll.png")], check=True, cwd=root
    )


@pytest.mark.parametrize("groups", [1, 7])
def test_likelihoods_are_drawn_for_every_group(tmp_path, groups):
    totals = {f"corpus {n}": {"mine": 10.0 + n, "chain": 13.5, "tiny": 1e-5} for n in range(groups)}
    picture = tmp_path / "l.png"
    likelihoods(picture, totals, published={"another": 8.13}, unit="nats a note")
    image = pixels(picture)
    assert image.shape[1] == 1200
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    first = picture.read_bytes()
    likelihoods(picture, totals, published={}, unit="nats a note")
    assert picture.read_bytes() != first


def test_sections_are_marked_where_they_begin(tmp_path, piece):
    paths = tmp_path / "plain.png", tmp_path / "marked.png"
    piano_roll(paths[0], piece, seconds=60.0, seed_seconds=5.0, title="mine")
    sections = [(0.0, "A"), (30.0, "B, $x_{")]
    piano_roll(paths[1], piece, seconds=60.0, seed_seconds=5.0, title="mine", sections=sections)
    changed = (pixels(paths[0]) != pixels(paths[1])).any(2).mean(0)
    left, _, width, _ = ROLL_AXES
    middle = round(1800 * (left + width / 2))
    assert changed[middle - 2 : middle + 3].max() > 0.3
    assert changed[middle - 200 : middle - 3].max() == 0
