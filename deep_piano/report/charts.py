"""The pictures of `inspect`: the histograms of a dataset, and one recording from wave to notes.

This module knows the manifest's content, samples, note arrays and descriptors; it reads no file.
The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import PITCH_CLASSES, keys_by_fifths
from deep_piano.errors import one_line
from deep_piano.music.audio import Samples
from deep_piano.music.notes import Notes
from deep_piano.report.card import (
    HISTOGRAM_TITLES,
    Row,
    edge_labels,
    feature_rows,
    show,
    step_name,
)
from deep_piano.report.roll import draw_keyboard, draw_roll, pitch_range
from deep_piano.report.spectra import (
    CHROMA_RANGE_DB,
    MEL_RANGE_DB,
    chroma_image,
    envelope,
    mel_image,
    mel_rows,
)
from deep_piano.report.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    PAPER,
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

    from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
    from deep_piano.dataset.manifest import Amount, Distribution, Manifest

# Of a recording's picture, in pixels.
_WIDTH, _LEFT, _RIGHT = 1600, 84, 24
_COLUMNS = _WIDTH - _LEFT - _RIGHT
_TITLE, _FACTS, _CAPTION, _FOOT = 52, 68, 34, 34
_ROLL = 400
_MOST_FACTS = 11  # in a row

_QUIETEST_PEAK = 1e-4
_MEL_TICKS_HZ = (250, 500, 1000, 2000, 4000)


@drawing()
def dataset_charts(path: Path, manifest: Manifest) -> None:
    """Draw the keys, the splits and the histograms of a dataset.

    Parameters
    ----------
    path : Path
        Where the PNG is written, 1600 x 900 pixels, whole or not at all.
    manifest : Manifest

    Raises
    ------
    InputError
        When the picture's folder cannot be written to.
    PictureError
        When it cannot be drawn.
    """
    from matplotlib.figure import Figure

    totals, summary = manifest.totals, manifest.summary
    figure = Figure(figsize=(16, 9), dpi=100, facecolor=PAPER)
    _draw_keys(figure.add_axes((0.05, 0.53, 0.56, 0.31)), summary.key)
    _draw_splits(figure.add_axes((0.72, 0.53, 0.26, 0.31)), totals.splits, unit=step_name(manifest))
    for place, name in enumerate(HISTOGRAM_TITLES):
        axes = figure.add_axes((0.05 + 0.24 * place, 0.08, 0.205, 0.31))
        _draw_histogram(axes, name, summary.distribution(name))
    title = (
        f"{totals.recordings:,} recordings, {totals.duration_s / 3600:,.1f} hours, "
        f"{totals.steps:,} {step_name(manifest)}"
    )
    write_title(figure, title, x=0.05, y=0.945)
    corpus = one_line(manifest.corpus.uri)
    write_title(figure, corpus, x=0.05, y=0.918, fontsize=10.5, color=GREY)
    save(figure, path)


@drawing()
def recording_charts(
    path: Path,
    samples: Samples | None,
    sr: int,
    notes: Notes | None,
    *,
    title: str,
    audio_features: AudioFeatures | None = None,
    note_features: NoteFeatures | None = None,
    mark_s: float = 0.0,
) -> None:
    """Draw one recording over one time axis: wave, mel spectrogram, chroma, piano roll.

    Parameters
    ----------
    path : Path
        Where the PNG is written, 1600 pixels wide, whole or not at all.
    samples : ndarray, shape (n,), dtype float32, or None
        Mono, full scale 1.0; None of a MIDI file.
    sr : int
        Their sampling rate in Hz.
    notes : ndarray, dtype `NOTE`, or None
        None where they are not known.
    title : str
        One line.
    audio_features, note_features : AudioFeatures and NoteFeatures, optional
        Descriptors to write above the picture.
    mark_s : float
        A time to mark, as the end of a seed; 0: none.

    Raises
    ------
    InputError
        When the picture's folder cannot be written to.
    PictureError
        When it cannot be drawn.
    """
    from matplotlib.figure import Figure

    sound_s = 0.0 if samples is None else len(samples) / sr
    end_s = max(sound_s, 1.0 if notes is None else float(notes["offset"].max(initial=1.0)))
    panels: list[tuple[str, int, Callable[[Axes], None]]] = []
    if samples is not None and len(samples):
        columns = max(1, round(_COLUMNS * sound_s / end_s))  # one a pixel
        panels = [
            (caption, tall, partial(draw, samples=samples, sr=sr, columns=columns))
            for caption, tall, draw in _OF_SOUND
        ]
    if notes is not None:
        low, high = pitch_range(notes)
        roll = partial(draw_roll, notes=notes, low=low, high=high, end_s=end_s)
        panels.append(("Notes, the darker the louder", _ROLL, roll))
    facts = [rows for _, rows in feature_rows(audio_features, note_features) if rows]
    height = _TITLE + _FACTS * len(facts) + sum(_CAPTION + tall for _, tall, _ in panels) + _FOOT
    figure = Figure(figsize=(_WIDTH / 100, height / 100), dpi=100, facecolor=PAPER)
    write_title(figure, one_line(title), x=_LEFT / _WIDTH, y=1 - 38 / height)
    y = height - _TITLE
    for rows in facts:
        _write_facts(figure, rows, top=y)
        y -= _FACTS
    for caption, tall, draw in panels:
        y -= _CAPTION + tall
        axes = figure.add_axes(_rectangle(figure, _LEFT, y, _COLUMNS, tall))
        draw(axes)
        axes.set_xlim(0, end_s)
        if mark_s > 0:
            axes.axvline(mark_s, color=ORANGE[1], linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
        _finish_panel(axes, caption, end_s, last=y <= _FOOT)
    if notes is not None:
        keyboard = figure.add_axes(_rectangle(figure, _LEFT - 36, _FOOT, 34, _ROLL))
        draw_keyboard(keyboard, low=low, high=high)
    save(figure, path)


def _draw_keys(axes: Axes, counts: Mapping[str, int]) -> None:
    """Draw each major key beside its relative minor, by fifths."""
    _prepare(axes, "Keys by fifths, each major beside its relative minor")
    if not counts:
        return _say_unknown(axes)
    rows, others = keys_by_fifths(counts)
    x = np.arange(len(rows))
    for side, shades, mode in ((0, BLUE, "major"), (1, ORANGE, "minor")):
        tall = [row[side][1] for row in rows]
        place = x - 0.2 + 0.4 * side
        axes.bar(place, tall, width=0.38, color=shades[1], label=mode, zorder=2)
    labels = [
        "\n".join(name.replace(" major", "").replace(" minor", "m") for name, _ in row)
        for row in rows
    ]
    axes.set_xticks(x, labels)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    _count_from_zero(axes, max(max(count for _, count in row) for row in rows))
    legend = axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=10
    )
    for text in legend.get_texts():
        text.set_color(INK)
    if others:
        axes.set_xlabel(f"and {others:,} without a key", color=GREY, loc="right", fontsize=9.5)


def _draw_splits(axes: Axes, splits: Mapping[str, Amount], *, unit: str) -> None:
    """Draw a bar for each split, as long as its hours."""
    _prepare(axes, "Splits, by hours")
    known = [name for name in ("train", "validation", "test") if name in splits]
    names = known + sorted(set(splits) - set(known))
    hours = [splits[name].duration_s / 3600 for name in names]
    y = np.arange(len(names))
    axes.barh(y, hours, height=0.42, color=[BLUE[1], BLUE[0], ORANGE[1]][: len(names)], zorder=2)
    for place, name in zip(y, names, strict=True):
        split = splits[name]
        axes.annotate(
            f"{split.duration_s / 3600:,.2f} h, {split.recordings:,} recordings, "
            f"{split.steps:,} {unit}",
            (0, place - 0.29),
            xytext=(1, 0),
            textcoords="offset points",
            fontsize=9.5,
            color=GREY,
            va="bottom",
        )
    axes.set_yticks(y, names)
    axes.set_ylim(max(3, len(names)) - 0.4, -0.75)
    axes.set_xlim(0, max([*hours, 1e-9]))
    axes.set_xticks([])
    axes.grid(visible=False)
    hide_spines(axes, "bottom")


def _draw_histogram(axes: Axes, name: str, of: Distribution | None) -> None:
    """Draw one histogram, with bins of equal width and a line at the mean."""
    _prepare(axes, HISTOGRAM_TITLES[name])
    if of is None:
        return _say_unknown(axes)
    edges, counts = of.edges, of.counts
    axes.bar(np.arange(len(counts)) + 0.5, counts, width=0.92, color=BLUE[1], zorder=2)
    at = list(range(0, len(edges), 3))
    axes.set_xticks(at, edge_labels(name, of, at))
    axes.set_xlim(-0.2, len(counts) + 0.2)
    _count_from_zero(axes, max(counts))
    mean = np.interp(of.mean, edges, np.arange(len(edges)))
    axes.axvline(mean, color=ORANGE[1], linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    text = f"mean {show(name, of.mean)}"
    axes.set_title(text, loc="right", fontsize=9.5, color=ORANGE[1])


def _prepare(axes: Axes, title: str) -> None:
    axes.set_facecolor(PAPER)
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=8)
    axes.grid(axis="y", color=FAINT, linewidth=0.6, zorder=0)
    axes.tick_params(colors=INK, length=0, labelsize=9.5)
    hide_spines(axes, "top", "right", "left")
    axes.spines["bottom"].set_color(FAINT)


def _say_unknown(axes: Axes) -> None:
    axes.text(0.5, 0.5, "unknown", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])


def _count_from_zero(axes: Axes, largest: int) -> None:
    """Put ticks at whole numbers on a vertical axis of counts."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(0, max(1, largest) * 1.06)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_wave(axes: Axes, samples: Samples, *, sr: int, columns: int) -> None:
    """Draw the extremes of each pixel column, and within them its RMS."""
    low, high, rms = envelope(samples, columns)
    seconds = (np.arange(len(rms)) + 0.5) * len(samples) / len(rms) / sr
    axes.fill_between(seconds, low, high, color=BLUE[0], linewidth=0.5)
    axes.fill_between(seconds, -rms, rms, color=BLUE[1], linewidth=0)
    peak = float(max(-low.min(), high.max()))
    limit = peak if peak > _QUIETEST_PEAK else 1.0
    axes.set_ylim(-1.05 * limit, 1.05 * limit)
    axes.set_yticks([-limit, 0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])


def _draw_mel(axes: Axes, samples: Samples, *, sr: int, columns: int) -> None:
    _show_image(axes, mel_image(samples, columns, sr=sr), BLUE, seconds=len(samples) / sr)
    ticks_hz, rows = mel_rows(_MEL_TICKS_HZ, sr=sr)
    labels = [f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz:g} Hz" for hz in ticks_hz]
    axes.set_yticks(rows, labels)


def _draw_chroma(axes: Axes, samples: Samples, *, sr: int, columns: int) -> None:
    _show_image(axes, chroma_image(samples, columns, sr=sr), ORANGE, seconds=len(samples) / sr)
    axes.set_yticks(np.arange(12) + 0.5, PITCH_CLASSES, fontsize=9)


def _show_image(axes: Axes, image: NDArray[np.float64], shades: Shades, *, seconds: float) -> None:
    """Draw an image of values from 0, paper, to 1, the loud shade; its first row at the bottom."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    axes.imshow(
        image,
        cmap=LinearSegmentedColormap.from_list("", [to_rgb(PAPER), *shades]),
        vmin=0,
        vmax=1,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, 0, len(image)),
    )


_OF_SOUND = (
    ("Wave, and its RMS within", 130, _draw_wave),
    (f"Mel spectrogram, fading out {MEL_RANGE_DB} dB below the loudest", 256, _draw_mel),
    (f"Chroma, fading out {CHROMA_RANGE_DB} dB below the moment's strongest", 180, _draw_chroma),
)


def _finish_panel(axes: Axes, caption: str, end_s: float, *, last: bool) -> None:
    """Caption a panel, and put ticks of time below it; only the last panel's are labelled."""
    ticks, labels = clock_ticks(end_s)
    axes.set_xticks(ticks, labels if last else [])
    axes.set_title(caption, loc="left", fontsize=10.5, color=INK, pad=5)
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=INK, length=3, labelsize=9.5)
    hide_spines(axes, "top", "right", "left")
    axes.spines["bottom"].set_color(FAINT)


def _write_facts(figure: Figure, rows: Sequence[Row], *, top: int) -> None:
    """Write a row of descriptors `top` pixels up: the label, below it the value, then the unit."""
    width, height = figure.get_size_inches() * figure.dpi
    for place, (label, value, unit) in enumerate(rows):
        x = (_LEFT + place * _COLUMNS / _MOST_FACTS) / width
        for text, below, size, color in (
            (label, 12, 8.5, GREY),
            (value, 32, 12, INK),
            (unit, 48, 8.5, GREY),
        ):
            figure.text(x, (top - below) / height, text, fontsize=size, color=color, va="baseline")


def _rectangle(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Return a rectangle in pixels as fractions of the figure."""
    across, up = figure.get_size_inches() * figure.dpi
    return left / across, bottom / up, width / across, height / up
