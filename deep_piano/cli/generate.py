"""The commands `generate`, `index`, `gallery` and `votes`."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from deep_piano.cli.options import (
    Clock,
    Grouped,
    LocalPath,
    PerField,
    PlanFile,
    SettingsFile,
    Span,
    configured,
    json_option,
    open_folders,
    print_json,
)
from deep_piano.cli.terminal import reports, stages
from deep_piano.errors import DeepPianoError, InputError, one_line

if TYPE_CHECKING:
    from deep_piano.config.sections import Config
    from deep_piano.generate.files import Piece
    from deep_piano.generate.records import Records
    from deep_piano.infra.storage.folder import Folder


class _Generate(Grouped):
    groups = MappingProxyType(
        {
            "Seed": ("seed_seconds", "seed_start", "seed_end", "keep_until", "keep_recording"),
            "A piece made anew in part": ("between", "remix"),
            "Music": (
                *("seconds", "takes", "keep", "random_state", "candidates", "only_new"),
                *("form", "plan", "density", "register_shift", "dynamics", "key"),
                *("temperature", "top_p", "top_k", "min_p", "guidance"),
                *("hold_density", "hold_beat"),
                *("checkpoint", "index", "most_shared"),
            ),
            "Output": ("out", "force", "sound", "midi", "two_tracks", "score", "as_json"),
            "A folder of seeds, on Ray": ("format", "workers", "gpus_per_worker", "max_failures"),
        }
    )


@click.command(
    cls=_Generate, epilog="Example: deep-piano generate seed.mp3 -o piece.mp3 --random-state 7"
)
@click.argument("seed")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    help="File to write: .mp3, .wav, .flac, .ogg, .mid or .musicxml, with a .mid, a .png and a "
    ".json beside it. For a folder of seeds: folder or s3:// prefix of the pieces.",
)
@click.option("--seconds", type=float, help="Length of the piece, seed included.  [180]")
@click.option("--seed-seconds", type=float, help="How much of the recording to continue.  [10]")
@click.option("--seed-start", type=Clock(), help="Where the seed begins, as 1:12 or 72.")
@click.option("--seed-end", type=Clock(), help="Where the seed ends.  [where the recording ends]")
@click.option(
    "--keep-until",
    type=Clock(),
    help="Keep everything up to here, as 1:12 or 72: the piece continues from there, in the manner "
    "of its first --seed-seconds.",
)
@click.option(
    "--between",
    type=Span(),
    help="Make only this span of the piece anew, as 0:40-0:55; all else stays (docs/remix.md).",
)
@click.option(
    "--remix",
    help="rhythm: keep it and make new pitches; pitches: keep them in order and make a new rhythm. "
    "Of a whole MIDI file, or of a recording's seed (docs/remix.md).",
)
@click.option("--only-new", is_flag=True, help="Leave the seed out of the piece.")
@click.option(
    "--temperature", type=PerField(float), help="Below 1: more predictable; above 1: more varied."
)
@click.option(
    "--top-p",
    type=PerField(float),
    help="Draw from the likeliest values with this total probability.",
)
@click.option(
    "--top-k", type=PerField(int), help="Draw from this many of the likeliest values; 0 is off."
)
@click.option(
    "--min-p",
    type=PerField(float),
    help="Draw from values at least this share as likely as the likeliest; 0 is off.  [0]",
)
@click.option(
    "--guidance",
    type=PerField(float),
    help="Above 1: closer to the seed's harmony, density and touch.",
)
@click.option(
    "--hold-density", type=float, help="How strongly to keep the density of the seed.  [1]"
)
@click.option("--hold-beat", type=float, help="How strongly to keep the beat.  [1]")
@click.option("--form", help="Course of the piece: free, aba, rondo, theme.  [aba from 90 s on]")
@click.option(
    "--plan", type=PlanFile(), help="Course of your own: a YAML file of sections (docs/form.md)."
)
@click.option("--density", type=float, help="Notes a second, as a factor of the seed's.  [1]")
@click.option(
    "--register", "register_shift", type=float, help="Semitones above the seed's mean pitch.  [0]"
)
@click.option("--dynamics", type=float, help="Loudness: a factor of the seed's velocity.  [1]")
@click.option("--key", help='free, stay (in the seed\'s key), or a key: "A minor".  [free]')
@click.option(
    "--random-state",
    type=int,
    help="Seed of the random generator: another number gives another piece.  [0]",
)
@click.option(
    "--candidates",
    type=int,
    help="Continuations tried every ten seconds, of which a judge keeps the best; 1 is off.  [4]",
)
@click.option("--takes", type=int, help="Pieces to write from the same seed.  [1]")
@click.option("--keep", type=int, help="Write only so many of the takes, the best ones.  [all]")
@click.option("--checkpoint", help="A shipped checkpoint, a run, or a folder of runs.  [notes]")
@click.option(
    "--sound",
    help="One of `deep-piano assets list`, an .sf2 file or a folder of samples.  [the best]",
)
@click.option(
    "--index", help="Index of a corpus to compare each piece with.  [the checkpoint's own]"
)
@click.option(
    "--most-shared",
    type=int,
    help="Let the continuation share at most so many notes in a row with the corpus: 12 or more, 8 "
    "with an exact --index.  [any number]",
)
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
    help="Composers for a folder.  [one for two CPUs; for sound, one for each CPU]",
)
@click.option(
    "--gpus-per-worker",
    type=float,
    help="GPUs of each composer; 0 to use CPUs.  [1 where there are any]",
)
@click.option("--max-failures", type=int, help="Stop when more of a folder's pieces have failed.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@json_option
@configured
def generate(
    file: SettingsFile,
    /,
    seed: str,
    out: str,
    only_new: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue SEED, a recording of a piano or a MIDI file, or every one in a folder.

    SEED is decoded by FFmpeg (mp3, wav, flac, ogg, m4a, opus, ...), transcribed to notes,
    continued by the LSTM to the requested length, and played on a sampled piano.
    With a checkpoint of sound (--checkpoint mulaw) there are no notes: the LSTM continues the
    samples of the recording (a .wav, .png and .json; --temperature sample=0.9).
    Put "--" before a name that begins with a dash.

    A folder or s3:// prefix of seeds (deep-piano generate seeds/ -o pieces/ --takes 2) becomes a
    folder of pieces, on Ray: the files of each seed's takes, and the manifest pieces.jsonl and
    pieces.parquet. The same command resumes where it was stopped, and makes only pieces that are
    missing, failed, or whose seed changed.
    """
    for_a_folder = ("format", "workers", "gpus_per_worker", "max_failures")
    of_bulk = {name: options.pop(name) for name in for_a_folder}
    sections = {"generate": options, "bulk": of_bulk}
    settings = file.load(sections)
    from deep_piano.infra.storage.open import local_file

    with local_file(seed, **settings.storage.model_dump()) as path:
        if path is not None:
            _require_no_bulk_options(seed, of_bulk)
            pieces, took_s = _generate_from(
                path, out, settings, file, only_new=only_new, force=force
            )
            (_print_as_json if as_json else _print_pieces)(pieces, took_s)
            return
    records = _generate_in_bulk(seed, out, settings, only_new=only_new, force=force)
    [target] = open_folders(settings.storage, out)
    report_pieces(out, records, target, as_json=as_json)


def _require_no_bulk_options(seed: str, of_bulk: Mapping[str, Any]) -> None:
    given = [name for name, value in of_bulk.items() if value is not None]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise click.UsageError(f"{option} is for a folder of seeds, and {seed!r} is not a folder.")


def _generate_from(
    seed: Path, out: str, settings: Config, file: SettingsFile, *, only_new: bool, force: bool
) -> tuple[list[Piece], float]:
    """Continue one seed, in this process; return its pieces, and the seconds that it took."""
    begun = time.monotonic()
    from deep_piano.generate.piece import make_pieces
    from deep_piano.infra.storage.open import local_path

    with stages() as progress:
        pieces = make_pieces(
            seed,
            local_path(out),
            settings.generate,
            only_new=only_new,
            force=force,
            keep=[file.path] if file.path else [],
            storage=settings.storage,
            progress=progress,
        )
    return pieces, time.monotonic() - begun


def _print_pieces(pieces: Sequence[Piece], took_s: float) -> None:
    """Print a line for each piece: where, how long, what it continues, and why it was kept."""
    from deep_piano.report.card import encodable

    lines = [f"{one_line(piece.path)}: {_described(piece.facts)}" for piece in pieces]
    made = "made" if len(pieces) == 1 else f"{len(pieces)} pieces made"
    click.echo(encodable("\n".join(lines), sys.stdout.encoding) + f", {made} in {took_s:.1f} s")


def _print_as_json(pieces: Sequence[Piece], took_s: float) -> None:
    facts = [{"path": os.fspath(piece.path), **piece.facts} for piece in pieces]
    print_json({"pieces": facts, "took_s": round(took_s, 3)})


def _generate_in_bulk(
    seeds: str, out: str, settings: Config, *, only_new: bool, force: bool
) -> Records:
    """Continue every seed of a folder."""
    from deep_piano.generate.files import OUTPUT_SUFFIXES
    from deep_piano.generate.on_ray import generate as in_bulk

    if out.lower().endswith(OUTPUT_SUFFIXES):
        raise click.UsageError(
            f"{seeds!r} is a folder of seeds, and {out!r} is the name of one piece. Give a folder "
            "for the pieces."
        )
    source, target = open_folders(settings.storage, seeds, out)
    with reports() as report:
        return in_bulk(source, target, settings, only_new=only_new, force=force, progress=report)


def report_pieces(out: str, records: Records, pieces: Folder, *, as_json: bool = False) -> None:
    """Print the counts of the requested pieces, and the page to open; raise where any failed."""
    from deep_piano.generate.gallery import PAGE

    counts = Counter(record.status for record in records.all)
    failed, left_out = counts["failed"], counts["left out"]
    if as_json:
        document = {"pieces": pieces.uri, "page": pieces.place(PAGE), "asked": len(records)}
        document |= {"there": counts["done"], "failed": failed, "left_out": left_out}
        reasons = [
            {"seed": record.seed, "take": record.take, "reason": record.reason}
            for record in records.all
            if record.failed
        ]
        print_json({**document, "failures": reasons})
    else:
        text = f"{len(records)} = {counts['done']} there + {failed} failed"
        text += f" + {left_out} left out for better ones" if left_out else ""
        click.echo(f"{one_line(out)}: pieces asked for: {text}")
        click.echo(f"to hear and compare them, open {one_line(pieces.place(PAGE))}")
    if failed:
        raise DeepPianoError(
            f"{failed} of {len(records)} pieces failed. pieces.jsonl says why; the same command "
            "tries them again."
        )


@click.command(epilog="Example: deep-piano index dataset/ -o corpus.index")
@click.argument("dataset")
@click.option("-o", "--output", "out", type=LocalPath(), help="File to write.")
@click.option("--force", is_flag=True, help="Replace an existing file, or index of a checkpoint.")
@click.option("--compact", is_flag=True, help="A small index of hashes, which names no recording.")
@click.option(
    "--checkpoint", help="Store a compact index with this checkpoint, instead of in a file."
)
@configured
def index(
    file: SettingsFile,
    /,
    dataset: str,
    out: Path | None,
    force: bool,
    compact: bool,
    checkpoint: str | None,
) -> None:
    """Index the training split of DATASET, so that pieces can be compared with it.

    `generate --index FILE` then writes into each piece's .json the longest run of notes that its
    continuation shares with any recording, transposed or not, with times equal to 50 ms.
    The index takes 6 bytes a note. A compact one takes half a byte to one, and says of a run how
    long it is at most; a checkpoint that has one needs no --index.
    """
    from deep_piano.api.tools import index_dataset

    if (out is None) == (checkpoint is None):
        raise click.UsageError("give a file with -o, or a --checkpoint to store the index with.")
    options = {"compact": compact, "checkpoint": checkpoint, **dict(file.storage)}
    with stages() as progress:
        found = index_dataset(dataset, out, force=force, progress=progress, **options)
    where = one_line(out if out is not None else checkpoint)
    click.echo(f"{where}: {found.recordings:,} recordings, {found.notes:,} notes")


@click.command(epilog="Example: deep-piano gallery pieces-a/ pieces-b/ -o compare.html")
@click.argument("folders", nargs=-1, required=True)
@click.option("-o", "--output", "out", type=LocalPath(), help="Page to write.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@click.option("--single-file", is_flag=True, help="With -o: a page with all sounds in it, to send.")
@configured
def gallery(
    file: SettingsFile,
    /,
    folders: tuple[str, ...],
    out: Path | None,
    force: bool,
    single_file: bool,
) -> None:
    """Write a page that shows and plays the pieces of FOLDERS, and compares them blind.

    A folder from `generate` already has its page, index.html; without -o it is written again.
    With -o, a page of one or several folders is written there. For several folders it compares
    the pieces of the same seed and take, for example of two checkpoints. Votes are saved as JSON.
    """
    from deep_piano.api.tools import write_page

    if out is None and len(folders) > 1:
        raise click.UsageError("several folders need one page: give its name with -o.")
    if out is None and single_file:
        raise click.UsageError("a page with all in it needs a name of its own: give it with -o.")
    options = {"force": force, "single_file": single_file, **dict(file.storage)}
    click.echo(one_line(write_page(*folders, out=out, **options)))


@click.command(epilog="Example: deep-piano votes votes-*.json")
@click.argument("files", nargs=-1, required=True, type=LocalPath())
def votes(files: tuple[Path, ...]) -> None:
    """Sum up the votes of blind comparisons, FILES that pages of pieces have saved.

    For each pair: how often the first was preferred, its share of the decided votes, and Wilson's
    95 % interval of that share. A vote counts only where both pieces were heard.
    """
    from deep_piano.api.tools import count_votes
    from deep_piano.generate.votes import table

    comparisons, unheard = count_votes(*files)
    if not comparisons:
        raise InputError(
            f"no vote counts: {unheard} were given before both pieces were heard. Give other files."
        )
    click.echo(table(comparisons))
    if unheard:
        click.echo(f"left out: {unheard} votes given before both pieces were heard")


def _described(facts: Mapping[str, Any]) -> str:
    """Return how long a piece is, its notes if it has any, what it continues, why it was kept."""
    from deep_piano.report.text import clock, origin

    piece = facts["piece"]
    notes = f", {piece['notes']} notes" if "notes" in piece else ""
    kept = f", {_why_kept(facts)}" if "ranking" in facts else ""
    return f"{clock(piece['seconds'])}{notes}, {origin(facts)}{kept}"


def _why_kept(facts: Mapping[str, Any]) -> str:
    """Return which take was kept, and what the judge says of it and of the others."""
    ranking, take = facts["ranking"], facts["take"]
    [mine] = [row for row in ranking if row["take"] == take]
    others = [row["judge_log_odds"] for row in ranking if row is not mine]
    beside = f", of the others at most {max(others):+.2f}" if others else ""
    faulty = ", but it has a fault" if mine["broken"] else ""
    return (
        f"take {take} of {len(ranking)} kept as number {ranking.index(mine) + 1} "
        f"(the judge's log-odds of a pianist {mine['judge_log_odds']:+.2f}{beside}{faulty})"
    )
