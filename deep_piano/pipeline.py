"""The three jobs in turn: a corpus becomes a dataset, a dataset a run, and seeds become pieces.

Each stage does only what is missing, so that a stopped pipeline resumes where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deep_piano.config.sections import Config
from deep_piano.generate.on_ray import generate
from deep_piano.generate.records import Records
from deep_piano.generate.wave import require_no_notes
from deep_piano.infra.backend import require_keras
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import require_apart
from deep_piano.models.checkpoint import BEST_OF_RUN
from deep_piano.music.recordings import survey
from deep_piano.prepare.on_ray import prepare
from deep_piano.train import runs
from deep_piano.train.loop import Update
from deep_piano.train.on_ray import begin_and_train

DATASET: Final = "dataset"
RUN: Final = "run"
PIECES: Final = "pieces"


def pipeline(
    corpus: Folder,
    seeds: Folder,
    out: Folder,
    config: Config,
    *,
    progress: Tell = no_progress,
) -> Records:
    """Prepare a corpus, train on it, and continue seeds with the best checkpoint of the run.

    Parameters
    ----------
    corpus, seeds : Folder
        Read only; they may be the same.
    out : Folder
        Outside both; gets the folders `dataset`, `run` and `pieces`.
    config : Config
        The settings of all stages. The run's best checkpoint replaces `generate.checkpoint`.
    progress : callable
        Called as work is done.

    Returns
    -------
    Records
        All requested pieces, by seed and take.

    Raises
    ------
    InputError, DeepPianoError
        As the stages do. Finished work is kept, and the same call resumes.
    """
    by_name = {"checkpoint": f"{RUN}/{BEST_OF_RUN}"}  # for the facts of the pieces
    named = config.model_copy(update={"generate": config.generate.model_copy(update=by_name)})
    if config.prepare.codec != "notes":
        require_no_notes(Path(f"take.{config.bulk.format}"), named.generate)
    require_keras()
    for given in (corpus, seeds):
        require_apart(given, out)
    survey(seeds)  # raises now, and not after the training, where there are none
    dataset, run, pieces = out.inner(DATASET), out.inner(RUN), out.inner(PIECES)

    def trained(now: Update) -> None:
        progress(now.progress)

    with connected():
        prepare(corpus, dataset, config, progress=progress)
        resume = runs.read_about(run) is not None
        best = begin_and_train(dataset, run, config.train, resume=resume, progress=trained)
        return generate(seeds, pieces, named, checkpoint=best, progress=progress)
