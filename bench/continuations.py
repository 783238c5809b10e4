"""Pieces beside what pianists played: adherence to the seed, distributions, faults, originality.

The seeds are the first ten seconds of held-out recordings of a dataset, a number of each corpus,
and of the recordings in a folder of sound, which are transcribed. Each is continued at several
random states, and every continuation is held against the real one over the same span of time:

- *cosine* of the pitch classes of the seed and its continuation; the control compares with the
  seeds of the other pieces of the corpus, the mean over all ways of shuffling them;
- *same key*: the share of continuations in the key of the seed;
- *density*: the mean |log| of the continuation's notes a second over the seed's;
- *told apart*: how well a forest tells excerpts of 15 s from those of the real continuations; the
  control tells half of these from the other half; *by habits*, by figures that no judge of
  candidates looks at;
- *overlapped area* of the distributions of the figures of `texture.TEXTURES`, over all pieces of a
  corpus, with the same control;
- *common ends*: the share of notes that end exactly with another;
- *pulse*: how regular excerpts of 15 s are from bar to bar, by the autocorrelation of their onsets;
- faults, over the whole piece: silence of more than 4 s, a pattern repeated more than 16 times in a
  row, a slow scale of more than eight steps, fewer than two pitch classes in effect, one half more
  than twice as dense as the other;
- the longest run of notes that a continuation shares with the training corpus, where its index is
  there; of a compact one, the longest that it may share.

Real notes are put on the codec's grid first, as those of the pieces are.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.realism import density_drift, habits, mean_pulse, overlapped_areas, told_apart
from bench.recordings import find_recordings
from deep_piano.analysis.keys import key_of
from deep_piano.analysis.note_figures import (
    FEWEST_PITCH_CLASSES,
    LONGEST_SILENCE_S,
    MOST_REPETITIONS,
    MOST_SLOW_STEPS,
    density_ratio,
    fewest_pitch_classes,
    longest_loop,
    longest_silence_s,
    longest_slow_scale,
    pitch_class_cosine,
)
from deep_piano.analysis.originality import Index
from deep_piano.analysis.texture import TEXTURES, common_ends
from deep_piano.cli.options import PerField
from deep_piano.codecs.notes import decode, encode
from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.generate.notes import NoteRoad, index_for
from deep_piano.generate.piece import decode_takes
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import NOTE, Notes, excerpt
from deep_piano.report.text import markdown

MOST_DRIFT = 2.0
ADHERENCE_AIM, OVERLAP_AIM = 0.05, 0.85
SHORTEST_CONTINUATION_S = 10.0
READ_S = 60.0  # of each recording in a folder of sound
RECORDINGS = "recordings"


@dataclass
class Case:
    """A seed with what really followed it, and the pieces that were made of it.

    Attributes
    ----------
    corpus, name : str
    path : Path
        What is continued.
    whole : ndarray, dtype `NOTE`
        Seed and real continuation, on the codec's grid, the first onset at time zero.
    seed : ndarray, dtype `NOTE`
    seed_s : float
        When the seed ends.
    pieces : list of ndarray, dtype `NOTE`
        The continuations that were made, one a random state.
    """

    corpus: str
    name: str
    path: Path
    whole: Notes
    seed: Notes = field(default_factory=lambda: np.empty(0, NOTE))
    seed_s: float = 0.0
    pieces: list[Notes] = field(default_factory=list)

    @property
    def real(self) -> Notes:
        """What really followed."""
        return self.whole[self.whole["onset"] >= self.seed_s]

    @property
    def alike(self) -> list[Notes]:
        """The continuations, each as far as the real one goes."""
        last = self.real["onset"].max(initial=0.0)
        return [piece[piece["onset"] <= last] for piece in self.pieces]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--pieces", default=20, show_default=True, help="Seeds of each corpus.")
@click.option("--audio", type=click.Path(path_type=Path), help="Folder of recordings as well.")
@click.option(
    "--random-state",
    "states",
    multiple=True,
    type=int,
    default=(0, 1),
    show_default="0 and 1",
    help="May be given several times.",
)
@click.option("--index", help="Of the training corpus.  [the checkpoint's own]")
@click.option("--most-shared", type=int, help="As for deep-piano generate.")
@click.option("--brief", is_flag=True, help="One line: for comparing settings.")
@click.option("--workers", default=os.cpu_count(), help="Processes.  [one a CPU]")
@click.option("--seconds", default=180.0, show_default=True, help="Length of a piece.")
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option("--temperature", type=PerField(float), help="As for deep-piano generate.")
@click.option("--top-p", type=PerField(float), help="As for deep-piano generate.")
@click.option("--top-k", type=PerField(int), help="As for deep-piano generate.")
@click.option("--guidance", type=PerField(float), help="As for deep-piano generate.")
@click.option("--hold-density", type=float, help="As for deep-piano generate.")
@click.option("--hold-beat", type=float, help="As for deep-piano generate.")
@click.option("--candidates", type=int, help="As for deep-piano generate.")
@click.option("--form", help="As for deep-piano generate.")
def main(
    dataset: str,
    pieces: int,
    audio: Path | None,
    states: Sequence[int],
    brief: bool,
    workers: int,
    **options: Any,
) -> None:
    """Print tables of pieces beside what was really played, as Markdown.

    DATASET is a folder that `deep-piano prepare` made with the codec notes; the seeds are of its
    validation split.
    """
    try:
        settings = load_config(None, {"generate": options}).generate
        corpus = index_for(_weights(settings.checkpoint), settings)
        with tempfile.TemporaryDirectory() as folder:
            with Dataset(open_folder(dataset)) as opened:
                cases = list(held_out(opened, pieces, Path(folder), settings.seed_seconds))
            cases += transcribed(find_recordings(audio, None)) if audio is not None else []
            cases = made(cases, settings, states, workers)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    if brief:
        click.echo(verdict(cases))
        return
    tables = [adherence_table(cases), realism_table(cases), faults_table(cases)]
    tables += [originality_table(cases, corpus)] if corpus is not None else []
    click.echo("\n\n".join([*tables, verdict(cases)]))


def held_out_music(dataset: Dataset, count: int, seed_s: float) -> Iterator[tuple[str, str, Notes]]:
    """Yield some of each corpus of the validation split, always the same ones.

    With the corpus come the name and the notes, the first onset at time zero.
    """
    shortest_s = seed_s + SHORTEST_CONTINUATION_S
    corpora = dataset.by_corpus("validation", shortest_s=shortest_s)
    if not any(corpora.values()):
        raise InputError(
            f"no recording of the validation split lasts {shortest_s:g} s. Give a larger dataset."
        )
    for corpus, rows in corpora.items():
        for index in np.random.default_rng(0).permutation(len(rows))[:count]:
            notes = decode(rows[index].sequence)
            yield corpus, rows[index].name, excerpt(notes, float(notes["onset"][0]), math.inf)


def held_out(dataset: Dataset, count: int, folder: Path, seed_s: float) -> Iterator[Case]:
    """Yield cases whose seeds are MIDI files."""
    for number, (corpus, name, whole) in enumerate(held_out_music(dataset, count, seed_s)):
        path = folder / f"{number}.mid"
        write_midi(path, excerpt(whole, 0.0, seed_s))
        yield Case(corpus, name, path, whole)


def transcribed(recordings: Iterable[Path]) -> Iterator[Case]:
    """Yield cases from recordings of sound; what really followed is transcribed too."""
    from deep_piano.music import audio
    from deep_piano.music.segments import SAMPLE_RATE
    from deep_piano.music.transcription import transcribe

    for path in recordings:
        samples = audio.decode(path, sr=SAMPLE_RATE, start_s=0.0, seconds=READ_S)
        notes = decode(encode(transcribe(samples, sr=SAMPLE_RATE)))
        whole = excerpt(notes, float(notes["onset"][0]), math.inf)
        yield Case(RECORDINGS, path.name, path, whole)


Job = tuple[Case, GenerateConfig, Sequence[int]]


def made(
    cases: Iterable[Case], settings: GenerateConfig, states: Sequence[int], workers: int
) -> list[Case]:
    """Return the cases with their pieces, made in so many processes."""
    jobs: list[Job] = [(case, settings, states) for case in cases]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        click.progressbar(pool.map(continued, jobs), length=len(jobs), file=sys.stderr) as shown,
    ):
        return list(shown)


def continued(job: Job) -> Case:
    """Return a case with its pieces, as `deep-piano generate` makes them."""
    case, settings, states = job
    weights = _weights(settings.checkpoint)
    index = index_for(weights, settings) if settings.most_shared is not None else None
    road = NoteRoad(weights, settings.model_copy(update={"seed_start": 0.0}), index=index)
    seed = road.read(case.path, no_progress)
    case.seed, case.seed_s = seed.notes, seed.seconds
    for state in states:
        chosen = settings.model_copy(update={"random_state": state})
        road = replace(road, settings=chosen)
        [take] = decode_takes(road, open_decoder(road.checkpoint, chosen), seed)
        case.pieces.append(take.notes[take.notes["onset"] >= take.seed_ends_s])
    return case


@cache
def _weights(name: str) -> checkpoint.Checkpoint:
    return checkpoint.load(name)


@dataclass(frozen=True)
class Adherence:
    """How pieces of a corpus keep to their seeds, beside the real continuations."""

    cosine: float
    real_cosine: float
    shuffled_cosine: float
    same_key: float
    real_same_key: float
    density: float
    real_density: float


def adherence(cases: Sequence[Case]) -> Adherence:
    """Return the mean figures of the pieces of cases."""

    def ours(figure: Callable[[Notes, Notes], float]) -> float:
        return _mean(figure(case.seed, piece) for case in cases for piece in case.alike)

    def real(figure: Callable[[Notes, Notes], float]) -> float:
        return _mean(figure(case.seed, case.real) for case in cases)

    shuffled = _mean(
        pitch_class_cosine(other.seed, piece)
        for case in cases
        for other in cases
        if other is not case and other.corpus == case.corpus
        for piece in case.alike
    )
    return Adherence(
        ours(pitch_class_cosine),
        real(pitch_class_cosine),
        shuffled,
        ours(_same_key),
        real(_same_key),
        ours(_density_distance),
        real(_density_distance),
    )


def _same_key(a: Notes, b: Notes) -> float:
    return float(key_of(a) == key_of(b))


def _density_distance(seed: Notes, continuation: Notes) -> float:
    return abs(math.log(max(density_ratio(seed, continuation), 0.01)))


@dataclass(frozen=True)
class Realism:
    """How pieces of a corpus are told from the real continuations; beside it, these by halves.

    Attributes
    ----------
    told_apart, real_told_apart : float
        Balanced accuracy of a forest, by the figures of `texture`.
    otherwise, real_otherwise : float
        The same by `habits`, which no judge of candidates looks at.
    areas, real_areas : dict of str to float
        Overlapped area of each of `TEXTURES`.
    common_ends, real_common_ends, pulse, real_pulse : float
    """

    told_apart: float
    real_told_apart: float
    otherwise: float
    real_otherwise: float
    areas: dict[str, float]
    real_areas: dict[str, float]
    common_ends: float
    real_common_ends: float
    pulse: float
    real_pulse: float

    @property
    def area(self) -> float:
        """The mean over all figures."""
        return _mean(self.areas.values())

    @property
    def real_area(self) -> float:
        """The mean over all figures, of the control."""
        return _mean(self.real_areas.values())


def realism(cases: Sequence[Case]) -> Realism:
    """Hold the pieces of cases against the real continuations."""
    ours = [piece for case in cases for piece in case.alike]
    real = [case.real for case in cases]
    halves = real[::2], real[1::2]
    return Realism(
        told_apart(real, ours),
        told_apart(*halves),
        told_apart(real, ours, figures=habits),
        told_apart(*halves, figures=habits),
        overlapped_areas(real, ours),
        overlapped_areas(*halves),
        _mean(map(common_ends, ours)),
        _mean(map(common_ends, real)),
        mean_pulse(ours),
        mean_pulse(real),
    )


def adherence_table(cases: Sequence[Case]) -> str:
    """Return a line a corpus."""
    head = ["corpus", "seeds", "pieces", "cosine with the seed", "of the real", "of other seeds"]
    head += ["same key", "of the real", "density", "of the real"]
    rows = []
    for corpus, some in by_corpus(cases):
        found = adherence(some)
        pieces = sum(len(case.pieces) for case in some)
        rows.append(
            [
                corpus,
                str(len(some)),
                str(pieces),
                f"{found.cosine:.3f}",
                f"{found.real_cosine:.3f}",
                f"{found.shuffled_cosine:.3f}",
                f"{found.same_key:.2f}",
                f"{found.real_same_key:.2f}",
                f"{found.density:.2f}",
                f"{found.real_density:.2f}",
            ]
        )
    return markdown(head, rows)


def realism_table(cases: Sequence[Case]) -> str:
    """Return a line a corpus: ours, and in brackets the real ones' by halves, or their own."""
    head = ["corpus", "told apart", "by habits", "common ends", "pulse"]
    head += ["overlapped area", *TEXTURES]
    rows = []
    for corpus, some in by_corpus(cases):
        found = realism(some)
        pairs = [
            (found.told_apart, found.real_told_apart),
            (found.otherwise, found.real_otherwise),
            (found.common_ends, found.real_common_ends),
            (found.pulse, found.real_pulse),
            (found.area, found.real_area),
            *zip(found.areas.values(), found.real_areas.values(), strict=True),
        ]
        rows.append([corpus, *(f"{ours:.2f} ({theirs:.2f})" for ours, theirs in pairs)])
    return markdown(head, rows)


def faults(notes: Notes, start_s: float) -> tuple[bool, bool, bool, bool, bool]:
    """Say of a continuation whether it is silent for long, loops, climbs on, drones, and drifts."""
    return (
        longest_silence_s(notes, start_s=start_s) > LONGEST_SILENCE_S,
        longest_loop(notes) > MOST_REPETITIONS,
        longest_slow_scale(notes) > MOST_SLOW_STEPS,
        fewest_pitch_classes(notes) < FEWEST_PITCH_CLASSES,
        density_drift(notes) > MOST_DRIFT,
    )


def faults_table(cases: Sequence[Case]) -> str:
    """Return a line a corpus: shares of whole continuations, and in brackets of the real ones."""
    rows = []
    for corpus, some in by_corpus(cases):
        ours = np.mean([faults(p, case.seed_s) for case in some for p in case.pieces], axis=0)
        real = np.mean([faults(case.real, case.seed_s) for case in some], axis=0)
        pairs = zip(ours, real, strict=True)
        rows.append([corpus, *(f"{mine:.2f} ({theirs:.2f})" for mine, theirs in pairs)])
    head = [f"silence over {LONGEST_SILENCE_S:g} s", f"more than {MOST_REPETITIONS} repetitions"]
    head += [f"slow scale over {MOST_SLOW_STEPS} steps"]
    head += [f"fewer than {FEWEST_PITCH_CLASSES:g} pitch classes"]
    return markdown(["share of pieces", *head, f"density drifts over {MOST_DRIFT:g}x"], rows)


def originality_table(cases: Sequence[Case], corpus: Index) -> str:
    """Return a line a corpus: the longest shared runs of the pieces, then of the real ones."""

    def runs(parts: Iterable[Notes]) -> list[str]:
        found = [corpus.longest_run(encode(part)).notes for part in parts]
        marks = (*np.percentile(found, [50, 90], method="higher"), max(found))
        return [f"{mark:.0f}" if mark else f"< {corpus.gram + 1}" for mark in marks]

    rows = []
    for name, some in by_corpus(cases):
        ours = runs(piece for case in some for piece in case.alike)
        rows.append([name, *ours, *runs(case.real for case in some)])
    head = ["median", "9 in 10 below", "longest"]
    return markdown(["shared run, notes", *head, *(f"real: {name}" for name in head)], rows)


def verdict(cases: Sequence[Case]) -> str:
    """Return one line: what is aimed at, over all pieces."""
    found = adherence(cases)
    alike = realism(cases)
    parts = [(case, part) for case in cases for part in case.pieces]
    bad = np.mean([faults(part, case.seed_s) for case, part in parts], axis=0)
    gap = abs(found.real_cosine - found.cosine)
    return (
        f"Cosine {found.cosine:.3f}, the real ones' {found.real_cosine:.3f}: "
        f"{_verdict(gap <= ADHERENCE_AIM)} (aim: within {ADHERENCE_AIM}). "
        f"Same key {found.same_key:.2f} ({found.real_same_key:.2f}), "
        f"density {found.density:.2f} ({found.real_density:.2f}). "
        f"Told apart {alike.told_apart:.3f} ({alike.real_told_apart:.3f}), by habits "
        f"{alike.otherwise:.3f} ({alike.real_otherwise:.3f}), mean overlapped area "
        f"{alike.area:.3f} ({alike.real_area:.3f}): {_verdict(alike.area >= OVERLAP_AIM)} "
        f"(aim: {OVERLAP_AIM}). "
        f"Common ends {alike.common_ends:.3f} ({alike.real_common_ends:.3f}), "
        f"pulse {alike.pulse:.3f} ({alike.real_pulse:.3f}). "
        f"Silences {bad[0]:.2f}, loops {bad[1]:.2f}, slow scales {bad[2]:.2f}, "
        f"drones {bad[3]:.2f}, drifts {bad[4]:.2f} of {len(parts)} pieces."
    )


def by_corpus(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """Yield each corpus with its cases, then all together."""
    for corpus in dict.fromkeys(case.corpus for case in cases):
        yield corpus, [case for case in cases if case.corpus == corpus]
    yield "all", list(cases)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def _verdict(right: bool) -> str:
    return "kept" if right else "**missed**"


if __name__ == "__main__":
    main()
