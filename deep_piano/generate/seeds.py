"""Seeds: read from a recording or a MIDI file, checked, and written as sound."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_piano.codecs.notes import STEPS_PER_SECOND
from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import AudioError, InputError, MidiError, one_line
from deep_piano.infra.assets import cache
from deep_piano.infra.progress import Progress, Tell
from deep_piano.music import audio, loudness, synth, tuning
from deep_piano.music.audio import SILENCE_DBFS, Samples
from deep_piano.music.length import length_s as length_of
from deep_piano.music.length import playing_ends_s
from deep_piano.music.midi import holds_midi, read_midi
from deep_piano.music.notes import Notes, excerpt

SHORTEST_SEED_S = 2.0

SR = 44_100

logger = logging.getLogger(__name__)
FEWEST_SEED_NOTES = 4
# All notes together, in a recording's length: most have 0.9 and more. Synthetic speech in twelve
# voices has at most 0.15, each note as short as a click. So has a dry staccato, but in tune.
LEAST_SOUNDING_SHARE = 0.2
LONGEST_TRAILING_SILENCE_S = 2.0
LONGEST_WHOLE_S = 3600.0
LONGEST_REST_S = 7.0  # before a continuation: the codec says up to eight
SHORTEST_CONTINUATION_S = 5.0
_INSTEAD = "Give a recording of a piano, or other seconds with --seed-start or --seed-end."


def check_seed(samples: Samples, *, sr: int) -> None:
    """Refuse a seed that holds nothing to continue.

    Parameters
    ----------
    samples : ndarray, shape (n,), dtype float32
        Mono, full scale 1.0.
    sr : int
        Their sampling rate in Hz.

    Raises
    ------
    AudioError
        When it is shorter than 2 s, or below -60 dBFS throughout.
    """
    length_s = len(samples) / sr
    if length_s < SHORTEST_SEED_S:
        raise AudioError(
            f"the seed is too short: {length_s:.2f} s from where it starts. Give at least "
            f"{SHORTEST_SEED_S:g} s of piano, ten are best."
        )
    peak = float(np.abs(samples).max())
    if peak < 10 ** (SILENCE_DBFS / 20):
        level = f"its peak is {20 * math.log10(peak):.0f} dBFS" if peak else "every sample is zero"
        raise AudioError(
            f"the seed is silent ({level}). Choose a louder stretch: say where it "
            "ends with --seed-end, or where it begins with --seed-start."
        )


@dataclass(frozen=True)
class Stretch:
    """The part of a recording, or of a MIDI file, that is continued.

    Attributes
    ----------
    start_s : float
        Where it begins.
    seconds : float
        How long it is, at most as long as was asked.
    of_s : float or None
        How long the recording is; None where it is not known.
    """

    start_s: float
    seconds: float
    of_s: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the facts of its pieces say of it."""
        of_s = self.of_s if self.of_s is None else round(self.of_s, 2)
        end_s = self.start_s + self.seconds
        return {"from_s": round(self.start_s, 2), "to_s": round(end_s, 2), "of_s": of_s}


def find_stretch(path: Path, settings: GenerateConfig) -> Stretch:
    """Return which part of a recording or a MIDI file the settings mean.

    Raises
    ------
    AudioError, MidiError
        When the end of its music is meant, and it is damaged; or when the seed ends beyond it.
    """
    meant = (settings.seed_start, settings.seed_end, settings.keep_until)
    of_s: float | None = None
    ends_s: float | None = None
    error: type[InputError] = AudioError
    audio.require_readable(path, one_line(path))
    if holds_midi(path):
        error = MidiError
        notes = read_midi(path)
        if len(notes):
            of_s = float(notes["offset"].max())
            # A last chord may ring on for long: the playing has ended by then.
            ends_s = min(of_s, float(notes["onset"][-1]) + LONGEST_TRAILING_SILENCE_S)
    elif meant == (None, None, None):
        of_s = length_of(path)
        if of_s is not None:
            ends_s = min(of_s, playing_ends_s(path, of_s) + LONGEST_TRAILING_SILENCE_S)
    else:
        with suppress(AudioError):
            of_s = length_of(path)
    end_s = settings.seed_end or settings.keep_until
    if of_s is not None and end_s is not None and end_s > of_s + 0.5:
        raise error(
            f"{one_line(path)} is {of_s:.1f} s long: a seed cannot end at {end_s:g} s. "
            "Give an earlier end, or none, for its last seconds."
        )
    return Stretch(*settings.seed_within(ends_s), of_s)


def find_whole(path: Path, settings: GenerateConfig, *, most_s: float) -> Stretch:
    """Return all of a recording or a MIDI file, which may last so long.

    Raises
    ------
    AudioError, MidiError
        As `find_stretch` does.
    InputError
        When it is longer.
    """
    of_s = find_stretch(path, settings).of_s
    if of_s is not None and of_s > most_s:
        raise InputError(
            f"{one_line(path)} is {of_s:.1f} s long, and as a whole at most {most_s:g} s are "
            "transcribed or remixed. Give a part of it, as a file of its own."
        )
    return Stretch(0.0, most_s, of_s)


@dataclass(frozen=True)
class Seed:
    """What a piece continues.

    Attributes
    ----------
    notes : ndarray, dtype `NOTE`
        The first onset is time zero.
    seconds : float
        When the seed ends and the continuation may begin; whole hundredths.
    digest : str
        SHA-256 of the file.
    name : str
        The file's name.
    tuning_cents : int
        How far the piano of a recording is out of tune, where that was corrected.
    recording : ndarray, shape (n, 2), dtype float32, optional
        Its sound from time zero on, at `SR`, where the piece is to begin with it.
    stretch : Stretch, optional
        Which part of the file it is.
    """

    notes: Notes
    seconds: float
    digest: str
    name: str
    tuning_cents: int = 0
    recording: Samples | None = None
    stretch: Stretch | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the facts of its pieces say of it."""
        seconds = round(self.seconds, 3)
        return {
            "file": self.name,
            "sha256": self.digest,
            "seconds": seconds,
            "notes": len(self.notes),
            **(self.stretch.facts if self.stretch else {}),
            **({"tuning_cents": self.tuning_cents} if self.tuning_cents else {}),
        }


def rng_of(settings: GenerateConfig, digest: str, take: int) -> np.random.Generator:
    """Return the randomness of a take; two seeds do not share it, as their contents differ."""
    return np.random.default_rng([settings.random_state, take, int(digest[:16], 16)])


def read_seed(
    path: Path,
    *,
    start_s: float,
    seconds: float,
    progress: Tell,
    keep_recording: bool = False,
    keep_silence: bool = False,
    of_s: float | None = None,
) -> Seed:
    """Read the notes of a seed from a recording or a MIDI file.

    Parameters
    ----------
    path : Path
    start_s, seconds : float
        Where in the file it begins, and how much of it to read.
    progress : callable
    keep_recording : bool
        Read its sound, too.
    keep_silence : bool
        Let the seed last all these seconds, as far as the file goes, whatever is heard at its end.
    of_s : float, optional
        How long the whole file is, for the facts.

    Raises
    ------
    AudioError, MidiError
        When the file cannot be read, holds too little music, or has no sound that is to be kept.
    InputError
        When what is kept ends with a long rest.
    """
    digest = audio.content_hash(path)
    if keep_recording and holds_midi(path):
        raise MidiError(
            f"--keep-recording keeps a recording's sound, and {path} is a MIDI file. "
            "Leave it out, or give a recording."
        )
    notes, length_s, cents = read_notes(path, start_s, seconds, progress)
    # Silence before the first note and long after the last one is not music to be continued.
    begins, last = float(notes["onset"][0]), float(notes["onset"][-1])
    playing_s = min(length_s, last + LONGEST_TRAILING_SILENCE_S)
    kept_s = min(seconds, math.inf if of_s is None else of_s - start_s)
    ends = on_grid(max(playing_s, kept_s if keep_silence else 0.0) - begins)
    rest_s = ends + begins - last
    if rest_s > LONGEST_REST_S:
        raise InputError(
            f"nothing is struck in the {rest_s:.1f} s of {one_line(path)} before --keep-until, and "
            f"a piece goes on at most {LONGEST_REST_S:g} s after a note. Keep less, or more."
        )
    notes["onset"] -= begins
    notes["offset"] -= begins
    notes["offset"] = np.minimum(notes["offset"], ends + LONGEST_TRAILING_SILENCE_S)
    stretch, recording = Stretch(start_s, length_s, of_s), None
    if keep_recording:
        start_s += begins
        recording = audio.decode(path, sr=SR, start_s=start_s, seconds=ends, channels=2)
    return Seed(notes, ends, digest, path.name, cents, recording, stretch)


def on_grid(seconds: float) -> float:
    """Return a time rounded up to the codec's grid."""
    return math.ceil(round(seconds * STEPS_PER_SECOND, 3)) / STEPS_PER_SECOND


def read_notes(
    path: Path, start_s: float, seconds: float, progress: Tell
) -> tuple[Notes, float, int]:
    """Read notes from a recording or a MIDI file, counted from `start_s` on.

    Returns
    -------
    notes : ndarray, dtype `NOTE`
        Enough of them to go on from.
    length_s : float
        How long the music is.
    cents : int
        How far the piano of a recording is out of tune, where that was corrected.

    Raises
    ------
    AudioError, MidiError
        When the file cannot be read, or holds too little music.
    """
    if not holds_midi(path):
        return _transcribe(path, start_s, seconds, progress)
    progress(Progress("reading", 0, 1))
    notes = excerpt(read_midi(path), start_s, start_s + seconds)
    length_s = min(seconds, float(notes["offset"].max())) if len(notes) else seconds
    progress(Progress("reading", 1, 1))
    if length_s < SHORTEST_SEED_S:
        raise MidiError(
            f"the seed is too short: {length_s:.2f} s of notes from where it starts. Give at "
            f"least {SHORTEST_SEED_S:g} s, ten are best."
        )
    _require_notes(notes, length_s, path, start_s, MidiError)
    return notes, length_s, 0


def write_seed(out: Path, path: Path, seed: Seed, *, sound: str) -> None:
    """Write a seed as sound beside its pieces, as loud as they are.

    Parameters
    ----------
    out : Path
        Its suffix decides the format.
    path : Path
        The seed's file. A recording is cut to what was read of it; notes are played.
    seed : Seed
        What `read_seed` made of the file.
    sound : str
        From `ready_sound`.
    """
    if holds_midi(path) or seed.stretch is None:
        samples = synth.render(seed.notes, sound=sound, seconds=seed.seconds, sr=SR)
    else:
        stretch = seed.stretch
        samples = audio.decode(path, sr=SR, start_s=stretch.start_s, seconds=stretch.seconds)
    audio.encode(out, loudness.normalise(samples, sr=SR), sr=SR)


def require_room(seed: Seed, settings: GenerateConfig, *, only_new: bool = False) -> None:
    """Raise `InputError` where a piece is no longer than the seed that it continues."""
    if settings.between or settings.remix:
        return
    if not only_new and settings.seconds < seed.seconds + SHORTEST_CONTINUATION_S:
        if settings.keep_until is not None:
            shorter = "an earlier --keep-until"
        elif settings.seed_start is not None and settings.seed_end is not None:
            shorter = "--seed-start and --seed-end closer together"
        else:
            shorter = "fewer --seed-seconds"
        raise InputError(
            f"a piece of {settings.seconds:g} s leaves no room to continue the "
            f"{seed.seconds:.1f} s that it begins with. Give more --seconds, or {shorter}."
        )


def _require_notes(
    notes: Notes, length_s: float, path: Path, start_s: float, error: type[InputError]
) -> None:
    if len(notes) < FEWEST_SEED_NOTES:
        raise error(
            f"only {len(notes)} piano note{'s' * (len(notes) != 1)} found in {length_s:.1f} s of "
            f"{path} from {start_s:g} s on; at least {FEWEST_SEED_NOTES} are needed. {_INSTEAD}"
        )


def _transcribe(
    path: Path, start_s: float, seconds: float, progress: Tell
) -> tuple[Notes, float, int]:
    from deep_piano.music import transcription

    progress(Progress("transcribing", 0, 1))
    samples = audio.decode(path, sr=transcription.SAMPLE_RATE, start_s=start_s, seconds=seconds)
    check_seed(samples, sr=transcription.SAMPLE_RATE)
    cache.ensure("transkun", progress=progress)
    notes = transcription.transcribe(
        samples,
        sr=transcription.SAMPLE_RATE,
        progress=progress,
    )
    length_s = len(samples) / transcription.SAMPLE_RATE
    _require_notes(notes, length_s, path, start_s, AudioError)
    sounding_s = float((notes["offset"] - notes["onset"]).sum())
    dry = sounding_s < LEAST_SOUNDING_SHARE * length_s
    if dry and not tuning.keeps_tuning(samples, sr=transcription.SAMPLE_RATE):
        raise AudioError(
            f"{len(notes)} piano notes were found in {length_s:.1f} s of {path} from {start_s:g} s "
            f"on, but they sound for {sounding_s:.1f} s altogether and in no tuning, as in speech "
            f"or noise. {_INSTEAD}"
        )
    cents = tuning.correction_cents(samples, sr=transcription.SAMPLE_RATE)
    if cents:
        logger.warning(
            "the piano in %s is %+d cents from A = 440 Hz, between two keys: it is transcribed and "
            "continued as if it were in tune.",
            *(one_line(path), cents),
        )
    return notes, length_s, cents
