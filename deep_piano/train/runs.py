"""Run folders: the files of a training, and the best run of several.

::

    run.json                settings, network, dataset, versions: written first
    checkpoint/best         lowest loss on the validation sample
    checkpoint/last         with the state to resume from
    history.parquet, .png   one row a validation
    tensorboard/            the same for TensorBoard

This module knows these files, local or in S3; it knows nothing of models or batches.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from deep_piano.errors import FileError, InputError, PictureError, one_line
from deep_piano.infra.storage.arrow import arrow_file
from deep_piano.infra.storage.folder import Folder
from deep_piano.models.checkpoint import BEST, CARD
from deep_piano.report.text import markdown

logger = logging.getLogger(__name__)

RUN: Final = "run.json"
LAST: Final = "checkpoint/last"
_HISTORY = "history.parquet"
_RUNS = r"[^/]+/run\.json"
_EVENTS = "tensorboard/events.out.tfevents.0.deep_piano"

Row = Mapping[str, Any]


class _Part(BaseModel):
    """The part of a file that is validated; other keys are allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Settings(_Part):
    preset: str
    batch: int
    window: int
    learning_rate: float


class _Network(_Part):
    layers: int
    units: int


class _DatasetOfRun(_Part):
    digest: str
    codec: dict[str, Any]


class _About(_Part):
    settings: _Settings
    dataset: _DatasetOfRun
    network: _Network | None = None
    init: str | None = None


class _Validated(_Part):
    """A row of a history."""

    step: int
    seen: int
    hours: float
    validation_loss: float


def write_about(run: Folder, about: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write `run.json`; raise an InputError where one has appeared meanwhile, unless `replace`."""
    with run.write(RUN, replace=replace) as path:
        path.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_about(run: Folder) -> dict[str, Any] | None:
    """Return the content of `run.json`; None where there is no run.

    Raises
    ------
    InputError
        When it is not valid.
    """
    if not run.exists(RUN):
        return None
    try:
        about = dict(json.loads(run.read_bytes(RUN)))
        _About.model_validate(about)
    except ValidationError as invalid:
        [error, *_] = invalid.errors(include_url=False, include_context=False)
        where = ".".join(map(str, error["loc"]))
        raise InputError(
            f"{run.place(RUN)} is broken: {one_line(where)}: {one_line(error['msg'])}. Give "
            "another folder."
        ) from invalid
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{run.place(RUN)} is broken: {one_line(error)}. Give another folder."
        ) from error
    return about


def has_checkpoint(run: Folder) -> bool:
    """Tell whether a run has a checkpoint to resume from."""
    return run.exists(f"{LAST}/{CARD}")


def how_to_change(run: Folder) -> str:
    """Return how to give a run other settings: the end of a sentence that names them."""
    if not has_checkpoint(run):
        return "and begin the run again: it has no checkpoint yet"
    return f"in another run: --init {run.place(LAST)} -o OTHER (`pipeline`: another -o)"


def write_history(run: Folder, rows: Sequence[Row], *, unit: str) -> None:
    """Write the history as a table, a picture and a log of TensorBoard, each atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from deep_piano.report.curves import history as draw_history

    with run.write(_HISTORY) as path, arrow_file(path, "wb") as file:
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
    try:
        with run.write("history.png") as path:
            draw_history(path, rows, unit=unit)
    except PictureError as error:
        logger.warning("%s. All else is kept.", one_line(error))
    _write_events(run, rows)


def _write_events(run: Folder, rows: Sequence[Row]) -> None:
    """Write all of TensorBoard's log anew: it is small, and so it is never truncated."""
    from tensorboardX import FileWriter
    from tensorboardX.summary import scalar

    with TemporaryDirectory(prefix="deep-piano-") as folder:
        writer = FileWriter(folder)
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    group = "validation" if name.startswith("validation_") else "train"
                    tag = name.removeprefix("validation_").removeprefix("train_")
                    writer.add_summary(scalar(f"{group}/{tag}", value), row["step"])
        writer.close()
        (events,) = Path(folder).iterdir()
        with run.write(_EVENTS) as path:
            path.write_bytes(events.read_bytes())


def repair_history(run: Folder, rows: Sequence[Row], *, unit: str) -> None:
    """Write the history again where its table is broken, or has other rows."""
    try:
        known = read_history(run)
    except InputError:
        known = []
    if known != list(rows):
        write_history(run, rows, unit=unit)


def read_history(run: Folder) -> list[dict[str, Any]]:
    """Return the history of a run; empty before the first validation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not run.exists(_HISTORY):
        return []
    try:
        with run.local(_HISTORY) as path, arrow_file(path) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        for row in rows:
            _Validated.model_validate(row)
    except ValidationError as invalid:
        wrong = ", ".join(sorted({str(error["loc"][0]) for error in invalid.errors()}))
        raise InputError(f"{run.place(_HISTORY)} is broken, in {one_line(wrong)}.") from invalid
    except (pa.ArrowException, OSError, ValueError, FileError) as error:
        raise InputError(f"{run.place(_HISTORY)} is broken: {one_line(error)}.") from error
    return rows


@dataclass(frozen=True)
class Run:
    """A run among others.

    Attributes
    ----------
    name : str
        Its folder within the folder of runs.
    about : mapping
        From `read_about`.
    last, best : mapping or None
        Rows of its history; None before the first validation.
    """

    name: str
    about: Mapping[str, Any]
    last: Row | None
    best: Row | None

    @property
    def dataset(self) -> str:
        """The digest of its dataset."""
        return str(self.about["dataset"]["digest"])


def find_runs(folder: Folder) -> list[Run]:
    """Return the runs in the subfolders of a folder, by dataset and best first.

    Raises
    ------
    InputError
        When it holds no run.
    """
    names = sorted(
        {entry.name.split("/")[0] for entry in folder.entries() if re.fullmatch(_RUNS, entry.name)}
    )
    runs = []
    for name in names:
        run = folder.inner(name)
        about = read_about(run)
        if about is not None:
            rows = read_history(run)
            best = min(rows, key=lambda row: row["validation_loss"], default=None)
            runs.append(Run(name, about, rows[-1] if rows else None, best))
    if not runs:
        raise InputError(
            f"{one_line(folder.uri)} holds no run. Give the folder whose subfolders are runs."
        )
    return sorted(
        runs, key=lambda run: (run.dataset, run.best["validation_loss"] if run.best else 1e9)
    )


def best_run(runs: Sequence[Run]) -> Run | None:
    """Return the best run; None where they cannot be compared or none was validated yet.

    Runs of another dataset or batch are validated on other recordings: see `loop`.
    """
    validated = [run for run in runs if run.best]
    if len({(run.dataset, run.about["settings"]["batch"]) for run in validated}) != 1:
        return None
    return min(validated, key=lambda run: (run.best or {})["validation_loss"])


def name_best(folder: Folder, run: Run) -> None:
    """Record which run is the best so far, for `checkpoint.find`."""
    assert run.best is not None
    facts = {"run": run.name, "validation_loss": run.best["validation_loss"]}
    with folder.write(BEST) as path:
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def table(runs: Sequence[Run]) -> str:
    """Return the runs as a Markdown table."""
    head = ["run", "dataset", "layers x units", "best loss", "at update", "updates"]
    head += ["batch x window", "rate", "million steps", "hours"]
    rows = [
        [
            run.name,
            run.dataset[:8],
            _size(run.about),
            f"{run.best['validation_loss']:.4f}" if run.best else "",
            f"{run.best['step']:,}" if run.best else "",
            f"{run.last['step']:,}" if run.last else "0",
            f"{run.about['settings']['batch']} x {run.about['settings']['window']}",
            f"{run.about['settings']['learning_rate']:g}",
            f"{run.last['seen'] / 1e6:.2f}" if run.last else "0",
            f"{run.last['hours']:.2f}" if run.last else "0",
        ]
        for run in runs
    ]
    return markdown(head, rows, words=3)


def _size(about: Mapping[str, Any]) -> str:
    """Return the size of a run's network; of a run that does not say it, the preset's name."""
    network = about.get("network")
    if network is None:
        return str(about["settings"]["preset"])
    return f"{network['layers']} x {network['units']}"
