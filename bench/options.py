"""Options that several benchmarks have."""

from __future__ import annotations

import click

from deep_piano.generate.files import OUTPUT_SUFFIXES

output_format = click.option(
    "--format",
    "suffix",
    default="mp3",
    show_default=True,
    type=click.Choice([suffix.removeprefix(".") for suffix in OUTPUT_SUFFIXES]),
    help="Of the piece; mid: no sound, quick.",
)
