"""Settings are read: `ray_config.yaml` and the command line become one `Config`.

The only reader of YAML. A file may hold profiles, named groups of settings that are laid over its
own; one of them is chosen by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import yaml
from pydantic import BaseModel, Field, ValidationError

from deep_piano.config.sections import Config
from deep_piano.errors import ConfigError


class _Profile(Config):
    """What a profile may hold: any setting, and the name of the profile that it extends."""

    extends: Annotated[str, Field(min_length=1)] | None = None


class _Document(Config):
    """What a file may hold: settings, and profiles by name."""

    profiles: dict[str, dict[Any, Any]] = {}  # noqa: RUF012 (pydantic copies it)


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    *,
    profile: str | None = None,
    source: str = "the command line",
) -> Config:
    """Read the settings.

    Parameters
    ----------
    path : Path, optional
        A YAML file; settings that it does not name keep their defaults.
    overrides : mapping of str to mapping of str to object, optional
        Section to setting to value, from the command line; they override the file. None means
        "not given".
    profile : str, optional
        One of the file's profiles; its settings override the file's own.
    source : str
        Where the overrides come from, for messages.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        When the file cannot be read, a setting is unknown or out of range, or there is no such
        profile. All profiles are checked, chosen or not.

    Examples
    --------
    >>> load_config(None, {"generate": {"seconds": 60, "takes": None}}).generate.seconds
    60.0
    """
    config = Config() if path is None else _read_document(path, profile)
    if path is None and profile is not None:
        raise ConfigError(
            f"the profile {profile!r} needs a settings file. Give one too, such as "
            "--config ray_config.yaml."
        )
    if not overrides:
        return config
    given = {section: _without_none(settings) for section, settings in overrides.items()}
    # Only explicit settings, so that `model_fields_set` tells them afterwards.
    return _validate(_merge(config.model_dump(exclude_unset=True), given), source)


def read_plan(path: Path) -> list[Any]:
    """Read the plan of a piece: a YAML file that is the list of its sections.

    Raises
    ------
    ConfigError
        When it cannot be read, or is no list. What the sections hold is checked with the settings.
    """
    tree = _read_yaml(path, "plan")
    if not isinstance(tree, list):
        raise ConfigError(
            f"the plan {path} is no list of sections. Give one, as in `- {{name: A, seconds: 60}}`."
        )
    return tree


def _read_document(path: Path, profile: str | None) -> Config:
    """Return the settings of a file, overridden by those of a profile."""
    document = _validate(_read_yaml(path), str(path), _Document)
    own = document.model_dump(exclude_unset=True, exclude={"profiles"})
    of_profiles = {
        name: _lay_over(own, document.profiles, name, path) for name in document.profiles
    }
    if profile is None:
        return _validate(own, str(path))
    return of_profiles[_require_profile(profile, of_profiles, str(path))]


def _lay_over(
    own: Mapping[str, Any], profiles: Mapping[str, Mapping[Any, Any]], name: str, path: Path
) -> Config:
    """Return the settings of a profile: the file's, those it extends, then its own."""
    line = [name]
    while (parent := profiles[line[-1]].get("extends")) is not None:
        where = f"the profile {line[-1]!r} of {path}"
        line.append(_require_profile(parent, profiles, where))
        if line.count(parent) > 1:
            raise ConfigError(
                f"profiles extend each other in a circle: {' -> '.join(line)} (in {path}). Remove "
                "`extends` from one of them."
            )
    merged = dict(own)
    for one in reversed(line):
        merged = _merge(merged, _without_empty(profiles[one], _Profile))
        laid = _validate(merged, f"the profile {one!r} of {path}", _Profile)
        merged = laid.model_dump(exclude_unset=True, exclude={"extends"})
    return _validate(merged, str(path))


def _require_profile(name: object, profiles: Iterable[str], source: str) -> str:
    known = list(profiles)
    if isinstance(name, str) and name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."
    raise ConfigError(f"there is no profile {name!r}: {hint} (in {source})")


def _without_none(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if value is not None}


def _merge(settings: Mapping[Any, Any], given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return settings overridden by `given`, group by group."""
    merged = dict(settings)
    for name, value in given.items():
        before = merged.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merge(before, value)
        else:
            merged[name] = value
    return merged


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INT: r"([-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+)$",
    _FLOAT: r"([-+]?(\d[\d_]*\.\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, and reads numbers as YAML 1.2 does.

    So 1e-3 is a number, 010 is ten (not octal eight), and 1:30 is text (not ninety).
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (never changed)
        first: [(tag, pattern) for tag, pattern in pairs if tag not in _NUMBERS]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (AttributeError, LookupError, OverflowError, ValueError) as error:
            # What the constructors raise for text that is not of the kind that it looks like.
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"{node.value[:60]!r} is no {kind}", problem_mark=node.start_mark
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{name!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: Any) -> int | float:
        text = str(self.construct_scalar(node)).replace("_", "")
        if node.tag == _INT:
            return int(text, 0) if text[:2].lower() in ("0x", "0o") else int(text)
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))
    _Loader.add_constructor(_tag, _Loader.construct_number)


def _read_yaml(path: Path, what: str = "settings") -> object:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(
            f"cannot read the {what} {path}: {error.strerror}. Give a YAML file, or none."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read the {what} {path}: it is not UTF-8 text, {error.reason}."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"the {what} {path}{where} cannot be understood: {problem}.") from error
    except RecursionError as error:
        raise ConfigError(
            f"the {what} {path} cannot be understood: it is nested too deeply."
        ) from error
    return {} if tree is None else tree


Settings = TypeVar("Settings", bound=Config)


@overload
def _validate(tree: object, source: str) -> Config: ...


@overload
def _validate(tree: object, source: str, kind: type[Settings]) -> Settings: ...


def _validate(tree: object, source: str, kind: type[Config] = Config) -> Config:
    try:
        return kind.model_validate(_without_empty(tree, kind))
    except ValidationError as invalid:
        error = invalid.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{_explain(error, kind)} (in {source})") from invalid


def _without_empty(tree: Any, kind: type[BaseModel]) -> Any:
    """Return settings without empty groups, such as those whose keys are all commented out."""
    if not isinstance(tree, Mapping):
        return tree
    kept = {}
    for name, value in tree.items():
        field = kind.model_fields.get(name) if isinstance(name, str) else None
        default = field.default if field else None
        if value is None and isinstance(default, BaseModel | dict):
            continue
        if isinstance(default, BaseModel):
            value = _without_empty(value, type(default))
        elif isinstance(default, dict) and isinstance(value, Mapping):  # profiles, each a group
            value = {key: {} if inner is None else inner for key, inner in value.items()}
        kept[name] = value
    return kept


def _explain(error: Mapping[str, Any], kind: type[Config]) -> str:
    """Return one line: which setting, what is wrong with it, what was received."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "invalid_key":
        return f"a setting's name must be a word. Received: {error['input']!r}"
    if error["type"] == "extra_forbidden":
        near = _nearest(name, kind)
        hint = f"did you mean {near!r}?" if near else "see ray_config.yaml for all settings."
        return f"there is no setting {name!r}: {hint}"
    received = re.sub(r"\s+", " ", repr(error["input"]))[:60]
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{name or 'the whole'} must be a group of settings. Received: {received}"
    wrong = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"the setting {name!r} must be {wrong}. Received: {received}"


def _nearest(unknown: str, kind: type[Config]) -> str | None:
    """Return the known setting with the most similar name, preferably in the same section."""
    known = list(_names(kind))
    parent, _, leaf = unknown.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(known)}
    for candidates in (beside, anywhere):
        matches = difflib.get_close_matches(leaf, candidates, n=1)
        if matches:
            return candidates[matches[0]]
    return None


def _names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield the dotted names of all sections and settings."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")
