"""The Grafana dashboard: whole, and about measures that there are."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from deep_piano.infra.cluster.metrics import MEASURES, exported

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def queries(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_grafana_can_import_it(dashboard):
    assert dashboard.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time"}
    assert dashboard["id"] is None  # Grafana gives it one
    [variable] = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert all(x < 24 for x, _ in cells)  # columns of Grafana's grid
        assert not taken & cells
        taken |= cells
        if panel["type"] == "row":
            continue
        ids = [target["refId"] for target in panel["targets"]]
        assert len(set(ids)) == len(ids) > 0
        for place in (panel, *panel["targets"]):
            assert place["datasource"]["uid"] == "${" + variable["name"] + "}"


def test_it_shows_every_measure_and_none_that_is_not_there(queries):
    names = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert exported() <= names
    [ray] = importlib.util.find_spec("ray").submodule_search_locations
    source = (Path(ray) / "dashboard/modules/reporter/reporter_agent.py").read_text()
    for name in names - exported():
        assert f'"{name.removeprefix("ray_")}"' in source, "a measure that Ray's agent has"


def test_it_sorts_by_tags_that_the_measures_have(queries):
    for query in queries:
        for tag in re.findall(r"by \((\w+)\)", query):
            if "ray_deep_piano" in query:
                measured = re.search(r"ray_(deep_piano_\w+?)(_total)?\b", query)[1]
                assert tag in MEASURES[measured].tags
            else:
                assert tag == "instance"
