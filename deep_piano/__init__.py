"""Ten seconds of recorded piano in, a three-minute piece that continues it out.

>>> import deep_piano as dp
>>> dp.continue_piece("seed.mp3", seconds=180).save("piece.mp3")  # doctest: +SKIP

The names that this package offers are in ``__init__.pyi``. Each is loaded when it is first used.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
