"""A dataset becomes a checkpoint, and a checkpoint its scores."""

from deep_piano.train.evaluation import evaluate
from deep_piano.train.on_ray import begin_and_train
from deep_piano.train.runs import find_runs

__all__ = ["begin_and_train", "evaluate", "find_runs"]
