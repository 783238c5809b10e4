"""What every command does at a terminal: errors in one line, exit codes, progress, logging."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from deep_piano.errors import DeepPianoError

logger = logging.getLogger("deep_piano")

_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Group(click.Group):
    """Ends every command with one line and an exit code, never with a bare traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command and leave the process with its exit code."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            with _endable():
                code = run(*args, standalone_mode=False, **extra) or 0
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _complain(_usage_message(error), error.exit_code)
        except DeepPianoError as error:
            code = _complain(str(error), error.exit_code, error)
        except (click.Abort, KeyboardInterrupt):
            code = _complain("stopped; nothing half-made was kept.", 130)
        except BrokenPipeError:  # whoever read our output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the last flush fails again
            code = 1
        except Exception as error:
            code = _complain(
                f"unexpected {type(error).__name__}: {str(error) or 'no reason given'}. "
                "Run again with --debug before the command, and report what it shows.",
                1,
                error,
            )
        sys.exit(code)


def _complain(message: str, code: int, error: Exception | None = None) -> int:
    """Say what is wrong in one line; with --debug, show where an error comes from as well."""
    if error is not None and logger.isEnabledFor(logging.DEBUG):
        raise error
    click.echo(f"deep-piano: {one_line(message)}", err=True)
    return code


def _usage_message(error: click.ClickException) -> str:
    """Return what click has to say, and where the options are listed."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "deep-piano"
    message = error.format_message().strip().rstrip(".")
    return f"{message}. Run `{command} --help` to see what there is."


def one_line(text: object) -> str:
    """Return text fit for one line of a terminal, whatever a file's name is made of."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


class _ToStandardError(logging.Handler):
    """Writes to what is standard error now: on a terminal, the progress display stands in."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        sys.stderr.write(self.format(record) + "\n")


def set_up_logging(*, debug: bool) -> None:
    """Send our warnings to standard error, everything with `debug`, and hush other packages."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="deep-piano: %(message)s",
        handlers=[_ToStandardError()],
    )
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    if not (debug or sys.warnoptions):
        warnings.filterwarnings("ignore")  # those of other packages, which say nothing to a user


@contextmanager
def _endable() -> Iterator[None]:
    """Let a request to end undo what is half done, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stages() -> Iterator[Callable[[str, float, float], None]]:
    """Show what happens, on a terminal; elsewhere stay quiet."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<14}"), BarColumn(), TimeRemainingColumn())
    # A terminal of its own: `backend` closes standard error's while TensorFlow loads.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        Progress(*columns, console=Console(file=terminal), transient=True) as display,
    ):
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: float, total: float) -> None:
            key, _, detail = stage.partition(":")
            if key not in tasks:
                tasks[key] = display.add_task(key, total=None)  # pulses until some of it is done
            known = total if done or total > 1 else None
            display.update(tasks[key], completed=done, total=known, description=f"{key}{detail}")

        yield show
