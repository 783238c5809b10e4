"""The log: each record of it one line, in words or as JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from subprocess import PIPE

import click
import pytest
from click.testing import CliRunner

from deep_piano.cli import terminal
from deep_piano.cli.main import main
from deep_piano.cli.terminal import EXIT_CODES, reports, stages
from deep_piano.infra import logs
from deep_piano.infra.logs import logs_json, set_up_logging
from deep_piano.infra.progress import Progress
from tests.support.commands import in_a_process, refused, run

COMMON = {"asctime", "levelname", "message", "filename", "lineno", "process", "name"}


@pytest.fixture
def as_json(desk):
    set_up_logging(debug=False, as_json=True)
    yield
    set_up_logging(debug=False)


@pytest.mark.parametrize(
    ("module", "arguments", "env"),
    [
        ("deep_piano", ["--log-json", "prepare", "gone", "-o", "out"], {}),
        ("deep_piano", ["prepare", "gone", "-o", "out", "--log-json"], {}),
        ("deep_piano", ["prepare", "gone", "-o", "out"], {"DEEP_PIANO_LOG_JSON": "1"}),
        ("jobs.prepare", ["gone", "-o", "out", "--log-json"], {}),
        ("deep_piano", ["--log-json", "prepare", "--corpse"], {}),
    ],
)
def test_what_is_wrong_is_said_as_json(desk, module, arguments, env):
    process = in_a_process(*arguments, module=module, env=env, stdout=PIPE, stderr=PIPE)
    out, log = process.communicate()
    assert (out, process.returncode) == (b"", 2)
    [record] = map(json.loads, log.splitlines())
    assert record.keys() == COMMON | {"exit_code", "timestamp_ns"}
    assert (record["levelname"], record["name"], record["exit_code"]) == ("ERROR", "deep_piano", 2)
    assert "gone" in record["message"] or "--corpse" in record["message"]


def test_a_record_of_json_holds_its_facts_whatever_a_name_is_made_of():
    extra = {"recording": "a\nb\udc80.mp3", "took_s": 0.5, "place": terminal}
    record = logging.makeLogRecord({"msg": "%s read", "args": ("a",), "name": "x"} | extra)
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = logs._JSON.format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert told.keys() == COMMON | {"exc_text", "timestamp_ns"} | extra.keys()
    assert told["message"] == "a read"
    assert told["recording"] == "a\nb\udc80.mp3"
    assert told["exc_text"].endswith("ValueError: why")
    assert told["timestamp_ns"] == pytest.approx(record.created * 1e9)


def test_progress_is_told_as_facts(as_json, caplog, capsys):
    with reports(every_s=0) as report:
        report(Progress("preparing", 3, 4, failures=1, duration_s=60, text="of no batch"))
    [record] = caplog.records
    assert record.getMessage().startswith("preparing: 3 of 4, 0.02 h of music, 1 failed")
    told = (record.event, record.work, record.done, record.failures)
    assert told == ("progress", "preparing", 3, 1)
    assert not {"what", "text"} & vars(record).keys()
    assert capsys.readouterr().err == ""


def test_a_command_without_json_logs_in_words_again(as_json):
    assert logs_json()
    run("prepare", "gone", "-o", "out")
    assert not logs_json()


def test_json_travels_with_a_submitted_job(desk):
    for name in ("deep_piano", "jobs"):
        Path(name).mkdir()
    at = ("submit", "--address", "http://127.0.0.1:1", "--dry-run", "train", "s3://b/set")
    assert run("--log-json", *at).stdout.endswith(" jobs.train --log-json s3://b/set\n")
    assert run(*at).stdout.endswith(" jobs.train s3://b/set\n")


def test_where_there_is_no_terminal_long_work_tells_how_far_it_is(capsys):
    with stages(every_s=0) as progress:
        progress(Progress("composing", 45, 180))
        progress(Progress("training", 250, 7000, text="loss 3.1"))
        progress(Progress("reading", 0, 1))
    assert capsys.readouterr().err == "composing: 25%\ntraining: 4%, loss 3.1\nreading\n"


def test_short_work_tells_nothing_but_a_batch_where_it_is(capsys):
    with stages() as progress:
        progress(Progress("composing", 180, 180))
    assert capsys.readouterr().err == ""
    with reports() as report:
        for now in (
            Progress("starting Ray", 0, 1),
            Progress("reading", 1, 4),
            Progress("writing pieces", 4, 4, failures=1),
            Progress("writing pieces", 4, 4, failures=1),
        ):
            report(now)
    assert capsys.readouterr().err == "starting Ray\nwriting pieces: 4 of 4, 1 failed\n"


def test_quiet_shows_no_progress(desk, capsys):
    set_up_logging(debug=False, quiet=True)
    try:
        for show in (stages, reports):
            with show(every_s=0) as progress:
                progress(Progress("composing", 45, 180))
        assert capsys.readouterr().err == ""
    finally:
        set_up_logging(debug=False)


def test_the_log_tells_where_a_stage_ends(as_json, caplog):
    with stages() as progress:
        progress(Progress("reading", 0, 1))
        for done in (0, 1, 2, 2):
            progress(Progress("composing", done, 2))
    assert [(record.work, record.done) for record in caplog.records] == [
        ("reading", 0),
        ("composing", 2),
    ]


def test_help_cuts_no_line_and_says_what_exit_codes_mean():
    said = run("--help").stdout
    assert "..." not in said.partition("Commands:")[2]
    for code in EXIT_CODES:
        assert f"  {code} " in said


def test_every_option_of_generate_stands_in_its_group():
    groups = main.commands["generate"].groups
    names = {option.name for option in main.commands["generate"].params}
    for group in groups.values():
        assert names.issuperset(group)
    said = run("generate", "--help").stdout
    order = [said.index(f"\n{title}:") for title in [*groups, "Other options"]]
    assert order == sorted(order)
    assert said.count("--seed-end TIME") == 1


@pytest.fixture
def failing(desk, monkeypatch):
    """Run a command that ends in an error."""

    def run_into(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("deep_piano.api.tools.inspect", fail)
        return run("inspect", "a.mid")

    return run_into


def test_the_end_of_a_file_is_not_taken_for_a_stop(failing):
    said = refused(failing(EOFError("No data left")), "unexpected EOFError: No data left", code=1)
    assert "--debug" in said
    refused(failing(EOFError()), "unexpected EOFError: no reason given", code=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_a_stop_is_said(failing, error):
    result = failing(error())
    assert result.exit_code == 130
    # click ends the line in which the terminal shows ^C
    assert result.stderr.lstrip("\n") == "deep-piano: stopped; no incomplete file was kept.\n"


def test_the_end_of_what_is_typed_is_a_stop():
    @click.group(cls=terminal.Group)
    def group():
        pass

    @group.command()
    def ask():
        click.prompt("Name")

    result = CliRunner().invoke(group, ["ask"], input="")
    assert result.exit_code == 130
    assert "stopped" in result.stderr
