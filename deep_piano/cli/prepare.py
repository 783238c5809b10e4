"""`prepare`, and `inspect`, which describes what it reads and what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from deep_piano.cli.options import LocalPath, SettingsFile, _open, configured
from deep_piano.cli.terminal import reports, stages
from deep_piano.errors import one_line


@click.command(epilog="Example: deep-piano prepare recordings/ -o dataset/ --dry-run")
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
    totals = manifest.totals
    click.echo(
        f"files found: {totals.files} = {totals.recordings} recordings + "
        f"{totals.drops} dropped + {totals.failures} failed"
    )


@click.command(epilog="Example: deep-piano inspect dataset/ --plot pictures/")
@click.argument("what")
@click.option("--plot", type=LocalPath(), help="Folder to draw pictures into.")
@click.option("--endpoint", help="The S3 service to use, as https://HOST:PORT.")
@configured
def inspect(file: SettingsFile, /, what: str, plot: Path | None, endpoint: str | None) -> None:
    """Describe WHAT: a dataset, or one recording (audio or MIDI).

    Of a dataset, its card: hours, notes, splits, keys, tempo, density, loudness, and what was left
    out. Of a recording, its descriptors. With --plot both are drawn as well.
    """
    from deep_piano.infra.storage.open import local_file
    from deep_piano.report.card import encodable
    from deep_piano.report.inspection import inspect_dataset, inspect_recording

    storage = file.load({"storage": {"endpoint": endpoint}}).storage
    with local_file(what, **storage.model_dump()) as path:
        if path is None:
            card, pictures = inspect_dataset(what, storage, plot)
        else:
            with stages() as progress:
                card, pictures = inspect_recording(path, plot, progress=progress)
    click.echo(encodable(card, sys.stdout.encoding))
    for picture in pictures:
        click.echo(one_line(picture))
