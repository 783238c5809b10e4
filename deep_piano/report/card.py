"""The text output of `inspect`: the card of a dataset, and the descriptors of one recording.

This module knows the manifest's content and the descriptors' names and units; it reads no file and
draws no picture. A card is 80 columns wide, for any names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from deep_piano.analysis.keys import PITCH_CLASSES, keys_by_fifths, note_name
from deep_piano.errors import one_line
from deep_piano.music.recordings import in_words
from deep_piano.report.text import clock, hours, size

if TYPE_CHECKING:
    from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
    from deep_piano.dataset.manifest import Amount, Distribution, Manifest, Rejected, Summary


HISTOGRAM_TITLES: Mapping[str, str] = {
    "duration_s": "Duration",
    "tempo_bpm": "Tempo, BPM",
    "density_per_s": "Notes a second",
    "loudness_lufs": "Loudness, LUFS",
}
"""The histograms that are shown, in this order."""

Row = tuple[str, str, str]
"""The label, value and unit of a descriptor."""

_WIDTH, _HALF, _GAP = 80, 36, 5
_INDENT = "  "
_BAR_ROWS = 5
_EXAMPLES = 3
_TALL, _WIDE = " ▁▂▃▄▅▆▇█", " ▏▎▍▌▋▊▉█"
# One character for one, so that columns stay aligned.
_TO_ASCII = str.maketrans("─\N{EN DASH}·…≤≥▁▂▃▄▅▆▇█▏▎▍▌▋▊▉", "--,.<>__..::##...::##")


def dataset_card(manifest: Manifest, *, uri: str = "") -> str:
    """Return the card of a dataset.

    Parameters
    ----------
    manifest : Manifest
    uri : str
        Where the dataset lies.

    Returns
    -------
    str
        Lines of at most 80 columns, but for the last, whose path can be copied whole.
    """
    totals, unit = manifest.totals, step_name(manifest)
    sections = [
        _heading(
            uri or "Dataset",
            f"{totals.recordings:,} recordings · {hours(totals.duration_s)} · "
            f"{totals.steps:,} {unit}",
        ),
        _contents(manifest),
        _splits(totals.splits, unit),
        _keys(manifest.summary.key),
        *_histograms(manifest.summary),
        _left_out(manifest.rejects, totals.files),
    ]
    rejects = f"{uri.rstrip('/')}/rejects.csv" if uri else "rejects.csv"
    last = _INDENT + f"Every file left out, with its reason: {one_line(rejects)}"
    return "\n\n".join(["\n".join(lines) for lines in sections if lines] + [last])


def recording_card(
    name: str,
    audio: AudioFeatures | None = None,
    notes: NoteFeatures | None = None,
    *,
    certainties: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the descriptors of one recording, with their units.

    Parameters
    ----------
    name : str
        The recording's name, of any characters.
    audio, notes : AudioFeatures and NoteFeatures
        None where the recording has none: of a MIDI file no sound, of a sound wave no notes.
    certainties : mapping of str to str
        As of `descriptors.certainties`.
    """
    sections = [_heading(name)]
    for title, rows in feature_rows(audio, notes, certainties):
        if rows:
            lines = [f"    {label:<18}{value:>12}  {unit}" for label, value, unit in rows]
            sections.append([_INDENT + title, *(line.rstrip() for line in lines)])
    if audio is not None:
        if audio.chroma is not None:
            sections.append(_chroma(audio.chroma))
        if audio.mfcc is not None:
            texts = [f"{value:8.1f}" for value in audio.mfcc]
            rows_of_seven = ["".join(texts[begin : begin + 7]) for begin in range(0, len(texts), 7)]
            sections.append([f"{_INDENT}MFCC, means", *(f"    {row}" for row in rows_of_seven)])
    return "\n\n".join("\n".join(lines) for lines in sections)


def encodable(card: str, encoding: str | None) -> str:
    """Return a card that an encoding can represent: bars in ASCII and names escaped if necessary.

    Examples
    --------
    >>> encodable("Tempo ▂▅█▁", "ascii")
    'Tempo _:#_'
    """
    encoding = encoding or "utf-8"
    try:
        card.encode(encoding)
    except UnicodeEncodeError:
        return card.translate(_TO_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return card


def step_name(manifest: Manifest) -> str:
    """Return the name of a step of the dataset's sequences."""
    return "notes" if manifest.codec.codec.startswith("notes") else "steps"


def edge_labels(name: str, of: Distribution, indices: Sequence[int]) -> list[str]:
    """Return labels for some edges of a histogram's bins; the outermost may be open."""
    edges = of.edges
    labels = []
    for index in indices:
        beyond = {0: "≤" * (of.min < edges[0]), -1: "≥" * (of.max > edges[-1])}
        last = index in (-1, len(edges) - 1)
        labels.append(beyond.get(-1 if last else index, "") + show(name, edges[index]))
    return labels


def show(name: str, value: float) -> str:
    """Return a value of a histogram in at most four characters, a duration with its unit."""
    if name != "duration_s":
        return f"{value:.3g}"
    if value < 60:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 3600 else f"{value / 3600:.3g} h"


def feature_rows(
    audio: AudioFeatures | None,
    notes: NoteFeatures | None,
    certainties: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[str, list[Row]]]:
    """Return titles with rows of descriptors; with notes, key and tempo are theirs alone.

    Those of sound are estimated from its spectrum, where partials count as notes.
    """
    sound, music = _sound_rows(audio), _note_rows(notes, certainties)
    if notes is not None:
        sound = [row for row in sound if row[0] not in ("tempo", "key")]
    return [("Sound", sound), ("Notes", music)]


def _sound_rows(audio: AudioFeatures | None) -> list[Row]:
    """Return the descriptors of a sound, without MFCC and chroma."""
    if audio is None:
        return []
    return [
        ("duration", clock(audio.duration_s), "min:s"),
        _row("loudness", audio.loudness_lufs, ".1f", "LUFS"),
        _row("peak", audio.peak_dbfs, ".1f", "dBFS"),
        _row("clipped", audio.clipping_share, ".2%", "of the samples"),
        _row("silent", audio.silence_share, ".1%", "of the time"),
        _row("spectral centroid", audio.spectral_centroid_hz, ",.0f", "Hz"),
        _row("spectral roll-off", audio.spectral_rolloff_hz, ",.0f", "Hz"),
        _row("zero crossings", audio.zero_crossing_rate, ".3f", "a sample"),
        _row("tempo", audio.tempo_bpm, ".0f", "BPM"),
        ("key", audio.key, ""),
        _row("tuning strength", audio.tuning_strength, ".2f", "of 1"),
    ]


def _note_rows(notes: NoteFeatures | None, certainties: Mapping[str, str]) -> list[Row]:
    """Return the descriptors of the notes."""
    if notes is None:
        return []
    beat = "BPM, or half or double" if certainties else "BPM"
    tempo = _row("tempo", notes.tempo_bpm, ".0f", beat)
    return [
        ("duration", clock(notes.duration_s), "min:s"),
        _row("notes", notes.notes, ",.0f"),
        _row("density", notes.density_per_s, ".2f", "notes a second"),
        _pitch_row("lowest note", notes.lowest_pitch),
        _pitch_row("highest note", notes.highest_pitch),
        _row("velocity, mean", notes.velocity_mean, ".1f", "of 127"),
        _row("velocity, spread", notes.velocity_sd, ".1f", "standard deviation"),
        _row("pedal down", notes.pedal_share, ".1%", "of the time"),
        _told(tempo, certainties.get("tempo")),
        _told(("key", notes.key, ""), certainties.get("key")),
    ]


def _told(row: Row, certainty: str | None) -> Row:
    """Return a row with its certainty; an unclear value is marked as a guess."""
    label, value, unit = row
    if certainty in (None, "none"):
        return row
    if certainty == "unclear":
        return label, certainty, f"perhaps {value} {unit}".rstrip()
    return label, value, f"{unit}; {certainty}".removeprefix("; ")


def _heading(name: str, line: str = "") -> list[str]:
    title = _fit(name, _WIDTH - 2)
    return [_INDENT + title, _INDENT + "─" * (_WIDTH - 2), *([_INDENT + line] if line else [])]


def _contents(manifest: Manifest) -> list[str]:
    """Return the source of the files, and their outcomes."""
    totals, codec, shards = manifest.totals, manifest.codec, manifest.shards
    fields = ", ".join(
        f"{field.name} ({'real' if field.continuous else field.size})" for field in codec.fields
    )
    row_groups = sum(len(shard.row_groups) for shard in shards)
    facts = {
        "corpus": manifest.corpus.uri or "unknown",
        "files": f"{totals.files + totals.ignored:,} = {totals.recordings:,} recordings + "
        f"{totals.drops:,} dropped + {totals.failures:,} failed"
        + (f" + {totals.ignored:,} ignored" if totals.ignored else ""),
        "ignored": in_words(totals.left_alone) or f"{totals.ignored:,} others",
        "codec": f"{codec.codec}: {fields}",
        "shards": f"{len(shards):,} of {size(totals.bytes)} together, {row_groups:,} row groups",
    }
    if not totals.ignored:
        del facts["ignored"]
    return [f"{_INDENT}{label:<10}{_fit(value, _WIDTH - 12)}" for label, value in facts.items()]


def _splits(splits: Mapping[str, Amount], unit: str) -> list[str]:
    known = [name for name in ("train", "validation", "test") if name in splits]
    names = known + sorted(set(splits) - set(known))
    total_s = math.fsum(split.duration_s for split in splits.values())
    lines = [f"{_INDENT}{'Split':<12}{'recordings':>11}{'hours':>10}{unit:>14}"]
    for name in names:
        split = splits[name]
        share = split.duration_s / total_s if total_s else 0.0
        lines.append(
            f"{_INDENT}{_fit(name, 11):<12}{split.recordings:>11,}"
            f"{split.duration_s / 3600:>10,.2f}{split.steps:>14,}"
            f"  {_bar(share, 19)}{share:>8.1%}"
        )
    return lines


def _keys(counts: Mapping[str, int]) -> list[str]:
    """Return the counts of keys by fifths: majors at the left, relative minors at the right."""
    if not counts:
        return []
    rows, others = keys_by_fifths(counts)
    largest = max(1, *(count for row in rows for _, count in row))
    lines = [f"{_INDENT}Key, by fifths, beside its relative minor"]
    for row in rows:
        halves = [
            f"{name:<9} {_bar(count / largest, 17)}{count:>9,}" if count else f"{name:<9}"
            for name, count in row
        ]
        lines.append(f"{_INDENT}{halves[0]:<{_HALF + _GAP}}{halves[1]}".rstrip())
    if others:
        lines.append(f"{_INDENT}{'no key':<27}{others:>9,}")
    return lines


def _histograms(summary: Summary) -> list[list[str]]:
    """Return the histograms in two columns."""
    blocks = [
        _histogram(name, known)
        for name in HISTOGRAM_TITLES
        if (known := summary.distribution(name)) is not None
    ]
    rows = []
    for left, right in zip_longest(blocks[::2], blocks[1::2], fillvalue=[""] * (_BAR_ROWS + 4)):
        lines = [f"{a:<{_HALF + _GAP}}{b}" for a, b in zip(left, right, strict=True)]
        rows.append([(_INDENT + line).rstrip() for line in lines])
    return rows


def _histogram(name: str, of: Distribution) -> list[str]:
    """Return the lines of one histogram, each `_HALF` wide: title, facts, bars, labels."""
    counts = of.counts
    width = max(1, _HALF // len(counts))
    third = len(counts) // 3
    first, *middle, last = edge_labels(name, of, [0, third, 2 * third, -1])
    labels = first
    for index, label in enumerate(middle, 1):
        labels = f"{labels:<{index * third * width - len(label) // 2}}{label}"
    return [
        HISTOGRAM_TITLES[name],
        f"mean {show(name, of.mean)}, from {show(name, of.min)} to {show(name, of.max)}",
        *_columns(counts, width=width),
        "─" * (width * len(counts)),
        f"{labels}{last:>{_HALF - len(labels)}}",
    ]


def _columns(counts: Sequence[float], *, width: int, height: int = _BAR_ROWS) -> list[str]:
    """Return vertical bars as lines; every count above zero is visible."""
    largest, full = max(counts) or 1, 8 * height
    eighths = [min(full, math.ceil(full * count / largest)) for count in counts]
    return [
        "".join(_TALL[min(8, max(0, n - 8 * below))] * width for n in eighths)
        for below in reversed(range(height))
    ]


def _bar(share: float, width: int) -> str:
    """Return a horizontal bar, padded to its width; every count above zero is visible."""
    full, rest = divmod(min(8 * width, math.ceil(8 * width * share)), 8)
    return f"{_WIDE[8] * full + _WIDE[rest] * (rest > 0):<{width}}"


def _chroma(chroma: Sequence[float]) -> list[str]:
    bars = _columns(chroma, width=2, height=3)
    spaced = ["   ".join(line[i : i + 2] for i in range(0, len(line), 2)) for line in bars]
    return [
        f"{_INDENT}Chroma, means",
        *(f"    {line}".rstrip() for line in spaced),
        f"    {''.join(f'{name:<5}' for name in PITCH_CLASSES)}".rstrip(),
        f"    {''.join(f'{share:<5.0%}' for share in chroma)}".rstrip(),
    ]


def _left_out(rejects: Sequence[Rejected], files: int) -> list[str]:
    """Count the drops and failures by rule, with the first few of each."""
    if not rejects:
        return []
    groups: dict[tuple[str, str], list[Rejected]] = defaultdict(list)
    for reject in rejects:
        groups[reject.kind, reject.rule].append(reject)
    lines = [f"{_INDENT}Left out: {len(rejects):,} of {files:,} files"]
    for (kind, rule), group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        kind = {"drop": "dropped", "failure": "failed"}.get(kind, kind)
        lines.append(f"{_INDENT}{len(group):>7,} {kind}: {_fit(rule, 50)}")
        for reject in group[:_EXAMPLES]:
            name = _fit(reject.name, 28)
            reason = reject.reason.removeprefix(reject.name).lstrip(" :")
            lines.append(f"{'':10}{set_cell_size(name, 28)}  {_fit(reason, _WIDTH - 40)}".rstrip())
        if len(group) > _EXAMPLES:
            lines.append(f"{'':10}and {len(group) - _EXAMPLES:,} more")
    return lines


def _fit(text: object, width: int) -> str:
    """Return text on one line of at most `width` columns, without its middle if necessary."""
    line = one_line(text)
    if cell_len(line) <= width:
        return line
    tail = line[-(width // 3) :]
    return set_cell_size(line, width - 1 - cell_len(tail)) + "…" + tail


def _row(label: str, value: float | None, form: str, unit: str = "") -> Row:
    if value is None:
        return label, "unknown", ""
    return (label, format(value, form), unit) if math.isfinite(value) else (label, "none", "")


def _pitch_row(label: str, pitch: int | None) -> Row:
    if pitch is None:
        return label, "unknown", ""
    return label, note_name(pitch), f"MIDI {pitch:d}"
