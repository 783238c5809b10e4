"""The common style of all pictures: background, colours, time axis, title, file.

This module knows matplotlib's objects, not what they show. It needs no display; the same figure
gives the same bytes, whatever a user's matplotlibrc says.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import DeepPianoError, PictureError, one_line
from deep_piano.infra.caches import settle_libraries
from deep_piano.infra.storage.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Drawing = ParamSpec("Drawing")

PAPER, SHADE, FAINT, GREY, INK = "#fdfcf9", "#f4f1ea", "#dcd7cb", "#6f6a60", "#2b2b2b"
LINES = ("#0b3c6f", "#c04d05", "#2e7d4f", "#7b4b94", "#8a6d1d", "#b0305c")

# Softest and loudest shade of a colour, as red, green, blue from 0 to 1.
Shades = tuple[tuple[float, float, float], tuple[float, float, float]]
ORANGE: Shades = ((0.96, 0.80, 0.55), (0.78, 0.30, 0.02))
BLUE: Shades = ((0.66, 0.80, 0.90), (0.03, 0.19, 0.42))

_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
_MOST_TICKS = 20
_LONGEST_TITLE = 110


@contextmanager
def drawing() -> Iterator[None]:
    """Use matplotlib's defaults in the block, or in the decorated function.

    Raises
    ------
    PictureError
        When matplotlib cannot be loaded, or fails.
    """
    try:
        matplotlib = _load_matplotlib()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            yield
    except DeepPianoError:
        raise
    except Exception as error:
        raise PictureError(
            f"the picture could not be drawn: {type(error).__name__}: {error}"
        ) from error


def if_possible(draw: Callable[Drawing, None]) -> Callable[Drawing, None]:
    """Return a drawing function that logs a warning where the picture cannot be drawn."""

    @functools.wraps(draw)
    def drawn(*args: Drawing.args, **options: Drawing.kwargs) -> None:
        try:
            draw(*args, **options)
        except PictureError as error:
            logger.warning("%s. All else is kept.", one_line(error))

    return drawn


def _load_matplotlib() -> Any:
    """Import matplotlib without `MPLBACKEND`, which a notebook may have set."""
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    settle_libraries()
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before
    return matplotlib


def clock_ticks(end_s: float) -> tuple[NDArray[np.float64], list[str]]:
    """Return the ticks of a time axis, in seconds from 0, and their labels in minutes:seconds."""
    longer = (_TICK_STEPS_S[-1] << times for times in itertools.count(1))
    steps = itertools.chain(_TICK_STEPS_S, longer)
    step = next(step for step in steps if end_s / step <= _MOST_TICKS)
    ticks = np.arange(0, end_s + 1e-9, step)
    return ticks, [f"{int(t) // 60}:{int(t) % 60:02d}" for t in ticks]


def hide_spines(axes: Axes, *sides: str) -> None:
    """Remove the named sides of the frame."""
    for side in sides:
        axes.spines[side].set_visible(False)


def write_title(
    figure: Figure, title: str, *, x: float, y: float, fontsize: float = 15, color: str = INK
) -> None:
    """Write one line literally: names of files may hold any character."""
    line = " ".join(title.encode("utf-8", "replace").decode().split())  # no lone surrogates
    if len(line) > _LONGEST_TITLE:
        line = line[: _LONGEST_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"
    figure.text(x, y, line, fontsize=fontsize, color=color, va="baseline", parse_math=False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all.

    Raises
    ------
    InputError
        When the picture's folder cannot be written to.
    """
    metadata: dict[str, Any] = {"Software": None}  # the same bytes from the next release too
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png", metadata=metadata, facecolor=PAPER)
