"""The command line with a slow transcriber, so that there is time to break something."""

from __future__ import annotations

from deep_piano.cli.main import main
from deep_piano.prepare.on_ray import prepare
from tests.support.fakes import slow_transcriber

if __name__ == "__main__":
    assert prepare.__kwdefaults__ is not None
    prepare.__kwdefaults__["transcriber"] = slow_transcriber
    main()
