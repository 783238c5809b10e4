"""A piece in memory: its notes, its sound, its figures, and every file that it can become."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from deep_piano.api.given import PathLike, path_of
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.generate.files import alone, targets
from deep_piano.generate.piece import Road, provenance, write
from deep_piano.generate.seeds import SR
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.music.audio import Samples
from deep_piano.music.notes import Notes
from deep_piano.report.text import clock, origin


class Piece:
    """A seed and what continues it, from `continue_piece`.

    Nothing is played or written before it is asked for. The files are the same, byte for byte, as
    those of ``deep-piano generate`` with the same seed and settings.

    Attributes
    ----------
    take : int
        Which of its seed's takes it is, from 1.
    seed_seconds : float
        How long the seed lasts in the piece; 0 where it was left out. Of a piece of which a span
        was made anew: how long what comes before it lasts.
    """

    def __init__(self, road: Road, seed: Any, take: Any, *, given: Collection[Path]) -> None:
        self._road, self._seed, self._take, self._given = road, seed, take, given
        self.take: int = take.index + 1
        self.seed_seconds: float = 0.0 if road.only_new or road.settings.remix else seed.seconds

    @property
    def notes(self) -> Notes:
        """The whole piece as a note array (dtype `NOTE`), the pedal folded in.

        It is read-only: change a copy.

        Raises
        ------
        InputError
            When a checkpoint of sound made it: there are no notes.
        """
        if not self._road.of_notes:
            raise InputError(
                "this piece is sound without notes. Use audio(), or a checkpoint of notes."
            )
        notes: Notes = self._take.notes.view()
        notes.flags.writeable = False
        return notes

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self._facts["piece"]["seconds"])

    @property
    def figures(self) -> dict[str, Any]:
        """Its figures, as they stand in its .json: adherence to the seed, loops, silence."""
        left_out = ("seconds", "notes")
        return {k: v for k, v in self._facts["piece"].items() if k not in left_out}

    @property
    def facts(self) -> dict[str, Any]:
        """What it is made of: seed, checkpoint, settings, versions, the ranking of takes."""
        return provenance(self._road, self._seed, self._take) | self._facts

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self._road.facts(self._seed, self._take)

    @property
    def sr(self) -> int:
        """The sampling rate of its sound, in Hz."""
        return SR if self._road.of_notes else int(self._seed.sr)

    def audio(self, *, progress: Tell | None = None) -> Samples:
        """Return its sound at -16 LUFS; it is played once and kept.

        Returns
        -------
        ndarray, shape (n, 2), or (n,) of a checkpoint of sound, dtype float32
            Full scale 1.0, `sr` samples a second.

        Raises
        ------
        AssetError
            When the piano's samples are missing and cannot be fetched.
        """
        if self._audio is None:
            road = self._ready(progress)
            self._audio, _ = road.samples(self._seed, self._take, progress or no_progress)
            self._audio.flags.writeable = False
        return self._audio

    _audio: Samples | None = None

    def save(
        self,
        path: PathLike,
        *,
        beside: bool = False,
        force: bool = False,
        progress: Tell | None = None,
    ) -> Path:
        """Write it as its suffix says, whole or not at all.

        Parameters
        ----------
        path : path
            Sound (.mp3, .wav, .flac, .ogg), notes (.mid), a score (.musicxml), the piano roll
            (.png) or the facts (.json).
        beside : bool
            Write ``.mid``, ``.png`` and ``.json`` beside it, as the command line does.
        force : bool
            Replace files that are there; those that the piece was made from stay.
        progress : callable, optional

        Returns
        -------
        Path

        Raises
        ------
        InputError
            When it cannot be written so, a file is there already, or the piece was made from it.
        AssetError
            When the piano's samples are missing and cannot be fetched.
        """
        road, out, given = self._road, path_of(path), self._given
        if beside:
            score = road.settings.score
            [files] = targets(out, 1, force=force, given=given, notes=road.of_notes, score=score)
        else:
            files = alone(out, force=force, given=given)
        if files.notes or files.score:
            _ = self.notes  # there must be some
        if files.sound is not None:
            road = self._ready(progress)
        return write(road, files, self._seed, self._take, progress=progress or no_progress).path

    def to_symusic(self) -> Any:
        """Return it as a `symusic.Score`, its pedal as controller 64; needs the package symusic."""
        try:
            import symusic
        except ImportError as error:
            raise InputError(
                "to_symusic needs the package symusic. Run `pip install symusic`."
            ) from error
        with tempfile.TemporaryDirectory(prefix="deep-piano-") as folder:
            return symusic.Score(str(self.save(Path(folder) / "piece.mid")))

    def __repr__(self) -> str:
        seed = self._seed.facts
        notes = f", {len(self.notes):,} notes" if self._road.of_notes else ""
        what = origin({"seed": seed, **self._facts})
        return f"<Piece of {clock(self.seconds)}{notes}, {what} of {seed['file']!r}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook: its piano roll, and a player."""
        parts = [f"<p>{html.escape(repr(self)[1:-1])}</p>"]
        kinds: Mapping[str, str] = {
            "png": '<img src="data:image/png;base64,{}" style="max-width:100%" alt="Piano roll">',
            "mp3": '<audio controls src="data:audio/mpeg;base64,{}" style="width:100%"></audio>',
        }
        with tempfile.TemporaryDirectory(prefix="deep-piano-") as folder:
            for suffix, tag in kinds.items():
                try:
                    data = self.save(Path(folder) / f"piece.{suffix}").read_bytes()
                except (DeepPianoError, OSError) as error:  # a picture shows without its sound
                    parts.append(f"<p>{html.escape(str(error))}</p>")
                else:
                    parts.append(tag.format(base64.b64encode(data).decode("ascii")))
        return "<div>" + "".join(parts) + "</div>"

    def _ready(self, progress: Tell | None) -> Road:
        """Return the road once there is something to play with."""
        if self._road.sound is None:
            self._road = self._road.ready(progress or no_progress)
        return self._road
