"""The terminal: errors in one line, exit codes, progress."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from deep_piano.errors import DeepPianoError, one_line, ran_out_of_memory
from deep_piano.infra.extras import advice_for
from deep_piano.infra.logs import is_quiet, logs_json, tell
from deep_piano.infra.progress import Progress, Tell, no_progress

logger = logging.getLogger("deep_piano")

EXIT_CODES = {
    0: "Done.",
    1: "A run failed, or some of its pieces did; finished work is kept.",
    2: "A mistake in what was given: an option, a setting, a file that cannot be used.",
    130: "Stopped by Ctrl-C; 128 + N by the signal N. No incomplete file is kept.",
}
_FOLDER_GONE = "the working folder is gone. Go to another folder."
EVERY_S = 10.0  # from one line of progress to the next

_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _EndOfFile(Exception):
    """An EOFError of a command, which is its argument."""


class Group(click.Group):
    """Ends every command with one line and an exit code, never with a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with its whole first sentence."""
        rows = [
            (name, command.get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name))
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what the exit codes mean, above the example."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), what) for code, what in EXIT_CODES.items()])
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; hide from click the end of a file, which it takes for Ctrl-C.

        The end of what is typed at a prompt is `click.Abort` here already.
        """
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise _EndOfFile(error) from error

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command and leave the process with its exit code."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        _open_standard_streams()
        try:
            with _endable():
                code = run(*args, standalone_mode=False, **extra) or 0
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _complain(_usage_message(error), error.exit_code)
        except DeepPianoError as error:
            # In a folder that is gone every name is a mistake.
            text = _FOLDER_GONE if error.exit_code == 2 and _folder_gone() else str(error)
            code = _complain(text, error.exit_code, error)
        except (click.Abort, KeyboardInterrupt):
            code = _complain("stopped; no incomplete file was kept.", 130)
        except BrokenPipeError:  # the reader of our output has ended
            _drop(1)
            code = 1
        except OSError as error:
            if _folder_gone():
                code = _complain(_FOLDER_GONE, 2, error)
            elif _of_output(error):
                _drop(1)
                code = _complain(
                    f"the result could not be written to standard output: {error.strerror}. All "
                    "files are kept.",
                    1,
                )
            else:
                code = _unexpected(error)
        except _EndOfFile as error:
            code = _unexpected(error.args[0])
        except ModuleNotFoundError as error:
            advice = advice_for((error.name or "").partition(".")[0])
            code = _complain(advice, 2, error) if advice else _unexpected(error)
        except Exception as error:
            code = _unexpected(error)
        try:
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody can be told
            _drop(2)
        gc.freeze()  # a last search for garbage in all that was loaded takes half a second
        sys.exit(code)


def _open_standard_streams() -> None:
    """Open the null device in place of closed standard streams.

    The next file to be opened would take their numbers, and messages would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
            os.set_inheritable(nowhere, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _drop(number: int) -> None:
    """Open the null device in place of a standard stream that takes nothing.

    Python's own last flush would fail again, and end the process with the exit code 120.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _folder_gone() -> bool:
    """Return whether the working folder was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _of_output(error: OSError) -> bool:
    """Return whether an error comes from writing to standard output."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code is click.echo.__code__


def _unexpected(error: Exception) -> int:
    """Print an unexpected error, or that memory ran out."""
    if ran_out_of_memory(error):
        return _complain(
            f"memory ran out: {str(error) or 'no reason given'}. Close other programs, or use "
            "fewer seconds, takes or workers.",
            1,
            error,
        )
    return _complain(
        f"unexpected {type(error).__name__}: {str(error) or 'no reason given'}. "
        "Run it again with --debug before the command, and report the output.",
        1,
        error,
    )


def _complain(message: str, code: int, error: Exception | None = None) -> int:
    """Print an error in one line; with --debug, show its traceback too."""
    debug = error is not None and logger.isEnabledFor(logging.DEBUG)
    if logs_json():
        origin = error if debug else None
        logger.error(one_line(message), extra={"exit_code": code}, exc_info=origin)
        return code
    if debug:
        traceback.print_exception(error)
    tell(f"deep-piano: {one_line(message)}")
    return code


def _usage_message(error: click.ClickException) -> str:
    """Return click's message, and where to find the options."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "deep-piano"
    message = error.format_message().strip().rstrip(".")
    return f"{message}. Run `{command} --help` for help."


@contextmanager
def _endable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, as Ctrl-C does."""
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
def reports(*, every_s: float | None = None) -> Iterator[Tell]:
    """Show the progress of a batch, with counts and rates: as `stages` does."""
    clock = _Clock()

    def in_words(now: Progress) -> tuple[str, str]:
        if now.total <= 1 and not now.done:  # there is nothing to count
            return "", now.what
        facts = clock.facts(now)
        return facts, f"{now.what}: {now.done:,} of {now.total:,}, {facts}"

    with _shown(in_words, every_s=every_s, ends=True) as show:
        yield show


@contextmanager
def stages(*, every_s: float | None = None) -> Iterator[Tell]:
    """Show progress: a bar on a terminal; elsewhere, where it takes long, a line now and then.

    With --log-json the lines are records, and the end of each stage is one too. With --quiet
    nothing is shown.
    """

    def in_words(now: Progress) -> tuple[str, str]:
        share = f": {now.done / now.total:.0%}" if now.total and now.done else ""
        return now.text, f"{now.what}{share}{f', {now.text}' if now.text else ''}"

    with _shown(in_words, every_s=every_s, ends=logs_json()) as show:
        yield show


@contextmanager
def _shown(
    in_words: Callable[[Progress], tuple[str, str]], *, every_s: float | None, ends: bool
) -> Iterator[Tell]:
    """Show progress in words: beside a bar, and as a line of its own."""
    if is_quiet():
        yield no_progress
        return
    with _bar() as bar:
        due = _Due(EVERY_S if every_s is None else every_s, ends=ends)

        def show(now: Progress) -> None:
            beside, line = in_words(now)
            bar(replace(now, text=beside))
            if (logs_json() or not sys.stderr.isatty()) and due(now):
                if logs_json():
                    told = {**vars(now), "event": "progress", "work": now.what}
                    del told["what"], told["text"]
                    logger.info(line, extra=told)
                else:
                    tell(line)

        yield show


class _Due:
    """Says when a line is due: after some time; if asked, at the end of each stage, too.

    What cannot be counted, such as starting Ray, has its line at its beginning.
    """

    def __init__(self, every_s: float, *, ends: bool) -> None:
        self._every_s, self._ends = every_s, ends
        self._told: set[tuple[str, bool]] = set()
        self._shown = time.monotonic()

    def __call__(self, at: Progress) -> bool:
        now = time.monotonic()
        turn = (at.what, at.done == at.total)
        begins = at.total <= 1 and not at.done
        turns = self._ends and (turn[1] or begins) and turn not in self._told
        if now - self._shown < self._every_s and not turns:
            return False
        self._shown = now
        self._told.add(turn)
        return True


class _Clock:
    """Computes rates and the time left, of each stage by itself."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, float, float]] = {}

    def facts(self, at: Progress) -> str:
        """Return the facts beside the count."""
        now = time.monotonic()
        begun, before, music_before_s = self._begun.setdefault(
            at.what, (now, at.done, at.duration_s)
        )
        known = [f"{at.duration_s / 3600:.2f} h of music"] if at.duration_s else []
        known += [f"{at.drops} dropped"] if at.drops else []
        known += [f"{at.failures} failed"]
        done, took_s = at.done - before, now - begun
        if done and took_s > 0:
            known += [f"{done / took_s:.1f}/s"]
            music_s = at.duration_s - music_before_s
            known += [f"{music_s / 60 / took_s:.1f} min of music/s"] if music_s else []
            left = at.total - at.done
            known += [f"{_minutes(left * took_s / done)} left"] if left else []
        return ", ".join(known)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _bar() -> Iterator[Tell]:
    """Show a bar on a terminal; elsewhere, and with --log-json, show nothing."""
    if logs_json() or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (TextColumn("{task.description:<14}"), BarColumn(), TimeRemainingColumn())
    # A copy of the descriptor: `infra.backend` closes standard error while TensorFlow loads.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        Display(*columns, console=Console(file=terminal), transient=True) as display,
    ):
        tasks: dict[str, TaskID] = {}

        def show(now: Progress) -> None:
            what = now.what
            if what not in tasks:
                tasks[what] = display.add_task(what, total=None)  # pulses until there is progress
            known = now.total if now.done or now.total > 1 else None
            description = f"{what} {now.text}" if now.text else what
            display.update(tasks[what], completed=now.done, total=known, description=description)

        yield show
