"""The documents keep their promises: what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ("*.md", "cluster/*.md", "docs/**/*.md", "deep_piano/**/*.md")
    for page in ROOT.glob(pattern)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} points to {link}"


def test_every_limit_of_prepare_has_its_row():
    from deep_piano.config.sections import PrepareConfig

    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.split("## Rules")[1].splitlines() if row[:3] == "| `"]
    named = {setting for row in rows for setting in re.findall(r"`(\w+)`", row[3])}
    limits = {name for name in PrepareConfig.model_fields if name.startswith(("min_", "max_"))}
    assert limits - {"max_failures"} <= named <= set(PrepareConfig.model_fields)


def test_the_model_card_names_the_weights_that_are_shipped():
    from deep_piano.codecs.notes import SPEC
    from deep_piano.models import checkpoint

    card = checkpoint.find("notes").read_bytes("README.md").decode()
    assert checkpoint.load("notes", codec=SPEC.codec).digest in card


def test_every_page_stands_in_the_navigation():
    named = set(
        re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    )
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert named == pages


def test_every_call_has_its_place_in_the_reference():
    import deep_piano as dp

    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    for name in set(dp.__all__) - {"Check", "InputError", "DeepPianoError"}:
        assert f"dp.{name}`" in page or f".{name}\n" in page or f".{name}(" in page, name


def test_every_command_has_a_call():
    from deep_piano.cli.main import main

    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)", page, re.M))
    assert rows == set(main.commands)


def test_the_exit_codes_are_those_of_the_help():
    from deep_piano.cli.terminal import EXIT_CODES

    page = (ROOT / "docs/command_line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)
    assert {int(code): what for code, what in rows} == EXIT_CODES


def test_the_citation_names_this_version():
    import yaml

    import deep_piano as dp

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dp.__version__
    assert citation["license"] == "Apache-2.0"
