"""Begins a run, or checks that it can be resumed with its own settings and dataset.

This module knows run folders, settings and datasets; it knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano import versions
from deep_piano.config.load import load_config
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset, RowGroup
from deep_piano.dataset.rows import Row
from deep_piano.errors import CheckpointError, InputError, one_line
from deep_piano.infra.storage.folder import Folder
from deep_piano.models.checkpoint import Checkpoint, require_same_codec
from deep_piano.models.config import PRESETS, ModelConfig
from deep_piano.models.linear_prediction import Floats, numbers_of
from deep_piano.train import runs

_MAY_CHANGE = frozenset(
    {
        *("workers", "cpus_per_worker", "gpus_per_worker", "nodes_within_seconds"),
        *("silence_seconds", "max_failures", "patience", "steps", "decay_steps"),
    }
)

_STEPS: Final = 10_000_000  # more do not change a significant digit
_FEWEST_STEPS: Final = 16_000  # of a recording: fewer hold little of a spectrum
_BANDS: Final = 128  # of the mean spectrum: 62.5 Hz each at 16 kHz


def begin(
    dataset: Dataset,
    run: Folder,
    settings: TrainConfig,
    *,
    resume: bool = False,
    init: Checkpoint | None = None,
) -> tuple[TrainConfig, ModelConfig]:
    """Begin a run, or check that it can be resumed; return its settings and network.

    Parameters
    ----------
    dataset : Dataset
    run : Folder
        The run's folder. A run that has a checkpoint must be resumed; one that has none yet has
        nothing to lose, and is begun anew.
    settings : TrainConfig
        With `resume`, only explicitly set fields count; the others are the run's. Once there is a
        checkpoint, fields must equal the run's, apart from those that may change (workers,
        patience, steps, ...), which are kept in its folder.
    resume : bool
    init : Checkpoint, optional
        Begin with its weights and its network size, or more layers.

    Raises
    ------
    InputError
        When the run's folder does not fit `resume`; when the dataset, the codec or a setting
        differs from the run's; when a split is empty.
    """
    about, begun = runs.read_about(run), runs.has_checkpoint(run)
    name = one_line(run.uri)
    if begun and not resume:
        raise InputError(f"{name} already holds a run. Give another folder, or --resume.")
    if about is None and resume:
        raise InputError(f"{name} holds no run to resume: {runs.RUN} is missing.")
    dataset.require("train")
    dataset.require("validation")
    if about is not None and begun:
        return _of_the_run(about, dataset, settings, init, run)
    chosen = settings.model_fields_set
    if about is not None and resume:
        settings = _begun_again(about, settings, init, run)
    config = _network(settings, chosen, init, dataset)
    run.require_writable()
    wanted = _about(dataset, settings, config, init)
    runs.write_about(run, wanted, replace=about is not None)
    return settings, config


def _begun_again(
    about: Mapping[str, Any], settings: TrainConfig, init: Checkpoint | None, run: Folder
) -> TrainConfig:
    """Return the settings of a run without a checkpoint: its own where no others are given."""
    if init is None and about.get("init") is not None:
        raise InputError(
            f"{one_line(run.uri)} has no checkpoint yet, and was begun with --init (the digest "
            f"{one_line(about['init'])[:12]}). Give it again, or leave --resume out."
        )
    before, _ = _kept(about, run, "Leave --resume out to begin it anew")
    return _merged(before, _given(settings))


def _of_the_run(
    about: Mapping[str, Any],
    dataset: Dataset,
    settings: TrainConfig,
    init: Checkpoint | None,
    run: Folder,
) -> tuple[TrainConfig, ModelConfig]:
    name, elsewhere = one_line(run.uri), runs.how_to_change(run)
    if about["dataset"]["codec"] != dataset.spec.bare.to_json():
        raise InputError(
            f"{name} was begun with the codec {about['dataset']['codec'].get('codec')!r}, and "
            f"{one_line(dataset.folder.uri)} is of {dataset.spec.codec!r}. Give the run's dataset, "
            "or another folder for a new run."
        )
    if about["dataset"]["digest"] != dataset.digest:
        raise InputError(
            f"the dataset has changed since {name} was begun (digest "
            f"{about['dataset']['digest'][:12]} then, {dataset.digest[:12]} now). Give the dataset "
            f"as it was, or this one {elsewhere}."
        )
    before, network = _kept(about, run, f"Go on {elsewhere}")
    given = _given(settings)
    changed = [
        f"{field} {getattr(before, field)} -> {value}"
        for field, value in sorted(given.items())
        if field not in _MAY_CHANGE and value != getattr(before, field)
    ]
    if init is not None and about.get("init") != init.digest:
        changed.append(f"init {one_line(about.get('init'))[:12]}")
    if changed:
        raise InputError(
            f"{name} was begun with other settings ({'; '.join(changed)}). Leave them out, or "
            f"give them {elsewhere}."
        )
    merged = _merged(before, given)
    if merged != before:
        runs.write_about(run, dict(about) | {"settings": merged.model_dump()}, replace=True)
    return merged, network


def _kept(about: Mapping[str, Any], run: Folder, otherwise: str) -> tuple[TrainConfig, ModelConfig]:
    """Return a run's settings and network; raise an InputError that ends with what to do."""
    try:
        settings = TrainConfig.model_validate(about["settings"])
        return settings, ModelConfig.from_json(about["network"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{run.place(runs.RUN)} cannot be resumed by this version: {one_line(error)[:300]}. "
            f"{otherwise}."
        ) from error


def _given(settings: TrainConfig) -> dict[str, Any]:
    """Return the fields that were set."""
    return {field: getattr(settings, field) for field in settings.model_fields_set}


def _merged(before: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    return load_config(None, {"train": before.model_dump() | given}).train


def _network(
    settings: TrainConfig, chosen: Set[str], init: Checkpoint | None, dataset: Dataset
) -> ModelConfig:
    """Return the network of settings, of which those in `chosen` were asked for by name."""
    if init is None:
        return network_of(settings, dataset)
    require_same_codec(init, dataset.spec)
    measured = {name: getattr(init.config, name) for name in ("past", "order", "scale", "spectrum")}
    asked = replace(_sized(settings, dataset), **measured)
    if settings.target is None:
        asked = replace(asked, frame=init.config.frame)
    wanted = replace(init.config, layers=settings.layers or init.config.layers)
    if {"preset", "target"} & chosen and asked != wanted:
        raise CheckpointError(
            f"the checkpoint to begin with has {_size(init.config)}, and the preset "
            f"{settings.preset!r} has {_size(asked)}. Leave the preset out, and train.target."
        )
    if wanted.layers < init.config.layers:
        raise CheckpointError(
            f"the checkpoint to begin with has {init.config.layers} LSTM layers, and train.layers "
            f"is {wanted.layers}. Layers can be added, not taken away: give more, or leave it out."
        )
    return wanted


def _size(config: ModelConfig) -> str:
    return (
        f"{config.layers} LSTM layers of {config.units} units, heads of {config.head_units} and "
        f"frames of {config.frame}"
    )


def network_of(settings: TrainConfig, dataset: Dataset) -> ModelConfig:
    """Return the network that the settings ask for, with scale and spectrum of the train split."""
    config = _sized(settings, dataset)
    if dataset.codec.encodes_notes:
        return config
    return replace(config, scale=spread(dataset), spectrum=spectrum(dataset))


def _sized(settings: TrainConfig, dataset: Dataset) -> ModelConfig:
    """Return the size that the settings ask for."""
    codec, config = dataset.codec, PRESETS[settings.preset]
    config = replace(config, layers=settings.layers or config.layers)
    if codec.encodes_notes:
        if settings.target not in (None, 1):
            raise InputError(
                f"train.target is {settings.target}, and a step of {dataset.spec.codec!r} "
                "predicts one note. Leave it out: it is for the codecs of sound."
            )
        return config
    return replace(config, frame=settings.target or codec.frame, past=codec.past, order=codec.order)


def _about(
    dataset: Dataset, settings: TrainConfig, config: ModelConfig, init: Checkpoint | None
) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(),
        "network": config.to_json(),
        "init": init.digest if init else None,
        "dataset": {
            "uri": dataset.folder.uri,
            "digest": dataset.digest,
            "codec": dataset.spec.bare.to_json(),
            "splits": dataset.manifest.totals.to_json()["splits"],
        },
        "versions": versions.of_a_run(),
    }


def spread(dataset: Dataset) -> float:
    """Return the root mean square of the training split's numbers."""
    squares, count = 0.0, 0
    for values in numbers(dataset):
        squares += float(np.square(values).sum())
        count += len(values)
    return float(np.sqrt(squares / max(1, count))) or 1.0


def spectrum(dataset: Dataset) -> tuple[float, ...]:
    """Return the mean power spectrum of the training split: dB, from 0 Hz to half the rate."""
    from scipy.signal import welch

    total = np.full(_BANDS + 1, 1e-20)
    for values in numbers(dataset):
        if len(values) >= 2 * _BANDS:
            total += welch(values[:, 0], nperseg=2 * _BANDS)[1] * len(values)
    return tuple(np.round(10 * np.log10(total / total.mean()), 1).tolist())


def numbers(dataset: Dataset) -> Iterator[Floats]:
    """Yield the numbers that the steps of `middles` represent, (n, 1)."""
    [field] = dataset.spec.fields
    for steps in middles(dataset):
        yield numbers_of(field, steps)


def middles(dataset: Dataset) -> list[NDArray[Any]]:
    """Return the middles of recordings of the training split, of `_STEPS` steps in all.

    Of each at least `_FEWEST_STEPS`, so that of many recordings only some are read, chosen evenly.
    """
    recordings = sum(group.recordings for group in dataset.row_groups("train"))
    count = min(recordings, _STEPS // _FEWEST_STEPS)
    each = _STEPS // max(1, count)
    found = []
    for row in chosen_rows(dataset, "train", [n * recordings // count for n in range(count)]):
        begin = max(0, (len(row.sequence) - each) // 2)
        found.append(row.sequence[begin : begin + each].copy())  # frees the rest
    return found


def chosen_rows(dataset: Dataset, split: str, numbers: Sequence[int]) -> Iterator[Row]:
    """Yield the recordings of a split with these numbers, by row groups; no others are read."""
    groups = dataset.row_groups(split)
    ends = np.cumsum([group.recordings for group in groups])
    chosen: dict[RowGroup, list[int]] = {}
    for number in numbers:
        index = int(np.searchsorted(ends, number, side="right"))
        chosen.setdefault(groups[index], []).append(int(number - ends[index]))
    for group, places in chosen.items():
        rows = dataset.rows(group)
        yield from (rows[place] for place in places)  # counted from the row group's end
