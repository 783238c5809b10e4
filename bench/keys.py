"""How often the estimates of key and tempo are right, by how certain they are.

    python -m bench.keys MAESTRO/metadata.csv [--tempi POP909/] [--profiles]

Keys: works of MAESTRO whose titles name one, where the whole file is in that key by and large:
pieces of one movement, and first movements. Titles are taken as they are, with their mistakes.
Performances of one work count as one together. Tempi: MIDI files whose tempo is one throughout.
Written in the form of docs/inputs.md.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from deep_piano.analysis.keys import ALBRECHT_SHANAHAN, Key, estimate_key, weights_of
from deep_piano.analysis.tempo import tempo_of
from deep_piano.errors import InputError
from deep_piano.music.midi import read_midi
from deep_piano.music.notes import Notes
from deep_piano.report.text import markdown

CERTAINTIES: Final = ("sure", "fairly sure", "unclear")
PARTS_S: Final = {
    "all of it": np.inf,
    "the first three minutes": 180.0,
    "the first ten seconds": 10.0,
}

PROFILES: Final = {
    "Krumhansl and Kessler, 1982": {
        "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
        "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
    },
    "Temperley, 2007": {
        "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.4),
        "minor": (
            0.712,
            0.084,
            0.474,
            0.618,
            0.049,
            0.460,
            0.105,
            0.747,
            0.404,
            0.067,
            0.133,
            0.33,
        ),
    },
    "Albrecht and Shanahan, 2013": ALBRECHT_SHANAHAN,
}
WEIGHTS: Final[dict[str, Callable[[Notes], Any]]] = {
    "their length": lambda notes: notes["offset"] - notes["onset"],
    "one each": lambda notes: np.ones(len(notes)),
    "the root of their length": lambda notes: np.sqrt(notes["offset"] - notes["onset"]),
    "that, and more at both ends": weights_of,
}

_KEY = re.compile(
    r"\b([A-G])(?:[- ]?(flat|sharp|#|b))?[ -]?(major|minor|maj\b|min\b)", re.IGNORECASE
)
_OF_MOVEMENTS = re.compile(r"sonata|partita|suite|concerto|variations and fugue", re.IGNORECASE)
_FIRST = re.compile(r"\bI[.]? ?[-.] ?|1st mov|first mov|prelude|sinfonia|toccata", re.IGNORECASE)
_NOT_ALL = re.compile(r"complete|\bII - ", re.IGNORECASE)
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"flat": -1, "b": -1, "sharp": 1, "#": 1, "": 0}
_NEAR = 0.04  # of a tempo


def key_in(title: str, composer: str) -> Key | None:
    """Return the key that a title names; None where it names none, or for several movements.

    Examples
    --------
    >>> key_in("Etude Op. 10 No. 4 in C-sharp Minor", "Frederic Chopin").name
    'C# minor'
    >>> key_in("Sonata in D Minor, D. 959", "Franz Schubert") is None
    True
    """
    found = _KEY.search(title)
    if found is None or _NOT_ALL.search(title):
        return None
    of_one = "Scarlatti" in composer or not _OF_MOVEMENTS.search(title) or _FIRST.search(title)
    if not of_one:
        return None
    tonic = _SEMITONES[found[1].upper()] + _ACCIDENTALS[(found[2] or "").lower()]
    return Key(tonic % 12, "major" if found[3].lower().startswith("maj") else "minor")


def works(metadata: Path) -> Iterator[tuple[str, Key, Notes]]:
    """Yield performances: what tells the work from others, its key, and the notes."""
    with metadata.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = key_in(row["canonical_title"], row["canonical_composer"])
            path = metadata.parent / row["midi_filename"]
            if key is not None and path.exists():
                work = re.sub(r"[^a-z0-9]", "", row["canonical_title"].lower())[:18]
                yield work, key, read_midi(path)


def keys_table(performances: Iterable[tuple[str, Key, Notes]]) -> str:
    """Return how often keys are right, by how much of a work is used and by certainty."""
    known = list(performances)
    of_work = Counter(work for work, _, _ in known)
    weight = np.array([1 / of_work[work] for work, _, _ in known])
    rows = []
    for part, seconds in PARTS_S.items():
        parts = [notes[notes["onset"] < notes["onset"][0] + seconds] for _, _, notes in known]
        found = [estimate_key(notes) for notes in parts]
        right = np.array([one.key == key for one, (_, key, _) in zip(found, known, strict=True)])
        cells = [_share(right, weight, np.full(len(known), True))]
        for certainty in CERTAINTIES:
            of = np.array([one.certainty == certainty for one in found])
            cells.append(_share(right, weight, of))
        rows.append([part, *cells])
    head = ["part", "all", *CERTAINTIES]
    return f"{len(known)} performances of {len(of_work)} works\n\n" + markdown(head, rows)


def profiles_table(performances: Iterable[tuple[str, Key, Notes]]) -> str:
    """Return in percent how often other profiles and weights are right."""
    known = list(performances)
    of_work = Counter(work for work, _, _ in known)
    weight = np.array([1 / of_work[work] for work, _, _ in known])
    rows = []
    for (name, profiles), (weighing, weigh) in itertools.product(PROFILES.items(), WEIGHTS.items()):
        keys = [Key(tonic, mode) for mode in profiles for tonic in range(12)]
        table = np.array([np.roll(profiles[key.mode], key.tonic) for key in keys])
        cells = []
        for seconds in PARTS_S.values():
            right = []
            for _, key, notes in known:
                part = notes[notes["onset"] < notes["onset"][0] + seconds]
                weights = np.bincount(part["pitch"] % 12, weights=weigh(part), minlength=12)
                found = keys[int(np.argmax(np.corrcoef(table, weights)[-1, :-1]))]
                right.append(found == key)
            cells.append(f"{np.average(right, weights=weight):.0%}")
        rows.append([name, weighing, *cells])
    return markdown(["profiles", "notes weigh", *PARTS_S], rows, words=2)


def tempi_table(paths: Iterable[Path]) -> str:
    """Return how often tempi are right, and right but for an octave, by certainty."""
    import symusic

    found = []
    for path in paths:
        tempi = [tempo.qpm for tempo in symusic.Score(str(path)).tempos]
        if not tempi or max(tempi) - min(tempi) > 0.03 * max(tempi):
            continue
        try:
            estimate = tempo_of(read_midi(path)["onset"])
        except InputError:
            continue
        if estimate.bpm is not None:
            found.append((estimate.bpm / float(np.median(tempi)), estimate.certainty))
    ratio, one = np.array([ratio for ratio, _ in found]), np.ones(len(found))
    right = abs(ratio - 1) < _NEAR
    octaves = (abs(ratio[:, None] / [0.5, 1, 2] - 1) < _NEAR).any(axis=1)
    rows = []
    for certainty in ("all", *CERTAINTIES):
        of = np.array([certainty in ("all", word) for _, word in found])
        if of.any():
            rows.append([certainty, _share(right, one, of), _share(octaves, one, of)])
    head = ["certainty", "right", "right, half or double"]
    return f"{len(found)} files of one tempo\n\n" + markdown(head, rows)


def _share(right: np.ndarray, weight: np.ndarray, of: np.ndarray) -> str:
    """Return the share of what is right of some, and how large a share of all these are."""
    if not of.any():
        return "none"
    share = weight[of].sum() / weight.sum()
    return f"{np.average(right[of], weights=weight[of]):.0%} of {share:.0%}"


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("metadata", type=Path, help="metadata.csv of MAESTRO, beside its files")
    parser.add_argument("--tempi", type=Path, help="a folder of MIDI files of one tempo each")
    parser.add_argument("--profiles", action="store_true", help="compare other profiles as well")
    given = parser.parse_args(argv)
    print(keys_table(works(given.metadata)))
    if given.profiles:
        print("\n" + profiles_table(works(given.metadata)))
    if given.tempi:
        print("\n" + tempi_table(sorted(given.tempi.rglob("*.mid"))))


if __name__ == "__main__":
    main()
