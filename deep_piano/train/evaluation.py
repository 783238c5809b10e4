"""A checkpoint and its baselines on held-out recordings, in one table.

Classes are scored in nats on the codec's finest grid, numbers by their squared error. Recordings
are scored without augmentation, after their first steps (`ModelConfig.given`). This module knows
datasets, models and baselines; it knows nothing of training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import loss_unit
from deep_piano.codecs.registry import Codec
from deep_piano.dataset.reader import Dataset
from deep_piano.infra.backend import load_keras
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.models.checkpoint import Checkpoint, assign_weights, require_same_codec
from deep_piano.models.config import ModelConfig
from deep_piano.models.linear_prediction import context_of, own_prediction
from deep_piano.models.note_network import build_model
from deep_piano.report.text import markdown
from deep_piano.train.baselines import LinearPrediction, MarkovChain, PredictedClass
from deep_piano.train.likelihood import losses
from deep_piano.train.start import middles

_BATCH, _WINDOW, _SOUND_WINDOW = 64, 64, 2048
_PREDICTION_ORDER = 100
_LEARNED_STEPS = 50_000_000  # of sound: more does not change a digit of a baseline
_MARKOV_CELLS = 20_000_000  # the largest table of a chain: order 2 of notes, order 1 of sound

ALL: Final = "all"
MINE: Final = "this checkpoint"
_NOTHING_LEARNED = (
    "The dataset has no training split: the baselines that are learned from one are left out."
)
EVENTS_PER_NOTE: Final = 4.130
"""Events of Performance RNN's vocabulary of 388 in MAESTRO v3's validation split, without pedal."""
PUBLISHED: Final = {
    "Performance RNN (Huang et al. 2018, Table 3)": 1.969 * EVENTS_PER_NOTE,
    "Music Transformer (Hawthorne et al. 2018)": 1.84 * EVENTS_PER_NOTE,
}
"""Nats a note, from nats an event on Piano-e-Competition performances and on MAESTRO."""

Predict = Callable[[NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class Score:
    """The loss of one model on one group of recordings.

    Attributes
    ----------
    group : str
        Top-level folder of the corpus; "all" for the whole split.
    model : str
    losses : dict of str to float
        By field: nats or the squared error a step.
    steps : int
        How many were scored.
    duration_s : float
        Of the recordings.
    """

    group: str
    model: str
    losses: dict[str, float]
    steps: int
    duration_s: float

    @property
    def total(self) -> float:
        """Loss a step; in nats, the figure that papers report."""
        return sum(self.losses.values())

    @property
    def per_second(self) -> float:
        """Loss a second of music."""
        return self.total * self.steps / self.duration_s


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes
    ----------
    checkpoint, dataset : str
        Digests.
    split : str
    step_name : str
        The name of a step of the codec.
    continuous : bool
        The losses are squared errors, not nats.
    scores : list of Score
    remark : str
        What is missing from them, and why; "" where nothing is.
    """

    checkpoint: str
    dataset: str
    split: str
    step_name: str
    continuous: bool
    scores: list[Score]
    remark: str = ""

    @property
    def unit(self) -> str:
        """The unit of the losses."""
        return loss_unit(self.step_name, continuous=self.continuous)

    def of(self, group: str) -> list[Score]:
        """Return the scores of a group."""
        return [score for score in self.scores if score.group == group]

    @property
    def groups(self) -> list[str]:
        """The groups, in the order of the table."""
        return list(dict.fromkeys(score.group for score in self.scores))

    @property
    def published(self) -> dict[str, float]:
        """Published figures in the unit of the losses; empty unless that is nats a note."""
        return dict(PUBLISHED) if self.step_name == "note" else {}

    def table(self) -> str:
        """Return everything as a Markdown table."""
        fields = list(self.scores[0].losses)
        head = ["corpus", "model", f"{self.step_name}s", self.unit]
        head += ["squared error a second"] if self.continuous else ["nats a second", "perplexity"]
        head += fields if len(fields) > 1 else ["bits"] if not self.continuous else []
        rows = []
        for group in self.groups:
            for score in self.of(group):
                row = [group, score.model, f"{score.steps:,}", _number(score.total)]
                row += [_number(score.per_second)]
                row += [] if self.continuous else [_number(_perplexity(score.total))]
                if len(fields) > 1:
                    row += [_number(score.losses[name]) for name in fields]
                elif not self.continuous:
                    row += [_number(score.total / math.log(2))]
                rows.append(row)
        for name, nats in self.published.items():
            row = ["published", name, "", _number(nats), "", _number(_perplexity(nats))]
            rows.append(row + [""] * (len(head) - len(row)))
        return markdown(head, rows, words=2) + (f"\n\n{self.remark}" if self.remark else "")

    def to_json(self) -> str:
        """Return everything as JSON."""
        scores = [
            asdict(score) | {"total": score.total, "per_second": score.per_second}
            for score in self.scores
        ]
        about = vars(self) | {"unit": self.unit, "scores": scores, "published": self.published}
        return json.dumps(about, indent=2) + "\n"


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    split: str = "validation",
    progress: Tell = no_progress,
) -> Evaluation:
    """Score a checkpoint and the baselines on a split, by group and together.

    The baselines are fitted to the training split; where there is none, they are left out.

    Raises
    ------
    InputError
        When the checkpoint and the dataset have different codecs, or the split is empty.
    """
    require_same_codec(checkpoint, dataset.spec)
    dataset.require(split)
    sequences: dict[str, list[NDArray[Any]]] = {}
    durations: dict[str, float] = {}
    for row in dataset.recordings(split):
        sequences.setdefault(row.corpus, []).append(row.sequence)
        durations[row.corpus] = durations.get(row.corpus, 0.0) + row.duration_s
    codec = dataset.codec
    given = checkpoint.config.given
    judge = _Judge(codec, sequences, durations, given, progress)
    judge.score_network(checkpoint)
    learnable = bool(dataset.row_groups("train"))
    if learnable and codec.spec.continuous:
        judge.score_prediction(_learnable(dataset))
    elif learnable:
        judge.score_chains(_learnable(dataset))
        if not codec.encodes_notes:
            judge.score_predicted_classes(middles(dataset), checkpoint.config)
    if codec.spec.continuous:
        judge.score_own_prediction(checkpoint.config)
    scores, groups = judge.scores, sorted(sequences)
    together = f"{ALL} together" if ALL in groups else ALL  # a folder may have any name
    if len(groups) > 1:
        models = dict.fromkeys(score.model for score in scores)
        scores += [_together(scores, model, together) for model in models]
    places = {group: index for index, group in enumerate([*groups, together])}
    return Evaluation(
        checkpoint=checkpoint.digest,
        dataset=dataset.digest,
        split=split,
        step_name=codec.step_name,
        continuous=codec.spec.continuous,
        scores=sorted(scores, key=lambda score: places[score.group]),
        remark="" if learnable else _NOTHING_LEARNED,
    )


def _learnable(dataset: Dataset) -> Iterable[NDArray[Any]]:
    """Yield the training split; of sound, only the first `_LEARNED_STEPS` steps."""
    left = math.inf if dataset.codec.encodes_notes else _LEARNED_STEPS
    for row in dataset.recordings("train"):
        yield row.sequence
        left -= len(row.sequence)
        if left <= 0:
            return


class _Judge:
    """Scores one model after another on the same groups of sequences."""

    def __init__(
        self,
        codec: Codec,
        sequences: dict[str, list[NDArray[Any]]],
        durations: dict[str, float],
        given: int,
        progress: Tell,
    ) -> None:
        self._codec, self._given, self._tell = codec, given, progress
        self._sequences, self._durations = sequences, durations
        self._names = [field.name for field in codec.spec.fields]
        self.scores: list[Score] = []

    def _add(self, group: str, model: str, losses: NDArray[np.float64], steps: int) -> None:
        by_field = dict(zip(self._names, losses.tolist(), strict=True))
        self.scores.append(Score(group, model, by_field, steps, self._durations[group]))

    def score_network(self, checkpoint: Checkpoint) -> None:
        load_keras()
        # All groups at once: the batch is full until the last recordings end.
        every = [s for sequences in self._sequences.values() for s in sequences]
        frame = checkpoint.config.frame
        model = build_model(
            checkpoint.spec,
            checkpoint.config,
            batch=min(_BATCH, len(every)),
            window=_WINDOW if self._codec.encodes_notes else -(-_SOUND_WINDOW // frame) * frame,
        )
        assign_weights(model, checkpoint.weights)
        self._tell(Progress("scoring", 0, 1))
        context = context_of(self._codec, checkpoint.config)
        sums, steps = losses(model, self._codec, every, context, given=self._given)
        done = 0
        for group, sequences in self._sequences.items():
            mine = slice(done, done + len(sequences))
            done += len(sequences)
            count = int(steps[mine].sum())
            self._add(group, MINE, sums[mine].sum(axis=0) / max(1, count), count)

    def score_chains(self, train: Iterable[NDArray[Any]]) -> None:
        self._tell(Progress("baselines", 0, 1))
        sizes = [field.size for field in self._codec.spec.fields]
        classes = self._codec.classes
        order = 2 if max(sizes) ** 3 <= _MARKOV_CELLS and len(sizes) > 1 else 1
        chain = MarkovChain(self._codec.spec, order=order).learn(map(classes, train))
        labels = [("unigram", 0), *((f"Markov, order {n}", n) for n in range(1, order + 1))]
        for group, sequences in self._sequences.items():
            sequences = [classes(sequence[self._given - 1 :]) for sequence in sequences]
            steps = sum(max(0, len(sequence) - 1) for sequence in sequences)
            # The first steps are given, so their widths do not count.
            widths = np.array(
                [
                    sum(width[s[1:, index]].sum() for s in sequences) / max(1, steps)
                    for index, width in enumerate(self._codec.log_widths)
                ]
            )
            if len(sizes) == 1:
                self._add(group, "uniform", np.log(np.array(sizes)) + widths, steps)
            for label, of_order in labels:
                self._add(group, label, chain.nats(sequences, order=of_order) + widths, steps)
            again = chain.nats_of_repetition(sequences) + widths
            self._add(group, f"repeat the last {self._codec.step_name}", again, steps)

    def score_predicted_classes(self, train: Sequence[NDArray[Any]], config: ModelConfig) -> None:
        [field] = self._codec.spec.fields
        linear = LinearPrediction(_PREDICTION_ORDER)
        linear.learn(field.levels[sequence] for sequence in train)
        ways: dict[str, Predict] = {
            f"linear AR({_PREDICTION_ORDER})": lambda s: linear.predict(field.levels[s]),
            _own(config): lambda s: own_prediction(self._codec.spec, config, s),
        }
        for name, predict in ways.items():
            predicted = PredictedClass(field, self._scored(predict)).learn(train)
            for group, sequences in self._sequences.items():
                total, count = predicted.nats(sequences)
                losses = np.array([total / max(1, count)])
                self._add(group, f"{name}, residual in classes", losses, count)

    def score_prediction(self, train: Iterable[NDArray[Any]]) -> None:
        self._tell(Progress("baselines", 0, 1))
        prediction = LinearPrediction(_PREDICTION_ORDER).learn(train)
        begin = max(0, self._given - _PREDICTION_ORDER)
        for group, sequences in self._sequences.items():
            cut = (sequence[begin:] for sequence in sequences)
            for name, (total, count) in prediction.errors(cut).items():
                self._add(group, name, np.array([total / max(1, count)]), count)

    def score_own_prediction(self, config: ModelConfig) -> None:
        predict = self._scored(lambda s: own_prediction(self._codec.spec, config, s))
        for group, sequences in self._sequences.items():
            total, count = 0.0, 0
            for sequence in sequences:
                apart = predict(sequence) - sequence[self._given :, 0]
                total, count = total + float(np.square(apart).sum()), count + len(apart)
            self._add(group, _own(config), np.array([total / max(1, count)]), count)

    def _scored(self, predict: Predict) -> Predict:
        """Return a prediction of the scored steps only."""

        def scored(sequence: NDArray[Any]) -> NDArray[np.float64]:
            predicted = predict(sequence)
            return predicted[max(0, self._given - (len(sequence) - len(predicted))) :]

        return scored


def _own(config: ModelConfig) -> str:
    return f"linear AR({config.order}) of the recording so far"


def _together(scores: list[Score], model: str, group: str) -> Score:
    mine = [score for score in scores if score.model == model]
    steps = sum(score.steps for score in mine)
    whole = {
        name: sum(s.losses[name] * s.steps for s in mine) / max(1, steps) for name in mine[0].losses
    }
    return Score(group, model, whole, steps, sum(score.duration_s for score in mine))


def _perplexity(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:  # beyond 709 nats
        return math.inf


def _number(value: float) -> str:
    if 0.1 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
