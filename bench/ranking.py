"""By what the takes of a seed should be ranked: what predicts the ones that are taken for real.

The seeds are those of `bench.continuations`. Each has several takes without a choice among
candidates, so that takes differ as much as they can. A forest learns to tell excerpts of 15 s of
these from excerpts of the real continuations; the *realism* of a take is the mean probability of
"real" over its excerpts, said by a forest that has seen neither the seed's takes nor its real
continuation. There are two, by the figures of `texture`, which the shipped judge knows too, and by
`habits`, which it does not. For each way of ranking the table has

- the *gain*: the realism of the first take less the mean of all takes of its seed, in points of
  probability, with its standard error over the seeds; at best as much as in the first line;
- the *order*: Spearman's correlation of rank and realism within a seed, the mean over the seeds;
- the mean *cosine* of the pitch classes of the seed and the first take.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from bench.continuations import Case, _weights, held_out
from bench.form import melody_again
from bench.realism import FOLDS, habits
from deep_piano.analysis.note_figures import density_ratio
from deep_piano.analysis.texture import excerpts, texture
from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import DeepPianoError
from deep_piano.generate.notes import NoteRoad
from deep_piano.generate.piece import decode_takes
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.notes import Notes
from deep_piano.report.text import markdown

Take = tuple[Notes, dict[str, float]]
Ranking = Callable[[Sequence[Mapping[str, Any]]], list[float]]
"""Returns how good each take is."""

SIGNS: Final = {
    "judge_log_odds": 1,
    "nats_a_note": -1,
    "pitch_class_cosine": 1,
    "density_apart": -1,
    "melody_again": 1,
}
"""Figures, and whether more is better."""
WAYS: Final = {
    "**judge** (`--keep`)": {"judge_log_odds": 1},
    "likelihood": {"nats_a_note": 1},
    "pitch-class cosine": {"pitch_class_cosine": 1},
    "density near the seed's": {"density_apart": 1},
    "melody of the seed again": {"melody_again": 1},
    "likelihood + cosine": {"nats_a_note": 1, "pitch_class_cosine": 1},
    "judge + likelihood": {"judge_log_odds": 1, "nats_a_note": 1},
    "2 judge + likelihood": {"judge_log_odds": 2, "nats_a_note": 1},
    "judge + cosine": {"judge_log_odds": 1, "pitch_class_cosine": 1},
    "2 judge + likelihood + cosine": {
        "judge_log_odds": 2,
        "nats_a_note": 1,
        "pitch_class_cosine": 1,
    },
}
"""What takes may be ranked by: places by figures, and how much each counts."""
TREES: Final = 300
RANDOM_STATES: Final = 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--pieces", default=14, show_default=True, help="Seeds of each corpus.")
@click.option("--takes", default=4, show_default=True, help="Of each seed.")
@click.option("--seconds", default=60.0, show_default=True, help="Length of a piece.")
@click.option("--candidates", default=1, show_default=True, help="As for deep-piano generate.")
@click.option("--workers", default=os.cpu_count(), help="Processes.  [one a CPU]")
def main(dataset: str, pieces: int, workers: int, **options: Any) -> None:
    """Print how well the figures of takes predict their realism, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes; the seeds are of its
    validation split.
    """
    try:
        settings = load_config(None, {"generate": options}).generate
        with tempfile.TemporaryDirectory() as folder, Dataset(open_folder(dataset)) as opened:
            cases = list(held_out(opened, pieces, Path(folder), settings.seed_seconds))
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                made = list(pool.map(taken, cases, [settings] * len(cases)))
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(made))


def taken(case: Case, settings: GenerateConfig) -> tuple[Case, list[Take]]:
    """Return a case with the takes of its seed: the continuations and their figures."""
    road = NoteRoad(_weights(settings.checkpoint), settings.model_copy(update={"seed_start": 0.0}))
    seed = road.read(case.path, no_progress)
    case.seed, case.seed_s = seed.notes, seed.seconds
    takes: list[Take] = []
    for take in decode_takes(road, open_decoder(road.checkpoint, settings), seed):
        new = take.notes[take.notes["onset"] >= take.seed_ends_s]
        figures = {name: value for name, value in take.figures.items() if name != "seed_key"}
        figures["melody_again"] = melody_again(seed.notes, new)
        figures["density_apart"] = abs(math.log(max(density_ratio(seed.notes, new), 0.01)))
        takes.append((new, figures))
    return case, takes


def realism_of_takes(
    made: Sequence[tuple[Case, Sequence[Take]]], figures: Callable[[Notes], NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Return the realism of the takes of each seed, NaN where one has no whole excerpt."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict

    rows, real, groups, of = [], [], [], []
    for group, (case, takes) in enumerate(made):
        last = min(max(float(new["onset"][-1]) for new, _ in takes), case.real["onset"].max())
        for number, notes in enumerate([case.real, *(new for new, _ in takes)]):
            for part in excerpts(notes[notes["onset"] <= last]):
                row = figures(part)
                if np.isfinite(row).all():
                    rows.append(row)
                    real.append(number == 0)
                    groups.append(group)
                    of.append(number - 1)
    share = np.zeros(len(rows))
    for state in range(RANDOM_STATES):
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=3, random_state=state, class_weight="balanced"
        )
        asked = dict(groups=np.array(groups), cv=GroupKFold(FOLDS), method="predict_proba")
        share += cross_val_predict(forest, np.array(rows), np.array(real), **asked)[:, 1]
    share /= RANDOM_STATES
    found = []
    for group, (_, takes) in enumerate(made):
        mine = [
            share[(np.array(groups) == group) & (np.array(of) == take)]
            for take in range(len(takes))
        ]
        found.append(np.array([part.mean() if len(part) else np.nan for part in mine]))
    return found


def table(made: Sequence[tuple[Case, Sequence[Take]]]) -> str:
    """Return the table of all ways of ranking."""
    rankings = {name: _together(weights) for name, weights in WAYS.items()}
    columns = [realism_of_takes(made, figures) for figures in (texture, habits)]
    columns.append([(a + b) / 2 for a, b in zip(*columns, strict=True)])
    figures = [[figures for _, figures in takes] for _, takes in made]
    best = [_percent([real.max() - real.mean() for real in column]) for column in columns]
    rows = [["the most real take", *(cell for gain in best for cell in (gain, "1.00")), ""]]
    for name, ranking in rankings.items():
        scores = [np.array(ranking(takes)) for takes in figures]
        kept = [takes[place.argmax()] for takes, place in zip(figures, scores, strict=True)]
        cosine = np.mean([take["pitch_class_cosine"] for take in kept])
        cells = [cell for column in columns for cell in _cells(scores, column)]
        rows.append([name, *cells, f"{cosine:.3f}"])
    head = [
        "first by",
        "gain, texture",
        "order",
        "gain, habits",
        "order",
        "gain, both",
        "order",
        "cosine",
    ]
    count = f"{len(made)} seeds, {sum(len(takes) for _, takes in made)} takes"
    return f"{count}\n\n{markdown(head, rows)}"


def _together(weights: Mapping[str, int]) -> Ranking:
    """Return the ranking by the weighed sum of places (Borda's count)."""

    def good(takes: Sequence[Mapping[str, Any]]) -> list[float]:
        sums = np.zeros(len(takes))
        for name, weight in weights.items():
            figure = SIGNS[name] * np.array([take[name] for take in takes], float)
            sums -= weight * (figure[:, None] < figure).sum(1)
        return sums.tolist()

    return good


def _cells(scores: Sequence[NDArray[np.float64]], real: Sequence[NDArray[np.float64]]) -> list[str]:
    from scipy.stats import spearmanr

    known = [(s, r) for s, r in zip(scores, real, strict=True) if np.isfinite(r).all()]
    gain = _percent([r[s.argmax()] - r.mean() for s, r in known])
    order = [spearmanr(s, r)[0] if s.std() and r.std() else 0.0 for s, r in known]
    return [gain, f"{np.mean(order):.2f}"]


def _percent(gains: Sequence[float]) -> str:
    found = 100 * np.array(gains)[np.isfinite(gains)]
    return f"{found.mean():.1f} ± {found.std(ddof=1) / math.sqrt(len(found)):.1f}"


if __name__ == "__main__":
    main()
