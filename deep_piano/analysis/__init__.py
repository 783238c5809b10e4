"""Music in figures: keys, descriptors, adherence, fingerprints, originality."""

from deep_piano.analysis.descriptors import (
    AudioFeatures,
    NoteFeatures,
    describe_audio,
    describe_notes,
)
from deep_piano.analysis.keys import Key, key_of
from deep_piano.analysis.originality import CorpusIndex

__all__ = [
    "AudioFeatures",
    "CorpusIndex",
    "Key",
    "NoteFeatures",
    "describe_audio",
    "describe_notes",
    "key_of",
]
