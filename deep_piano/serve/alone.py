"""A take as one HTML file that plays by itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from deep_piano.serve.store import made_span


def page_of(
    sound: Path, roll: Path, title: str, piece: Mapping[str, Any], take: Mapping[str, Any]
) -> str:
    """Return a page that holds a take's sound and notes, and needs nothing else.

    Parameters
    ----------
    sound, roll : Path
        The .mp3, and its notes as JSON.
    title : str
    piece, take : mapping
        From the store.
    """
    data = {
        "seconds": take["seconds"],
        "fresh": made_span(piece, take),
        "notes": json.loads(roll.read_text(encoding="utf-8")),
    }
    # Within a script element only "<" could end it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = resources.files("deep_piano.serve").joinpath("page", "alone.html").read_text("utf-8")
    encoded = base64.b64encode(sound.read_bytes()).decode()
    for mark, value in (("@TITLE@", escape(title)), ("@DATA@", text), ("@SOUND@", encoded)):
        template = template.replace(mark, value)
    return template
