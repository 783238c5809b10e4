"""Calls for work on folders, here or on a cluster: one for each command that does such work.

Folders are given as paths or ``s3://`` prefixes. Settings are keyword arguments with the names of
``ray_config.yaml``; `config` and `profile` name such a file and one of its profiles. `progress` is
called with a `Progress` as work is done. Calls raise `InputError` where what is given cannot be
used, and `DeepPianoError` where a run failed; finished work is kept, and the same call resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deep_piano.api.given import PathLike, loaded, open_folders, path_of, settings_of
from deep_piano.dataset.manifest import Manifest
from deep_piano.errors import InputError
from deep_piano.generate.on_ray import generate
from deep_piano.generate.records import Records
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.prepare.dry_run import preview
from deep_piano.prepare.on_ray import prepare


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
    source, target = open_folders(chosen.storage, seeds, out)
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
        Replace a dataset that has other settings, or is broken.
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
    source, target = open_folders(chosen.storage, corpus, out)
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
    source, target = open_folders(chosen.storage, corpus, out)
    tell = progress or no_progress
    return preview(source, target, chosen.prepare, rebuild=rebuild, progress=tell)


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
    data, run = open_folders(chosen.storage, dataset, out)
    tell = progress or no_progress
    return begin_and_train(
        data,
        run,
        chosen.train,
        resume=resume,
        init=None if init is None else loaded(init, chosen.storage),
        progress=lambda now: tell(now.progress),
    )


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
    source, given, target = open_folders(chosen.storage, corpus, seeds, out)
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
    return jobs.submit(address, stage, arguments, folder=path_of(folder).absolute(), show=show)
