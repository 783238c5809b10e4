"""The networks, their sizes and weights."""

from deep_piano.models.checkpoint import Checkpoint, find, load, save
from deep_piano.models.config import PRESETS, ModelConfig
from deep_piano.models.note_network import build_model

__all__ = ["PRESETS", "Checkpoint", "ModelConfig", "build_model", "find", "load", "save"]
