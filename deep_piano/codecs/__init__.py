"""Notes or samples become sequences, and sequences notes or samples."""

from deep_piano.codecs.base import Field, SequenceSpec
from deep_piano.codecs.registry import CODECS, Codec, codec_of

__all__ = ["CODECS", "Codec", "Field", "SequenceSpec", "codec_of"]
