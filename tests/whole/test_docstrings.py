import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_examples_in_docstrings_give_what_they_say():
    # In a process of its own: it imports every module, TensorFlow's too.
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "deep_piano", "-q"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
