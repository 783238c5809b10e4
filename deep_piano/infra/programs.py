"""What programs need that this one starts."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """Return a copy of the environment, to be given to every program that is started.

    A program that inherits the environment reads it where other threads write it: the start fails
    with EFAULT ("Bad address") when a library is loaded meanwhile and sets a variable. A plain copy
    of `os.environ` fails when one is removed.
    """
    return {name: value for name in list(os.environ) if (value := os.environ.get(name)) is not None}
