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
