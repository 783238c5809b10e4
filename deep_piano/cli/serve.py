"""The command `serve`."""

from __future__ import annotations

from pathlib import Path

import click

from deep_piano.cli.options import LocalPath, SettingsFile, configured


@click.command(epilog="Example: deep-piano serve --open")
@click.option("--port", default=8018, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 for a free one.")  # fmt: skip
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Beyond this machine a token is asked for, and there is no TLS.",
)
@click.option(
    "--name", "names", multiple=True, help="What others call this machine, beside its address."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--folder",
    type=LocalPath(),
    help="Folder of recordings and pieces.  [deep_piano in your folder of music]",
)
@click.option(
    "--most-gb",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.01),
    help="How much the folder may hold.",
)
@click.option(
    "--address",
    help="Do the work on the Ray cluster at this address, as ray://HOST:10001.  [here]",
)
@click.option("--checkpoint", help="A shipped checkpoint, a run, or a folder of runs.  [notes]")
@click.option("--sound", help="As in `generate`.  [the best]")
@configured
def serve(
    file: SettingsFile,
    /,
    port: int,
    host: str,
    names: tuple[str, ...],
    open_page: bool,
    folder: Path | None,
    most_gb: float,
    address: str | None,
    checkpoint: str | None,
    sound: str | None,
) -> None:
    """Serve a page for musicians on this machine.

    Record or drop a recording, play a MIDI keyboard, hear how it goes on, change it, keep what you
    like. Everything stays on this machine. Ctrl-C ends it.
    """
    settings = file.load({"generate": {"checkpoint": checkpoint, "sound": sound}})
    from platformdirs import user_music_path

    from deep_piano.serve.running import serve as until_told

    until_told(
        folder or user_music_path() / "deep_piano",
        settings,
        host=host,
        port=port,
        names=names,
        most_gb=most_gb,
        open_page=open_page,
        address=address,
        say=click.echo,
    )
