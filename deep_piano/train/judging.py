"""A judge for a checkpoint: boosted trees that tell its continuations from pianists'.

The continuations are made of seeds of the training split, without choosing; the real ones are what
followed there. Nothing of the other splits is seen. This module knows datasets, decoders and
judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.judge import FIGURES, Judge, judged_figures
from deep_piano.codecs.notes import SPEC, decode
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import InputError
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.models.checkpoint import (
    Checkpoint,
    load,
    require_same_codec,
    require_without,
    save_judge,
)
from deep_piano.music.notes import Notes, excerpt

LAST_S: Final = 100.0
"""How far pieces are made, seed included."""
EVERY_S: Final = 10.0
"""From one moment that is judged to the next."""
FEWEST_RECORDINGS: Final = 10

_AT_ONCE = 32
_TREES, _LEAVES, _RATE, _SHARE = 200, 8, 0.05, 0.5
_FOLDS = 5


@dataclass(frozen=True)
class Trained:
    """A judge, and how it did.

    Attributes
    ----------
    judge : Judge
    right : float
        How often, of a real and a made moment of recordings that it had not seen, it takes the real
        one for the real one: the area under the ROC curve.
    recordings, moments : int
        What it was trained on.
    """

    judge: Judge
    right: float
    recordings: int
    moments: int


def train_judge(
    checkpoint: Checkpoint,
    dataset: Dataset,
    settings: GenerateConfig,
    *,
    recordings: int = 500,
    progress: Tell = no_progress,
) -> Trained:
    """Train a judge for a checkpoint of notes.

    Parameters
    ----------
    checkpoint : Checkpoint
    dataset : Dataset
        Its training split is used.
    settings : GenerateConfig
        How pieces are decoded; `random_state` chooses recordings and chances.
    recordings : int
        At most so many, as evenly as may be from each corpus.
    progress : callable, optional

    Raises
    ------
    InputError
        When checkpoint and dataset have different codecs; when fewer than `FEWEST_RECORDINGS` are
        asked for, or are long enough.
    """
    require_same_codec(checkpoint, dataset.spec)
    if recordings < FEWEST_RECORDINGS:
        raise InputError(
            f"a judge needs {FEWEST_RECORDINGS} recordings or more, and {recordings} are asked "
            "for. Give more --recordings."
        )
    chosen = _recordings(dataset, settings, recordings)
    if len(chosen) < FEWEST_RECORDINGS:
        raise InputError(
            f"a judge needs {FEWEST_RECORDINGS} recordings of the training split that last "
            f"{settings.seed_seconds + 2 * EVERY_S:g} s or more; {len(chosen)} do. Give a larger "
            "dataset."
        )
    rows: list[NDArray[np.float64]] = []
    labels, groups = [], []
    for group, (seed, real, made) in enumerate(_continued(checkpoint, chosen, settings, progress)):
        for label, notes in ((1, real), (0, made)):
            figures = list(_moments(seed, notes, settings.seed_seconds))
            rows += figures
            labels += [label] * len(figures)
            groups += [group] * len(figures)
    x, y = np.array(rows).reshape(-1, FIGURES), np.array(labels)
    right = _right(x, y, np.array(groups))
    return Trained(_as_judge(_trees(settings.random_state).fit(x, y)), right, len(chosen), len(x))


def store_judge(
    folder: Folder,
    dataset: Dataset,
    settings: GenerateConfig,
    *,
    recordings: int = 500,
    force: bool = False,
    progress: Tell = no_progress,
) -> Trained:
    """Train a judge for the checkpoint in a folder, as `train_judge` does, and store it there.

    Raises
    ------
    InputError
        As `train_judge` does; when the checkpoint has a judge and it is not forced; when the folder
        cannot be written to, or has another checkpoint in the end.
    """
    checkpoint = load(folder, codec=SPEC.codec)
    require_without("judge", checkpoint, folder, force=force)
    folder.require_writable()
    trained = train_judge(checkpoint, dataset, settings, recordings=recordings, progress=progress)
    save_judge(folder, trained.judge, digest=checkpoint.digest)
    return trained


def _recordings(dataset: Dataset, settings: GenerateConfig, most: int) -> list[tuple[Notes, Notes]]:
    """Return the seeds and continuations of some recordings."""
    corpora = dataset.by_corpus("train", shortest_s=settings.seed_seconds + 2 * EVERY_S)
    rng = np.random.default_rng(settings.random_state)
    queues = [[rows[i] for i in rng.permutation(len(rows))] for rows in corpora.values()]
    # One of each corpus in turn, until none is left.
    turns = [queue[turn] for turn in range(most) for queue in queues if turn < len(queue)]
    found = []
    for row in turns[:most]:
        notes = decode(row.sequence)
        notes = excerpt(notes, float(notes["onset"][0]), math.inf)
        in_seed = notes["onset"] < settings.seed_seconds
        if in_seed.any() and not in_seed.all():
            found.append((notes[in_seed], notes[~in_seed]))
    return found


def _continued(
    checkpoint: Checkpoint,
    chosen: Sequence[tuple[Notes, Notes]],
    settings: GenerateConfig,
    progress: Tell,
) -> Iterator[tuple[Notes, Notes, Notes]]:
    """Yield seeds with their real continuations and those that the checkpoint makes."""
    decoder = open_decoder(checkpoint, settings.model_copy(update={"candidates": 1}))
    for begin in range(0, len(chosen), _AT_ONCE):
        progress(Progress("composing", begin, len(chosen)))
        some = range(begin, min(begin + _AT_ONCE, len(chosen)))
        for number in some:
            rng = np.random.default_rng([settings.random_state, number])
            decoder.add(number, NoteTask(chosen[number][0], settings.seed_seconds, LAST_S, rng))
        done: dict[Any, Any] = {}
        while len(decoder):
            done |= decoder.step()
        for number in some:
            yield (*chosen[number], done[number].notes)
    progress(Progress("composing", len(chosen), len(chosen)))


def _moments(seed: Notes, continuation: Notes, seed_s: float) -> Iterator[NDArray[np.float64]]:
    """Yield the figures of a continuation's moments, but where there are too few notes."""
    end = min(float(continuation["onset"].max(initial=0.0)), LAST_S)
    for now_s in np.arange(seed_s + EVERY_S, end, EVERY_S):
        figures = judged_figures(seed, continuation, now_s=now_s)
        if np.isfinite(figures).all():
            yield figures


def _trees(random_state: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    # From zero: as many moments are real as are made, but for recordings that end.
    return GradientBoostingClassifier(
        n_estimators=_TREES,
        learning_rate=_RATE,
        max_leaf_nodes=_LEAVES,
        max_depth=None,
        subsample=_SHARE,
        init="zero",
        random_state=random_state,
    )


def _right(x: NDArray[np.float64], y: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = GroupKFold(_FOLDS)
    trees = _trees(0)
    scores = cross_val_predict(trees, x, y, groups=groups, cv=folds, method="decision_function")
    return float(roc_auc_score(y, scores))


def _as_judge(trained: Any) -> Judge:
    """Return scikit-learn's trees as arrays, each as long as the longest."""
    trees = [tree.tree_ for tree in trained.estimators_[:, 0]]
    shape = len(trees), max(tree.node_count for tree in trees)
    figure, left, right = (np.zeros(shape, np.int32) for _ in range(3))
    threshold, value = np.zeros(shape), np.zeros(shape)
    for row, tree in enumerate(trees):
        nodes = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        filled = row, nodes
        figure[filled] = np.where(leaf, 0, tree.feature)
        threshold[filled] = tree.threshold
        left[filled] = np.where(leaf, nodes, tree.children_left)
        right[filled] = np.where(leaf, nodes, tree.children_right)
        value[filled] = trained.learning_rate * tree.value[:, 0, 0]
    return Judge(figure, threshold, left, right, value)
