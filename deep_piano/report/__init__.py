"""Output for people: piano rolls, charts, cards, tables."""

from deep_piano.report.card import dataset_card, recording_card
from deep_piano.report.charts import dataset_charts, recording_charts
from deep_piano.report.roll import piano_roll
from deep_piano.report.text import markdown

__all__ = [
    "dataset_card",
    "dataset_charts",
    "markdown",
    "piano_roll",
    "recording_card",
    "recording_charts",
]
