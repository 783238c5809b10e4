"""The dry run: what it counts, that it writes nothing, and that it refuses what a run would."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import InputError
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import make_notes
from deep_piano.music.recordings import survey
from deep_piano.prepare import dry_run as module
from deep_piano.prepare import tasks
from deep_piano.prepare.commit import commit, make_manifest, write_ledger
from deep_piano.prepare.dry_run import preview
from deep_piano.prepare.plan import Known, plan, reading_digest
from deep_piano.prepare.sources import Source
from deep_piano.prepare.tasks import build_shard
from tests.support.fakes import fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import (
    write_half,
    write_silent_film,
    write_sound,
    write_text,
    write_tone,
)

SR = 16_000


@pytest.fixture
def corpus(tmp_path):
    """Four MIDI files of 14 s and a recording of 14 s, all of music of their own."""
    folder = tmp_path / "corpus"
    for number in range(4):
        write_midi(folder / f"{number}.mid", improvised(random_state=number))
    write_sound(folder / "s.wav", played(improvised(random_state=9), sr=SR), sr=SR)
    return open_folder(folder)


@pytest.fixture
def dataset(tmp_path):
    return open_folder(tmp_path / "dataset")


@pytest.fixture
def look(corpus, dataset):
    def call(*, rebuild=False, progress=lambda *_: None, **settings):
        return preview(
            corpus, dataset, PrepareConfig(**settings), rebuild=rebuild, progress=progress
        )

    return call


@pytest.fixture
def prepared(corpus, dataset):
    """Read a corpus as a run does, up to the commit where that is wanted."""

    def call(settings, *, finished=True, files=None):
        entries, _ = survey(corpus)
        hashes = {name: sha for name, sha, _ in tasks.hash_files(corpus, [e.name for e in entries])}
        write_ledger(dataset, entries, hashes)
        sources = [Source(e.name, e.size, hashes[e.name]) for e in entries[:files]]
        shards = [
            build_shard(
                *(corpus, dataset, one, settings),
                rejects={},
                rows_in={},
                transcribe=fake_transcriber(),
            )
            for one in plan(sources, Known(reading_digest(settings)), settings)
        ]
        manifest = make_manifest(
            *("", settings),
            corpus_digest="",
            files=len(sources),
            ignored={},
            shards=shards,
            rejects=(),
            versions={},
        )
        if finished:
            commit(dataset, manifest)
        return shards

    return call


def number_in(pattern, text):
    found = re.search(pattern, text)
    assert found, text
    return float(found[1].replace(",", ""))


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_files_hours_shards_bytes_and_time_are_said(look, corpus):
    (corpus.root / "readme.txt").write_text("hello")
    text = look()
    first, second, *others = text.splitlines()
    size_mb = sum(path.stat().st_size for path in corpus.root.glob("[0-9s].*")) / 1e6
    assert first == (
        f"5 files that are recordings by their names, {size_mb:.1f} MB; "
        "1 others are ignored (1 .txt)"
    )
    assert second == "0 of them already read, 5 new or changed: 0.02 hours by their headers"
    assert others[0].startswith("shards: at most 1, about 0.")
    assert re.fullmatch(
        r"time: about \d+ s on \d+ CPUs, measured on 5 files; the time of transcription is not "
        r"included \(its weights are not fetched yet\)",
        others[1],
    )
    assert len(others) == 2


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_estimated_is_near(look, prepared, corpus, codec):
    for number in range(10, 40):
        write_midi(corpus.root / f"{number}.mid", improvised(random_state=number))
    found = number_in(r"about ([\d.,]+) MB", look(codec=codec))
    assert found >= 0
    shards = prepared(PrepareConfig(codec=codec))
    assert found == pytest.approx(sum(facts.bytes for facts in shards) / 1e6, abs=0.07)


def test_more_cpus_or_workers_take_less_time(look, monkeypatch):
    monkeypatch.setattr(module, "_minutes", lambda seconds: f"{seconds:.6f} units")
    monkeypatch.setattr(module.time, "monotonic", iter(range(10**6)).__next__)
    seconds = [
        number_in(r"about ([\d.]+) units", look(codec="mulaw", workers=workers))
        for workers in (1, 4)
    ]
    assert seconds[0] == pytest.approx(4 * seconds[1], rel=1e-3)
    assert seconds[0] > 0


def test_a_long_time_is_in_minutes(look, monkeypatch):
    slow = SimpleNamespace(monotonic=iter(range(0, 10**9, 1000)).__next__)
    monkeypatch.setattr(module, "time", slow)  # and not the clock of the decoder's time limit
    assert re.search(r"time: about [\d.]+ minutes on 1 CPUs", look(codec="mulaw", workers=1))


def test_nothing_is_written(look, corpus, dataset, prepared):
    before = state(corpus.root)
    look()
    assert not dataset.root.exists()
    prepared(PrepareConfig())
    made = state(dataset.root)
    look()
    look(rebuild=True, shard_mb=1)
    assert state(dataset.root) == made
    assert state(corpus.root) == before


def test_what_would_be_left_out_is_said_with_some_names(look, corpus):
    for n in range(5):
        write_tone(corpus.root / f"short{n}.wav", seconds=1 + n / 10)
    write_text(corpus.root / "two\nlines.mp3")
    write_midi(corpus.root / "long.mid", make_notes([0, 4000], [1, 4001], [60, 62], [60, 60]))
    write_silent_film(corpus.root / "film.mp4")
    (corpus.root / "loop.mid").symlink_to("loop.mid")
    for n in range(2):  # nothing, and not the same nothing twice
        (corpus.root / f"nothing{n}.mid").touch()
    text = look()
    assert re.search(r"as too_short: 5 \(short\d.wav, short\d.wav, short\d.wav, \.\.\.\)", text)
    assert r"would be left out as unreadable: 5 (loop.mid, " in text
    assert "duplicate" not in text
    assert "would be left out as too_long: 1 (long.mid)" in text
    assert "0.02 hours" in text  # of what would stay
    assert all(line.isprintable() for line in text.splitlines())


def test_a_codec_of_sound_leaves_midi_out(look):
    text = look(codec="mulaw")
    assert "would be left out as no_audio: 4 (" in text
    assert "measured on 1 files" in text
    assert "transcribing" not in text


@pytest.mark.parametrize("codec", ["notes", "mulaw"])
def test_midi_is_told_by_its_content(look, corpus, codec):
    (corpus.root / "3.mid").rename(corpus.root / "3.mp3")
    card = look(codec=codec)
    assert "unreadable" not in card
    assert ("would be left out as no_audio: 4 (" in card) == (codec == "mulaw")


def test_what_is_cut_counts_towards_too_short(look):
    assert "would be left out as too_short: 5" in look(trim_start_seconds=2, trim_end_seconds=3)


def test_duplicates_are_counted_once_and_not_read(look, corpus):
    before = look(codec="mulaw")
    for name in ("again.wav", "zz.wav"):
        shutil.copy(corpus.root / "s.wav", corpus.root / name)
    write_text(corpus.root / "bad1.mp3")
    write_text(corpus.root / "bad2.mp3")
    text = look(codec="mulaw")
    assert "would be left out as duplicate: 3 (bad2.mp3, s.wav, zz.wav)" in text
    assert "would be left out as unreadable: 1 (bad1.mp3)" in text
    assert number_in(r"([\d.]+) hours", text) == number_in(r"([\d.]+) hours", before)
    assert "9 new or changed" in text


def test_files_of_the_same_size_are_no_duplicates(look, corpus):
    data = bytearray((corpus.root / "s.wav").read_bytes())
    data[-1] ^= 1
    (corpus.root / "t.wav").write_bytes(data)
    assert "duplicate" not in look()


def test_what_was_read_before_is_known(look, prepared, dataset):
    shards = prepared(PrepareConfig())
    text = look()
    assert "5 of them already read, 0 new or changed: 0.00 hours" in text
    assert f"about {sum(facts.bytes for facts in shards) / 1e6:,.1f} MB" in text
    assert "time: about 0 s" in text


def test_a_new_file_that_repeats_a_known_one_is_a_duplicate(look, prepared, corpus):
    prepared(PrepareConfig())
    shutil.copy(corpus.root / "s.wav", corpus.root / "z.wav")
    text = look()
    assert "5 of them already read, 1 new or changed: 0.00 hours" in text
    assert "would be left out as duplicate: 1 (z.wav)" in text


def test_of_a_killed_run_only_what_it_had_read_is_known(look, prepared):
    prepared(PrepareConfig(), finished=False, files=2)  # though all were hashed
    assert "2 of them already read, 3 new or changed: 0.01 hours" in look()


def test_another_layout_reads_nothing_again_and_other_filters_everything(look, prepared):
    prepared(PrepareConfig())
    assert "5 of them already read" in look(rebuild=True, shard_mb=1)
    assert "0 of them already read, 5 new or changed" in look(rebuild=True, min_notes=50)


def test_of_many_files_a_sample_stands_for_all(look, corpus, monkeypatch):
    for n in range(30):
        write_midi(corpus.root / f"more{n}.mid", improvised(random_state=100 + n))
    write_tone(corpus.root / "short.wav", seconds=1)
    monkeypatch.setattr(module, "OPENED", 12)
    opened = []
    text = look(progress=opened.append)
    assert [now for now in opened if now.what == "opening files"] == [
        Progress("opening files", n + 1, 12) for n in range(12)
    ]
    hours = number_in(r"36 new or changed: about ([\d.]+) hours", text)
    assert hours == pytest.approx(35 * 14 / 3600, abs=0.02)
    left_out = re.findall(r"left out as (?!duplicate)\w+: (\d+) of 12 opened", text)
    assert len(left_out) == text.count("left out")


def test_a_sample_is_the_same_every_time(look, corpus, monkeypatch):
    for n in range(10):
        (corpus.root / f"bad{n}.mp3").write_text(str(n))
    monkeypatch.setattr(module, "OPENED", 6)
    texts = {re.sub("(?m)^time.*", "", look()) for _ in range(2)}
    assert len(texts) == 1
    assert "of 6 opened" in texts.pop()


def test_progress_is_said_stage_by_stage(look, prepared, corpus):
    prepared(PrepareConfig(), files=2)
    shutil.copy(corpus.root / "s.wav", corpus.root / "z.wav")
    seen = {}
    look(progress=lambda now: seen.setdefault(now.what, []).append((now.done, now.total)))
    assert set(seen) == {"looking at shards", "comparing files", "opening files", "measuring"}
    assert seen["looking at shards"][-1] == (1, 1)
    assert seen["comparing files"][-1] == (2, 2)


def test_transcribing_is_measured_where_the_weights_are(look, corpus, monkeypatch, tmp_path):
    """A file whose beginning cannot be decoded is not the one to measure with."""
    write_half(corpus.root / "broken.flac")
    lengths_s = []

    class Fake:
        def __init__(self, folder):
            assert folder == tmp_path

        def __call__(self, samples, *, sr):
            lengths_s.append(round(len(samples) / sr))
            return make_notes(np.arange(70), np.arange(70) + 1, [60] * 70, [60] * 70)

    monkeypatch.setattr("deep_piano.infra.assets.cache.path", lambda name: tmp_path)
    monkeypatch.setattr("deep_piano.music.transcription.Transcriber", Fake)
    monkeypatch.setattr(module.time, "process_time", iter(range(0, 10**9, 7000)).__next__)
    text = look(workers=1)
    assert lengths_s == [1, 14]
    # 500 s for a second of sound, of 14 + 20 s.
    assert 14 * 500 / 60 < number_in(r"about ([\d.]+) minutes", text) < 36 * 500 / 60
    assert "transcribing" not in text


def test_without_weights_transcribing_is_not_measured(look, monkeypatch):
    def never(*_):
        raise AssertionError("there are no weights")

    monkeypatch.setattr("deep_piano.music.transcription.Transcriber", never)
    assert "the time of transcription is not included (its weights are not fetched yet)" in look()


def test_a_corpus_of_nothing_useful_has_an_estimate_too(tmp_path, dataset):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("a.mp3", "b.mid"):
        write_text(folder / name)
    text = preview(open_folder(folder), dataset, PrepareConfig())
    assert "about 0.0 MB" in text
    assert "about 0 s" in text
    assert "measured on 0 files" in text


@pytest.mark.parametrize(
    ("dataset_name", "settings", "message"),
    [
        ("corpus/inside", {}, "contain each other"),
        ("dataset", {"min_notes": 50}, r"made with other settings \(min_notes 64 -> 50\)"),
        ("broken", {}, "manifest.json is broken"),
        ("dataset", {"split": "metadata"}, "made with other settings"),
        ("new", {"split": "metadata"}, "no CSV file with a column 'split'"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    corpus, prepared, tmp_path, dataset_name, settings, message
):
    prepared(PrepareConfig())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=message):
        preview(corpus, open_folder(tmp_path / dataset_name), PrepareConfig(**settings))


def test_a_corpus_that_is_not_there_is_refused(tmp_path, dataset):
    with pytest.raises(InputError, match="no such folder"):
        preview(open_folder(tmp_path / "nowhere"), dataset, PrepareConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no recording"):
        preview(open_folder(tmp_path / "empty"), dataset, PrepareConfig())
