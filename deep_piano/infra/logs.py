"""The log: our own warnings as text, or every record as JSON."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import suppress

logger = logging.getLogger("deep_piano")


_OF_EVERY_RECORD = ("levelname", "message", "filename", "lineno", "process", "name")
_NO_FACTS = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


def tell(line: str) -> None:
    """Write a line to standard error; ignore a failure, as on a full disk."""
    with suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class _ToStandardError(logging.Handler):
    """Writes to the current standard error, which a progress display may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tell(self.format(record))


class _AsJson(logging.Formatter):
    """Writes a record as one JSON object, with the keys that Ray's workers use."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object: the common keys, and the facts of this record."""
        record.message = record.getMessage()
        known = {"asctime": self.formatTime(record)}
        known |= {key: getattr(record, key) for key in _OF_EVERY_RECORD}
        if record.exc_info:
            known["exc_text"] = self.formatException(record.exc_info)
        facts = {key: value for key, value in vars(record).items() if key not in _NO_FACTS}
        known |= {key: value for key, value in facts.items() if not key.startswith("_")}
        return json.dumps(known | {"timestamp_ns": int(record.created * 1e9)}, default=str)


_IN_WORDS, _JSON = logging.Formatter("deep-piano: %(message)s"), _AsJson()
_HANDLER = _ToStandardError()


def set_up_logging(*, debug: bool, as_json: bool = False, quiet: bool = False) -> None:
    """Send our warnings to standard error, everything with `debug`, and silence other packages.

    With `as_json` each record is a JSON object on a line of its own, and what is done is told as
    well as what goes wrong. With `quiet` only errors are told.
    """
    _HANDLER.setFormatter(_JSON if as_json else _IN_WORDS)
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, handlers=[_HANDLER])
    usual = logging.ERROR if quiet else logging.INFO if as_json else logging.WARNING
    logger.setLevel(logging.DEBUG if debug else usual)
    logging.captureWarnings(as_json)
    if not (debug or sys.warnoptions):
        warnings.filterwarnings("ignore")  # of other packages, meaningless to users


def logs_json() -> bool:
    """Tell whether records are written as JSON."""
    return _HANDLER.formatter is _JSON


def is_quiet() -> bool:
    """Tell whether only errors are told."""
    return not logger.isEnabledFor(logging.WARNING)
