"""`generate`, and what serves its pieces: `index` and `gallery`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deep_piano.cli.options import PerField, SettingsFile, _open, configured
from deep_piano.cli.terminal import reports, stages
from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.infra.progress import Progress, Tell, no_progress

if TYPE_CHECKING:
    from deep_piano.analysis.originality import CorpusIndex
    from deep_piano.codecs.notes import Sequence
    from deep_piano.config.sections import Config
    from deep_piano.dataset.reader import Dataset
    from deep_piano.generate.records import Records


@click.command(epilog="Example: deep-piano generate seed.mp3 -o piece.mp3 --random-state 7")
@click.argument("seed")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    help="File to write: .mp3, .wav, .flac, .ogg, .mid or .musicxml; a .mid, a .png and a .json "
    "stand beside it. Of a folder of seeds: folder or s3:// prefix of the pieces.",
)
@click.option("--seconds", type=float, help="Length of the piece, seed included.  [180]")
@click.option("--seed-seconds", type=float, help="How much of the recording to continue.  [10]")
@click.option("--seed-start", type=float, help="Where in the recording the seed begins.  [0]")
@click.option("--only-new", is_flag=True, help="Leave the seed out of the piece.")
@click.option(
    "--temperature", type=PerField(float), help="Below 1 more predictable, above 1 more daring."
)
@click.option(
    "--top-p",
    type=PerField(float),
    help="Draw from the likeliest values that hold this probability.",
)
@click.option(
    "--top-k", type=PerField(int), help="Draw from this many of the likeliest values; 0 is off."
)
@click.option(
    "--guidance",
    type=PerField(float),
    help="Above 1 closer to the seed's harmony, density and touch.",
)
@click.option(
    "--hold-density", type=float, help="How strongly to stay about as dense as the seed.  [1]"
)
@click.option(
    "--candidates",
    type=int,
    help="Ways to go on every ten seconds, of which a judge keeps one; 1 is off.  [4]",
)
@click.option("--random-state", type=int, help="Another number, another piece.  [0]")
@click.option("--takes", type=int, help="Pieces to write from the same seed.  [1]")
@click.option("--keep", type=int, help="Write only so many of the takes, the best ones.  [all]")
@click.option("--checkpoint", help="One that is shipped, a run, or a folder of runs.  [notes]")
@click.option(
    "--sound",
    help="steinway, salamander, an .sf2 file or a folder of samples.  [the best one that is there]",
)
@click.option("--index", help="Of a corpus: say what each piece shares with it.  [none]")
@click.option(
    "--midi",
    help="pedal: key presses and a pedal in the .mid; sounding: as long as notes sound.  [pedal]",
)
@click.option(
    "--two-tracks", is_flag=True, default=None, help="Seed and continuation in a MIDI track each."
)
@click.option("--score", is_flag=True, default=None, help="Write a score too, as MusicXML.")
@click.option(
    "--keep-recording",
    is_flag=True,
    default=None,
    help="Begin with the recording itself, not with its notes played.",
)
@click.option("--format", help="Of a folder's pieces: mp3, wav, flac, ogg, mid, musicxml.  [mp3]")
@click.option(
    "--workers",
    type=int,
    help="Composers for a folder.  [one for eight CPUs, of sound one for each]",
)
@click.option(
    "--gpus-per-worker",
    type=float,
    help="For each composer; 0 to compose on CPUs.  [1 where there are any]",
)
@click.option("--max-failures", type=int, help="Stop when more of a folder's pieces failed.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@configured
def generate(
    file: SettingsFile,
    /,
    seed: str,
    out: str,
    only_new: bool,
    force: bool,
    endpoint: str | None,
    **options: Any,
) -> None:
    """Continue SEED, a recording of a piano or a MIDI file, or every one in a folder.

    SEED is decoded by FFmpeg (mp3, wav, flac, ogg, m4a, opus, ...), transcribed to notes,
    continued by the LSTM until the piece is as long as asked, and played on a sampled piano.
    With a checkpoint of sound (--checkpoint mulaw) there are no notes: the recording itself goes
    on, sample after sample (a .wav, .png and .json; --temperature sample=0.9).
    A name that begins with a dash goes behind "--".

    A folder or s3:// prefix of seeds (deep-piano generate seeds/ -o pieces/ --takes 2) becomes a
    folder of pieces, on Ray: the files of each seed's takes, and the manifest pieces.jsonl and
    pieces.parquet. The same command goes on where one was stopped, and makes only what is missing,
    failed or changed.
    """
    for_a_folder = ("format", "workers", "gpus_per_worker", "max_failures")
    of_bulk = {name: options.pop(name) for name in for_a_folder}
    sections = {"generate": options, "bulk": of_bulk, "storage": {"endpoint": endpoint}}
    settings = file.load(sections)
    if "://" in seed or os.path.isdir(seed):  # noqa: PTH112 (of a name too long, Path raises)
        _generate_in_bulk(seed, out, settings, only_new=only_new, force=force)
        return
    given = [name for name, value in of_bulk.items() if value is not None]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise click.UsageError(f"{option} is for a folder of seeds, and {seed!r} is none.")
    begun = time.monotonic()
    from deep_piano.generate.piece import make_pieces

    with stages() as progress:
        pieces = make_pieces(
            Path(seed),
            Path(out),
            settings.generate,
            only_new=only_new,
            force=force,
            keep=[file.path] if file.path else [],
            storage=settings.storage,
            progress=progress,
        )
    took_s = time.monotonic() - begun
    lines = [f"{one_line(piece.path)}: {_described(piece.facts['piece'])}" for piece in pieces]
    made = "made" if len(pieces) == 1 else f"{len(pieces)} pieces made"
    click.echo("\n".join(lines) + f", {made} in {took_s:.1f} s")


def _generate_in_bulk(
    seeds: str, out: str, settings: Config, *, only_new: bool, force: bool
) -> None:
    """Continue every seed of a folder; fail when any piece did."""
    from deep_piano.generate.files import OUTPUT_SUFFIXES
    from deep_piano.generate.on_ray import generate as in_bulk

    if out.lower().endswith(OUTPUT_SUFFIXES):
        raise click.UsageError(
            f"{seeds!r} is a folder of seeds, and {out!r} the name of one piece. Give a folder to "
            "write the pieces to."
        )
    source, target = _open(settings.storage, seeds, out)
    with reports() as report:
        records = in_bulk(source, target, settings, only_new=only_new, force=force, progress=report)
    _count_pieces(out, records)


def _count_pieces(out: str, records: Records) -> None:
    """Say what came of the pieces that were asked for; fail when any did."""
    counts = Counter(record.status for record in records.all)
    failed, left_out = counts["failed"], counts["left out"]
    text = f"{len(records)} = {counts['done']} there + {failed} failed"
    text += f" + {left_out} left out for better ones" if left_out else ""
    click.echo(f"{one_line(out)}: pieces asked for: {text}")
    if failed:
        raise DeepPianoError(
            f"{failed} of {len(records)} pieces failed. pieces.jsonl says why; the same command "
            "tries them again."
        )


@click.command(epilog="Example: deep-piano index dataset/ -o corpus.index")
@click.argument("dataset")
@click.option(
    "-o", "--output", "out", required=True, type=click.Path(path_type=Path), help="File to write."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def index(
    file: SettingsFile, /, dataset: str, out: Path, force: bool, endpoint: str | None
) -> None:
    """Index the training split of DATASET, so that pieces can be compared with it.

    `generate --index FILE` then writes into each piece's .json the longest run of notes that its
    continuation shares with any recording: same pitches or all transposed, same times to 50 ms.
    The index takes 6 bytes a note.
    """
    from deep_piano.dataset.reader import Dataset
    from deep_piano.infra.storage.atomic import require_free

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    [data] = _open(storage, dataset)
    require_free(out, force=force)
    with Dataset(data) as opened, stages() as progress:
        found = index_of(opened, progress=progress)
    found.save(out)
    click.echo(f"{one_line(out)}: {len(found.names):,} recordings, {found.notes:,} notes")


def index_of(dataset: Dataset, *, progress: Tell = no_progress) -> CorpusIndex:
    """Index the training split of a dataset.

    Raises
    ------
    InputError
        When its codec is another one than `notes`, or nothing is in that split.
    """
    from deep_piano.analysis.originality import CorpusIndex

    if not dataset.codec.hears_notes:
        raise InputError(
            f"the dataset is of the codec {dataset.spec.codec!r}, and only notes can be "
            "indexed. Give one that `deep-piano prepare` made with the codec notes."
        )
    groups = dataset.require("train")
    count = sum(group.recordings for group in groups)

    def recordings() -> Iterator[tuple[str, Sequence]]:
        for done, row in enumerate(dataset.recordings("train"), 1):
            yield row.name, row.sequence
            progress(Progress("indexing", done, count))

    return CorpusIndex.build(recordings(), dataset=dataset.digest)


@click.command(epilog="Example: deep-piano gallery pieces-a/ pieces-b/ -o compare.html")
@click.argument("folders", nargs=-1, required=True)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="Page to write.")
@click.option("--force", is_flag=True, help="Replace a page that is there.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def gallery(
    file: SettingsFile,
    /,
    folders: tuple[str, ...],
    out: Path | None,
    force: bool,
    endpoint: str | None,
) -> None:
    """Make the page of FOLDERS of pieces: to see, to hear and to compare them blind.

    A folder that `generate` wrote has its page, index.html, already; without -o it is made anew.
    With -o, a page of one or several folders is written there: of several, the pieces of the same
    seed and take are compared, of two checkpoints for example. Votes are saved as JSON.
    """
    from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery, write_page_of
    from deep_piano.infra.storage.atomic import require_free

    opened = _open(file.load({"storage": {"endpoint": endpoint}}).storage, *folders)
    if out is not None:
        require_free(out, force=force)
        write_page_of(out, opened)
        click.echo(one_line(out))
        return
    if len(opened) > 1:
        raise click.UsageError("of several folders one page is made: say where with -o.")
    write_gallery(opened[0], known_pieces(opened[0]))
    click.echo(opened[0].place(PAGE))


def _described(piece: dict[str, Any]) -> str:
    """Return how long a piece is and, of notes, how many it has."""
    notes = f", {piece['notes']} notes" if "notes" in piece else ""
    return _clock(piece["seconds"]) + notes


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
