"""The main job with a timer around every stage: what `bench.generate` runs in a fresh process.

It calls the command line as a user does, in this process, once or more often, and hands each
run's stages back as JSON. The functions of the package are wrapped, not copied, so that what is
measured is what runs. A stage counts its own time only, without the stages inside it; imports
that happen inside a stage are stages of their own. What runs in other threads is told apart.
"""

from __future__ import annotations

import time

_BEGUN_S = time.monotonic()  # before anything else is imported

import builtins  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from typing import Any  # noqa: E402

START, REST, IMPORTS = "starting Python", "the rest", "importing the rest"

HEAVY = {
    "tensorflow": "importing TensorFlow",
    "matplotlib": "importing Matplotlib",
    "scipy": "importing SciPy",
    "numba": "importing Numba",
    "llvmlite": "importing Numba",
}

# The module that defines it, name, stage.
FUNCTIONS = (
    ("deep_piano.config.load", "load_config", "settings"),
    ("deep_piano.models.checkpoint", "load", "reading the checkpoint"),
    ("deep_piano.music.audio", "content_hash", "hashing files"),
    ("deep_piano.music.audio", "decode", "decoding the seed"),
    ("deep_piano.music.transcription", "Transcriber.__init__", "loading the transcription weights"),
    ("deep_piano.music.transkun", "Transkun.__init__", "preparing the transcription network"),
    ("deep_piano.music.transkun", "Transkun.__call__", "running the transcription network"),
    ("deep_piano.music.segments", "best_intervals", "Viterbi"),
    ("deep_piano.decoding.notes", "Engine.__init__", "preparing the weights"),
    ("deep_piano.generate.piece", "decode_takes", "composing"),
    ("deep_piano.analysis.note_figures", "figures", "figures of the piece"),
    ("deep_piano.music.midi", "write_midi", "writing MIDI"),
    ("deep_piano.report.roll", "piano_roll", "drawing the piano roll"),
    ("deep_piano.infra.assets.cache", "ensure", "looking for assets"),
    ("deep_piano.music.sounds", "load_sound", "looking for assets"),
    ("deep_piano.music.sounds", "_prepare", "preparing samples, the first time"),
    ("deep_piano.music.synth", "render", "rendering"),
    ("deep_piano.music.loudness", "normalise", "loudness"),
    ("deep_piano.music.loudness", "integrated_lufs", "loudness"),
    ("deep_piano.music.audio", "encode", "encoding"),
)


class Stopwatch:
    """Own seconds and processor seconds of nested stages, a thread."""

    def __init__(self) -> None:
        self.main: dict[str, list[float]] = {}
        self.beside: dict[str, list[float]] = {}
        self._local = threading.local()
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything, and begin with `REST`, in the calling thread."""
        self.main = defaultdict(lambda: [0.0, 0.0])
        self.beside = defaultdict(lambda: [0.0, 0.0])
        self._local.stack = [REST]
        self._local.since = now()

    @property
    def stage(self) -> str:
        """The innermost stage of this thread."""
        stack: list[str] = self._stack()
        return stack[-1]

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside to `stage`."""
        stack = self._stack()
        self.pause()
        stack.append(stage)
        try:
            yield
        finally:
            self.pause()
            stack.pop()

    def pause(self) -> None:
        """Write down what the innermost stage has taken so far."""
        stack, at = self._stack(), now()
        mine = threading.current_thread() is threading.main_thread()
        with self._lock:
            entry = (self.main if mine else self.beside)[stack[-1]]
            entry[0] += at[0] - self._local.since[0]
            entry[1] += at[1] - self._local.since[1]
        self._local.since = at

    def _stack(self) -> list[str]:
        if not hasattr(self._local, "stack"):
            self._local.stack, self._local.since = [REST], now()
        stack: list[str] = self._local.stack
        return stack


def now() -> tuple[float, float]:
    """Return seconds, and processor seconds of this process and its finished children."""
    times = os.times()
    return time.monotonic(), time.process_time() + times.children_user + times.children_system


def watch_imports(watch: Stopwatch) -> None:
    """Make imports stages, and wrap the functions of each module once it is there."""
    original = builtins.__import__
    waiting = list(FUNCTIONS)

    def stage_of(name: str, fromlist: tuple[str, ...]) -> str | None:
        missing = name not in sys.modules or any(
            not hasattr(sys.modules[name], part) for part in fromlist or ()
        )
        heavy = HEAVY.get(name.partition(".")[0])
        if not missing or watch.stage in HEAVY.values():
            return None
        return heavy or (None if watch.stage == IMPORTS else IMPORTS)

    def load(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> Any:
        stage = None if level else stage_of(name, fromlist)
        if stage is None:
            return original(name, globals, locals, fromlist, level)
        with watch.measure(stage):
            module = original(name, globals, locals, fromlist, level)
        waiting[:] = [entry for entry in waiting if not wrap(watch, *entry)]
        return module

    builtins.__import__ = load  # type: ignore[assignment]


def wrap(watch: Stopwatch, module: str, name: str, stage: str) -> bool:
    """Wrap a function by its name; False where its module is not loaded yet."""
    holder: Any = sys.modules.get(module)
    *path, last = name.split(".")
    if holder is None or getattr(getattr(holder, "__spec__", None), "_initializing", False):
        return False
    try:
        for part in path:
            holder = getattr(holder, part)
        function: Callable[..., Any] = getattr(holder, last)
    except AttributeError:
        print(f"bench: there is no {module}.{name}; its time is in the rest", file=sys.stderr)
        return True

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with watch.measure(stage):
            return function(*args, **kwargs)

    setattr(holder, last, measured)
    for other in [m for key, m in sys.modules.items() if key.startswith("deep_piano.")]:
        for bound, value in list(vars(other).items()):
            if value is function:  # by `from ... import`
                setattr(other, bound, measured)
    return True


def main(spawned_s: float, runs: list[list[str]]) -> None:
    """Run the command line once for each list of arguments; print their stages as JSON.

    Parameters
    ----------
    spawned_s : float
        `time.monotonic()` of the process that started this one, just before.
    runs : list of list of str
        Arguments of `deep-piano`.
    """
    watch = Stopwatch()
    watch_imports(watch)
    results = []
    for index, arguments in enumerate(runs):
        if index:
            watch.reset()
        else:
            watch.main[START] = [_BEGUN_S - spawned_s, 0.0]
            watch.main[IMPORTS] = [time.monotonic() - _BEGUN_S, time.process_time()]
        begun_s = time.monotonic() if index else spawned_s
        from deep_piano.cli.main import main as command

        command(arguments, standalone_mode=False)
        watch.pause()
        results.append(
            {
                "wall_s": time.monotonic() - begun_s,
                "stages": dict(watch.main),
                "beside": dict(watch.beside),
            }
        )
    gc.freeze()  # as the command line does before it leaves
    print(json.dumps({"runs": results, "ended_s": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), json.loads(sys.argv[2]))
