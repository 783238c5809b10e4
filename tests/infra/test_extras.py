from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deep_piano.errors import InputError
from deep_piano.infra import backend, extras

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("package", "extra"),
    [("ray", "bulk"), ("pyarrow", "bulk"), ("keras", "train"), ("tensorflow", "train")],
)
def test_what_is_missing_is_named_with_what_brings_it(monkeypatch, package, extra):
    extras.require(package)
    assert extras.missing(extra) == []
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert extras.missing(extra) == [package]
    with pytest.raises(
        InputError, match=rf"needs {package}.* `pip install 'deep-piano\[{extra}\]'`"
    ):
        extras.require(package)


def test_another_backend_does_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(backend, "keras_backend", lambda: "jax")
    backend.require_keras()
    monkeypatch.setattr(backend, "keras_backend", lambda: "tensorflow")
    with pytest.raises(InputError, match="tensorflow"):
        backend.require_keras()


def test_an_extra_has_the_packages_that_are_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(extras.EXTRAS) == set(extras.ADDED)
    for extra, packages in extras.EXTRAS.items():
        wanted = " ".join(project["optional-dependencies"][extra])
        for package in packages:
            assert package in wanted
            assert not any(line.startswith(package) for line in project["dependencies"])


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        ("train data -o run", "keras"),
        ("pipeline corpus corpus -o out", "keras"),
        ("generate corpus -o pieces", "ray"),
        ("prepare corpus -o data", "pyarrow"),
        ("submit --address http://127.0.0.1:1 prepare s3://a/b -o s3://a/c", "ray"),
    ],
)
def test_a_command_says_in_one_line_what_to_install(arguments, package, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.mid").write_bytes(b"MThd")
    script = f"from deep_piano.cli.main import main\nmain({arguments.split()!r})\n"
    run = without_extras(script, tmp_path, ROOT if arguments.startswith("submit") else tmp_path)
    assert run.returncode == 2, run.stderr
    assert f"this needs {package}, which is not installed" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_page_and_its_manifest_need_no_extra(tmp_path):
    script = (
        "import deep_piano.serve.running\n"
        "from deep_piano.generate.records import Record, Records, read_records, write_manifest\n"
        "from deep_piano.infra.storage.open import open_folder\n"
        "pieces = open_folder('music')\n"
        "write_manifest(pieces, Records([Record('a.mid', 1, 'done')]))\n"
        "print(*read_records(pieces))\n"
    )
    run = without_extras(script, tmp_path, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "('a.mid', 0)\n"


def without_extras(script, home, folder):
    """Run a script in a folder, as if no extra were installed."""
    hidden = f"import sys; sys.modules |= dict.fromkeys({sum(extras.EXTRAS.values(), ())!r})\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + script],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(home)},
    )
