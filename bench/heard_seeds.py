"""What a checkpoint foresees after a seed that was heard, beside one that is known.

The beginnings of held-out recordings are rendered on a sampled piano and transcribed, as the seeds
of users are. The notes that really follow are scored after the notes that were played, after the
notes that were heard, and after no seed at all. The nearer the second figure to the first, the
better a recording does in place of a MIDI file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
import numpy as np

from bench.continuations import held_out_music
from deep_piano.codecs.notes import encode
from deep_piano.codecs.registry import codec_of
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError
from deep_piano.infra.backend import load_keras
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.models.checkpoint import Checkpoint, assign_weights
from deep_piano.models.note_network import build_model
from deep_piano.music import synth
from deep_piano.music.notes import Notes, excerpt
from deep_piano.music.segments import SAMPLE_RATE
from deep_piano.music.transcription import transcribe
from deep_piano.report.text import markdown
from deep_piano.train.likelihood import losses

SEED_S, FOLLOWS_S, RING_S = 10.0, 30.0, 1.0
PEAK = 0.5
BATCH, WINDOW = 32, 64


class Case(NamedTuple):
    """The notes of a seed as played and as heard, and what follows, all on one clock."""

    played: Notes
    heard: Notes
    follows: Notes


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--pieces", default=4, show_default=True, help="Seeds of each corpus.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    default=("notes",),
    show_default=True,
    help="Name or folder; may be given several times.",
)
@click.option("--sound", default="salamander", show_default=True, help="That plays the seeds.")
def main(dataset: str, pieces: int, checkpoints: Sequence[str], sound: str) -> None:
    """Print nats a note after seeds that were played and heard, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes; the seeds are of its
    validation split.
    """
    try:
        loaded = {name: checkpoint.load(name) for name in checkpoints}
        with Dataset(open_folder(dataset)) as opened:
            cases = list(heard(opened, pieces, sound))
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    rows = []
    for name, one in loaded.items():
        figures = [nats_after(one, cases, kind) for kind in ("played", "heard", "none")]
        rows.append([name, *(f"{figure:.3f}" for figure in figures)])
    notes = sum(len(case.follows) for case in cases)
    click.echo(f"{len(cases)} seeds, {notes:,} notes after them; {missed(cases)}.\n")
    head = ["checkpoint", "after what was played", "after what was heard", "after no seed"]
    click.echo(markdown([f"nats a note of {head[0]}", *head[1:]], rows))


def heard(dataset: Dataset, count: int, sound: str) -> Iterator[Case]:
    """Yield seeds of the validation split, rendered and transcribed."""
    for _corpus, _name, notes in held_out_music(dataset, count, SEED_S):
        played = excerpt(notes, 0.0, SEED_S)
        samples = synth.render(played, sound=sound, seconds=SEED_S + RING_S, sr=SAMPLE_RATE)
        mono = samples.mean(axis=1)[: round(SEED_S * SAMPLE_RATE)]
        mono *= PEAK / max(float(np.abs(mono).max()), 1e-9)
        follows = notes[(notes["onset"] >= SEED_S) & (notes["onset"] < SEED_S + FOLLOWS_S)]
        found = transcribe(mono.astype(np.float32), sr=SAMPLE_RATE)
        yield Case(played, found[found["onset"] < SEED_S], follows)


def nats_after(one: Checkpoint, cases: Sequence[Case], kind: str) -> float:
    """Return the mean loss of the notes that follow, after a kind of seed.

    The network is causal: what follows costs the whole sequence's loss less that of its seed.
    """
    load_keras()
    codec = codec_of(one.spec)
    model = build_model(one.spec, one.config, batch=BATCH, window=WINDOW)
    assign_weights(model, one.weights)
    seeds = [getattr(case, kind, case.played[-1:]) for case in cases]
    wholes = [np.concatenate([seed, case.follows]) for seed, case in zip(seeds, cases, strict=True)]
    sums = [
        losses(model, codec, [encode(part) for part in parts])[0].sum() for parts in (wholes, seeds)
    ]
    return float(sums[0] - sums[1]) / sum(len(case.follows) for case in cases)


def missed(cases: Sequence[Case]) -> str:
    """Say how many notes were played and how many heard."""
    played, found = (sum(len(getattr(c, kind)) for c in cases) for kind in ("played", "heard"))
    return f"{played:,} notes were played in the seeds and {found:,} heard"


if __name__ == "__main__":
    main()
