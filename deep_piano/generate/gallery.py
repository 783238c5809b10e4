"""The page of a bulk run: every seed and its pieces, to be seen, heard and compared blind.

One file beside the pieces that needs no server and no network: the records stand in it as JSON,
sounds and piano rolls are loaded as they are looked at, or stand in it too. This module knows
records and where their files lie; what the page does with them stands in ``gallery.html``.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from deep_piano.errors import InputError, one_line
from deep_piano.generate.files import MEDIA_TYPES
from deep_piano.generate.records import MANIFEST, SEED, Record, Records, read_records, read_run
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.report.roll import ROLL_AXES, ROLL_INCHES, ROLL_LEFT

PAGE: Final = "index.html"
MOST_PIECES: Final = 5_000
"""What a page shows at most; the manifest has all."""

_KINDS = {".mid": "midi", ".musicxml": "score", ".png": "roll", ".json": "json"}


def write_gallery(pieces: Folder, records: Records) -> None:
    """Write the page of a folder of pieces into it, as ``index.html``.

    Parameters
    ----------
    pieces : Folder
    records : Records
        Of its pieces; they are shown by seed and take.
    """
    run = _run(_name(pieces), read_run(pieces), records, pieces.relative_url, MOST_PIECES)
    page = _page(run["name"], [run])
    with pieces.write(PAGE) as path:
        path.write_text(page, encoding="utf-8")


def write_page_of(
    out: Path, folders: Sequence[Folder], *, replace: bool = True, single_file: bool = False
) -> None:
    """Write a page of several bulk runs, whose pieces of the same seeds stand side by side.

    Parameters
    ----------
    out : Path
        The page. It finds the pieces by where they lie from there.
    folders : sequence of Folder
        Of pieces; on this machine, but for a single file.
    replace : bool
        Whether an existing page may be replaced.
    single_file : bool
        Whether all sounds, pictures and notes are put into the page, so that it can be sent.

    Raises
    ------
    InputError
        When a folder lies elsewhere or holds no pieces, or the page cannot be written.
    """
    runs = []
    for folder in folders:
        url = _within(folder) if single_file else _from(out, folder)
        most = MOST_PIECES // len(folders)
        runs.append(_run(_name(folder), read_run(folder), known_pieces(folder), url, most))
    names = [run["name"] for run in runs]
    for number, run in enumerate(runs, 1):
        if names.count(run["name"]) > 1:
            run["name"] += f" ({number})"
    page = _page(" and ".join(run["name"] for run in runs), runs)
    with atomic_path(out, replace=replace) as path:
        path.write_text(page, encoding="utf-8")


def known_pieces(pieces: Folder) -> Records:
    """Return the records of a folder of pieces.

    Raises
    ------
    InputError
        When there are none.
    """
    records = read_records(pieces)
    if not records:
        raise InputError(
            f"{one_line(pieces.uri)} holds no pieces: there is no {MANIFEST} in it. Give a folder "
            "that `deep-piano generate SEEDS/ -o PIECES/` has written."
        )
    return records


def _from(out: Path, folder: Folder) -> Callable[[str], str]:
    """Return a function that names a file of a folder as seen from a page elsewhere."""
    if not isinstance(folder, LocalFolder):
        raise InputError(
            f"{one_line(folder.uri)} is not on this machine, and a page elsewhere finds its pieces "
            "by their paths. Copy the folder here, or ask for a page with all in it: --single-file."
        )
    base = quote(os.fsencode(os.path.relpath(folder.root, out.absolute().parent)))
    return lambda name: f"{base}/{folder.relative_url(name)}"


def _within(folder: Folder) -> Callable[[str], str]:
    """Return a function that gives a file of a folder itself, as a URL (RFC 2397)."""

    def data(name: str) -> str:
        kind = MEDIA_TYPES[PurePosixPath(name).suffix]
        return f"data:{kind};base64,{base64.b64encode(folder.read_bytes(name)).decode()}"

    return data


def _name(pieces: Folder) -> str:
    return one_line(PurePosixPath(pieces.uri).name) or "pieces"


def _run(
    name: str,
    about: Mapping[str, Any],
    records: Records,
    url: Callable[[str], str],
    most: int,
) -> dict[str, Any]:
    """Return what the page is told of a run, of its first pieces."""
    return {
        "name": name,
        "checkpoint": str(about.get("checkpoint_sha256", "")),
        "facts": list(_facts(about)),
        "pieces": [_piece(one, url) for one in islice(records.all, most)],
        "beyond": max(0, len(records) - most),
    }


def _facts(about: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values of what all pieces of a run have in common."""
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{under}{name}.")
        elif value is not None:
            yield (under + name).removeprefix("settings."), json.dumps(value).strip('"')


def _piece(record: Record, url: Callable[[str], str]) -> dict[str, Any]:
    """Return what the page is told of a piece; what is empty is left out."""
    names = {_kind(name, record): name for name in record.files}
    # Its votes and stars are of these bytes. Of notes alone no sound is written.
    file = next((names[kind] for kind in ("sound", "midi", "score") if kind in names), "")
    known = {
        "seed": record.seed,
        "take": record.take,
        "status": record.status,
        "reason": record.reason,
        "seconds": record.seconds,
        "seedSeconds": record.seed_seconds,
        "notes": record.notes,
        "shared": record.shared_run_notes,
        "file": file,
        "sha256": record.files.get(file),
        **{kind: url(name) for kind, name in names.items()},
    }
    return {"figures": record.figures} | {
        name: value for name, value in known.items() if value not in ("", None)
    }


def _kind(name: str, record: Record) -> str:
    """Return what a file of a piece is to the page."""
    path = PurePosixPath(name)
    kind = "heard" if path.stem == SEED else _KINDS.get(path.suffix, "sound")
    # Of sound there is no picture of notes to point at.
    return "chart" if kind == "roll" and not record.notes else kind


def _page(title: str, runs: list[dict[str, Any]]) -> str:
    beyond = sum(run.pop("beyond") for run in runs)
    data = {
        "title": title,
        "aspect": ROLL_INCHES[0] / ROLL_INCHES[1],
        "axes": ROLL_AXES,
        "left": ROLL_LEFT,
        "beyond": beyond,
        "runs": runs,
    }
    # Within a script element only "<" could end it: names come from anywhere. Sorted, so that a
    # page is the same whether its records were just made or read again.
    text = json.dumps(data, sort_keys=True, separators=(",", ":")).replace("<", "\\u003c")
    template = (
        resources.files("deep_piano.generate").joinpath("gallery.html").read_text(encoding="utf-8")
    )
    return template.replace("@DATA@", text, 1)
