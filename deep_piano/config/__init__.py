"""`ray_config.yaml` and the command line become one frozen `Config`."""

from deep_piano.config.load import load_config
from deep_piano.config.sections import (
    BulkConfig,
    Config,
    GenerateConfig,
    PrepareConfig,
    StorageConfig,
    TrainConfig,
)

__all__ = [
    "BulkConfig",
    "Config",
    "GenerateConfig",
    "PrepareConfig",
    "StorageConfig",
    "TrainConfig",
    "load_config",
]
