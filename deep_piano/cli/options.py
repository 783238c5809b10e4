"""What the commands share: their settings, their folders, and a number for each field of a note."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from deep_piano.infra.logs import set_up_logging

if TYPE_CHECKING:
    from deep_piano.config.sections import Config, StorageConfig
    from deep_piano.infra.storage.folder import Folder

logger = logging.getLogger("deep_piano")


Command = TypeVar("Command", bound=Callable[..., None])

FIELDS = ("onset", "pitch", "velocity", "duration")


class PerField(click.ParamType[Any]):
    """One number for every attribute of a note, or some of them: ``pitch=0.9,onset=1.1``."""

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


class LocalPath(click.ParamType[Path]):
    """A path of this machine, also as a `file://` URL; what is elsewhere is refused."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        from deep_piano.infra.storage.open import local_path

        return local_path(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class SettingsFile:
    """The file of settings that a command was given, and the profile to take of it."""

    path: Path | None = None
    profile: str | None = None

    def load(self, sections: Mapping[str, Mapping[str, object]]) -> Config:
        """Return the settings of the file with those of the command line over them."""
        from deep_piano.config.load import load_config

        return load_config(self.path, sections, profile=self.profile)


def configured(command: Command) -> Command:
    """Let a command take the group's options, and hand it the file of settings.

    An entry point of a job is a command without the group before it.
    """

    @click.option("--config", type=LocalPath(), help="Settings, as ray_config.yaml.")
    @click.option("--profile", help="One of the settings' profiles.")
    @click.option("--log-json", is_flag=True, help="Log as JSON, one object a line.")
    @click.pass_obj
    @functools.wraps(command)
    def with_settings(
        of_group: SettingsFile,
        /,
        *,
        config: Path | None,
        profile: str | None,
        log_json: bool,
        **given: Any,
    ) -> None:
        if log_json:
            set_up_logging(debug=logger.isEnabledFor(logging.DEBUG), as_json=True)
        file = SettingsFile(config or of_group.path, profile or of_group.profile)
        command(file, **given)

    return cast(Command, with_settings)


def _open(storage: StorageConfig, *uris: str) -> list[Folder]:
    """Return the folders that are named, local or in the S3 service of the settings."""
    from deep_piano.infra.storage.open import open_folder

    return [open_folder(uri, **storage.model_dump()) for uri in uris]
