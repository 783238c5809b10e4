from __future__ import annotations

import pytest

from deep_piano.errors import DeepPianoError
from deep_piano.infra.backend import load_tensorflow


@pytest.mark.tf
def test_without_a_gpu_nothing_is_prepared():
    from deep_piano.decoding.xla import prepare_gpu

    if load_tensorflow().config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    with pytest.raises(DeepPianoError, match=r"sees no GPU .* '\.\[gpu\]' on every node"):
        prepare_gpu()
