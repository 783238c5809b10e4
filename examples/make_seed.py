"""Write the example seed: the opening of Beethoven's Bagatelle in A minor, WoO 59 ("Für Elise").

Ludwig van Beethoven died in 1827 and the piece was printed in 1867: it is in the public domain.
The notes are typed below from the score; timing, touch and pedal are ours. The two random numbers
a note gets come from a fixed generator, so that the files are the same every time.

    python examples/make_seed.py      # writes seed.mid and seed.mp3 beside this file
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from deep_piano.music.midi import write_midi
from deep_piano.music.notes import Notes, fold_pedal, make_notes

# One token a sixteenth, six a bar of 3/8; "-" holds the note before, "." is a rest.
RIGHT_HAND = """
    E5 D#5
    E5 D#5 E5 B4 D5 C5      A4 - . C4 E4 A4      B4 - . E4 G#4 B4     C5 - . E4 E5 D#5
    E5 D#5 E5 B4 D5 C5      A4 - . C4 E4 A4      B4 - . E4 C5 B4      A4 - . B4 C5 D5
    E5 - -
"""
LEFT_HAND = """
    . .
    . . . . . .             A2 E3 A3 . . .       E2 E3 G#3 . . .      A2 E3 A3 . . .
    . . . . . .             A2 E3 A3 . . .       E2 E3 G#3 . . .      A2 E3 A3 . . .
    C3 G3 C4
"""
# The pedal of each arpeggio, in sixteenths from the beginning: down with the bass, up before the
# harmony changes.
PEDAL = [(8, 14), (14, 20), (20, 24), (32, 38), (38, 44), (44, 47), (50, 56)]

SAMPLE_RATE_HZ = 44_100
SIXTEENTH_S = 60 / 132 / 2
# How the phrase breathes: (sixteenth, times as slow), and (sixteenth, velocity of the melody).
TEMPO = [(0, 1.25), (2, 1.08), (8, 0.98), (18, 0.98), (25, 1.14), (28, 1.02), (40, 1.0), (46, 1.12)]
TEMPO += [(50, 1.06), (60, 1.3)]
TOUCH = [(0, 46), (4, 54), (8, 60), (14, 56), (20, 62), (24, 50), (30, 58), (38, 55), (44, 50)]
TOUCH += [(50, 68), (60, 60)]

_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_LEGATO_S = 0.025


def play() -> Notes:
    """Return the performance: about 12 seconds of notes, the pedal folded into their offsets."""
    rng = np.random.default_rng(59)
    sixteenths = np.arange(64)
    lasting = SIXTEENTH_S * np.interp(sixteenths, *zip(*TEMPO, strict=True))
    clock = np.concatenate([[0.15], 0.15 + np.cumsum(lasting)])
    columns = []
    for part, softer in ((RIGHT_HAND, 0), (LEFT_HAND, 9)):
        for start, end, pitch in _read(part):
            accent = 4 if (start - 2) % 6 == 0 else 0
            touch = np.interp(start, *zip(*TOUCH, strict=True)) + accent - softer
            onset = clock[start] + rng.normal(0, 0.007)
            columns.append((onset, clock[end] + _LEGATO_S, pitch, round(touch + rng.normal(0, 2))))
    down, up = np.array([(clock[a] + 0.05, clock[b] + 0.02) for a, b in PEDAL]).T
    return fold_pedal(make_notes(*zip(*columns, strict=True)), down, up)


def _read(part: str) -> list[tuple[int, int, int]]:
    """Return (first sixteenth, end, MIDI pitch) of each note of a part."""
    tokens = part.split()
    notes = []
    for start, token in enumerate(tokens):
        if token in "-.":
            continue
        held = sum(1 for _ in itertools.takewhile(lambda t: t == "-", tokens[start + 1 :]))
        pitch = 12 * (int(token[-1]) + 1) + _STEPS[token[0]] + token.count("#")
        notes.append((start, start + 1 + held, pitch))
    return notes


def main() -> None:
    """Write the MIDI file, and the recording rendered from it."""
    from deep_piano.infra.assets import cache
    from deep_piano.music import audio, loudness, synth

    cache.ensure("steinway")  # its terms ask for nothing; see `deep-piano assets list`
    folder = Path(__file__).parent
    notes = play()
    write_midi(folder / "seed.mid", notes)
    seconds = float(notes["offset"].max()) + 0.5
    samples = synth.render(notes, sound="steinway", seconds=seconds, sr=SAMPLE_RATE_HZ)
    samples = loudness.normalise(samples, sr=SAMPLE_RATE_HZ)
    audio.encode(folder / "seed.mp3", samples, sr=SAMPLE_RATE_HZ)


if __name__ == "__main__":
    main()
