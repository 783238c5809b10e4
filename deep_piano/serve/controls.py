"""What can be set on the page: one table.

A control is a line here and nothing else: the page draws what it is told, and a control whose
setting the engine does not have is left out. This module knows settings; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel

from deep_piano.analysis.keys import Key
from deep_piano.config.sections import USELESS, GenerateConfig
from deep_piano.errors import ConfigError, one_line


@dataclass(frozen=True)
class Control:
    """Something that can be set on the page.

    Attributes
    ----------
    setting : str
        Of `GenerateConfig`. Of a group, such as "temperature", all numbers are multiplied.
    label : str
    least, most, step : float
        Of a number. What the server was started with is offered beyond them.
    ends : tuple of str
        What the least and the most are called; they make a slider.
    choices : tuple of str
        The values of a setting that is no number.
    more : bool
        Shown under "More".
    """

    setting: str
    label: str
    least: float = 0.0
    most: float = 1.0
    step: float = 1.0
    ends: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    more: bool = False


_KEYS = tuple(Key(tonic, mode).name for mode in ("major", "minor") for tonic in range(12))

CONTROLS: Final = (
    Control("seconds", "Length in seconds", 20, 600, 10),
    Control("takes", "Takes", 1, 4, 1),
    Control("temperature", "Temperature", 0.7, 1.3, 0.05, ends=("predictable", "daring")),
    Control("guidance", "Guidance", 0, 2, 0.1, ends=("free", "close to my playing")),
    Control("density", "Notes a second", 0.5, 2, 0.1, ends=("sparser", "busier")),
    Control("key", "Key (stay: that of my playing)", choices=("free", "stay", *_KEYS)),
    Control("form", "Form", choices=("auto", "free", "aba", "rondo", "theme")),
    Control("dynamics", "Dynamics", 0.5, 1.5, 0.05, ends=("softer", "louder"), more=True),
    Control("register_shift", "Register", -12, 12, 1, ends=("lower", "higher"), more=True),
    Control("most_shared", "Most notes in a row from the corpus", 8, 1024, 1, more=True),
    Control("hold_density", "Hold the density", 0, 10, 0.5, more=True),
    Control("hold_beat", "Hold the beat", 0, 3, 0.25, more=True),
    Control("candidates", "Candidates", 1, 16, 1, more=True),
    Control("random_state", "Random state", 0, 2**32 - 1, 1, more=True),
    Control("midi", "Notes in the MIDI file", choices=("pedal", "sounding"), more=True),
)


def described(base: GenerateConfig, table: tuple[Control, ...] = CONTROLS) -> list[dict[str, Any]]:
    """Return what the page is told of each control that the engine has.

    Parameters
    ----------
    base : GenerateConfig
        The settings of the server, which are the defaults.
    table : tuple of Control
    """
    return [_described(one, base) for one in _offered(base, table)]


def _offered(base: GenerateConfig, table: tuple[Control, ...] = CONTROLS) -> list[Control]:
    """Return the controls that the engine has; each offers what the server was started with."""
    return [_widened(one, base) for one in table if one.setting in GenerateConfig.model_fields]


def _widened(control: Control, base: GenerateConfig) -> Control:
    """Return a control that offers its default, too."""
    value = getattr(base, control.setting)
    if isinstance(value, str) and value not in control.choices:
        return replace(control, choices=(*control.choices, value))
    if isinstance(value, int | float):
        return replace(control, least=min(control.least, value), most=max(control.most, value))
    return control


def _described(control: Control, base: GenerateConfig) -> dict[str, Any]:
    value = getattr(base, control.setting)
    group = isinstance(value, BaseModel)
    # "sample" is of sound, and the page continues notes.
    numbers = value.model_dump(exclude={"sample"}) if group else {}
    return {
        "setting": control.setting,
        "label": control.label,
        "least": control.least,
        "most": control.most,
        "step": control.step,
        "ends": list(control.ends),
        "choices": list(control.choices),
        "more": control.more,
        "useless": [kind for kind, names in USELESS.items() if control.setting in names],
        "numbers": numbers,
        "default": 1.0 if group else value,
    }


def overrides(given: Mapping[str, Any], base: GenerateConfig) -> dict[str, Any]:
    """Return settings from the values of controls.

    Parameters
    ----------
    given : mapping of str to number or str
        By the name of a control's setting; of a group, the factor of its numbers.
    base : GenerateConfig

    Raises
    ------
    ConfigError
        When there is no such control, or a factor is no number within its range.
    """
    table = {one.setting: one for one in _offered(base)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        control = table.get(name)
        if control is None:
            raise ConfigError(f"the page has no control {one_line(name)[:60]!r}. Reload it.")
        if not control.choices and not (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and control.least <= value <= control.most
        ):
            raise ConfigError(
                f"{control.label} must be between {control.least:g} and {control.most:g}. "
                f"Received: {one_line(repr(value))[:60]}."
            )
        group = getattr(base, name)
        if isinstance(group, BaseModel):
            numbers = group.model_dump(exclude={"sample"})
            found[name] = {field: round(value * number, 4) for field, number in numbers.items()}
        else:
            found[name] = value
    return found
