"""Ten seconds of recorded piano in, a three-minute piece that continues it out."""

from __future__ import annotations

__version__ = "0.1.0"
