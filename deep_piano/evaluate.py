"""Nats a note of a checkpoint and of the baselines, on held-out recordings, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deep_piano.backend import load_keras
from deep_piano.baselines import MarkovChain
from deep_piano.checkpoint import Checkpoint, assign_weights
from deep_piano.codecs.notes import LOG_WIDTHS, encode
from deep_piano.corpus import Corpus
from deep_piano.likelihood import nats_per_note
from deep_piano.model import build_model

_BATCH, _WINDOW = 64, 64
BASELINES = (("unigram", 0), ("Markov, order 2", 2))


@dataclass(frozen=True)
class Score:
    """Nats a note of one model on one group of recordings.

    Attributes
    ----------
    group : str
        Sub-folder of the corpus; "all" for the whole split.
    model : str
    nats : dict of str to float
        A field, on the grid of 10 ms and 32 velocities.
    notes : int
        How many notes were scored.
    """

    group: str
    model: str
    nats: dict[str, float]
    notes: int

    @property
    def total(self) -> float:
        """Nats a note: the figure that papers give."""
        return sum(self.nats.values())


def score(
    checkpoint: Checkpoint,
    corpus: Corpus,
    *,
    progress: Callable[[str, float, float], None] | None = None,
) -> list[Score]:
    """Score a checkpoint and the baselines on the validation split, by group and together.

    The baselines are counted on the training split. The first note of each recording is given.
    """
    tell = progress or (lambda stage, done, total: None)
    held_out = corpus.of("validation")
    names = sorted({recording.group for recording in held_out})
    groups = {name: [r.notes for r in held_out if r.group == name] for name in names}
    fields = [field.name for field in checkpoint.spec.fields]
    load_keras()
    model = build_model(checkpoint.spec, checkpoint.config, batch=_BATCH, window=_WINDOW)
    assign_weights(model, checkpoint.weights)
    scores = []
    for index, (name, recordings) in enumerate(groups.items()):
        tell("scoring", index, len(groups))
        notes = sum(len(recording) - 1 for recording in recordings)
        nats = nats_per_note(model, checkpoint.spec, recordings)
        scores.append(Score(name, "this checkpoint", nats, notes))
    tell("baselines", 0, len(BASELINES))
    chain = MarkovChain(checkpoint.spec, order=max(order for _, order in BASELINES))
    chain.learn(encode(recording.notes) for recording in corpus.of("train"))
    for done, (label, order) in enumerate(BASELINES):
        tell("baselines", done, len(BASELINES))
        for name, recordings in groups.items():
            sequences = [encode(recording) for recording in recordings]
            # First notes are given: their widths do not count either.
            widths = [
                np.concatenate([width[s[1:, index]] for s in sequences]).mean()
                for index, width in enumerate(LOG_WIDTHS)
            ]
            nats = dict(
                zip(fields, (chain.nats(sequences, order=order) + widths).tolist(), strict=True)
            )
            scores.append(Score(name, label, nats, sum(len(s) - 1 for s in sequences)))
    if len(groups) > 1:
        scores += [_together(scores, label) for label in dict.fromkeys(s.model for s in scores)]
    return scores


def _together(scores: list[Score], model: str) -> Score:
    mine = [s for s in scores if s.model == model]
    notes = sum(s.notes for s in mine)
    nats = {name: sum(s.nats[name] * s.notes for s in mine) / notes for name in mine[0].nats}
    return Score("all", model, nats, notes)


def table(scores: list[Score]) -> str:
    """Return the scores as a Markdown table, nats a note."""
    fields = list(scores[0].nats)
    head = ["corpus", "model", "notes", "nats a note", *fields]
    rows = [
        [s.group or "all", s.model, f"{s.notes:,}", f"{s.total:.3f}"]
        + [f"{s.nats[name]:.3f}" for name in fields]
        for s in sorted(scores, key=lambda s: s.group == "all")
    ]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
