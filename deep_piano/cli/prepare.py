"""The commands `prepare` and `inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from deep_piano.cli.options import (
    LocalPath,
    SettingsFile,
    configured,
    json_option,
    open_folders,
    print_json,
)
from deep_piano.cli.terminal import reports, stages
from deep_piano.errors import DeepPianoError, one_line


@click.command(epilog="Example: deep-piano prepare recordings/ -o dataset/ --dry-run")
@click.argument("corpus")
@click.option("-o", "--output", "dataset", required=True, help="Folder or s3:// of the dataset.")
@click.option("--codec", help="Codec of the sequences: notes, mulaw or samples.  [notes]")
@click.option("--dry-run", is_flag=True, help="Only report the work to do and its time.")
@click.option(
    "--rebuild", is_flag=True, help="Replace a dataset that has other settings, or is broken."
)
@click.option("--retry-failures", is_flag=True, help="Retry files that failed before.")
@click.option("--max-failures", type=int, help="Stop when more files than this failed.")
@click.option("--workers", type=int, help="Tasks at a time.  [one for each CPU]")
@click.option("--transcribers", type=int, help="Copies of the transcription network.")
@click.option("--sr", type=int, help="Sampling rate in Hz.  [the codec's own]")
@click.option("--min-seconds", type=float, help="Shorter recordings are dropped.  [10]")
@click.option("--max-seconds", type=float, help="Longer recordings are dropped.  [3600]")
@click.option(
    "--trim-start-seconds", type=float, help="Cut from the beginning of each recording.  [0]"
)
@click.option("--trim-end-seconds", type=float, help="Cut from the end of each recording.  [0]")
@click.option("--group", help="Names with the same first group of this pattern share a split.")
@configured
def prepare(
    file: SettingsFile,
    /,
    corpus: str,
    dataset: str,
    dry_run: bool,
    rebuild: bool,
    retry_failures: bool,
    **options: Any,
) -> None:
    """Make a dataset of CORPUS, a folder or s3:// prefix of audio and MIDI files, on Ray.

    Every recording is decoded, trimmed, described and encoded; for the codec "notes" sound is
    transcribed first. The dataset holds Parquet shards, manifest.json, and rejects.csv with the
    reason for every file left out. The same command resumes where it was stopped, and updates the
    dataset when the corpus has changed. All filters are in ray_config.yaml.
    """
    from deep_piano.music.recordings import in_words
    from deep_piano.report.card import dataset_card, encodable

    settings = file.load({"prepare": options})
    source, target = open_folders(settings.storage, corpus, dataset)
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
    totals = manifest.totals
    click.echo(
        f"files found: {totals.files + totals.ignored} = {totals.recordings} recordings + "
        f"{totals.drops} dropped + {totals.failures} failed"
        + (f" + {totals.ignored} ignored" if totals.ignored else "")
        + (f" ({in_words(totals.left_alone)})" if totals.left_alone else "")
    )
    if not totals.recordings:
        raise DeepPianoError(
            "no recording was kept, so there is nothing to train on. `deep-piano inspect` says why "
            "each file was left out."
        )


@click.command(epilog="Example: deep-piano inspect dataset/ --plot pictures/")
@click.argument("what")
@click.option("--plot", type=LocalPath(), help="Folder to draw pictures into.")
@json_option
@configured
def inspect(file: SettingsFile, /, what: str, plot: Path | None, as_json: bool) -> None:
    """Describe WHAT: a dataset, or one recording (audio or MIDI).

    For a dataset, print its card: hours, notes, splits, keys, tempo, density, loudness, and the
    files left out. For a recording, print its descriptors. With --plot, also draw pictures.
    """
    from deep_piano.api.tools import inspect as found_in
    from deep_piano.report.card import encodable

    with stages() as progress:
        found = found_in(what, plot=plot, progress=progress, **dict(file.storage))
    if as_json:
        print_json({**found.facts, "pictures": list(map(str, found.pictures))})
        return
    click.echo(encodable(found.card, sys.stdout.encoding))
    for picture in found.pictures:
        click.echo(one_line(picture))
