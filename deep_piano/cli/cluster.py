"""`pipeline`, the three jobs in turn, and `submit`, which runs a job on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deep_piano.cli.generate import _count_pieces
from deep_piano.cli.options import SettingsFile, _open, configured
from deep_piano.cli.terminal import reports
from deep_piano.infra.logs import logs_json


@click.command(epilog="Example: deep-piano pipeline recordings/ seeds/ -o out/ --preset small")
@click.argument("corpus")
@click.argument("seeds")
@click.option(
    "-o", "--output", "out", required=True, help="Folder or s3:// prefix of all that comes out."
)
@click.option("--preset", help="Size of the network: tiny, small, base or large.  [base]")
@click.option("--steps", type=int, help="Updates of the training.  [7000]")
@click.option("--workers", type=int, help="Train on Ray, with so many.  [in this process]")
@click.option("--format", help="Of the pieces: mp3, wav, flac, ogg or mid.  [mp3]")
@click.option("--takes", type=int, help="Pieces of each seed.  [1]")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def pipeline(
    file: SettingsFile, /, corpus: str, seeds: str, out: str, endpoint: str | None, **options: Any
) -> None:
    """Make a dataset of CORPUS, train on it, and continue SEEDS with what was learned.

    The output holds dataset/, run/ and pieces/, as prepare, train and generate write them, and all
    settings are theirs (generate.checkpoint is the run's best one). The same command goes on where
    one was stopped, and does nothing again that is there.
    """
    sections = {
        "train": {name: options[name] for name in ("preset", "steps", "workers")},
        "generate": {"takes": options["takes"]},
        "bulk": {"format": options["format"]},
        "storage": {"endpoint": endpoint},
    }
    settings = file.load(sections)
    source, to_continue, target = _open(settings.storage, corpus, seeds, out)
    from deep_piano.pipeline import pipeline as all_three

    with reports() as report:
        records = all_three(source, to_continue, target, settings, progress=report)
    _count_pieces(out, records)


@click.command(
    epilog="Example: deep-piano submit train s3://music/dataset -o s3://music/run --workers 4",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    help="The cluster's job server, as http://127.0.0.1:8265.  [$RAY_ADDRESS]",
)
@click.option("--dry-run", is_flag=True, help="Only print the same as a `ray job submit` command.")
@click.argument("stage")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def submit(
    file: SettingsFile, address: str | None, dry_run: bool, stage: str, arguments: tuple[str, ...]
) -> None:
    """Run STAGE (prepare, train, generate or pipeline) with its ARGUMENTS on a Ray cluster.

    It runs there as it does here, with the code and the *.yaml of the working folder, which must be
    the repository; nothing else is sent, and no credentials. The log is shown, and the exit code is
    the job's. The cluster's token is taken from RAY_AUTH_TOKEN.
    """
    from deep_piano.infra.cluster import jobs

    if stage not in jobs.STAGES:
        raise click.UsageError(f"{stage!r} is none of the stages {', '.join(jobs.STAGES)}.")
    if "://" not in (address or "") and not (dry_run and not address):
        raise click.UsageError(
            f"no address of a job server: {address!r}. Give --address http://HOST:PORT, or set "
            "RAY_ADDRESS."
        )
    file.load({})  # what the settings lack is said here, and not by the job
    if file.path is not None:
        if file.path.parent != Path():
            raise click.UsageError(f"{str(file.path)!r} does not stand in the working folder.")
        arguments = (*arguments, "--config", str(file.path))
    arguments = (*arguments, "--profile", file.profile) if file.profile else arguments
    arguments = (*arguments, "--log-json") if logs_json() else arguments
    if dry_run:
        jobs.require_checkout(Path.cwd())
        click.echo(jobs.ray_command(address, stage, arguments))
        return

    def show(text: str) -> None:
        click.echo(text, nl=False)

    assert address is not None
    code = jobs.submit(address, stage, arguments, folder=Path.cwd(), show=show)
    click.get_current_context().exit(code)
