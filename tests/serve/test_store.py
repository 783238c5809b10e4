"""Recordings and pieces on disk: whole or not at all, and no more than fits."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from deep_piano.errors import InputError
from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery
from deep_piano.generate.records import MANIFEST, RUN, read_run
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.serve import store as stores
from deep_piano.serve.store import NotThereError, Store, continuation_s, shown_name
from tests.support.commands import run
from tests.support.fakes import arpeggios

HEARD = {"from_s": 0.0, "seconds": 5.0, "notes": [], "peaks": []}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "music", 10**9)


def add_seed(store, name="my song.mp3", needed=frozenset()):
    folder = store.begin()
    store.recording_path(folder, name).write_bytes(b"sound")
    (folder / "heard.mp3").write_bytes(b"sound")
    return store.add_seed(folder, name, HEARD, needed)["id"]


def add_piece(store, seed, *, takes=2, title="my song"):
    folder = store.begin()
    (folder / "seed.mp3").write_bytes(b"seed")
    made = []
    for number in range(1, takes + 1):
        stem = "piece" if takes == 1 else f"piece-{number}"
        for suffix in (".mp3", ".mid", ".png", ".json"):
            (folder / f"{stem}{suffix}").write_bytes(b"a file")
        facts = {
            "take": number,
            "files": {f"{stem}{suffix}": "ab" for suffix in (".mp3", ".mid", ".png")},
            "piece": {"seconds": 20.0, "notes": 30, "nats_a_note": 8.0},
            "random_state": 7,
            "seed": {"sha256": "5eed"},
            "checkpoint": {"sha256": "c0ffee"},
        }
        made.append({"facts": facts, "new": [5.0, 20.0], "notes": [[0, 1, 60, 80]]})
    about = {"title": title, "seed": {"id": seed, "name": "my song.mp3"}}
    return store.add_piece(folder, about, {"takes": made, "seed_seconds": 5.0})["id"]


def test_pieces_are_what_gallery_reads(store):
    piece = add_piece(store, add_seed(store), title="</script> a song")
    folder = open_folder(store.root)
    records = [*known_pieces(folder).all]
    assert [record.take for record in records] == [1, 2]
    assert {record.seed for record in records} == {f"</script> a song ({piece[:6]})"}
    for record in records:
        assert all((store.root / name).is_file() for name in record.files)
    write_gallery(folder, known_pieces(folder))
    page = (store.root / PAGE).read_text()
    assert f"pieces/{piece}/piece-2.mp3" in page
    assert f"pieces/{piece}/seed.mp3" in page
    assert "</script> a song" not in page


def test_a_piece_is_renamed_starred_and_deleted(store):
    seed = add_seed(store)
    first, second = add_piece(store, seed), add_piece(store, seed, takes=1)
    assert [piece["id"] for piece in store.pieces()] == [second, first]
    assert store.change(first, title="../a\nb", starred=2)["title"] == "../a\\nb"
    assert [take["starred"] for take in store.piece(first)["takes"]] == [False, True]
    store.change(first, title=None, starred=2)
    assert [take["starred"] for take in store.piece(first)["takes"]] == [False, False]
    store.delete(first)
    assert [piece["id"] for piece in store.pieces()] == [second]
    assert [record.take for record in known_pieces(open_folder(store.root)).all] == [1]
    assert [*(store.root / "work").iterdir()] == []
    with pytest.raises(NotThereError):
        store.delete(first)


def test_pieces_are_kept_without_the_extra_that_brings_pyarrow(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    piece = add_piece(store, add_seed(store))
    store.change(piece, title="rain", starred=None)
    found = known_pieces(open_folder(store.root)).all
    assert [record.seed for record in found] == [f"rain ({piece[:6]})"] * 2
    store.delete(piece)
    assert (store.root / MANIFEST).read_text() == ""


@pytest.mark.parametrize(
    "name", ["", "..", "../seeds", "/etc", "0123456789abcdef", "a" * 400, "0123456789ABCDEF"]
)
def test_what_is_no_id_is_not_there(store, name):
    for find in (store.piece, store.seed, store.seed_file, store.delete):
        with pytest.raises(NotThereError):
            find(name)


def test_a_name_becomes_no_path(store):
    seed = add_seed(store, "../../evil.mp3/../x.MP3")
    assert store.seed_file(seed).parent == store.root / "seeds" / seed
    assert store.seed_file(seed).name == "recording.mp3"
    folder = store.begin()
    assert store.recording_path(folder, "x.mp3.exe").name == "recording"
    assert store.recording_path(folder, "take.mid").name == "recording.mid"
    shown = [shown_name(name) for name in ("C:\\music\\a.mp3", "\0\n", "x" * 500, "雨だれ.m4a")]
    assert shown[0] == "a.mp3"
    assert shown[1].isprintable()
    assert len(shown[2]) == 120
    assert shown[3] == "雨だれ.m4a"


def test_what_was_not_finished_is_gone_at_the_next_start(store):
    seed = add_seed(store)
    piece = add_piece(store, seed)
    unfinished = store.begin()
    (unfinished / "piece.mp3").write_bytes(b"half")
    half = store.root / "pieces" / "0123456789abcdef"
    half.mkdir()
    others = store.root / "pieces" / "of somebody else"
    others.mkdir()
    with pytest.raises(InputError, match="another server has"):
        Store(store.root, 10**9)
    store.close()
    again = Store(store.root, 10**9)
    assert not unfinished.exists()
    assert not half.exists()
    assert others.exists()
    assert [one["id"] for one in again.pieces()] == [piece]
    assert again.seed(seed)["name"] == "my song.mp3"


def emptied(folder):
    """Make a folder as an older server left it before its first piece."""
    Store(folder, 10**9).close()
    (folder / RUN).unlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("work/my song/take.wav", "holds work, which"),
        ("work/0123456789abcdef/take.wav", "holds work, which"),
        ("seeds/0123456789abcdef/take.wav", "holds seeds, which"),
        ("pieces/0123456789abcdef/take.wav", "holds pieces, which"),
        ("letter.txt", "holds letter.txt, which"),
        (RUN, "holds run.json, which"),
        (f"pieces/{RUN}", "holds pieces/run.json, which"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_stays(tmp_path, name, said):
    file = tmp_path / "music" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    before = {*tmp_path.rglob("*")}
    with pytest.raises(InputError, match=f"{said} .* Give a new or empty --folder"):
        Store(tmp_path / "music", 10**9)
    assert {*tmp_path.rglob("*")} == before


def test_what_a_lock_lies_beside_is_not_a_servers_for_that(tmp_path):
    emptied(tmp_path)
    (tmp_path / "work" / "my song").mkdir()
    with pytest.raises(InputError, match="holds work/my song, which"):
        Store(tmp_path, 10**9)
    assert (tmp_path / "work" / "my song").exists()


def test_what_others_put_into_a_servers_folder_stays(store):
    others = [store.root / "work" / "my song", store.root / "pieces" / "of somebody else"]
    for folder in others:
        folder.mkdir()
    store.close()
    Store(store.root, 10**9)
    assert all(folder.exists() for folder in others)


def test_a_folder_of_an_older_server_is_still_a_servers(tmp_path):
    emptied(tmp_path)
    (tmp_path / "work" / "0123456789abcdef").mkdir()
    (tmp_path / ".DS_Store").touch()
    store = Store(tmp_path, 10**9)
    assert not (tmp_path / "work" / "0123456789abcdef").exists()
    assert read_run(open_folder(tmp_path)) == {"made_by": "deep-piano serve"}
    piece = add_piece(store, add_seed(store))
    store.close()
    (tmp_path / "letter.txt").touch()
    assert [one["id"] for one in Store(tmp_path, 10**9).pieces()] == [piece]


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_pieces_of_a_server_are_not_made_anew_by_a_bulk_run(store, tmp_path, weights, options):
    add_piece(store, add_seed(store))
    before = (store.root / MANIFEST).read_bytes()
    (tmp_path / "seeds").mkdir()
    write_midi(tmp_path / "seeds" / "one.mid", arpeggios(12, rng=np.random.default_rng(0)))
    told = ["generate", tmp_path / "seeds", "-o", store.root, "--checkpoint", weights, *options]
    result = run(*told)
    assert result.exit_code == 2
    assert "are those of `deep-piano serve`. Give another folder." in result.stderr
    assert (store.root / MANIFEST).read_bytes() == before


def test_a_full_folder_begins_nothing(store):
    add_seed(store)
    store.close()
    with pytest.raises(InputError, match=r"your pieces take 0\.0 GB, and 0\.0 GB are allowed"):
        Store(store.root, 3).begin()


def test_recordings_that_nothing_was_made_of_go_the_oldest_first(store, monkeypatch):
    used, needed, *unused = (add_seed(store, f"{n}.mp3") for n in range(5))
    monkeypatch.setattr(stores, "MOST_SEEDS", 2)
    for age, seed in enumerate([used, needed, *unused]):
        os.utime(store.root / "seeds" / seed / "about.json", (age, age))
    add_piece(store, used)
    last = add_seed(store, needed={store.seed_file(needed)})
    left = {path.name for path in (store.root / "seeds").iterdir()}
    assert left == {used, needed, unused[-1], last}


@pytest.mark.parametrize(
    ("new", "begins"),
    [([5.0, 20.0], 5.0), ([8.0, 12.0], None), ([0.0, 20.0], None), (None, 5.0)],
    ids=["continuation", "span", "remix", "of an older server"],
)
def test_only_what_lasts_to_the_end_continues_a_seed(new, begins):
    take = {"seconds": 20.0} | ({"new": new} if new else {})
    assert continuation_s({"seed_seconds": 5.0}, take) == begins


def test_a_damaged_piece_is_left_out(store):
    seed = add_seed(store)
    good, bad = add_piece(store, seed), add_piece(store, seed)
    (store.root / "pieces" / bad / "about.json").write_text("{")
    assert [piece["id"] for piece in store.pieces()] == [good]
    with pytest.raises(NotThereError, match="damaged"):
        store.piece(bad)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose another --folder"):
        Store(tmp_path / "file" / "music", 10**9)


def test_rolls_are_kept_for_the_page(store):
    piece = add_piece(store, add_seed(store))
    _, take, folder = store.take(piece, 2)
    assert take["stem"] == "piece-2"
    assert json.loads((folder / "roll-2.json").read_text()) == [[0, 1, 60, 80]]
    with pytest.raises(NotThereError):
        store.take(piece, 3)
