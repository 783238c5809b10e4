"""How large a network is: its configuration, the presets, and the shape of every weight.

This module knows a codec's specification; it loads no framework.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from deep_piano.codecs.base import SequenceSpec

_LARGEST, _DEEPEST = 2**16, 64


@dataclass(frozen=True)
class ModelConfig:
    """The size of the network.

    Attributes
    ----------
    layers, units : int
        LSTM layers, and the width of each.
    head_units : int
        Width of the hidden layer of each head.
    frame : int
        Steps of a sequence that a step of the LSTM takes in, and foretells. More than one, or a
        `past`, is for sequences of one field that stands for numbers.
    past : int
        How many of the last steps the network sees at once; 1: the last one alone.
    order : int
        How many of the last steps the linear prediction sees that it begins with
        (`linear_prediction`).
    scale : float
        What numbers are divided by before the network hears them, and multiplied by after.
    spectrum : tuple of float
        The mean spectrum of what it learned from, in dB: what a linear prediction goes by before it
        has heard enough.
    """

    layers: int = 2
    units: int = 512
    head_units: int = 384
    frame: int = 1
    past: int = 1
    order: int = 0
    scale: float = 1.0
    spectrum: tuple[float, ...] = ()

    @property
    def given(self) -> int:
        """How many first steps of a recording are heard and not scored.

        Of sound as many as its linear prediction reaches back: the first of what begins at full
        level are foreseen by nothing, and would decide every mean.
        """
        return max(1, self.order)

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Build a configuration from what `to_json` returned.

        Raises
        ------
        ValueError, TypeError
            When it is another thing, or a size is beyond every network that is trained.
        """
        numbers = {"scale", "spectrum"}
        sizes = {name: int(size) for name, size in value.items() if name not in numbers}
        spectrum = tuple(float(db) for db in value.get("spectrum", ()))
        config = cls(**sizes, scale=float(value.get("scale", 1.0)), spectrum=spectrum)
        large = {name: size for name, size in sizes.items() if name != "order"}
        if not all(1 <= size <= _LARGEST for size in large.values()) or config.layers > _DEEPEST:
            raise ValueError(f"no network has these sizes: {sizes}")
        if not 0 < config.scale < math.inf:
            raise ValueError(f"the scale is {config.scale}")
        if not 0 <= config.order <= _LARGEST or not all(map(math.isfinite, spectrum)):
            raise ValueError("no linear prediction is of this order and spectrum")
        if config.past > 1 and not (config.order and len(spectrum) > 1):
            raise ValueError("a network of sound needs the order and spectrum of its prediction")
        return config


PRESETS = {
    "tiny": ModelConfig(layers=1, units=64, head_units=64),
    "small": ModelConfig(layers=2, units=256, head_units=192),
    "base": ModelConfig(layers=2, units=512, head_units=384),
    "large": ModelConfig(layers=3, units=1024, head_units=512),
}
"""From a test's to a large GPU's: 0.3, 2.2, 7.0 and 30 million weights with the codec `notes`."""


PLACE_UNITS: Final = 8
"""How many numbers an LSTM's output becomes for each place of the next frame (`wave_network`)."""
SHAPE_OUTPUTS: Final = 3
"""Beside the logits: what is added to the prediction, and how sharp and how steep it is."""
ERRORS_GAIN: Final = 8.0
"""What errors of prediction are multiplied by before they are heard: they are so much smaller."""
LEAST_ERROR: Final = 1e-4
"""The smallest usual error that is believed, in scaled numbers."""
COMPAND_GAIN, COMPAND_BEND = 16, 3
"""What the network takes in of a scaled sample is ``arcsinh(gain * sample) / bend``."""


def weight_shapes(spec: SequenceSpec, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of the network, named ``layer/variable``."""
    units, hidden = config.units, config.head_units
    sizes = [field.size for field in spec.fields]
    shapes: dict[str, tuple[int, ...]] = {
        "input/kernel": (
            2 * config.past
            if config.past > 1
            else sum(sizes) + spec.beside.size + spec.fields[0].beside.size,
            units,
        ),
        "input/bias": (units,),
    }
    for layer in range(config.layers):
        shapes |= {
            f"norm_{layer}/gamma": (units,),
            f"norm_{layer}/beta": (units,),
            f"lstm_{layer}/kernel": (units, 4 * units),
            f"lstm_{layer}/recurrent_kernel": (units, 4 * units),
            f"lstm_{layer}/bias": (4 * units,),
        }
    shapes |= {"norm_out/gamma": (units,), "norm_out/beta": (units,)}
    if config.past > 1:
        return shapes | _head_shapes(spec, config)
    for index, field in enumerate(spec.fields):
        shapes |= {
            f"{field.name}_hidden/kernel": (
                units + sum(sizes[:index]) + field.beside.size,
                hidden,
            ),
            f"{field.name}_hidden/bias": (hidden,),
            f"{field.name}/kernel": (hidden, field.outputs),
            f"{field.name}/bias": (field.outputs,),
        }
    return shapes


def _head_shapes(spec: SequenceSpec, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights between the LSTM and the samples (see `wave_network`)."""
    [field] = spec.fields
    frame, units, hidden = config.frame, config.units, config.head_units
    name, inner = field.name, f"{field.name}_hidden"
    if field.continuous:
        return {
            f"{inner}/kernel": (units, hidden),
            f"{inner}/bias": (hidden,),
            f"{name}/kernel": (hidden, frame),
            f"{name}/bias": (frame,),
        }
    return {
        "places/kernel": (units, frame * PLACE_UNITS),
        "places/bias": (frame * PLACE_UNITS,),
        "from_frame/kernel": (units, hidden),
        "from_frame/bias": (hidden,),
        "from_place/kernel": (PLACE_UNITS, hidden),
        "from_past/kernel": (2 * config.past + 1, hidden),
        f"{inner}/kernel": (hidden, hidden),
        f"{inner}/bias": (hidden,),
        f"{name}/kernel": (hidden, field.size + SHAPE_OUTPUTS),
        f"{name}/bias": (field.size + SHAPE_OUTPUTS,),
    }
