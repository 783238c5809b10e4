"""The command line: the group and its commands.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

from pathlib import Path

import click

from deep_piano import __version__
from deep_piano.cli.cluster import pipeline, submit
from deep_piano.cli.generate import gallery, generate, index, votes
from deep_piano.cli.options import SettingsFile, settings_options
from deep_piano.cli.prepare import inspect, prepare
from deep_piano.cli.serve import serve
from deep_piano.cli.setup import assets, doctor
from deep_piano.cli.terminal import Group
from deep_piano.cli.train import evaluate, judge, runs, train
from deep_piano.infra.caches import settle_libraries
from deep_piano.infra.logs import set_up_logging


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: deep-piano --config ray_config.yaml generate seed.mp3 -o piece.mp3",
)
@click.version_option(__version__, prog_name="deep-piano")
@settings_options(environment=True)
@click.option("--debug", is_flag=True, help="Show tracebacks and log more.")
@click.pass_context
def main(
    ctx: click.Context,
    config: Path | None,
    profile: str | None,
    debug: bool,
    log_json: bool,
    quiet: bool,
) -> None:
    """Ten seconds of recorded piano in, a three-minute piece that continues it out."""
    set_up_logging(debug=debug, as_json=log_json, quiet=quiet)
    settle_libraries()
    ctx.obj = SettingsFile(config, profile)


_COMMANDS = (prepare, inspect, train, runs, evaluate, judge, generate, index, gallery, votes)
for _command in (*_COMMANDS, serve, pipeline, submit, assets, doctor):
    main.add_command(_command)
