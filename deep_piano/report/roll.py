"""The piano roll of a piece.

This module knows note arrays; it knows nothing of audio or models. The same input gives the same
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import note_name
from deep_piano.music.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes
from deep_piano.report.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PAPER,
    SHADE,
    Shades,
    clock_ticks,
    drawing,
    hide_spines,
    save,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROLL_INCHES = (18.0, 6.4)
"""Width and height of a piece's picture."""

ROLL_AXES = (0.052, 0.105, 0.935, 0.785)
"""Where in it the notes are, as shares: left, bottom, width, height."""

ROLL_LEFT = 0.012
"""Where in it the names of keys begin, left of the keyboard."""

_SEED, _CONTINUATION = ORANGE, BLUE
_BLACK_KEYS = (1, 3, 6, 8, 10)
_FEWEST_PITCHES = 48  # four octaves: a narrow piece is not blown up to look wide
_SHORTEST_BAR = 1 / 900  # of the picture's width: a note that can still be seen


@drawing()
def piano_roll(
    path: Path,
    notes: Notes,
    *,
    seconds: float,
    seed_seconds: float,
    new_until_s: float = math.inf,
    names: tuple[str, str] = ("seed", "continuation"),
    title: str,
    sections: Sequence[tuple[float, str]] = (),
) -> None:
    """Draw a piece: time to the right, pitch upward, the darker the louder.

    Parameters
    ----------
    path : Path
        Where the PNG is written, 1800 x 640 pixels, whole or not at all.
    notes : ndarray, dtype `NOTE`
        The piece, seed included.
    seconds : float
        How long the piece is: the width of `ROLL_AXES` in the picture.
    seed_seconds, new_until_s : float
        When what was made begins and ends. Notes that begin before are the seed, those that begin
        afterwards stay as they were: both have a colour of their own.
    names : tuple of str
        What that colour and the other one stand for.
    title : str
        One line.
    sections : sequence of (float, str)
        When each section begins, in seconds, and its name.

    Raises
    ------
    InputError
        When the picture's folder cannot be written to.
    PictureError
        When it cannot be drawn.
    """
    from matplotlib.figure import Figure

    low, high = pitch_range(notes)
    left, bottom, width, height = ROLL_AXES
    figure = Figure(figsize=ROLL_INCHES, dpi=100, facecolor=PAPER)
    axes = figure.add_axes(ROLL_AXES)
    given = (notes["onset"] < seed_seconds) | (notes["onset"] >= new_until_s)
    draw_roll(axes, notes, low=low, high=high, end_s=seconds, given=given)
    _mark_joins(axes, seed_seconds, new_until_s)
    _mark_sections(axes, sections)
    draw_keyboard(figure.add_axes((left - 0.022, bottom, 0.021, height)), low=low, high=high)
    _draw_legend(figure, given, names, right=left + width)
    write_title(figure, title, x=left, y=0.935)
    save(figure, path)


def draw_roll(
    axes: Axes,
    notes: Notes,
    *,
    low: int,
    high: int,
    end_s: float,
    given: NDArray[np.bool_] | None = None,
) -> None:
    """Draw notes on ruled paper into given axes.

    Parameters
    ----------
    axes : Axes
        Empty; its limits are set.
    notes : ndarray, dtype `NOTE`
        The notes; those outside the limits are not drawn.
    low, high : int
        Pitches of the lowest and the highest row, as of `pitch_range`.
    end_s : float
        Where the paper ends.
    given : ndarray of bool, shape (n,), optional
        Which notes are in the seed's colour; none unless given.
    """
    from matplotlib.collections import PolyCollection

    axes.set_facecolor(PAPER)
    axes.set_xlim(0, end_s)
    axes.set_ylim(low - 0.5, high + 0.5)
    _rule_paper(axes, low, high, end_s)
    seed = np.zeros(len(notes), bool) if given is None else given
    bars = PolyCollection(
        list(_bars(notes, shortest_s=end_s * _SHORTEST_BAR)),
        facecolors=np.where(
            seed[:, None], _shades(_SEED, notes), _shades(_CONTINUATION, notes)
        ).tolist(),
        edgecolors=PAPER,
        linewidths=0.3,
        zorder=3,
    )
    axes.add_collection(bars, autolim=False)


def _mark_joins(axes: Axes, *joins_s: float) -> None:
    """Draw a dashed line within the paper where what was made begins, and where it ends."""
    for join_s in joins_s:
        if 0 < join_s < axes.get_xlim()[1]:
            axes.axvline(join_s, color=_SEED[1], linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)


def _mark_sections(axes: Axes, sections: Sequence[tuple[float, str]]) -> None:
    """Draw a line where each section begins, and its name at the top."""
    for start_s, name in sections:
        axes.axvline(start_s, color=INK, linewidth=0.9, zorder=2)
        axes.annotate(
            name,
            (start_s, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -5),
            textcoords="offset points",
            verticalalignment="top",
            parse_math=False,
            fontsize=11,
            color=INK,
            zorder=4,
        )


def draw_keyboard(axes: Axes, *, low: int, high: int) -> None:
    """Draw the keys from `low` to `high` into given axes, left of a roll, with a name on each C."""
    from matplotlib.collections import PolyCollection

    axes.set_facecolor("white")
    axes.set_xlim(0, 1)
    axes.set_ylim(low - 0.5, high + 0.5)
    black = [p for p in range(low, high + 1) if p % 12 in _BLACK_KEYS]
    corners = [[(0, p - 0.5), (0, p + 0.5), (0.62, p + 0.5), (0.62, p - 0.5)] for p in black]
    # White keys meet at B|C and E|F, and in the middle of each black key.
    joints = [p - 0.5 for p in range(low, high + 1) if p % 12 in (0, 5)]
    axes.hlines([*joints, *black], 0, 1, colors="#b9b4a8", linewidths=0.6)
    axes.add_collection(PolyCollection(corners, facecolors=INK, zorder=3), autolim=False)
    cs = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.set_yticks(cs, [note_name(c) for c in cs])
    axes.set_xticks([])
    axes.tick_params(length=0, colors=INK, labelsize=10)
    for spine in axes.spines.values():
        spine.set_color("#b9b4a8")


def pitch_range(notes: Notes) -> tuple[int, int]:
    """Return the lowest and highest pitch to show: those used and a little air."""
    low = int(notes["pitch"].min(initial=HIGHEST_PITCH)) - 2
    high = int(notes["pitch"].max(initial=LOWEST_PITCH)) + 2
    if low > high:
        low, high = LOWEST_PITCH, HIGHEST_PITCH
    missing = max(0, _FEWEST_PITCHES - (high - low))
    low = max(LOWEST_PITCH, low - missing // 2)
    high = min(HIGHEST_PITCH, max(high, low + _FEWEST_PITCHES))
    return min(low, high - _FEWEST_PITCHES), high


def _bars(notes: Notes, *, shortest_s: float) -> NDArray[np.float64]:
    """Return the corners of each note's bar: (n, 4, 2), time and pitch."""
    left, pitch = notes["onset"], notes["pitch"].astype(float)
    right = np.maximum(notes["offset"], left + shortest_s)
    bottom, top = pitch - 0.46, pitch + 0.46
    x = np.stack([left, left, right, right], axis=1)
    y = np.stack([bottom, top, top, bottom], axis=1)
    return np.stack([x, y], axis=2)


def _shades(ends: Shades, notes: Notes) -> NDArray[np.float64]:
    """Return a colour a note, (n, 3), from the softest shade to the loudest."""
    soft, loud = np.array(ends[0]), np.array(ends[1])
    # Most playing lies between 25 and 105; spending the shades there tells touches apart.
    weight = np.clip((notes["velocity"].astype(float) - 25) / 80, 0, 1)[:, None]
    return soft + (loud - soft) * weight


def _rule_paper(axes: Axes, low: int, high: int, end_s: float) -> None:
    """Draw rows for black keys, a line below each C, and the time axis in minutes and seconds."""
    from matplotlib.collections import PolyCollection

    rows = [pitch for pitch in range(low, high + 1) if pitch % 12 in _BLACK_KEYS]
    corners = [[(0, p - 0.5), (0, p + 0.5), (end_s, p + 0.5), (end_s, p - 0.5)] for p in rows]
    axes.add_collection(PolyCollection(corners, facecolors=SHADE), autolim=False)
    cs = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.hlines([c - 0.5 for c in cs], 0, end_s, colors=FAINT, linewidths=0.8, zorder=1)
    ticks, labels = clock_ticks(end_s)
    axes.set_xticks(ticks, labels)
    axes.vlines(ticks[1:], low - 0.5, high + 0.5, colors=FAINT, linewidths=0.5, zorder=1)
    axes.set_yticks([])
    axes.tick_params(length=3, colors=INK, labelsize=10)
    hide_spines(axes, "top", "right", "left")
    axes.spines["bottom"].set_color(FAINT)


def _draw_legend(
    figure: Figure, given: NDArray[np.bool_], names: tuple[str, str], *, right: float
) -> None:
    """Name the two parts at the upper right, with a swatch from soft to loud each."""
    parts = [
        (names[1], _CONTINUATION, not given.all()),
        (names[0], _SEED, bool(given.any())),
    ]
    for name, ends, present in parts:
        if not present:
            continue
        text_width = 0.0056 * len(name)
        swatch = figure.add_axes((right - text_width - 0.036, 0.936, 0.030, 0.022))
        ramp = np.linspace(0, 1, 24)[:, None]
        soft, loud = np.array(ends[0]), np.array(ends[1])
        swatch.imshow((soft + (loud - soft) * ramp)[None], aspect="auto")
        swatch.set_axis_off()
        figure.text(right - text_width, 0.9465, name, fontsize=10.5, va="center", color=INK)
        right -= text_width + 0.052
