"""What loads what: nothing heavy before it is needed, and no module one that stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import click
import pytest

from deep_piano.cli.main import main

PACKAGE = Path(__file__).parents[2] / "deep_piano"
HEAVY = {
    *("ray", "tensorflow", "keras", "torch", "librosa", "numba", "scipy", "matplotlib", "pandas"),
    *("boto3", "botocore", "pyarrow", "soundfile", "soxr", "sklearn"),
}

# From the top down. A module may import those of its own room and of the rooms below it; the three
# jobs of one line import none of each other.
ROOMS = """
__main__
cli
serve
api
pipeline
prepare train generate
report
decoding
dataset
models
analysis
codecs
versions
music
config
infra
errors
__init__
"""
FLOOR = {room: -n for n, rooms in enumerate(ROOMS.split("\n")) for room in rooms.split()}
ON_RAY = {"on_ray.py", "composers.py", "transcribers.py"}


def modules():
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def named(path):
    """Yield what a file imports, in functions as well: `package.module.name`, or the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported(name, path, known):
    """Return the modules of the package that a module imports, and the faces loaded with them."""
    found = set()
    for other in named(path):
        if other.split(".")[0] != "deep_piano":
            continue
        inner = other.removeprefix("deep_piano").lstrip(".")
        outer = inner.rpartition(".")[0]
        choices = (inner, outer, f"{inner}.__init__", f"{outer}.__init__", "__init__")
        module = next(choice for choice in choices if choice in known)
        found.add(module)
        packages = module.split(".")[:-1]
        faces = {".".join(packages[:n]) for n in range(1, len(packages) + 1)}
        found |= {f"{face}.__init__" for face in faces if not name.startswith(f"{face}.")}
    return found - {name}


def graph():
    known = modules()
    return {name: imported(name, path, known) for name, path in known.items()}


def room(name):
    return name.partition(".")[0]


def test_imports_run_downward_only():
    assert {room(name) for name in modules()} == set(FLOOR), "give a new room its place here"
    upward = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if FLOOR[room(other)] >= FLOOR[room(name)] and room(other) != room(name)
    ]
    assert upward == []


def test_imports_run_in_no_circle():
    list(TopologicalSorter(graph()).static_order())  # raises where they do


def test_ray_is_imported_where_work_is_handed_out_and_nowhere_else():
    on_ray = {
        name: path
        for name, path in modules().items()
        if any(other.split(".")[0] == "ray" for other in named(path))
    }
    assert "infra.cluster.connection" in on_ray
    elsewhere = {
        name
        for name, path in on_ray.items()
        if path.name not in ON_RAY and not name.startswith("infra.cluster.")
    }
    assert elsewhere == set()


def test_librosa_is_loaded_in_one_place_after_the_cache_of_numba_is_made_safe():
    direct = [
        name
        for name, path in modules().items()
        if any(other.split(".")[0] == "librosa" for other in named(path))
    ]
    assert direct == ["infra.backend"]


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_nothing_heavy_is_imported_at_module_level(path):
    # Layers of Keras, what Numba compiles, and graphs of TensorFlow
    heavy_by_nature = {"lstm.py", "wave_network.py", "optimizer.py"}
    heavy_by_nature |= {"compiling.py", "midi_kernels.py", "note_kernels.py"}
    heavy_by_nature |= {"tiles.py", "wave_kernels.py", "transkun_kernels.py"}
    heavy_by_nature |= {"xla.py", "notes_xla_context.py", "notes_xla_sections.py"}
    heavy_by_nature |= {"notes_xla.py", "notes_xla_apart.py", "notes_xla_given.py", "wave_xla.py"}
    heavy_by_nature |= {"notes_xla_loop.py", "notes_xla_rules.py", "notes_xla_beat.py"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        heavy = {name.split(".")[0] for name in names} & HEAVY
        assert not heavy or path.name in heavy_by_nature


@pytest.mark.parametrize(
    "code",
    [
        "import deep_piano",
        "import deep_piano.generate, deep_piano.decoding, deep_piano.report",
        "import deep_piano.prepare, deep_piano.train, deep_piano.pipeline",
        "from deep_piano.cli.main import main; main(['--help'])",
        "from deep_piano.cli.main import main; main(['--version'])",
        "from deep_piano.cli.main import main; main(['generate', '--help'])",
        "from deep_piano.cli.main import main; main(['train', '--help'])",
        "from deep_piano.cli.main import main; main(['generate', 'none.mp3', '-o', 'p.mp3'])",
    ],
)
def test_loads_nothing_heavy(code, tmp_path):
    script = (
        "import atexit, sys\n"
        "names = lambda: sorted({name.split('.')[0] for name in sys.modules})\n"
        "atexit.register(lambda: print('LOADED', *names()))\n"
        f"{code}\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": "", "HOME": str(tmp_path)},
    )
    assert "Traceback" not in run.stderr
    loaded = run.stdout.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    assert "deep_piano" in loaded
    assert HEAVY.intersection(loaded) == set()


def commands():
    """Return every command and group, by the words that call it."""
    found, waiting = {}, [("deep-piano", main)]
    while waiting:
        name, command = waiting.pop()
        found[name] = command
        if isinstance(command, click.Group):
            waiting += [(f"{name} {key}", child) for key, child in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands().items(), ids=commands())
def test_every_command_and_option_has_a_help_text(name, command):
    assert command.help
    assert command.help.splitlines()[0].endswith((".", ",", "?")), "a sentence"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"
        else:
            assert parameter.name.upper() in command.help, f"{name} {parameter.name}"


@pytest.mark.parametrize(("name", "command"), commands().items(), ids=commands())
def test_every_help_ends_with_an_example_that_can_be_understood(name, command):
    example = (command.epilog or "").removeprefix("Example: ")
    assert example.startswith(name), f"{name} has the epilog {command.epilog!r}"
    with click.Context(command, info_name=name) as context:
        assert command.get_help(context).rstrip().endswith(example.rpartition(" ")[2])
    words, level = example.split()[1:], main
    while isinstance(level, click.Group):
        while words[0].startswith("--"):
            words = words[2:]  # an option of the group, and its value
        level = level.commands[words.pop(0)]
    level.make_context("example", words)  # raises where an option is unknown
