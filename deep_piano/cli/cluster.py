"""`pipeline`, the three jobs in turn, and `submit`, which runs a job on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deep_piano.cli.generate import report_pieces
from deep_piano.cli.options import SettingsFile, configured, open_folders
from deep_piano.cli.terminal import reports
from deep_piano.infra.logs import logs_json


@click.command(epilog="Example: deep-piano pipeline recordings/ seeds/ -o out/ --preset small")
@click.argument("corpus")
@click.argument("seeds")
@click.option("-o", "--output", "out", required=True, help="Folder or s3:// prefix of all outputs.")
@click.option("--preset", help="Size of the network: tiny, small, base or large.  [base]")
@click.option("--steps", type=int, help="Updates of the training.  [7000]")
@click.option("--workers", type=int, help="Train on Ray with so many workers.  [in this process]")
@click.option("--format", help="Format of the pieces: mp3, wav, flac, ogg, mid or musicxml.  [mp3]")
@click.option("--takes", type=int, help="Pieces of each seed.  [1]")
@configured
def pipeline(file: SettingsFile, /, corpus: str, seeds: str, out: str, **options: Any) -> None:
    """Make a dataset of CORPUS, train on it, and continue SEEDS with the best checkpoint.

    The output holds dataset/, run/ and pieces/, as prepare, train and generate write them, with
    the settings of these commands (except generate.checkpoint). The same command resumes where it
    was stopped and repeats nothing.
    """
    sections = {
        "train": {name: options[name] for name in ("preset", "steps", "workers")},
        "generate": {"takes": options["takes"]},
        "bulk": {"format": options["format"]},
    }
    settings = file.load(sections)
    source, to_continue, target = open_folders(settings.storage, corpus, seeds, out)
    from deep_piano.pipeline import PIECES
    from deep_piano.pipeline import pipeline as all_three

    with reports() as report:
        records = all_three(source, to_continue, target, settings, progress=report)
    report_pieces(out, records, target.inner(PIECES))


@click.command(
    epilog="Example: deep-piano submit train s3://music/dataset -o s3://music/run --workers 4",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    help="The cluster's job server, as http://127.0.0.1:8265.  [$RAY_ADDRESS]",
)
@click.option("--dry-run", is_flag=True, help="Only print the equivalent `ray job submit` command.")
@click.argument("stage")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def submit(
    file: SettingsFile, address: str | None, dry_run: bool, stage: str, arguments: tuple[str, ...]
) -> None:
    """Run STAGE (prepare, train, generate or pipeline) with its ARGUMENTS on a Ray cluster.

    The working folder must be the repository: its code and *.yaml are sent, and nothing else, no
    credentials either. The job's log is shown, and its exit code is returned. RAY_AUTH_TOKEN has
    the cluster's token.
    """
    from deep_piano.infra.cluster import jobs

    if stage not in jobs.STAGES:
        raise click.UsageError(f"{stage!r} is not one of the stages {', '.join(jobs.STAGES)}.")
    if "://" not in (address or "") and not (dry_run and not address):
        raise click.UsageError(
            f"no address of a job server: {address!r}. Give --address http://HOST:PORT, or set "
            "RAY_ADDRESS."
        )
    file.load({})  # report mistakes in the settings here, not in the job
    options: list[str] = []
    if file.path is not None:
        if file.path.parent.resolve() != Path.cwd().resolve():
            raise click.UsageError(f"{str(file.path)!r} is not in the working folder.")
        if not jobs.is_sent(file.path):
            raise click.UsageError(
                f"{str(file.path)!r} is not sent with a job, as files named *.yaml are that begin "
                "with no dot. Rename it."
            )
        options += ["--config", file.path.name]
    options += ["--profile", file.profile] if file.profile else []
    options += ["--log-json"] if logs_json() else []
    arguments = (*options, *arguments)  # behind them there may be "--" and names
    if dry_run:
        jobs.require_checkout(Path.cwd())
        click.echo(jobs.ray_command(address, stage, arguments))
        return

    def show(text: str) -> None:
        click.echo(text, nl=False)

    assert address is not None
    code = jobs.submit(address, stage, arguments, folder=Path.cwd(), show=show)
    click.get_current_context().exit(code)
