"""Plots: the history of a training run, and the likelihoods of several models.

This module knows rows of figures. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_piano.report.style import (
    FAINT,
    GREY,
    INK,
    LINES,
    PAPER,
    drawing,
    hide_spines,
    save,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_POINTS = 12.0  # the height of a line's name


@drawing()
def history(path: Path, rows: Sequence[Mapping[str, float]], *, unit: str = "nats a note") -> None:
    """Draw the history of a training run.

    Parameters
    ----------
    path : Path
        Where the PNG is written, 1400 x 560 pixels, whole or not at all.
    rows : sequence of mapping
        One a validation, ascending: steps `seen`, `train_loss`, `validation_loss`, and
        `validation_FIELD` for each field.
    unit : str
        What the losses are measured in.

    Raises
    ------
    InputError
        When the picture's folder cannot be written to.
    PictureError
        When it cannot be drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5.6), dpi=100, facecolor=PAPER)
    fields = [
        name.removeprefix("validation_")
        for name in (rows[0] if rows else ())
        if name.startswith("validation_") and name != "validation_loss"
    ]
    curves = {unit: {"train": "train_loss", "validation": "validation_loss"}}
    if len(fields) > 1:  # one field is the whole
        curves["validation, by field"] = {name: f"validation_{name}" for name in fields}
    panels = figure.subplots(1, len(curves), gridspec_kw={"wspace": 0.3}, squeeze=False)[0]
    figure.subplots_adjust(left=0.06, right=0.935, bottom=0.13, top=0.86)
    for axes, (heading, columns) in zip(panels, curves.items(), strict=True):
        _draw_curves(axes, rows, columns)
        axes.set_title(heading, loc="left", fontsize=11, color=INK)
    best = min((row["validation_loss"] for row in rows), default=None)
    title = "Training" if best is None else f"Training: best validation {best:.3f} {unit}"
    write_title(figure, title, x=0.06, y=0.935)
    save(figure, path)


@drawing()
def likelihoods(
    path: Path,
    totals: Mapping[str, Mapping[str, float]],
    *,
    published: Mapping[str, float],
    unit: str,
) -> None:
    """Draw the losses of models on groups of recordings: a bar for each model, shorter is better.

    Parameters
    ----------
    path : Path
        Where the PNG is written, whole or not at all.
    totals : mapping of str to mapping of str to float
        Group to model to loss.
    published : mapping of str to float
        Figures of others, which were measured on other data: a group of their own.
    unit : str
        What the losses are measured in.
    """
    from matplotlib.figure import Figure

    groups = dict(totals) | ({"published,\nof other data": published} if published else {})
    rows = sum(len(losses) + 1 for losses in groups.values())
    height = 1.25 + 0.24 * rows
    figure = Figure(figsize=(12, height), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0.16, 0.62 / height, 0.81, 1 - 1.25 / height))
    axes.set_facecolor(PAPER)
    hide_spines(axes, "top", "right", "left")
    models = list(dict.fromkeys(model for group in totals.values() for model in group))
    colors = dict(zip(models, cycle(LINES), strict=False))
    y, middles = 0, []
    for losses in groups.values():
        middles.append(y + (len(losses) - 1) / 2)
        for model, loss in losses.items():
            axes.barh(y, loss, color=colors.get(model, GREY), height=0.9)
            text = f"  {model}  {loss:.3g}" if loss < 0.1 else f"  {model}  {loss:.3f}"
            axes.text(0, y, text, va="center", fontsize=8.5, color=PAPER)
            y += 1
        y += 1
    axes.set_yticks(middles, list(groups))
    axes.set_ylim(rows - 1, -1)
    axes.tick_params(colors=INK, length=0)
    axes.set_xlabel(unit, color=INK)
    write_title(figure, f"Held-out recordings: {unit}", x=0.16, y=1 - 0.42 / height)
    save(figure, path)


def _draw_curves(
    axes: Axes, rows: Sequence[Mapping[str, float]], columns: Mapping[str, str]
) -> None:
    """Draw a line for each column over the steps seen, with its name at the end."""
    axes.set_facecolor(PAPER)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("million steps seen", color=INK)
    axes.tick_params(colors=INK, length=3)
    hide_spines(axes, "top", "right")
    x = np.array([row["seen"] for row in rows]) / 1e6
    ends = []
    for (name, column), color in zip(columns.items(), LINES, strict=False):
        y = np.array([row.get(column, np.nan) for row in rows], float)
        axes.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=3)
        if len(y) and np.isfinite(y[-1]):
            ends.append((float(y[-1]), name, color))
    _name_ends(axes, x[-1] if len(x) else 0.0, ends)


def _name_ends(axes: Axes, x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names and values at the ends of lines, from the lowest up, none over another."""
    bottom, top = axes.get_ylim()
    scale = 72 * axes.get_window_extent().height / axes.figure.dpi / (top - bottom)  # points a unit
    lowest = -np.inf  # points: where the next name may stand at least
    for y, name, color in sorted(ends):
        height = max(y * scale, lowest)
        lowest = height + _NAME_POINTS
        axes.annotate(
            f"{name} {y:.2f}",
            (x, y),
            xytext=(6, height - y * scale),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=9.5,
        )
