"""Checkpoints of sound that hear themselves: what they make of held-out recordings, in figures.

Ten seconds of each recording are continued by each checkpoint, and described beside what really
follows (`deep_piano.analysis.sound_figures`). A picture a recording shows wave and spectrum of all
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from deep_piano.analysis.sound_figures import likeness
from deep_piano.codecs.registry import codec_of
from deep_piano.decoding.base import Decoder
from deep_piano.decoding.wave import WaveDecoder, WaveEngine, WaveTask
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music import audio
from deep_piano.music.audio import Samples
from deep_piano.music.loudness import normalise
from deep_piano.report.spectra import envelope, mel_image
from deep_piano.report.style import BLUE, INK, ORANGE, PAPER, save, write_title
from deep_piano.report.text import markdown

SEED_S = 10.0
TRUE = "what really follows"
COLUMNS = 800
FIGURES = (
    *("softest_db", "loudest_db", "chroma_cosine", "flatness", "onsets_per_s"),
    *("peaks", "peaks_on_keys"),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", "names", multiple=True, default=("mulaw",), show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for pictures, sound.")
@click.option("--seconds", default=30.0, show_default=True, help="To make of each.")
@click.option("--start", default=20.0, show_default=True, help="Where the ten seconds begin.")
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--compiled", is_flag=True, help="By the loop that steps many streams on a GPU.")
def main(
    recordings: Sequence[Path],
    names: Sequence[str],
    output: Path | None,
    seconds: float,
    start: float,
    temperature: float,
    compiled: bool,
) -> None:
    """Continue ten seconds of each of RECORDINGS, and print the figures as Markdown."""
    loaded = {name: checkpoints.load(name) for name in names}
    rows, sums = [], {name: [] for name in (TRUE, *names)}
    for path in recordings:
        sounds: dict[str, Samples] = {}
        for one in loaded.values():
            sr = int(one.facts["sr"])
            whole = audio.decode(path, sr=sr, start_s=start, seconds=SEED_S + seconds)
            seed = whole[: round(SEED_S * sr)]
            factor = one.config.scale / float(np.sqrt(np.mean(np.square(seed))))
            sounds["seed"] = np.clip(seed * np.float32(factor), -1, 1)
            sounds[TRUE] = whole[len(seed) :] * np.float32(factor)

        def made(name: str, seed: Samples = sounds["seed"], sr: int = sr) -> Samples:
            count = round(seconds * sr)
            return continued(loaded[name], seed, count, temperature=temperature, compiled=compiled)

        with ThreadPoolExecutor(len(names)) as pool:
            sounds |= dict(zip(names, pool.map(made, names), strict=True))
        for name in (TRUE, *names):
            found = likeness(sounds["seed"], sounds[name], sr=sr)
            sums[name].append([found[figure] for figure in FIGURES])
            rows.append([path.stem[:32], name, *(f"{found[figure]:.3g}" for figure in FIGURES)])
        seed_row = likeness(sounds["seed"], sounds["seed"], sr=sr)
        rows.append([path.stem[:32], "seed", *(f"{seed_row[figure]:.3g}" for figure in FIGURES)])
        if output is not None:
            draw(output / f"{path.stem}.png", sounds, sr=sr, title=path.stem)
            for name in (TRUE, *names):
                joined = normalise(np.concatenate([sounds["seed"], sounds[name]]), sr=sr)
                audio.encode(output / f"{path.stem}.{Path(name).name}.wav", joined, sr=sr)
    for name, found_rows in sums.items():
        means = np.mean(found_rows, axis=0)
        rows.append(["mean", name, *(f"{value:.3g}" for value in means)])
    click.echo(markdown(["recording", "continued by", *FIGURES], rows, words=2))


def continued(
    checkpoint: Checkpoint, seed: Samples, count: int, *, temperature: float, compiled: bool
) -> Samples:
    """Return what a checkpoint makes to follow a recording."""
    engine, codec = WaveEngine(checkpoint), codec_of(checkpoint.spec)
    rng = np.random.default_rng(0)
    prefix = engine.prefill(codec.encode(seed), rng, temperature=temperature)
    decoder: Decoder[WaveTask, Any] = WaveDecoder(checkpoint)
    if compiled:
        from deep_piano.decoding.wave_xla import WaveDecoderXla

        decoder = WaveDecoderXla(checkpoint, width=1)
    decoder.add("it", WaveTask(prefix, count, rng))
    while not (done := decoder.step()):
        pass
    return codec.to_samples(done["it"])


def draw(path: Path, sounds: dict[str, Samples], *, sr: int, title: str) -> None:
    """Draw wave and mel spectrogram of what really follows, and of what was made, side by side."""
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sounds["seed"]
    names = [name for name in sounds if name != "seed"]
    figure = Figure(figsize=(18, 1 + 3.2 * len(names)), dpi=60, facecolor=PAPER)
    grid = figure.subplots(len(names), 2, squeeze=False)
    for (left, right), name in zip(grid, names, strict=True):
        whole = np.concatenate([seed, sounds[name]])
        end_s = len(whole) / sr
        low, high, rms = envelope(whole, COLUMNS)
        t = np.linspace(0, end_s, len(low))
        left.fill_between(t, low, high, color=BLUE[0], linewidth=0)
        left.fill_between(t, -rms, rms, color=BLUE[1], linewidth=0)
        left.set_ylim(-1, 1)
        image = mel_image(whole, COLUMNS, sr=sr)
        right.imshow(image, origin="lower", aspect="auto", extent=(0, end_s, 0, 1), cmap="magma")
        right.set_yticks([])
        for axes in (left, right):
            axes.axvline(len(seed) / sr, color=ORANGE[1], linestyle="--")
            axes.set_xlim(0, end_s)
        left.set_title(Path(name).name, color=INK, loc="left")
    write_title(figure, title, x=0.05, y=0.97)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    save(figure, path)


if __name__ == "__main__":
    main()
