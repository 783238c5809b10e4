"""The road of a piece in sound: the recording itself, and the network's samples after it.

What differs from the road of a piece in notes; `piece` walks both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.sound_figures import likeness
from deep_piano.codecs.registry import codec_of
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.wave import Stream, WaveEngine, WaveTask, sampling_rate
from deep_piano.errors import InputError
from deep_piano.generate import seeds
from deep_piano.generate.files import SILENT_SUFFIXES, PieceFiles
from deep_piano.generate.seeds import Stretch, rng_of
from deep_piano.generate.tags import tags_of
from deep_piano.infra.progress import Progress, Tell
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music import audio, loudness
from deep_piano.music.audio import Samples

SHORTEST_CONTINUATION_S: Final = 1.0


@dataclass(frozen=True)
class WaveSeed:
    """A recording to be continued.

    Attributes
    ----------
    samples : ndarray, shape (n,), dtype float32
        As loud as what the network learned from.
    prefix : Stream
        What the network carries after it.
    sr : int
        Hz.
    digest : str
        SHA-256 of its file.
    name : str
        Of its file.
    stretch : Stretch
        Which part of the file it is.
    """

    samples: Samples
    prefix: Stream
    sr: int
    digest: str
    name: str
    stretch: Stretch

    @property
    def seconds(self) -> float:
        """How long it is."""
        return round(len(self.samples) / self.sr, 3)

    @property
    def facts(self) -> dict[str, Any]:
        """What the facts of its pieces say of it."""
        known = {"file": self.name, "sha256": self.digest, "seconds": self.seconds}
        return known | self.stretch.facts


@dataclass(frozen=True)
class WaveTake:
    """What follows a recording.

    Attributes
    ----------
    index : int
        Which take of its seed, from 0.
    steps : ndarray, shape (n, 1)
        Of the codec's sequence.
    """

    new_notes: ClassVar[int] = 0

    index: int
    steps: NDArray[Any]

    @property
    def known(self) -> dict[str, Any]:
        """What a `Record` says of it: nothing, as the sound is measured when it is written."""
        return {}


@dataclass(frozen=True)
class WaveRoad:
    """The steps that `piece.Road` describes, for a checkpoint of sound.

    Attributes
    ----------
    checkpoint : Checkpoint
    settings : GenerateConfig
        What speaks of notes is of no use here: of the temperatures, `sample` counts.
    only_new : bool
    """

    of_notes: ClassVar[bool] = False
    sound: ClassVar[str | None] = None

    checkpoint: Checkpoint
    settings: GenerateConfig
    only_new: bool = False

    def ready(self, progress: Tell) -> WaveRoad:
        """Return the same road: there is nothing to be fetched."""
        return self

    def read(self, path: Path, progress: Tell) -> WaveSeed:
        """Read a recording, and take it into the network, once for all takes.

        Raises
        ------
        InputError
            When it cannot be decoded, is too short or silent, or leaves no room for more.
        """
        progress(Progress("reading", 0, 1))
        settings, sr = self.settings, sampling_rate(self.checkpoint)
        stretch = seeds.find_stretch(path, settings)
        samples = audio.decode(path, sr=sr, start_s=stretch.start_s, seconds=stretch.seconds)
        seeds.check_seed(samples, sr=sr)
        if self._count(len(samples), sr) < SHORTEST_CONTINUATION_S * sr:
            raise InputError(
                f"a piece of {settings.seconds:g} s leaves no room to continue a seed of "
                f"{len(samples) / sr:.1f} s. Give more --seconds, or fewer --seed-seconds."
            )
        # As loud as what the network learned from: 256 classes are few for a soft recording.
        scale = self.checkpoint.config.scale / np.sqrt(np.mean(np.square(samples)))
        samples = np.clip(samples * np.float32(scale), -1, 1)
        digest = audio.content_hash(path)
        prefix = WaveEngine(self.checkpoint).prefill(
            codec_of(self.checkpoint.spec).encode(samples),
            rng_of(settings, digest, 0),
            temperature=settings.temperature.sample,
        )
        progress(Progress("reading", 1, 1))
        stretch = replace(stretch, seconds=len(samples) / sr)
        return WaveSeed(samples, prefix, sr, digest, path.name, stretch)

    def write_seed(self, out: Path, path: Path, seed: WaveSeed) -> None:
        """Do nothing: the piece begins with the recording itself."""

    def task(self, seed: WaveSeed, take: int) -> WaveTask:
        """Return what a decoder is to do for a take."""
        count = self._count(len(seed.samples), seed.sr)
        return WaveTask(seed.prefix, count, rng_of(self.settings, seed.digest, take))

    def join(self, seed: WaveSeed, continuation: NDArray[Any], take: int) -> WaveTake:
        """Return a take; seed and steps are put together where they are written."""
        return WaveTake(take, continuation)

    def used(self) -> dict[str, Any]:
        """Return the settings that stand in the facts."""
        return {
            **self.settings.model_dump(
                include={"seconds", "seed_seconds", "seed_start", "seed_end", "keep_until"}
            ),
            "temperature": self.settings.temperature.sample,
        }

    def write(
        self, files: PieceFiles, seed: WaveSeed, take: WaveTake, progress: Tell
    ) -> dict[str, Any]:
        """Write sound and charts; return what there is to say of them."""
        from deep_piano.report.charts import recording_charts
        from deep_piano.report.style import if_possible

        whole, sr = self.samples(seed, take, progress)
        facts = self.facts(seed, take)
        progress(Progress("encoding", 0, 1))
        if files.sound is not None:
            tags = tags_of(files.title, seed.name, take.index, self.settings, self.checkpoint)
            audio.encode(files.sound, whole, sr=sr, tags=tags)
            facts["sound"] = {"sr": sr, **loudness.figures(whole, sr=sr)}
        if files.picture is not None:
            mark_s = 0 if self.only_new else len(seed.samples) / sr
            draw = if_possible(recording_charts)
            draw(files.picture, whole, sr, None, title=files.title, mark_s=mark_s)
        progress(Progress("encoding", 1, 1))
        return facts

    def facts(self, seed: WaveSeed, take: WaveTake) -> dict[str, Any]:
        """Return what there is to say of a piece, whether it is written or not."""
        new = codec_of(self.checkpoint.spec).to_samples(take.steps)
        begins = 0 if self.only_new else len(seed.samples)
        seconds = round((begins + len(new)) / seed.sr, 3)
        return {"piece": {"seconds": seconds, **likeness(seed.samples, new, sr=seed.sr)}}

    def samples(self, seed: WaveSeed, take: WaveTake, progress: Tell) -> tuple[Samples, int]:
        """Return the sound of a piece, shape (n,), at its loudness, and its sampling rate."""
        new = codec_of(self.checkpoint.spec).to_samples(take.steps)
        whole = new if self.only_new else np.concatenate([seed.samples, new])
        return loudness.normalise(whole, sr=seed.sr), seed.sr

    def _count(self, seed_samples: int, sr: int) -> int:
        """Return how many samples are to follow a seed of so many."""
        seconds = self.settings.seconds + (seed_samples / sr if self.only_new else 0)
        return round(seconds * sr) - seed_samples


_OF_NOTES = [
    (
        name,
        "--" + name.removesuffix("_shift").replace("_", "-"),
        GenerateConfig.model_fields[name].default,
    )
    for name in (
        *("form", "plan", "density", "register_shift", "dynamics", "key", "between", "remix"),
        *("hold_density", "hold_beat", "candidates", "guidance", "top_p", "top_k", "min_p", "midi"),
    )
]


def require_no_notes(out: Path, settings: GenerateConfig) -> None:
    """Raise `InputError` where something is asked for that only notes have."""
    wrong = {
        f"{out.name}: sound is written, and no notes": out.suffix.lower() in SILENT_SUFFIXES,
        "--score: there are no notes to write": settings.score,
        "--keep: takes of sound cannot be ranked": settings.keep is not None,
        "--index: sound cannot be compared with a corpus": settings.index is not None,
        "--most-shared: sound cannot be compared with a corpus": settings.most_shared is not None,
        "--sound: the continuation sounds by itself": settings.sound is not None,
        "--two-tracks: there is no .mid": settings.two_tracks,
        "--keep-recording: it is kept as it is": settings.keep_recording,
        **{
            f"{option}: there are no notes to choose": getattr(settings, name) != usual
            for name, option, usual in _OF_NOTES
        },
    }
    for problem in (text for text, there in wrong.items() if there):
        raise InputError(
            f"the checkpoint {settings.checkpoint!r} continues sound without notes, which does not "
            f"go with {problem}. Leave it out, or use a checkpoint of notes."
        )
