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


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seconds", 900), ("seconds", 10), ("takes", 8), ("candidates", 32), ("density", 0.25),
     ("density", 4), ("register_shift", -24)],
)  # fmt: skip
def test_a_range_holds_what_the_server_was_started_with(setting, value):
    base = load_config(None, {"generate": {setting: value}}).generate
    told = next(one for one in described(base) if one["setting"] == setting)
    usual = next(one for one in CONTROLS if one.setting == setting)
    assert told["default"] == value
    assert told["least"] == min(usual.least, value)
    assert told["most"] == max(usual.most, value)
    assert overrides({setting: value}, base) == {setting: value}
    with pytest.raises(ConfigError, match=f"between {told['least']:g} and {told['most']:g}"):
        overrides({setting: told["most"] + 1}, base)


def test_a_key_by_another_name_is_a_choice_too():
    base = load_config(None, {"generate": {"key": "Gb major"}}).generate
    told = next(one for one in described(base) if one["setting"] == "key")
    usual = next(one for one in CONTROLS if one.setting == "key")
    assert told["choices"] == [*usual.choices, "Gb major"]


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
