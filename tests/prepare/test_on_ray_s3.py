"""PREPARE with S3 on either side makes what it makes of local folders."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack

import pytest

from deep_piano.config.load import load_config
from deep_piano.dataset.shards import read_rows
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage import bucket as buckets
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.prepare import on_ray as stage
from tests.support.bucket import UNWANTED, free_port, serve
from tests.support.clusters import contents, one_node
from tests.support.fakes import fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_sound

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = {"shard_mb": 0.5, "validation_share": 0.2, "max_similarity": 1.0}


@pytest.fixture(scope="module", autouse=True)
def _ray(_s3_server):
    """A cluster whose workers find the server; they take the environment over when it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in UNWANTED:
            patch.delenv(name, raising=False)
        for name, value in _s3_server.env.items():
            patch.setenv(name, value)
        with one_node():
            yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    for number in range(6):
        write_midi(folder / "train" / f"{number} of #6 & more.mid", improvised(random_state=number))
    for number in (10, 11):
        write_sound(folder / f"{number}.wav", played(improvised(random_state=number)), sr=SR)
    (folder / "train" / "caf\N{LATIN SMALL LETTER E WITH ACUTE}.mid").write_text("no MIDI")
    (folder / "read me.txt").write_text("hello")
    return folder


@pytest.fixture(scope="module")
def at_home(corpus, tmp_path_factory):
    """What is made of the corpus where everything is local: the manifest, and every file."""
    folder = tmp_path_factory.mktemp("dataset") / "dataset"
    return prepare(corpus, folder), contents(folder)


def prepare(corpus, dataset, *, endpoint=None, progress=lambda _: None, **settings):
    return stage.prepare(
        open_folder(corpus, endpoint=endpoint),
        open_folder(dataset, endpoint=endpoint),
        load_config(None, {"prepare": SETTINGS | settings}),
        transcriber=fake_transcriber,
        progress=progress,
    )


def upload(s3, corpus, prefix="a corpus"):
    """Put a corpus into a bucket of its own; return its URI."""
    bucket = s3.bucket()
    for name, data in contents(corpus).items():
        s3.client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
    return f"s3://{bucket}/{prefix}"


def stored(uri):
    folder = open_folder(uri)
    return {entry.name: folder.read_bytes(entry.name) for entry in folder.entries()}


def apart_from_where(manifest):
    """Return a manifest without the place of its corpus."""
    return manifest.model_copy(update={"corpus": manifest.corpus.digest})


def is_as_at_home(dataset, manifest, at_home, *, ledger=False):
    """Require the same files; the ledger's stamps are alike only where the corpus is."""
    manifest_at_home, files = at_home
    assert apart_from_where(manifest) == apart_from_where(manifest_at_home)
    there = stored(dataset)
    assert json.loads(there["manifest.json"]) == manifest.to_json()
    different = {"manifest.json"} | (set() if ledger else {"files.parquet"})  # it holds ETags
    assert set(there) == set(files)
    assert {name for name in files if there[name] != files[name]} <= different


def test_a_corpus_and_a_dataset_in_s3_are_as_at_home(s3, corpus, at_home, tmp_path):
    source = upload(s3, corpus)
    dataset = f"s3://{s3.bucket()}/some/set"
    manifest = prepare(source, dataset)
    assert manifest.corpus.uri == source
    counts = manifest.totals.recordings, manifest.totals.failures
    assert counts == (8, 1), manifest.rejects
    assert manifest.totals.ignored == 1
    is_as_at_home(dataset, manifest, at_home)
    with open_folder(dataset).local(f"shards/{manifest.shards[0].name}") as path:
        assert sum(1 for _ in read_rows(path)) == sum(
            group.recordings for group in manifest.shards[0].row_groups
        )
    [reject] = csv.DictReader(io.StringIO(stored(dataset)["rejects.csv"].decode()))
    assert (reject["kind"], reject["rule"]) == ("failure", "unreadable")
    assert reject["reason"] == "it is not a MIDI file: it does not begin with 'MThd'."


def test_a_rerun_reads_nothing_again(s3, corpus, monkeypatch):
    source, dataset = upload(s3, corpus / "train"), f"s3://{s3.bucket()}"
    manifest = prepare(source, dataset)
    before = stored(dataset)
    read, written = [], []
    download, put = buckets.Bucket.download, buckets.Bucket.upload

    def downloading(self, key, *rest, **options):
        read.append(key)
        return download(self, key, *rest, **options)

    def uploading(self, path, key):
        written.append(key)
        return put(self, path, key)

    monkeypatch.setattr(buckets.Bucket, "download", downloading)
    monkeypatch.setattr(buckets.Bucket, "upload", uploading)
    monkeypatch.setattr(stage, "connected", None)  # not even Ray is needed
    assert prepare(source, dataset) == manifest
    assert set(read) == {"manifest.json", "files.parquet"}
    assert written == []
    assert stored(dataset) == before


def test_changed_objects_are_as_if_from_the_beginning(s3, corpus, tmp_path):
    source, dataset = upload(s3, corpus / "train"), f"s3://{s3.bucket()}"
    prepare(source, dataset)
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    for number, name in enumerate(("new.mid", "0 of #6 & more.mid"), 30):
        write_midi(tmp_path / "new.mid", improvised(random_state=number))
        data = (tmp_path / "new.mid").read_bytes()
        s3.client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
    s3.client.delete_object(Bucket=bucket, Key=f"{prefix}/5 of #6 & more.mid")
    manifest = prepare(source, dataset)
    assert manifest.totals.files == 7
    fresh = f"s3://{s3.bucket()}"
    assert prepare(source, fresh) == manifest
    assert stored(fresh) == stored(dataset)


def test_a_local_corpus_becomes_a_dataset_in_s3(s3, corpus, at_home):
    dataset = f"s3://{s3.bucket()}/set"
    manifest = prepare(corpus, dataset)
    assert manifest == at_home[0]
    is_as_at_home(dataset, manifest, at_home, ledger=True)


def test_a_corpus_in_s3_becomes_a_local_dataset(s3, corpus, at_home, tmp_path):
    manifest = prepare(upload(s3, corpus, "x"), tmp_path / "dataset")
    is_as_at_home(tmp_path / "dataset", manifest, at_home)


def test_a_bucket_that_is_missing_is_named(s3, corpus, tmp_path):
    with pytest.raises(InputError, match=r"list s3://there-is-none/.*no such bucket.*endpoint"):
        prepare("s3://there-is-none", tmp_path / "dataset")
    with pytest.raises(InputError, match=r"at s3://there-is-none/set/.*no such bucket"):
        prepare(corpus, "s3://there-is-none/set")
    with pytest.raises(InputError, match=r"no such folder: s3://.* holds nothing"):
        prepare(f"s3://{s3.bucket()}/nothing", tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_dataset_within_its_corpus_is_refused(s3, corpus):
    source = upload(s3, corpus)
    with pytest.raises(InputError, match="contain each other"):
        prepare(source, f"{source}/set")
    assert set(stored(source)) == set(contents(corpus))


def test_an_endpoint_that_is_down_is_one_clear_error(s3, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts
    down = f"http://127.0.0.1:{free_port()}"
    clear = f"^cannot .* s3://abc/.*{down} cannot be reached"
    for source, target in (("s3://abc/corpus", tmp_path / "dataset"), (corpus, "s3://abc/set")):
        with pytest.raises(InputError, match=clear) as caught:
            prepare(source, target, endpoint=down)
        assert str(caught.value).isprintable()
    assert not (tmp_path / "dataset").exists()


def test_an_endpoint_that_goes_away_at_work_is_one_clear_error(s3, corpus, tmp_path, at_home):
    with ExitStack() as stack:
        server = stack.enter_context(serve(tmp_path / "server.log"))
        source = upload(server, corpus)

        def kill(progress):
            if progress.what == "preparing":
                stack.close()

        with pytest.raises(DeepPianoError, match=r"cannot read s3://.*cannot be reached") as caught:
            prepare(source, tmp_path / "dataset", endpoint=server.endpoint, progress=kill)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "dataset" / "manifest.json").exists()
    manifest = prepare(upload(s3, corpus), tmp_path / "dataset")  # goes on, wherever it lies now
    is_as_at_home(tmp_path / "dataset", manifest, at_home)
