"""What loads what: nothing heavy before it is needed, and no module one that stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import click
import pytest

from deep_piano.cli import main

PACKAGE = Path(__file__).parents[1] / "deep_piano"
HEAVY = {
    *("ray", "tensorflow", "keras", "torch", "librosa", "numba", "scipy", "matplotlib", "pandas"),
    *("boto3", "botocore", "pyarrow", "soundfile", "soxr", "symusic", "sklearn"),
}

# From the bottom up. A module may import those of its own layer and of the layers below it, and
# nothing may import in a circle; a new module must be given its place here.
LAYERS = [
    {"errors", "__init__"},
    {"s3", "storage", "config", "backend", "packages"},
    {"notes", "audio", "packages", "torch_archive", "catalogue", "assets"},
    {
        "samples",
        "compiling",
        "intervals",
        "transkun",
        "transcribe",
        "synth",
        "loudness",
        "versions",
    },
    {
        "outputs",
        "terminal",
        "tables",
        "metrics",
        "summary",
        "spectra",
        "drawing",
        "pictures",
        "ranking",
        "likeness",
        "texture",
    },
    {
        "codecs.__init__",
        "codecs.base",
        "codecs.notes",
        "codecs.note_context",
        "codecs.note_kernels",
        "codecs.waveform",
    },
    {"features", "fingerprint", "sources"},
    {"rules", "shards"},
    {"ingest", "plan", "build", "manifest"},
    {"dataset", "workers"},
    {
        "windows",
        "baselines",
        "lstm",
        "sizes",
        "tiers",
        "model",
        "checkpoint",
        "originality",
        "products",
    },
    {"decode", "linear", "piece_rules", "stepping"},
    {"device", "likelihood", "optimizer", "trainer", "runs"},
    {"compose", "device_context", "device_composer", "device_stepping"},
    {"begin", "fit"},
    {"card", "charts", "preview", "inspection"},
    {"pieces", "gallery", "wave_piece"},
    {"piece", "evaluate", "doctor"},
    {
        "stages.__init__",
        "stages.cluster",
        "stages.measures",
        "stages.transcription",
        "stages.prepare",
        "stages.train",
        "stages.piece_tasks",
        "stages.composers",
        "stages.generate",
    },
    {"stages.pipeline", "submit"},
    {"cli"},
    {"__main__"},
]
LAYER = {module: height for height, modules in enumerate(LAYERS) for module in modules}


def modules():
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imported(path, known):
    """Return the modules of the package that a file imports, in functions as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "deep_piano":
                continue
            inner = name.removeprefix("deep_piano").lstrip(".")
            choices = (inner, inner.rpartition(".")[0], f"{inner}.__init__".lstrip("."), "__init__")
            found.add(next(choice for choice in choices if choice in known))
    return found


def test_imports_run_downward_only():
    known = modules()
    assert set(known) - set(LAYER) == set(), "give a new module its layer in this test"
    graph = {name: imported(path, known) for name, path in known.items()}
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if LAYER[other] > LAYER[name]
    ]
    assert upward == []
    list(TopologicalSorter(graph).static_order())  # raises where imports go in a circle


def test_the_layers_name_no_module_that_is_gone():
    assert set(LAYER) - set(modules()) == set()


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_nothing_heavy_is_imported_at_module_level(path):
    # Layers of Keras, what Numba compiles, and graphs of TensorFlow
    heavy_by_nature = {"lstm.py", "tiers.py", "transkun.py", "optimizer.py"}
    heavy_by_nature |= {"compiling.py", "note_kernels.py"}
    heavy_by_nature |= {"device.py", "device_context.py", "device_composer.py"}
    heavy_by_nature |= {"device_stepping.py"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        heavy = {name.split(".")[0] for name in names} & HEAVY
        assert not heavy or path.name in heavy_by_nature


@pytest.mark.parametrize(
    "code",
    [
        "import deep_piano",
        "import deep_piano.piece, deep_piano.compose, deep_piano.decode",
        "from deep_piano.cli import main; main(['--help'])",
        "from deep_piano.cli import main; main(['--version'])",
        "from deep_piano.cli import main; main(['generate', '--help'])",
        "from deep_piano.cli import main; main(['train', '--help'])",
        "from deep_piano.cli import main; main(['generate', 'none.mp3', '-o', 'p.mp3'])",
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
