"""The command line: options in, one clear line out, an exit code that says whose fault it was.

The group and its commands; a module a verb. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

from pathlib import Path

import click

from deep_piano import __version__
from deep_piano.cli.cluster import pipeline, submit
from deep_piano.cli.generate import gallery, generate, index
from deep_piano.cli.options import SettingsFile
from deep_piano.cli.prepare import inspect, prepare
from deep_piano.cli.setup import assets, doctor
from deep_piano.cli.terminal import Group
from deep_piano.cli.train import evaluate, judge, runs, train
from deep_piano.infra.logs import set_up_logging


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: deep-piano --config ray_config.yaml generate seed.mp3 -o piece.mp3",
)
@click.version_option(__version__, prog_name="deep-piano")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, as ray_config.yaml.")
@click.option(
    "--profile",
    envvar="DEEP_PIANO_PROFILE",
    help="One of the settings' profiles, as laptop, single-gpu or cluster.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and log what happens.")
@click.option(
    "--log-json",
    is_flag=True,
    envvar="DEEP_PIANO_LOG_JSON",
    help="Log to standard error as JSON, one object a line.",
)
@click.pass_context
def main(
    ctx: click.Context, config: Path | None, profile: str | None, debug: bool, log_json: bool
) -> None:
    """Ten seconds of recorded piano in, a three-minute piece that continues it out."""
    set_up_logging(debug=debug, as_json=log_json)
    ctx.obj = SettingsFile(config, profile)


for _command in (prepare, inspect, train, runs, evaluate, judge, generate, index, gallery):
    main.add_command(_command)
for _command in (pipeline, submit, assets, doctor):
    main.add_command(_command)
