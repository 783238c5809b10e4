"""What foretells the next samples best: TensorFlow's time-series tutorial, on sound.

Dense, convolutional and LSTM networks of about one size, trained in one run on the same batches of
a dataset of `samples`, beside the last value, the mean and linear predictions; one sample ahead and
several (`--target`). All networks hear the same: the last values, a linear prediction that is
fitted to the recording so far (`deep_piano.models.linear_prediction`) and its last errors; they say
how far the next samples will be from it. Squared errors are of what follows ten seconds of each
held-out recording, the true past given; in closed loop each continues these ten seconds, and hears
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.sound_figures import likeness
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.wave import WaveEngine
from deep_piano.infra.backend import load_keras
from deep_piano.infra.storage.open import open_folder
from deep_piano.models.checkpoint import Checkpoint, weights_of
from deep_piano.models.config import ERRORS_GAIN, LEAST_ERROR, ModelConfig
from deep_piano.models.linear_prediction import coefficients, context_of, own_prediction
from deep_piano.models.note_network import build_model, carry_state
from deep_piano.report.text import markdown
from deep_piano.train.baselines import LinearPrediction
from deep_piano.train.likelihood import losses
from deep_piano.train.start import middles, network_of
from deep_piano.train.windows import training_batches

Floats = NDArray[np.float64]
Sequences = Sequence[NDArray[Any]]
ORDER = 100  # of what does not adapt
SEED_S, FROM_S = 10.0, 20.0
FIGURES = ("softest_db", "loudest_db", "chroma_cosine", "flatness")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--target", "targets", multiple=True, type=int, default=(1, 16), show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of each network.")
@click.option("--batch", default=32, show_default=True)
@click.option("--window", default=256, show_default=True, help="Samples between two updates.")
@click.option("--learning-rate", default=0.001, show_default=True)
@click.option("--scored", default=20.0, show_default=True, help="Seconds of each recording.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each closed loop.")
@click.option("--loops", default=3, show_default=True, help="Held-out recordings continued.")
def main(
    dataset: str,
    targets: Sequence[int],
    steps: int,
    batch: int,
    window: int,
    learning_rate: float,
    scored: float,
    seconds: float,
    loops: int,
) -> None:
    """Train and score on DATASET, of the codec samples; print one table as Markdown."""
    load_keras()
    rows: list[list[str]] = []
    with Dataset(open_folder(dataset)) as opened:
        sr = opened.sr
        given = round(SEED_S * sr)
        begin, end = round(FROM_S * sr), round((FROM_S + SEED_S + scored) * sr)
        held_out = [row.sequence[begin:end].copy() for row in opened.recordings("validation")]
        held_out = [sequence for sequence in held_out if len(sequence) == end - begin]
        train = [middle.astype(np.float64) for middle in middles(opened)]
        for target in targets:
            settings = TrainConfig(
                preset="tiny",
                target=target,
                batch=batch,
                window=window,  # in samples, as `train.loop` hands it on
                steps=steps,
                learning_rate=learning_rate,
            )
            config = network_of(settings, opened)
            ways = simple(train, target)
            ways["linear, of the recording so far"] = Own(opened, config)
            ways |= trained(opened, config, settings)
            for name, way in ways.items():
                click.echo(f"{target} ahead, {name}", err=True)
                error = way.error(held_out, given)
                found = np.mean(
                    [list(closed(way, one, sr, seconds).values()) for one in held_out[:loops]], 0
                )
                figures = [f"{value:.3g}" for value in (error, *found)]
                rows.append([str(target), name, *figures])
    head = ["samples ahead", "way", "squared error a sample", *FIGURES]
    click.echo(markdown(head, rows, words=2))


def closed(way: Any, sequence: NDArray[Any], sr: int, seconds: float) -> dict[str, float]:
    """Describe what a way makes to follow ten seconds, hearing itself."""
    seed = sequence[: round(SEED_S * sr), 0].astype(np.float64)
    made = way.go_on(seed, round(seconds * sr), np.random.default_rng(0))
    made = made.astype(np.float32)
    found = likeness(seed.astype(np.float32), made, sr=sr)
    return {name: found[name] for name in FIGURES}


class Linear:
    """Weighted sums of the last values, the same for all recordings: (order, ahead)."""

    def __init__(self, weights: Floats) -> None:
        self.weights = weights

    def error(self, sequences: Sequences, given: int) -> float:
        """Return the mean squared error of what follows the steps given, the true past known."""
        order, ahead = self.weights.shape
        found = []
        for sequence in sequences:
            values = sequence[given - order :, 0].astype(np.float64)
            rows = np.lib.stride_tricks.sliding_window_view(values, order + ahead)[::ahead]
            found.append(np.mean(np.square(rows[:, :order] @ self.weights - rows[:, order:])))
        return float(np.mean(found))

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Return what follows a seed: predictions, and noise as large as their errors were."""
        noise = rng.normal(0, np.sqrt(self.error([seed[:, None]], len(self.weights))), count)
        return loop(seed, noise, self.weights)


class Own:
    """A linear prediction that is fitted to the recording so far, and nothing more."""

    def __init__(self, dataset: Dataset, config: ModelConfig) -> None:
        self._dataset, self._config = dataset, config

    def error(self, sequences: Sequences, given: int) -> float:
        """Return the mean squared error of what follows the steps given, the true past known."""
        found = []
        for sequence in sequences:
            predicted = own_prediction(self._dataset.spec, self._config, sequence)
            found.append(np.mean(np.square(predicted - sequence[1:, 0])[given - 1 :]))
        return float(np.mean(found))

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Return what follows a seed: as `Linear`, with the filter that fits the seed."""
        config = self._config
        weights = coefficients(seed / config.scale, config, ahead=config.frame)
        noise = rng.normal(0, np.sqrt(Linear(weights).error([seed[:, None]], config.order)), count)
        return loop(seed, noise, weights, self._more)

    def _more(self, values: Floats, errors: Floats) -> Floats | float:
        return 0.0


class Network(Own):
    """A Keras model that hears `wave_network.hear`, trained or not."""

    model: Any

    def error(self, sequences: Sequences, given: int) -> float:
        """Return the mean squared error of what follows the steps given, the true past known."""
        codec = self._dataset.codec
        context = context_of(codec, self._config)
        sums, steps = losses(self.model, codec, sequences, context, given=given)
        return float(sums.sum() / steps.sum())


class Memory(Network):
    """The LSTM, as `deep-piano train` trains it; its kernel steps it."""

    def __init__(self, dataset: Dataset, config: ModelConfig, **shape: int) -> None:
        super().__init__(dataset, config)
        self.model = build_model(dataset.spec, config, **shape)

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Return what follows a seed, as `deep-piano generate` does."""
        trained = Checkpoint(self._dataset.spec, self._config, weights_of(self.model))
        made = WaveEngine(trained).decode(seed.astype(np.float32)[:, None], count, rng, hold=False)
        return made[:, 0].astype(np.float64)


class Memoryless(Network):
    """A hidden layer, over all that is heard or, as a convolution, over eight samples at a time."""

    def __init__(
        self, dataset: Dataset, config: ModelConfig, *, width: int | None, **shape: int
    ) -> None:
        super().__init__(dataset, config)
        import keras
        from keras import layers, ops

        from deep_piano.models import wave_network

        count, heard = shape["window"] // config.frame, 2 * config.past
        inputs = wave_network.inputs(dataset.spec, **shape)
        frames, usual = wave_network.hear(dataset.spec, config, *inputs)(config.frame, count)
        self._width = width or heard
        hop = 4 if width else heard
        self._places = hop * np.arange((heard - self._width) // hop + 1)[:, None]
        self._places = (self._places + np.arange(self._width)).astype(np.int32)
        parts = ops.take(frames, ops.convert_to_tensor(self._places), axis=2)
        hidden = layers.Dense(8 if width else 64, "relu")(parts)  # the same weights for all parts
        hidden = ops.reshape(hidden, (shape["batch"], count, -1))
        more = layers.Dense(config.frame, kernel_initializer="zeros")(hidden)
        output = wave_network.foretell(more, usual, inputs[1], config)
        self.model = keras.Model(list(inputs), output)

    def go_on(self, seed: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Return what follows a seed: what `Own` makes, and what the network adds to it."""
        self._weights = [np.asarray(w, np.float64) for w in self.model.trainable_variables]
        return super().go_on(seed, count, rng)

    def _more(self, values: Floats, errors: Floats) -> Floats | float:
        scale, past = self._config.scale, self._config.past
        errors = errors[-past:] / scale
        heard = np.concatenate([values[-past:] / scale, ERRORS_GAIN * errors])
        usual = np.sqrt(np.mean(np.square(errors)) + LEAST_ERROR**2)
        kernel, bias, last, last_bias = self._weights
        hidden = np.maximum(0, (np.arcsinh(16 * heard) / 3)[self._places] @ kernel + bias)
        added: Floats = (hidden.reshape(-1) @ last + last_bias) * usual * scale
        return added


def loop(
    seed: Floats,
    noise: Floats,
    weights: Floats,
    more: Callable[[Floats, Floats], Floats | float] = lambda values, errors: 0.0,
) -> Floats:
    """Continue a seed by what a filter predicts of it, what is added to that, and noise."""
    order, ahead = weights.shape
    values = np.concatenate([seed, np.zeros(len(noise) + ahead)])
    errors = np.zeros(len(values))
    rows = np.lib.stride_tricks.sliding_window_view(seed, order + ahead)[::ahead]
    apart = rows[:, order:] - rows[:, :order] @ weights
    errors[len(seed) - apart.size : len(seed)] = apart.reshape(-1)
    noise = np.concatenate([noise, np.zeros(ahead)])
    for t in range(len(seed), len(seed) + len(noise) - ahead, ahead):
        coming = slice(t, t + ahead)
        predicted = values[t - order : t] @ weights
        added = more(values[t - order : t], errors[t - order : t])
        values[coming] = np.clip(predicted + added + noise[t - len(seed) :][:ahead], -1, 1)
        errors[coming] = values[coming] - predicted
    return values[len(seed) : len(seed) + len(noise) - ahead]


def simple(train: Sequence[Floats], ahead: int) -> dict[str, Any]:
    """Return the last value, the mean of the last ones, and a linear prediction of them."""
    last, mean = np.zeros((ORDER, ahead)), np.full((ORDER, ahead), 1 / ORDER)
    last[-1] = 1
    fitted = LinearPrediction(ORDER, ahead=ahead).learn(train)
    return {
        "last value": Linear(last),
        f"mean of the last {ORDER}": Linear(mean),
        f"linear AR({ORDER})": Linear(fitted.weights),
    }


def trained(dataset: Dataset, config: ModelConfig, settings: TrainConfig) -> dict[str, Network]:
    """Train a dense, a convolutional and an LSTM network on the same batches."""
    import keras
    from keras import ops

    shape = {"batch": settings.batch, "window": settings.window}
    networks: dict[str, Network] = {
        "dense": Memoryless(dataset, config, width=None, **shape),
        "convolution": Memoryless(dataset, config, width=8, **shape),
        "LSTM": Memory(dataset, config, **shape),
    }
    for network in networks.values():
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.steps)
        network.model.compile(
            keras.optimizers.Adam(rate, global_clipnorm=1.0),
            loss=lambda true, found: ops.mean(ops.square((true - found) / config.scale), axis=-1),
        )
    context = context_of(dataset.codec, config)
    with training_batches(dataset, settings, context=context) as batches:
        for _ in range(settings.steps):
            batch = next(batches)
            for network in networks.values():
                carry_state(network.model, batch.keep)
                network.model.train_on_batch(
                    batch.inputs, batch.targets, sample_weight=batch.weights
                )
    return networks


if __name__ == "__main__":
    main()
