"""The table of controls: what the page is told, and what becomes of it."""

from __future__ import annotations

import pytest

from deep_piano.config.load import load_config
from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import ConfigError
from deep_piano.serve.controls import CONTROLS, Control, described, overrides

BASE = GenerateConfig()


def test_every_control_has_its_setting_and_its_default_changes_nothing():
    told = described(BASE)
    assert [one["setting"] for one in told] == [one.setting for one in CONTROLS]
    shown = {one["setting"]: one["default"] for one in told if one["default"] is not None}
    given = overrides(shown, BASE)
    assert load_config(None, {"generate": given}).generate == BASE


def test_a_control_that_the_engine_lacks_is_absent():
    table = (*CONTROLS, Control("humour", "Humour"))
    assert "humour" not in [one["setting"] for one in described(BASE, table)]


def test_what_a_remix_and_a_span_have_no_use_for_is_told():
    useless = {one["setting"]: one["useless"] for one in described(BASE)}
    assert useless["form"] == ["between", "rhythm", "pitches"]
    assert useless["density"] == useless["dynamics"] == ["rhythm"]
    assert useless["key"] == useless["register_shift"] == useless["most_shared"] == ["pitches"]
    assert useless["temperature"] == useless["candidates"] == []


def test_a_slider_multiplies_its_group():
    given = overrides({"temperature": 1.2, "guidance": 0}, BASE)
    settings = load_config(None, {"generate": given}).generate
    assert settings.temperature.model_dump() == {
        **dict.fromkeys(("onset", "pitch", "velocity"), 1.2),
        "duration": 1.14,
        "sample": 1.0,
    }
    assert set(settings.guidance.model_dump().values()) == {0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"checkpoint": "s3://elsewhere"}, "no control 'checkpoint'"),
        ({"takes": 5}, "Takes must be between 1 and 4. Received: 5"),
        ({"takes": True}, "Received: True"),
        ({"temperature": "hot"}, "Received: 'hot'"),
        ({"seconds": float("nan")}, "Received: nan"),
    ],
)
def test_what_is_not_offered_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        overrides(given, BASE)


def test_a_choice_is_checked_by_its_setting():
    with pytest.raises(ConfigError, match=r"generate\.midi"):
        load_config(None, {"generate": overrides({"midi": "loud"}, BASE)})
