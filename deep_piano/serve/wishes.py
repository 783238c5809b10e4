"""What the page asks for becomes a file, settings, and what is remembered of them.

This module knows requests as JSON, the store and settings; it knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from deep_piano.config.load import load_config
from deep_piano.config.sections import USELESS, Config, GenerateConfig
from deep_piano.errors import InputError
from deep_piano.serve import controls
from deep_piano.serve.store import Store, shown_title

SHORTEST_S: Final = 2.0
LONGEST_S: Final = 60.0

_STATES = 2**32


@dataclass(frozen=True)
class Wish:
    """A piece that is asked for.

    Attributes
    ----------
    path : Path
        What is continued.
    name : str
        What a person calls it.
    settings : GenerateConfig
    about : dict
        What the store is to remember of it.
    """

    path: Path
    name: str
    settings: GenerateConfig
    about: dict[str, Any]


def wished(asked: Mapping[str, Any], store: Store, config: Config) -> Wish:
    """Return what is asked for.

    Parameters
    ----------
    asked : mapping
        "controls", and of a recording "seed", "begin" and "end", and "remix" where that is meant;
        of a take "piece", "take", and either "keep_until" or "between".
    store : Store
    config : Config
        What is not asked for.

    Raises
    ------
    InputError
        When something is missing, is not there or out of its range.
    """
    given = known(asked.get("controls"), dict, "controls")
    wanted = controls.overrides(given, config.generate)
    of = _of_a_take if "piece" in asked else _of_a_recording
    path, name, window, about = of(asked, store)
    base = config.model_dump(exclude_unset=True)
    # What the server was started with gives way where it is of no use; what is asked for is not.
    useless = USELESS.get("between" if "between" in window else window.get("remix", ""), ())
    usual = {name: value for name, value in base.get("generate", {}).items() if name not in useless}
    whole = {**usual, **wanted, **window, "keep": None, "score": False}
    settings = load_config(None, {**base, "generate": whole}).generate
    return Wish(path, name, settings, {**about, "controls": given, "window": window})


def another(wish: Wish, made: Iterable[tuple[Mapping[str, Any], int]]) -> Wish:
    """Return a wish with the first random state, from its own on, that none like it has.

    Parameters
    ----------
    wish : Wish
    made : iterable of (mapping, int)
        What is remembered of pieces, "seed" and "window", and their random states.
    """
    like = _of(wish.about)
    taken = {state for about, state in made if _of(about) == like}
    state = wish.settings.random_state
    while state in taken:
        state = (state + 1) % _STATES
    settings = wish.settings.model_copy(update={"random_state": state})
    controls = {**wish.about["controls"], "random_state": state}
    return replace(wish, settings=settings, about={**wish.about, "controls": controls})


def _of(about: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the seed and the window of a piece, without the manner that a change of it keeps."""
    window = dict(about.get("window", {}))
    if window.keys() & {"keep_until", "between"}:
        window.pop("seed_seconds", None)
    return about["seed"]["id"], window


_Found = tuple[Path, str, dict[str, Any], dict[str, Any]]


def _of_a_recording(asked: Mapping[str, Any], store: Store) -> _Found:
    """Return a recording, its name, the window of it, and what to remember."""
    seed_id = known(asked.get("seed"), str, "seed")
    seed, path = store.seed(seed_id), store.seed_file(seed_id)
    begin, end = (float(known(asked.get(at), int | float, at)) for at in ("begin", "end"))
    length = round(end - begin, 3)
    if not SHORTEST_S <= length <= LONGEST_S or begin < 0:
        raise InputError(f"what is continued must last 2 to 60 seconds. Received: {length:g} s.")
    start = round(seed["from_s"] + begin, 3)
    window: dict[str, Any] = {"seed_start": start, "seed_seconds": length}
    name = str(seed["name"])
    title = name.rpartition(".")[0] or name
    if "remix" in asked:
        kept = known(asked["remix"], str, "remix")
        window = {"seed_start": start, "seed_end": round(start + length, 3), "remix": kept}
        title = f"{title}, remixed"
    return path, name, window, {"title": shown_title(title), "seed": {"id": seed_id, "name": name}}


def _of_a_take(asked: Mapping[str, Any], store: Store) -> _Found:
    """Return the notes of a take, its name, what of it is kept, and what to remember."""
    number = known(asked.get("take"), int, "take")
    piece, take, folder = store.take(known(asked["piece"], str, "piece"), number)
    window: dict[str, Any]
    if "between" in asked:
        ends = known(asked["between"], list, "between")
        window = {"between": [round(float(known(s, int | float, "between")), 2) for s in ends]}
    else:
        keep_until = float(known(asked.get("keep_until"), int | float, "keep_until"))
        window = {"keep_until": round(keep_until, 2), "seed_start": 0.0}
    # What a piece that was changed is to be like stays that.
    manner_s = min(piece["seed_seconds"], piece["window"].get("seed_seconds", LONGEST_S))
    window["seed_seconds"] = min(LONGEST_S, max(SHORTEST_S, manner_s))
    title = shown_title(f"{piece['title']}, differently")
    about = {"title": title, "seed": piece["seed"]}
    return folder / f"{take['stem']}.mid", file_name(piece, take, ".mid"), window, about


def file_name(piece: Mapping[str, Any], take: Mapping[str, Any], ending: str) -> str:
    """Return what a take is called where it is downloaded."""
    number = f", take {take['take']}" if len(piece["takes"]) > 1 else ""
    return f"{piece['title']}{number}{ending}".replace("/", "-")


def known(value: Any, kind: Any, name: str) -> Any:
    """Return a value that has its kind; an `InputError` else."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{name} is missing or cannot be understood. Reload the page.")
    return value
