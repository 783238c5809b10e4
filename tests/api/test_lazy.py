"""What `import deep_piano` offers, and that nothing of it is loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deep_piano as dp

PACKAGE = Path(dp.__file__).parent


def test_every_name_is_there():
    for name in dp.__all__:
        assert getattr(dp, name) is not None
    assert set(dp.__all__) <= set(dir(dp))


def test_type_checkers_see_the_same_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == set(dp.__all__)
    assert (PACKAGE / "py.typed").is_file()


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="continue_song"):
        dp.continue_song  # noqa: B018


@pytest.mark.parametrize(
    ("code", "loads"),
    [("import deep_piano", set()), ("import deep_piano; deep_piano.InputError", {"errors"})],
)
def test_only_what_is_used_is_loaded(code, loads):
    script = f"{code}\nimport sys; print(*(n for n in sys.modules if n.startswith('deep_piano.')))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert set(run.stdout.split()) == {f"deep_piano.{name}" for name in loads}
