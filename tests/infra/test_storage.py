from __future__ import annotations

import errno
import itertools
import logging
import os
import pickle
import re
import socket
import subprocess
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deep_piano.errors import DeepPianoError, FileError, InputError, one_line
from deep_piano.infra.storage import local
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.infra.storage.bucket import ATTEMPTS, connect, without_password
from deep_piano.infra.storage.folder import Entry
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.open import local_file, local_path, open_folder
from tests.support.bucket import SECRET, free_port, serve

ODD_NAMES = [
    "a b.mp3",
    'it\'s "quoted".mp3',
    "two\nlines.mp3",
    "tab\t and \x7f.mp3",
    "emoji \N{MUSICAL KEYBOARD}.mp3",
    "e\N{COMBINING ACUTE ACCENT} and \N{LATIN SMALL LETTER E WITH ACUTE}.mp3",
    "200" * 66 + ".mp3",
    "x." + "y" * 200,
    "100% &amp; <b>+?#.mp3",
    "back\\slash.mp3",
    ".hidden",
    "no suffix",
    "-rf",
    "~",
    "deep/er/still/a.mid",
    "..., not up.mp3",
]


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write to .*file.*another folder"),
        atomic_path(tmp_path / "file" / "a.txt"),
    ):
        raise AssertionError("not reached")


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_was_taken_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:  # as on exFAT

        def link(source, target):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "a.txt"

    def beaten() -> None:
        with atomic_path(path, replace=False) as temporary:
            temporary.write_text("mine")
            path.write_text("another's")

    with pytest.raises(InputError, match=r"a\.txt appeared .* is kept.*--force"):
        beaten()
    assert path.read_text() == "another's"
    path.unlink()
    with atomic_path(path, replace=False) as temporary:
        temporary.write_text("mine")
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_of_many_who_want_a_name_one_has_it(tmp_path):
    def write(number):
        try:
            with atomic_path(tmp_path / "a.txt", replace=False) as temporary:
                temporary.write_text(str(number))
        except InputError:
            return None
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        [winner] = filter(None, pool.map(write, range(40)))
    assert (tmp_path / "a.txt").read_text() == winner
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_goes_while_a_file_is_made(tmp_path):
    def bereft() -> None:
        with atomic_path(tmp_path / "new" / "a.txt") as temporary:
            temporary.unlink()
            temporary.parent.rmdir()

    with pytest.raises(DeepPianoError, match=r"cannot write .*a\.txt.*folder removed"):
        bereft()


@pytest.mark.parametrize("name", ["x" * 300 + ".txt", "x" * 300 + "/a.txt", "a." + "x" * 300])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, name):
    with (
        pytest.raises(InputError, match=r"cannot write .*xxx.*too long\. Give a shorter name\.$"),
        atomic_path(tmp_path / name),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "Was its folder removed?"),
        (errno.EISDIR, "Give the name of a file to write."),
        (errno.EACCES, "Choose another folder."),
        (errno.ENOSPC, "Make room, and run the same command again."),
        (errno.EIO, "Run the same command again."),
    ],
)
def test_advice_is_of_what_went_wrong(tmp_path, monkeypatch, number, advice):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    def write():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
            monkeypatch.setattr(Path, "replace", fail)

    with pytest.raises(DeepPianoError, match=f"a.txt: {os.strerror(number)}. {re.escape(advice)}"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write to"), atomic_path(tmp_path / "a.txt"):
        raise AssertionError("not reached")


# What every folder does.


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    """An empty folder that does not exist yet."""
    if request.param == "local":
        return open_folder(tmp_path / "corpus")
    server = request.getfixturevalue("s3")
    return open_folder(f"s3://{server.bucket()}/my/corpus", endpoint=server.endpoint)


def put(folder, name, data=b"data"):
    with folder.write(name) as path:
        path.write_bytes(data)


def names(entries):
    return [entry.name for entry in entries]


def test_what_is_written_is_found_and_read(folder):
    put(folder, "sub/a.mp3", b"some bytes")
    (entry,) = folder.entries()
    assert (entry.name, entry.size, entry.problem) == ("sub/a.mp3", 10, None)
    assert entry.stamp
    assert folder.exists("sub/a.mp3")
    assert folder.read_bytes("sub/a.mp3") == b"some bytes"
    with folder.local("sub/a.mp3") as path:
        assert path.read_bytes() == b"some bytes"
        assert path.suffix == ".mp3"


def test_a_name_in_a_folder_is_taken_once(folder):
    with folder.write("a.txt", replace=False) as path:
        path.write_bytes(b"first")
    with pytest.raises(InputError, match="another run writes to the same name"):  # noqa: SIM117
        with folder.write("a.txt", replace=False) as path:
            path.write_bytes(b"second")
    assert folder.read_bytes("a.txt") == b"first"
    put(folder, "a.txt", b"third")
    assert folder.read_bytes("a.txt") == b"third"


def test_a_file_is_found_by_its_uri(folder):
    put(folder, "deep/a b%.mid", b"notes")
    service = {} if isinstance(folder, LocalFolder) else {"endpoint": folder.bucket.endpoint}
    with local_file(f"{folder.uri}/deep/a b%.mid", **service) as path:
        assert (path.name, path.read_bytes()) == ("a b%.mid", b"notes")
    for uri in (folder.uri, f"{folder.uri}/deep", f"{folder.uri}/deep/"):
        with local_file(uri, **service) as path:
            assert path is None


def test_an_error_names_the_file_and_not_its_copy(s3):
    folder = open_folder(f"s3://{s3.bucket()}/my", endpoint=s3.endpoint)
    put(folder, "one.mid")
    with pytest.raises(FileError, match=r"^s3://bucket-\w+/my/one\.mid is damaged\.$"):  # noqa: SIM117
        with local_file(f"{folder.uri}/one.mid", endpoint=s3.endpoint) as path:
            raise FileError(f"{path} is damaged.")


def test_paths_of_this_machine(tmp_path):
    assert local_path("a b.mid") == Path("a b.mid")
    assert local_path("file:///x/a%20b.mid") == Path("/x/a b.mid")
    assert local_path("FILE://localhost/x") == Path("/x")
    with local_file("") as path:
        assert path == Path()
    for uri, message in {
        "https://me:secret@host/x.mid": r"//\.\.\.@host/x\.mid is on another machine.*Download",
        "gs://bucket/x.mid": "is on another machine",
        "s3://bucket/x.mid": "is in S3, and a file on this machine is needed",
        "file://host/x": "is not a folder of this machine",
    }.items():
        with pytest.raises(InputError, match=message):
            local_path(uri)


def test_odd_names_are_found_and_read(folder):
    # moto's server, unlike S3, finds no key with a line break.
    odd = [name for name in ODD_NAMES if "\n" not in name or isinstance(folder, LocalFolder)]
    for name in odd:
        put(folder, name, name.encode())
    entries = folder.entries()
    assert names(entries) == sorted(odd)
    assert {entry.problem for entry in entries} == {None}
    for name in odd:
        assert folder.exists(name)
        assert folder.read_bytes(name) == name.encode()


def test_no_name_leads_outside(folder):
    for name in ["", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "/", "a\0b"]:
        for use in (folder.local, folder.write):
            with pytest.raises(ValueError, match="not the name of a file within"), use(name):
                raise AssertionError("not reached")
        for use in (folder.read_bytes, folder.exists, folder.remove):
            with pytest.raises(ValueError, match="not the name of a file within"):
                use(name)
        if name.strip("/"):
            with pytest.raises(ValueError, match="not the name of a file within"):
                folder.entries(name)


def test_a_name_that_utf_8_cannot_hold_is_refused(folder):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        folder.exists("\udcff")


def test_entries_come_in_the_order_of_their_names(folder):
    unordered = [
        "b",
        "a/b",
        "a.b",
        "a!b",
        "a/a/a",
        "B",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "a0",
    ]
    for name in unordered:
        put(folder, name)
    assert names(folder.entries()) == sorted(unordered)


def test_entries_of_a_sub_folder_keep_their_whole_names(folder):
    for name in ("sub/b", "sub/a/c", "subway", "other"):
        put(folder, name)
    assert names(folder.entries("sub")) == names(folder.entries("sub/")) == ["sub/a/c", "sub/b"]
    assert names(folder.entries("sub/a")) == ["sub/a/c"]
    assert folder.entries("none") == folder.entries("subway") == []


def test_a_folder_that_is_missing_is_named(folder):
    with pytest.raises(InputError, match=r"^no such folder: \S*/corpus .*\.$"):
        folder.entries()
    assert folder.entries("shards") == []
    assert not folder.exists("a")


def test_a_failure_publishes_nothing(folder):
    put(folder, "a", b"old")

    def interrupted(name):
        with folder.write(name) as path:
            path.write_bytes(b"half")
            raise RuntimeError("stop")

    for name in ("a", "b"):
        with pytest.raises(RuntimeError, match="stop"):
            interrupted(name)
    assert names(folder.entries()) == ["a"]
    assert folder.read_bytes("a") == b"old"


def test_a_file_is_not_there_before_it_is_whole(folder):
    with folder.write("new/a.parquet") as path:
        path.write_bytes(b"whole")
        assert path.suffix == ".parquet"
        assert not folder.exists("new/a.parquet")
    assert folder.read_bytes("new/a.parquet") == b"whole"
    assert names(folder.entries()) == ["new/a.parquet"]


def test_an_empty_file_is_a_file(folder):
    with folder.write("empty"):
        pass
    assert [(entry.name, entry.size) for entry in folder.entries()] == [("empty", 0)]
    assert folder.read_bytes("empty") == b""


def test_the_stamp_changes_with_the_content(folder):
    put(folder, "a", b"one")
    put(folder, "b", b"one")
    before = folder.entries()
    assert folder.entries() == before
    put(folder, "a", b"two")
    after = folder.entries()
    assert after[0].stamp != before[0].stamp
    assert after[1] == before[1]


def test_a_folder_within_a_folder_is_one_too(folder):
    put(folder.inner("runs/one"), "a", b"inner")
    assert folder.read_bytes("runs/one/a") == b"inner"
    inner = folder.inner("runs")
    assert names(inner.entries()) == ["one/a"]
    assert inner.inner("one").read_bytes("a") == b"inner"
    assert inner.place("one/a") == folder.place("runs/one/a")
    for outside in ("", "..", "a/../..", "/tmp"):
        with pytest.raises(ValueError, match="not the name of a file within"):
            folder.inner(outside)


def test_a_file_is_removed_once_and_missed_never(folder):
    put(folder, "a")
    put(folder, "b")
    folder.remove("a")
    folder.remove("a")
    assert names(folder.entries()) == ["b"]


def test_a_missing_file_is_one_file_s_fault(folder):
    put(folder, "other")
    for name in ("none.mp3", "none/none.mp3", "tab\t.mp3"):
        with pytest.raises(FileError, match=r"^cannot read \S*/corpus/.+: .*\.$") as caught:
            folder.read_bytes(name)
        assert str(caught.value).isprintable()


def test_what_a_reader_raises_is_left_alone(folder):
    put(folder, "a.mp3")
    with pytest.raises(OSError, match="the reader's own"), folder.local("a.mp3"):
        raise OSError(5, "the reader's own")


def test_a_folder_can_be_sent_to_another_process(folder):
    put(folder, "a")
    copy = pickle.loads(pickle.dumps(folder))
    assert copy == folder
    assert copy.read_bytes("a") == b"data"
    entry = copy.entries()[0]
    assert pickle.loads(pickle.dumps(entry)) == entry


def test_asking_whether_it_is_writable_leaves_nothing(folder):
    folder.require_writable()
    folder.require_writable()
    put(folder, "a")
    assert names(folder.entries()) == ["a"]


# What a local folder does.


def test_links_are_followed_but_never_in_a_circle(tmp_path, caplog):
    corpus, other = tmp_path / "above" / "corpus", tmp_path / "other"
    (corpus / "sub").mkdir(parents=True)
    other.mkdir()
    (corpus / "sub" / "a").write_text("a")
    (other / "b").write_text("b")
    (corpus / "self").symlink_to(".")
    (corpus / "up").symlink_to("..")
    (corpus / "sub" / "top").symlink_to(corpus)
    (corpus / "elsewhere").symlink_to(other)
    (other / "back").symlink_to(corpus)
    (other / "here").symlink_to(other)
    (corpus / "twin").symlink_to("sub")
    (corpus / "file").symlink_to("sub/a")
    with caplog.at_level(logging.DEBUG, "deep_piano.infra.storage.local"):
        entries = open_folder(corpus).entries()
    assert names(entries) == ["elsewhere/b", "file", "sub/a", "twin/a"]
    assert {entry.problem for entry in entries} == {None}
    ended = {record.getMessage().partition(" leads back")[0] for record in caplog.records}
    assert {Path(place).relative_to(corpus).as_posix() for place in ended} == {
        *("self", "up", "sub/top", "elsewhere/back", "elsewhere/here", "twin/top")
    }


def test_a_corpus_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("a")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "link")
    (tmp_path / "link").symlink_to("real")
    assert names(open_folder(tmp_path / "link").entries()) == ["a"]


def test_what_cannot_be_read_is_listed_with_its_problem(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "broken").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        folder = open_folder(tmp_path)
        entries = folder.entries()
    assert [(entry.name, entry.problem) for entry in entries] == [
        ("broken", "cannot be read: No such file or directory"),
        ("circle", "cannot be read: Too many levels of symbolic links"),
        ("pipe", "not an ordinary file"),
        ("socket", "not an ordinary file"),
        ("zero", "not an ordinary file"),
    ]
    assert {(entry.size, entry.stamp) for entry in entries} == {(0, "")}
    for entry in entries:
        reason = entry.problem.removeprefix("cannot be read: ")
        with pytest.raises(FileError, match=f"{entry.name}: {reason}"):
            folder.read_bytes(entry.name)


def test_a_folder_that_cannot_be_listed_is_listed_itself(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut.mp3").write_text("a")
    scandir = os.scandir

    def refuse(path):  # root may list everything, so a mode would not do
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    shut = Entry("shut", 0, "", "cannot be listed: Permission denied")
    folder = open_folder(tmp_path)
    assert folder.entries()[0] == shut
    assert names(folder.entries()) == ["shut", "shut.mp3"]
    assert folder.entries("shut") == [shut]
    with pytest.raises(InputError, match=r"cannot list the folder: .*Permission denied"):
        open_folder(tmp_path / "shut").entries()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions_are_told(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("a")
    (tmp_path / "sub" / "a").chmod(0)
    folder = open_folder(tmp_path)
    with pytest.raises(FileError, match=r"cannot read .*Permission denied"):
        folder.read_bytes("sub/a")
    (tmp_path / "sub").chmod(0o500)
    with pytest.raises(InputError, match=r"cannot remove .*Permission denied"):
        folder.remove("sub/a")
    with pytest.raises(InputError, match="cannot write to"):
        open_folder(tmp_path / "sub").require_writable()
    (tmp_path / "sub").chmod(0)
    with pytest.raises(InputError, match=r"cannot look at .*Permission denied"):
        folder.exists("sub/a")
    assert names(folder.entries()) == ["sub"]
    (tmp_path / "sub").chmod(0o700)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.mp3").write_text("a")
    folder = open_folder(tmp_path / "a.mp3")
    with pytest.raises(InputError, match=r"no such folder: .*a\.mp3 \(Not a directory\)"):
        folder.entries()
    with pytest.raises(InputError, match=r"cannot write to .*a\.mp3"):
        folder.require_writable()


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "sub").mkdir()
    folder = open_folder(tmp_path)
    assert not folder.exists("sub")
    with pytest.raises(FileError, match="sub: not an ordinary file"):
        folder.read_bytes("sub")
    with pytest.raises(InputError, match=r"cannot remove .*/sub: "):
        folder.remove("sub")


def test_a_tree_may_be_deeper_than_the_stack(tmp_path):
    deepest = tmp_path / ("d/" * 1100)
    subprocess.run(["mkdir", "-p", deepest], check=True)
    (deepest / "a").write_text("a")
    try:
        assert names(open_folder(tmp_path).entries()) == ["d/" * 1100 + "a"]
    finally:  # pytest's own clearing up is recursive
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


@given(st.binary())
@example(b"\xff\\xff\\x5c")
@example(b"\\x\xff")
@example("\\\N{LATIN SMALL LETTER E WITH ACUTE}".encode())
def test_every_local_name_is_fit_for_utf_8_and_found_again(name):
    text = os.fsdecode(name)
    escaped = local.escape(text)
    escaped.encode("utf-8")
    assert local._unescape(escaped) == text
    assert os.fsencode(local._unescape(escaped)) == name


@given(st.text(st.sampled_from("\\x5cfe8\udcff\udc80a/")))
def test_escapes_are_never_mixed_up(text):
    escaped = local.escape(text)
    assert escaped.isascii()
    assert local._unescape(escaped) == text
    assert "/".join(map(local.escape, text.split("/"))) == escaped


def test_names_that_are_not_utf_8_are_found_and_read(tmp_path):
    parts = [b"\xff", b"caf\xe9", b"\\xff", b"\\x5cxff", b"a\\b", "\N{EURO SIGN}".encode()]
    for part in parts:
        place = os.fsencode(tmp_path) + b"/" + part + b" folder"
        try:
            Path(os.fsdecode(place)).mkdir()
        except OSError:
            pytest.skip("this file system holds UTF-8 only")
        Path(os.fsdecode(place + b"/" + part)).write_bytes(part)
    folder = open_folder(tmp_path)
    found = {folder.read_bytes(entry.name) for entry in folder.entries()}
    assert found == set(parts)
    assert "\\xff folder/\\xff" in names(folder.entries())
    put(folder, "\\xff folder/\\xff", b"changed")
    assert (
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff folder/\xff")).read_bytes() == b"changed"
    )


# Which folder a URI names.


def test_a_path_stays_where_it_is_when_the_process_moves(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a").write_text("a")
    monkeypatch.chdir(tmp_path)
    folder = open_folder("corpus")
    monkeypatch.chdir("/")
    assert folder.uri == "corpus"
    assert folder.read_bytes("a") == b"a"


def test_a_file_uri_is_a_path(tmp_path):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "a").write_text("a")
    for start in ("file://", "file://localhost", "FILE://"):
        assert open_folder(f"{start}{tmp_path}/a%20folder").read_bytes("a") == b"a"


@pytest.mark.parametrize(
    ("uri", "prefix", "shown"),
    [
        ("s3://bucket", "", "s3://bucket"),
        ("s3://bucket/", "", "s3://bucket"),
        ("S3://bucket/a/b//", "a/b/", "s3://bucket/a/b"),
        ("s3://bucket/100%25 ?#", "100%25 ?#/", "s3://bucket/100%25 ?#"),
    ],
)
def test_an_s3_uri_is_a_bucket_and_a_prefix(uri, prefix, shown):
    folder = open_folder(uri)
    assert (folder.bucket.name, folder.prefix, folder.uri) == ("bucket", prefix, shown)


@pytest.mark.parametrize("path", ["a://b", "./s3://b", "corpus/s3:", "c:"])
def test_a_local_path_may_look_odd(path):
    understood = pytest.raises(InputError) if path == "a://b" else contextmanager(iter)([None])
    with understood:
        assert isinstance(open_folder(path), LocalFolder)


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("s3://", "s3:// names no bucket. Write s3://bucket"),
        ("s3:///prefix", "s3:///prefix names no bucket"),
        ("s3://../x", "names no bucket"),
        ("s3:/bucket/x", "'s3:/bucket/x' is not a folder. Give a local one or s3://bucket/prefix"),
        ("", "'' is not a folder"),
        ("a\0b", "is not a folder"),
        ("gs://bucket/x", "gs://bucket/x is of an unknown kind. Give a local folder or s3://"),
        ("http://host/x", "http://host/x is of an unknown kind"),
        ("file://host/x", "file://host/x is not a folder of this machine. Write file:///path"),
        ("file://", "is not a folder of this machine"),
        ("file:///a%00b", "is not a folder of this machine"),
    ],
)
def test_another_uri_is_refused(uri, match):
    with pytest.raises(InputError, match=match):
        open_folder(uri)


@pytest.mark.parametrize("uri", ["s3://KEY:se/cr3t@bucket/x", "https://me:se/cr3t@host/x"])
def test_a_password_in_a_uri_is_not_repeated(uri):
    with pytest.raises(InputError, match=r"//\.\.\.@") as caught:
        open_folder(uri)
    assert "cr3t" not in str(caught.value)


# What S3 does, and what it does wrong.


def test_a_listing_goes_on_after_a_thousand_keys(s3):
    client, bucket = s3.client, s3.bucket()
    keys = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
    assert names(open_folder(f"s3://{bucket}").entries()) == keys


def test_keys_that_are_no_names_are_listed_and_never_opened(s3):
    client, bucket = s3.client, s3.bucket()
    for key in ("in/", "in/sub/", "in/a", "in//b", "in/../c", "in/d//e", "inner", "out"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    folder = open_folder(f"s3://{bucket}/in")
    entries = folder.entries()
    assert names(entries) == ["../c", "/b", "a", "d//e"]
    assert [entry.problem for entry in entries] == [
        "'../c' is not the name of a file within a folder",
        "'/b' is not the name of a file within a folder",
        None,
        None,
    ]
    assert folder.read_bytes("d//e") == b"x"


def test_an_empty_bucket_and_a_marked_folder_are_folders(s3):
    client, bucket = s3.client, s3.bucket()
    assert open_folder(f"s3://{bucket}").entries() == []
    client.put_object(Bucket=bucket, Key="made/", Body=b"")
    assert open_folder(f"s3://{bucket}/made").entries() == []


def test_a_key_is_more_than_the_start_of_another(s3):
    folder = open_folder(f"s3://{s3.bucket()}")
    put(folder, "manifest.json.bak")
    assert not folder.exists("manifest.json")


def test_copies_are_removed(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = open_folder(f"s3://{s3.bucket()}")
    for name in ("a.mp3", "a." + "x" * 200, "a"):
        put(folder, name)
        with folder.local(name) as path:
            assert tmp_path in path.parents
        with pytest.raises(RuntimeError, match="stop"), folder.local(name):
            raise RuntimeError("stop")
    with pytest.raises(FileError, match="no such file"):
        folder.read_bytes("none")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_copy_is_told(s3, monkeypatch):
    folder = open_folder(f"s3://{s3.bucket()}")
    put(folder, "a")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(DeepPianoError, match=r"cannot keep .*No space left.*TMPDIR") as caught:
        folder.read_bytes("a")
    assert not isinstance(caught.value, InputError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_full_disk_is_said_and_leaves_nothing_behind(kind, tmp_path, request):
    bucket = request.getfixturevalue("s3").bucket() if kind == "s3" else ""
    folder = open_folder(f"s3://{bucket}" if kind == "s3" else tmp_path / "folder")

    def fill():
        with folder.write("a.txt") as path:
            path.unlink()
            path.symlink_to("/dev/full")
            path.write_bytes(bytes(10_000))

    with pytest.raises(DeepPianoError, match=r"no room for .*: No space left.*Make room") as caught:
        fill()
    assert caught.value.exit_code == 1
    assert folder.entries() == []


def test_the_environment_says_where_s3_is(s3, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    folder = open_folder(f"s3://{s3.bucket()}")
    put(folder, "a")
    assert names(folder.entries()) == ["a"]
    client = connect(None, None)
    assert (client.meta.endpoint_url, client.meta.region_name) == (s3.endpoint, "eu-west-1")
    assert connect(None, "us-west-2").meta.region_name == "us-west-2"


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("http://10.0.0.7:9000", True),
        ("http://minio.internal", True),
        ("https://minio.internal", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
        (None, False),
    ],
)
def test_s3_without_tls_is_warned_of(s3, monkeypatch, caplog, endpoint, warned):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    client = connect(endpoint, None)
    assert connect(endpoint, None) is client
    assert [endpoint in record.message for record in caplog.records] == [True] * warned
    assert client.meta.endpoint_url.startswith(endpoint or "https://")


def every_use(folder):
    """Yield every way to use a folder, by name."""
    for way in (
        ("list", folder.entries),
        ("read", lambda: folder.read_bytes("a")),
        ("write", lambda: put(folder, "a")),
        ("look at", lambda: folder.exists("a")),
        ("remove", lambda: folder.remove("a")),
        ("write", folder.require_writable),
    ):
        connect.cache_clear()  # one that has failed often may try again less often
        yield way


def test_a_bucket_that_is_missing_is_named(s3):
    for doing, use in every_use(open_folder("s3://there-is-none/x")):
        with pytest.raises(
            InputError, match=f"^cannot {doing} s3://there-is-none/x.*no such bucket"
        ):
            use()


def test_credentials_that_are_missing_are_asked_for(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for doing, use in every_use(open_folder("s3://bucket/x")):
        with pytest.raises(
            InputError, match=f"^cannot {doing} .*no usable cred.*AWS_ACCESS_KEY_ID"
        ):
            use()


def test_an_endpoint_that_cannot_be_reached_is_named(s3, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    endpoint = f"http://me:{SECRET}@127.0.0.1:{free_port()}"
    for doing, use in every_use(open_folder("s3://bucket/x", endpoint=endpoint)):
        with pytest.raises(
            InputError, match=rf"^cannot {doing} .*http://\.\.\.@127.* cannot be re"
        ):
            use()
    assert len(waits) == 6 * (ATTEMPTS - 1)
    waits.clear()
    with pytest.raises(InputError, match="cannot be reached"):
        open_folder("s3://bucket/x", endpoint=endpoint, attempts=9).exists("a")
    assert len(waits) == 8
    assert sum(waits) <= 0.05 * (2**8 - 1)


def test_an_endpoint_that_answered_and_is_gone_is_no_mistake(tmp_path, s3, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serve(tmp_path / "server.log") as server:
        folder = open_folder(f"s3://{server.bucket()}/x", endpoint=server.endpoint)
        assert not folder.exists("a")
    with pytest.raises(DeepPianoError, match="cannot be reached") as caught:
        folder.exists("a")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"endpoint": "127.0.0.1:9000"}, "Invalid endpoint.*such as http://127.0.0.1:9000"),
        ({"endpoint": f"me:{SECRET}@host"}, "Invalid endpoint"),
        ({"region": "not a region"}, "not a region"),
    ],
)
def test_settings_that_make_no_client_are_refused(s3, settings, match):
    folder = open_folder("s3://bucket/x", **settings)
    for use in (folder.entries, folder.require_writable):
        with pytest.raises(InputError, match=f"cannot set up S3: .*{match}") as caught:
            use()
        assert SECRET not in str(caught.value)


def test_a_profile_that_is_unknown_is_refused(s3, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match=r"cannot set up S3: .*nobody.*AWS_PROFILE"):
        open_folder("s3://bucket/x").entries()


@contextmanager
def answering(*answers):
    """Run a server that gives these answers, the last one for ever; yield it and its requests."""
    requests, remaining = [], itertools.chain(answers, itertools.repeat(answers[-1]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else a PUT waits a second for "100 Continue"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append(f"{self.command} {self.path}")
            status, body, length = next(remaining)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


def refusal(status, code, message="A message."):
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, body.encode(), None


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (403, "AccessDenied", "access is denied. Ask for the permission"),
        (403, "InvalidAccessKeyId", "the credentials are refused. Set AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the credentials are refused"),
        (400, "ExpiredToken", "the credentials have expired. Renew them"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong. Set it"),
        (400, "AuthorizationHeaderMalformed", "in another region.*AWS_REGION"),
        (404, "NoSuchBucket", "no such bucket"),
    ],
)
def test_a_mistake_is_explained_and_not_repeated(s3, status, code, match):
    with answering(refusal(status, code)) as (endpoint, requests):
        for doing, use in every_use(open_folder("s3://bucket/x", endpoint=endpoint)):
            requests.clear()
            with pytest.raises(
                InputError, match=rf"^cannot {doing} s3://bucket/x\S*: .*{match}"
            ) as e:
                use()
            assert len(requests) == 1
            of_one_file = doing == "read" and code == "AccessDenied"
            assert isinstance(e.value, FileError) == of_one_file


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (502, "BadGateway")]
)
def test_trouble_is_repeated_and_then_told(s3, monkeypatch, status, code):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with answering(refusal(status, code, "Please\nwait.")) as (endpoint, requests):
        for doing, use in every_use(open_folder("s3://bucket/x", endpoint=endpoint)):
            requests.clear()
            with pytest.raises(
                DeepPianoError, match=rf"^cannot {doing} .*{code} \(Please\\nwait"
            ) as e:
                use()
            assert not isinstance(e.value, InputError)
            assert len(requests) == ATTEMPTS


def test_an_archived_file_is_one_file_s_fault(s3):
    with answering(refusal(403, "InvalidObjectState")) as (endpoint, _):
        folder = open_folder("s3://bucket/x", endpoint=endpoint)
        with pytest.raises(FileError, match=r"archived. Restore it first"):
            folder.read_bytes("a")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"<html>Welcome", r"http://127\S* answers 500 \(Internal Server Error\). Check it"),
        (b"<r><Contents><Key>x/a</Key></Contents></r>", "http.* does not answer as S3 does. Check"),
        (b"<r><Contents><Size>big</Size></Contents></r>", "http.* does not answer as S3 does"),
    ],
)
def test_a_server_of_another_kind_is_told(s3, monkeypatch, body, match):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with (
        answering((200, body, None)) as (endpoint, _),
        pytest.raises(DeepPianoError, match=match),
    ):
        open_folder("s3://bucket/x", endpoint=endpoint).entries()


def test_what_is_cut_off_is_fetched_again(s3, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    half, whole = (200, b"half", 8), (200, b"the data", 8)
    with answering(half, half, whole) as (endpoint, requests):
        folder = open_folder("s3://bucket/x", endpoint=endpoint)
        assert folder.read_bytes("a") == b"the data"
        assert requests == ["GET /bucket/x/a"] * 3


def test_what_is_always_cut_off_is_told(s3, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with answering((200, b"half", 8)) as (endpoint, requests):
        folder = open_folder("s3://bucket/x", endpoint=endpoint)
        with pytest.raises(
            DeepPianoError, match=r"cannot read .*transfer failed every time"
        ) as caught:
            folder.read_bytes("a")
        assert not isinstance(caught.value, InputError)
        assert len(requests) == ATTEMPTS


@pytest.mark.parametrize(
    "variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
)
def test_no_message_holds_a_secret(s3, monkeypatch, variable):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv(variable, "hush-hush\nhush")  # a line break that no header may hold
    with answering(refusal(403, "SignatureDoesNotMatch")) as (endpoint, _):
        for _, use in every_use(open_folder("s3://bucket/x", endpoint=endpoint)):
            with pytest.raises(DeepPianoError, match="cannot") as caught:
                use()
            assert "hush" not in str(caught.value)
            assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_texts_for_messages_are_one_line_without_passwords():
    assert one_line("a\nb\t\N{EURO SIGN}\0") == r"a\nb\t€\x00"
    assert without_password("at http://me:pass/word@host:1/x") == "at http://...@host:1/x"
    assert without_password("me:pass@host") == "...@host"
    assert without_password("s3://bucket/x") == "s3://bucket/x"
