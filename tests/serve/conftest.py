"""One server for most tests: its worker is warm after the first."""

from __future__ import annotations

import pytest

from tests.support.serving import small_server


@pytest.fixture(scope="session")
def served(tmp_path_factory, weights, three_keys):
    server = small_server(tmp_path_factory.mktemp("served") / "music", weights, three_keys)
    yield server
    server.close()


@pytest.fixture(scope="session")
def sketch(tmp_path_factory):
    """A MIDI file of twelve seconds."""
    import numpy as np

    from deep_piano.music.midi import write_midi
    from tests.support.fakes import arpeggios

    path = tmp_path_factory.mktemp("sketches") / "sketch.mid"
    write_midi(path, arpeggios(12, rng=np.random.default_rng(3)))
    return path


@pytest.fixture(scope="session")
def three_keys(_small_piano):
    """A piano of three keys, whose prepared samples lie beside it, in "home"."""
    return _small_piano
