"""Sound, notes, and conversions between them: FFmpeg, MIDI, transcription, a sampled piano."""

from deep_piano.music.audio import Samples, decode, encode
from deep_piano.music.loudness import normalise
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import NOTE, Notes
from deep_piano.music.recordings import survey
from deep_piano.music.synth import render
from deep_piano.music.transcription import transcribe

__all__ = [
    "NOTE",
    "Notes",
    "Samples",
    "decode",
    "encode",
    "normalise",
    "read_midi",
    "render",
    "survey",
    "transcribe",
    "write_midi",
]
