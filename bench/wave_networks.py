"""What foretells the next samples best: TensorFlow's time-series tutorial, on sound.

Dense, convolutional and LSTM networks of about one size, trained in one run on the same batches of
a dataset of `samples`, beside the last value, the mean and linear predictions; one sample ahead and
several (`--target`). All networks hear the same: the last values, a linear prediction that is
fitted to the recording so far (`deep_piano.linear`) and its last errors; they say how far the
next samples will be from it. Squared errors are of held-out recordings, the true past given; in
closed loop each continues ten held-out seconds, and hears itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from deep_piano.backend import load_keras
from deep_piano.baselines import LinearPrediction
from deep_piano.begin import measured
from deep_piano.checkpoint import Checkpoint, weights_of
from deep_piano.config import TrainConfig
from deep_piano.dataset import Dataset
from deep_piano.likelihood import losses
from deep_piano.likeness import likeness
from deep_piano.linear import coefficients, context_of, middles, own_prediction
from deep_piano.model import ModelConfig, build_model, carry_state
from deep_piano.sizes import ERRORS_GAIN, LEAST_ERROR
from deep_piano.stepping import Stepper
from deep_piano.storage import open_folder
from deep_piano.tables import markdown
from deep_piano.windows import Batch, training_batches

Floats = NDArray[np.float64]
SEED_S, SCORED_S, ORDER = 10.0, 30.0, 100


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--target", "targets", multiple=True, type=int, default=(1, 16), show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of each network.")
@click.option("--batch", default=32, show_default=True)
@click.option("--window", default=256, show_default=True, help="Samples between two updates.")
@click.option("--learning-rate", default=0.002, show_default=True)
@click.option("--recordings", default=0, help="Held-out ones to score.  [all]")
@click.option("--seconds", default=10.0, show_default=True, help="Of the closed loops.")
def main(
    dataset: str,
    targets: Sequence[int],
    steps: int,
    batch: int,
    window: int,
    learning_rate: float,
    recordings: int,
    seconds: float,
) -> None:
    """Train and score on DATASET, of the codec samples; print one table as Markdown."""
    load_keras()
    rows: list[list[str]] = []
    with Dataset(open_folder(dataset)) as opened:
        held_out = _held_out(opened, recordings)
        train = middles(opened)
        for target in targets:
            settings = TrainConfig(
                preset="tiny",
                target=target,
                batch=batch,
                window=max(8, window // target) * target,
                steps=steps,
                learning_rate=learning_rate,
            )
            config = measured(settings, opened)
            ways = _simple(train, config)
            ways |= trained(opened, config, settings)
            for name, way in ways.items():
                click.echo(f"{target} ahead, {name}", err=True)
                rows.append([str(target), name, *_figures(way, held_out, config, opened, seconds)])
    head = ["samples ahead", "network", "squared error a sample"]
    head += ["softest_db", "loudest_db", "chroma_cosine", "flatness"]
    click.echo(markdown(head, rows, words=2))


class Linear:
    """A linear prediction, the same for all recordings: weights (order, ahead), oldest first."""

    def __init__(self, weights: Floats) -> None:
        self.weights = weights

    def error(self, sequence: NDArray[Any]) -> tuple[float, int]:
        order, ahead = self.weights.shape
        values = sequence[:, 0].astype(np.float64)
        rows = np.lib.stride_tricks.sliding_window_view(values, order + ahead)[::ahead]
        return float(np.square(rows[:, :order] @ self.weights - rows[:, order:]).sum()), rows[
            :, order:
        ].size

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        order, ahead = self.weights.shape
        total, places = self.error(seed[:, None])
        return _loop(
            seed, count, order, ahead, lambda past: past @ self.weights, rng, total / places
        )


class Own:
    """A linear prediction that is fitted to the recording itself, and nothing more."""

    def __init__(self, dataset: Dataset, config: ModelConfig) -> None:
        self._spec, self._config = dataset.spec, config

    def error(self, sequence: NDArray[Any]) -> tuple[float, int]:
        apart = own_prediction(self._spec, self._config, sequence) - sequence[1:, 0]
        return float(np.square(apart).sum()), len(apart)

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        weights = coefficients(seed / self._config.scale, self._config, ahead=self._config.frame)
        return Linear(weights).go_on(seed, count, rng)


class Network(Own):
    """A network without memory: what it knows at a step is all that it goes by."""

    def __init__(self, dataset: Dataset, config: ModelConfig, build: Callable[[], Any]) -> None:
        super().__init__(dataset, config)
        self._dataset, self.build = dataset, build
        self.model: Any = None

    def error(self, sequence: NDArray[Any]) -> tuple[float, int]:
        context = context_of(self._dataset.codec, self._config)
        sums, steps = losses(self.model, self._dataset.codec, [sequence], context)
        return float(sums.sum()), int(steps.sum())
