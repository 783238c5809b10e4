"""Options that commands share: settings, folders, and a number for each field of a note."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import click

from deep_piano.infra.logs import is_quiet, logs_json, set_up_logging

if TYPE_CHECKING:
    from deep_piano.config.sections import Config, StorageConfig
    from deep_piano.infra.storage.folder import Folder

logger = logging.getLogger("deep_piano")


Command = TypeVar("Command", bound=Callable[..., None])

FIELDS = ("onset", "pitch", "velocity", "duration")


class PerField(click.ParamType[Any]):
    """One number for all attributes of a note, or one for each: ``pitch=0.9,onset=1.1``."""

    name = "NUMBER|FIELD=NUMBER,..."

    def __init__(self, number: type[float] | type[int]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a number, or a mapping of attribute to number."""
        if not isinstance(value, str):
            return value
        try:
            if "=" not in value:
                return self._number(value)
            pairs = [part.split("=", 1) for part in value.split(",")]
            return {name.strip(): self._number(number) for name, number in pairs}
        except ValueError:
            self.fail(
                f"{value!r} is neither a number nor like 'pitch=0.9,onset=1.1' "
                f"(attributes: {', '.join(FIELDS)}).",
                param,
                ctx,
            )


class Clock(click.ParamType[float]):
    """A time as seconds, or minutes and seconds: ``72``, ``1:12``."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        minutes, colon, seconds = str(value).rpartition(":")
        try:
            return (60 * int(minutes) if colon else 0) + float(seconds)
        except ValueError:
            self.fail(f"{value!r} is no time. Give it as 72 or 1:12.", param, ctx)


class Span(click.ParamType[list[float]]):
    """From one time to another: ``0:40-0:55``, ``40-55``."""

    name = "TIME-TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        """Return where it begins and where it ends, in seconds."""
        ends = str(value).split("-")
        if len(ends) != 2:
            self.fail(f"{value!r} is no span. Give it as 0:40-0:55.", param, ctx)
        return [Clock().convert(end, param, ctx) for end in ends]


class PlanFile(click.ParamType[Any]):
    """A YAML file with the plan of a piece: its sections are read."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the list of sections."""
        from deep_piano.config.load import read_plan

        return read_plan(Path(value)) if isinstance(value, str) else value


class LocalPath(click.ParamType[Path]):
    """A path on this machine, or its `file://` URL; other locations are refused."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        from deep_piano.infra.storage.open import local_path

        return local_path(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class SettingsFile:
    """The settings file of a command, the profile to use, and the S3 service."""

    path: Path | None = None
    profile: str | None = None
    endpoint: str | None = None

    def load(self, sections: Mapping[str, Mapping[str, object]]) -> Config:
        """Return the settings of the file, overridden by those of the command line."""
        from deep_piano.config.load import load_config

        given = {**sections, "storage": {"endpoint": self.endpoint}}
        return load_config(self.path, given, profile=self.profile)

    @property
    def storage(self) -> StorageConfig:
        """The settings of S3."""
        return self.load({}).storage


def settings_options(*, environment: bool = False) -> Callable[[Command], Command]:
    """Add --config, --profile, --log-json, -q; with `environment` also from its variables."""
    variables = ("DEEP_PIANO_PROFILE", "DEEP_PIANO_LOG_JSON") if environment else (None, None)

    def decorate(command: Command) -> Command:
        for option in (
            click.option("-q", "--quiet", is_flag=True, help=_QUIET),
            click.option("--log-json", is_flag=True, envvar=variables[1], help=_LOG_JSON),
            click.option("--profile", envvar=variables[0], help=_PROFILE),
            click.option("--config", type=LocalPath(), help=_CONFIG),
        ):
            command = option(command)
        return command

    return decorate


_CONFIG = "Settings file, such as ray_config.yaml."
_PROFILE = "A profile of the settings: laptop, single-gpu, cluster or your own."
_QUIET = "Show results and errors only: no progress, no warnings."
_LOG_JSON = "Log to standard error as JSON, one object a line."


def configured(command: Command) -> Command:
    """Add --endpoint, accept the group's options after the command too, and pass all of them.

    Entry points of jobs run a command without the group's options before it.
    """

    @click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
    @settings_options()
    @click.pass_obj
    @functools.wraps(command)
    def with_settings(
        of_group: SettingsFile,
        /,
        *,
        config: Path | None,
        profile: str | None,
        log_json: bool,
        quiet: bool,
        endpoint: str | None,
        **given: Any,
    ) -> None:
        if log_json or quiet:
            debug = logger.isEnabledFor(logging.DEBUG)
            set_up_logging(debug=debug, as_json=log_json or logs_json(), quiet=quiet or is_quiet())
        file = SettingsFile(config or of_group.path, profile or of_group.profile, endpoint)
        command(file, **given)

    return cast(Command, with_settings)


class Grouped(click.Command):
    """A command whose help shows its options in groups.

    A subclass names the options of each group in `groups`; the others come last.
    """

    groups: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        shown = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([shown.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(shown.values()))


def json_option(command: Command) -> Command:
    """Add --json: one document on standard output, and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help=_JSON)(command)


_JSON = "Print one JSON document, and nothing else, to standard output."


def print_json(document: Any) -> None:
    """Print a document, with what JSON has no number for as null."""
    from deep_piano.report.inspection import plain

    click.echo(json.dumps(plain(document), indent=2, default=str))


def open_folders(storage: StorageConfig, *uris: str) -> list[Folder]:
    """Return the folders at some paths or ``s3://`` prefixes."""
    from deep_piano.infra.storage.open import open_folder

    return [open_folder(uri, **storage.model_dump()) for uri in uris]
