"""Files that Arrow opens itself, by any path.

Arrow reads ahead in threads of its own. A file that Python opened makes these ask for the
interpreter, and one that asks while it ends aborts the process (apache/arrow#34314). Yet
`pyarrow.parquet` refuses a path that is not UTF-8, and reads a column out of ``year=2004/``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_file(path: Path, mode: Literal["rb", "wb"] = "rb") -> pa.OSFile:
    """Return a file that Arrow has opened, for its readers and writers; a context manager.

    Raises
    ------
    OSError
        When it cannot be opened.
    """
    import pyarrow as pa

    return pa.OSFile(os.fsencode(path), mode)
