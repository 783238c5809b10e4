"""What there is to fetch, and what becomes of it."""

from __future__ import annotations

from deep_piano.infra.assets import catalogue
from tests.support.shop import everything_under, make_zip


def test_the_registry_is_complete():
    for name, asset in catalogue.ASSETS.items():
        assert asset.name == name
        assert asset.what
        assert asset.licence
        assert asset.source.startswith("https://")
        assert asset.download_bytes > 1_000_000
        for archive in asset.archives:
            assert len(archive.sha256) == 64
            assert archive.version == asset.version
            assert archive.members


def test_a_first_piece_needs_one_sound_and_no_node_js():
    needed = [catalogue.ASSETS[name] for name in catalogue.NEEDED]
    assert [asset.is_sound for asset in needed] == [False, True]
    assert {asset.manager for asset in needed} == {"pip"}


def test_the_steinways_mislabelled_keys_are_put_right(tmp_path):
    names = ["A0", "Bb0", "B0", "C1", "Db1"]
    make_zip(
        tmp_path / "piano_samples.zip",
        {f"Piano.ff.{name}.flac": name.encode() for name in names},
    )
    catalogue._convert_steinway(tmp_path)
    assert everything_under(tmp_path) == [
        "Piano.ff.Bb0.flac",
        "Piano.ff.C1.flac",
        "Piano.ff.Db1.flac",
    ]
    assert (tmp_path / "Piano.ff.Bb0.flac").read_bytes() == b"A0"
