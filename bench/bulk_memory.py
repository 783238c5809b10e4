"""Peak memory of GENERATE in bulk, by how many seeds there are: it should not grow with them.

Seeds are notes of chance, and what is made is MIDI, so that it is the number of pieces that could
fill the memory, and not their sound.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

from bench.common import Memory, machine, memory_watched
from deep_piano.config.load import load_config
from deep_piano.generate.on_ray import generate
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import Notes, make_notes
from deep_piano.report.text import markdown


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("counts", type=int, nargs=-1)
@click.option("--seconds", default=60.0, show_default=True, help="Length of a piece.")
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
def main(counts: tuple[int, ...], seconds: float, checkpoint: str) -> None:
    """Print the peak memory for COUNTS of seeds (20 and 500 if none are given), as Markdown."""
    settings = {"seconds": seconds, "checkpoint": checkpoint}
    # Each in a process of its own, as what one run leaves behind is part of the next one's peak.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        peaks = {
            count: alone.submit(peak, count, settings).result() for count in counts or (20, 500)
        }
    least = min(memory.whole for memory in peaks.values())
    rows = [
        [f"{count}", *(f"{size / 2**20:,.0f}" for size in sizes), f"{sizes[0] / least:.3f}"]
        for count, memory in peaks.items()
        for sizes in [(memory.whole, memory.driver, memory.largest_worker)]
    ]
    click.echo(f"Pieces of {seconds:g} s, MIDI to MIDI; {machine()}.\n")
    columns = ["seeds", "peak MiB", "driver", "largest worker", "peak / least"]
    click.echo(markdown(columns, rows))


def peak(count: int, settings: dict[str, object]) -> Memory:
    """Return the peaks of a run over so many seeds."""
    with tempfile.TemporaryDirectory() as folder:
        seeds, pieces = Path(folder, "seeds"), Path(folder, "pieces")
        for number in range(count):
            write_midi(seeds / f"{number}.mid", notes_of_chance(number))
        config = load_config(None, {"generate": settings, "bulk": {"format": "mid"}})
        with memory_watched() as peaks:
            records = generate(open_folder(seeds), open_folder(pieces), config)
    if not all(record.done for record in records.values()):
        raise click.ClickException("not every piece was made.")
    if not peaks:
        raise click.ClickException("this system does not tell a process's memory.")
    return peaks[0]


def notes_of_chance(random_state: int) -> Notes:
    """Return ten seconds of notes of a C major scale."""
    rng = np.random.default_rng(random_state)
    onsets = np.sort(rng.uniform(0, 10, 40))
    pitches = rng.choice([60, 62, 64, 65, 67, 69, 71, 72], 40)
    return make_notes(onsets, onsets + rng.uniform(0.1, 1, 40), pitches, rng.integers(40, 90, 40))


if __name__ == "__main__":
    main()
