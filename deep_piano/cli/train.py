"""The commands `train`, `runs`, `evaluate` and `judge`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from deep_piano.cli.options import (
    LocalPath,
    SettingsFile,
    configured,
    json_option,
    open_folders,
    print_json,
)
from deep_piano.cli.terminal import stages
from deep_piano.errors import one_line


@click.command(epilog="Example: deep-piano train dataset/ -o runs/first --preset small")
@click.argument("dataset")
@click.option("-o", "--output", "run", required=True, help="Folder or s3:// prefix of the run.")
@click.option("--workers", type=int, help="Train on Ray with so many workers.  [in this process]")
@click.option("--gpus-per-worker", type=float, help="0 to train on CPUs.  [1 where there are any]")
@click.option("--resume", is_flag=True, help="Resume from the run's last checkpoint.")
@click.option("--init", help="Begin with the weights of this checkpoint.")
@click.option("--preset", help="Size of the network: tiny, small, base or large.  [base]")
@click.option("--layers", type=int, help="LSTM layers.  [the preset's, or --init's]")
@click.option("--steps", type=int, help="Updates in all.  [7000]")
@click.option("--batch", type=int, help="Windows in a batch, of all workers together.  [64]")
@click.option("--window", type=int, help="Steps in a window.  [64]")
@click.option("--hop", type=int, help="Steps from one window to the next.  [the window]")
@click.option("--learning-rate", type=float, help="The highest rate.  [0.003]")
@click.option("--decay-steps", type=int, help="Updates of the decay at the end.  [a fifth]")
@click.option(
    "--eval-every-steps", type=int, help="Updates from one validation to the next.  [250]"
)
@click.option("--patience", type=int, help="Stop after so many validations without improvement.")
@click.option("--precision", help="float32, mixed_bfloat16, mixed_float16 or auto.  [auto]")
@click.option("--random-state", type=int, help="Seed of the random generators.  [0]")
@configured
def train(
    file: SettingsFile,
    /,
    dataset: str,
    run: str,
    resume: bool,
    init: str | None,
    **options: Any,
) -> None:
    """Train the LSTM on DATASET, which `prepare` made: in this process, or on Ray.

    Without --workers, training uses one GPU of this machine, or its CPUs; KERAS_BACKEND chooses
    tensorflow, torch or jax. With --workers, a Ray Train job divides every batch among the workers,
    which train one model. The run's folder holds the best and the last checkpoint, the history with
    a plot and TensorBoard's log, settings and versions. All settings are in ray_config.yaml.
    """
    settings = file.load({"train": options})
    data, target = open_folders(settings.storage, dataset, run)
    from deep_piano.models.checkpoint import BEST_OF_RUN, load
    from deep_piano.train.on_ray import begin_and_train

    given = load(init, storage=settings.storage) if init is not None else None
    with stages() as progress:
        best = begin_and_train(
            data,
            target,
            settings.train,
            resume=resume,
            init=given,
            progress=lambda now: progress(now.progress),
        )
    click.echo(
        f"{one_line(target.place(BEST_OF_RUN))}: {best.facts['validation_loss']:.4f} on the "
        f"validation sample, at update {best.facts['step']:,}"
    )


@click.command(epilog="Example: deep-piano runs runs/")
@click.argument("folder")
@json_option
@configured
def runs(file: SettingsFile, /, folder: str, as_json: bool) -> None:
    """Compare the runs in FOLDER, and name the best so far.

    `generate --checkpoint FOLDER` then uses that one. Runs of different datasets are listed, but
    not compared.
    """
    from deep_piano.api.tools import compare_runs
    from deep_piano.train.runs import best_run, table

    found = compare_runs(folder, **dict(file.storage))
    best = best_run(found)
    if as_json:
        known = [asdict(run) | {"dataset": run.dataset} for run in found]
        print_json({"runs": known, "best": best.name if best else None})
        return
    click.echo(table(found))
    if best is None:
        click.echo(
            "no best run: the runs have different datasets or batches, and so different validation "
            "samples, or none was validated yet"
        )
    else:
        click.echo(f"best so far: {best.name}; deep-piano generate --checkpoint {folder} uses it")


@click.command(epilog="Example: deep-piano evaluate runs/first dataset/ --split test")
@click.argument("checkpoint")
@click.argument("dataset")
@click.option(
    "--split",
    default="validation",
    show_default=True,
    type=click.Choice(["train", "validation", "test"]),
    help="Which recordings to score.",
)
@click.option("--plot", type=LocalPath(), help="PNG to draw the table into.")
@json_option
@configured
def evaluate(
    file: SettingsFile,
    /,
    checkpoint: str,
    dataset: str,
    split: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Score CHECKPOINT on a split of DATASET, beside the baselines and published figures.

    For notes: nats a note on the grid of 10 ms and 32 velocities, in total and by field, nats a
    second and perplexity, for each top-level folder of the corpus. The baselines are fitted to the
    training split.
    """
    from deep_piano.api.tools import evaluate as score

    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot writes a PNG: give a name that ends in .png, not {plot}.")
    with stages() as progress:
        found = score(checkpoint, dataset, split=split, progress=progress, **dict(file.storage))
    click.echo(found.to_json().rstrip() if as_json else found.table())
    if plot is not None:
        from deep_piano.report.curves import likelihoods

        totals = {group: {s.model: s.total for s in found.of(group)} for group in found.groups}
        likelihoods(plot, totals, published=found.published, unit=found.unit)


@click.command(epilog="Example: deep-piano judge runs/first dataset/")
@click.argument("checkpoint")
@click.argument("dataset")
@click.option(
    "--recordings",
    default=500,
    show_default=True,
    help="The most recordings of the training split to use.",
)
@click.option("--random-state", type=int, help="Another number chooses other recordings.  [0]")
@click.option("--force", is_flag=True, help="Replace the judge that the checkpoint has.")
@configured
def judge(
    file: SettingsFile,
    /,
    checkpoint: str,
    dataset: str,
    recordings: int,
    random_state: int | None,
    force: bool,
) -> None:
    """Train the judge of CHECKPOINT, which chooses among candidates in `generate`.

    The checkpoint continues seeds of the training split of DATASET; the judge learns to tell
    pianists' continuations from these, and is stored with the checkpoint.
    """
    from deep_piano.dataset.reader import Dataset
    from deep_piano.models import checkpoint as checkpoints
    from deep_piano.train.judging import store_judge

    settings = file.load({"generate": {"random_state": random_state}})
    [data] = open_folders(settings.storage, dataset)
    folder = checkpoints.find(checkpoint, settings.storage)
    with Dataset(data) as opened, stages() as progress:
        trained = store_judge(
            folder,
            opened,
            settings.generate,
            recordings=recordings,
            force=force,
            progress=progress,
        )
    click.echo(
        f"{one_line(folder.uri)}: the judge tells a real moment from a generated one in "
        f"{trained.right:.0%} of cases; {trained.moments:,} moments of {trained.recordings} "
        "recordings"
    )
