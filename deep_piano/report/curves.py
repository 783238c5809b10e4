"""Plots: the history of a training run, and the likelihoods of several models.

This module knows rows of figures. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_piano.report.style import (
    FAINT,
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
    whole, parts = figure.subplots(1, 2, gridspec_kw={"wspace": 0.3})
    figure.subplots_adjust(left=0.06, right=0.935, bottom=0.13, top=0.86)
    fields = [
        name.removeprefix("validation_")
        for name in (rows[0] if rows else ())
        if name.startswith("validation_") and name != "validation_loss"
    ]
    _draw_curves(whole, rows, {"train": "train_loss", "validation": "validation_loss"})
    _draw_curves(parts, rows, {name: f"validation_{name}" for name in fields})
    whole.set_title(unit, loc="left", fontsize=11, color=INK)
    parts.set_title("validation, by field", loc="left", fontsize=11, color=INK)
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
        Figures of others, drawn as lines across all groups.
    unit : str
        What the losses are measured in.
    """
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(model for group in totals.values() for model in group))
    height = 1.6 + 0.24 * (len(totals) * (len(models) + 1) + len(published))
    figure = Figure(figsize=(12, height), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0.16, 0.62 / height, 0.81, 1 - 1.25 / height))
    axes.set_facecolor(PAPER)
    hide_spines(axes, "top", "right", "left")
    for number, losses in enumerate(totals.values()):
        for place, model in enumerate(models):
            if model not in losses:
                continue
            y = number * (len(models) + 1) + place
            axes.barh(y, losses[model], color=LINES[place % len(LINES)], height=0.9)
            text = (
                f"{model}  {losses[model]:.3g}"
                if losses[model] < 0.1
                else (f"{model}  {losses[model]:.3f}")
            )
            axes.text(0, y, f"  {text}", va="center", fontsize=8.5, color=PAPER)
    for row, (name, value) in enumerate(published.items(), 1):
        axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        label = f" {name}  {value:.3f}"
        axes.text(value, -row, label, fontsize=8.5, color=INK, va="center", backgroundcolor=PAPER)
    middle = (len(models) - 1) / 2
    axes.set_yticks([n * (len(models) + 1) + middle for n in range(len(totals))], list(totals))
    axes.set_ylim(len(totals) * (len(models) + 1) - 1, -1 - len(published))
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
    for (name, column), color in zip(columns.items(), LINES, strict=False):
        y = np.array([row.get(column, np.nan) for row in rows], float)
        axes.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=3)
        if len(y) and np.isfinite(y[-1]):
            axes.annotate(
                f"{name} {y[-1]:.2f}",
                (x[-1], y[-1]),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=color,
                fontsize=9.5,
            )
