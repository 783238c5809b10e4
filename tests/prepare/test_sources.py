"""Names of files: recordings or not, and which split they belong to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import InputError
from deep_piano.infra.storage.open import open_folder, require_apart
from deep_piano.music.recordings import is_recording, survey
from deep_piano.prepare.sources import Source, Splits, hash_split


@pytest.fixture
def corpus(tmp_path):
    def fill(**files):
        for name, text in files.items():
            path = tmp_path / "corpus" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return open_folder(tmp_path / "corpus")

    return fill


def splits(folder, **settings):
    return Splits(folder, folder.entries(), PrepareConfig(**settings))


@pytest.mark.parametrize("name", ["a.mp3", "b/C.WAV", "x.y.flac", "clip.mp4", "score.MID", "é.ogg"])
def test_audio_and_midi_are_recordings(name):
    assert is_recording(name)


@pytest.mark.parametrize("name", ["a.txt", "mp3", ".mp3", "b/._a.mp3", "cover.jpg", "metadata.csv"])
def test_everything_else_is_not(name):
    assert not is_recording(name)


def test_a_survey_tells_recordings_from_other_files(corpus):
    folder = corpus(a_dot_mp3="x", b__c_dot_mid="y", readme_dot_txt="z")
    recordings, others = survey(folder)
    assert [entry.name for entry in recordings] == ["a.mp3", "b/c.mid"]
    assert [entry.name for entry in others] == ["readme.txt"]


def test_what_cannot_be_looked_at_counts_as_a_recording_that_failed(corpus, tmp_path):
    folder = corpus(a_dot_mp3="x")
    (tmp_path / "corpus" / "loop").symlink_to("loop")
    recordings, _ = survey(folder)
    assert [bool(entry.problem) for entry in recordings] == [False, True]


def test_a_corpus_without_recordings_is_refused(corpus):
    with pytest.raises(InputError, match=r"holds no recording \(1 other files\)"):
        survey(corpus(readme_dot_txt="z"))


def test_maestros_table_gives_audio_and_midi_their_split(corpus):
    table = (
        "canonical_composer,split,year,midi_filename,audio_filename,duration\n"
        '"Bach, J. S.",test,2004,2004/a.midi,2004/a.wav,61.5\n'
        "Liszt,validation,2006,2006/b.midi,2006/b.wav,9.5\n"
    )
    found = splits(corpus(maestro__x_dot_csv=table, a_dot_mp3=""))
    assert found.of("maestro/2004/a.midi") == found.of("maestro/2004/a.wav") == "test"
    assert found.of("maestro/2006/b.midi") == "validation"
    assert found.of("maestro/2006/c.midi") is None
    assert found.of("2004/a.midi") is None


@pytest.mark.parametrize(
    ("name", "split"),
    [("train/a.mp3", "train"), ("Valid/b/c.mp3", "validation"), ("test/a.mid", "test")],
)
def test_a_folder_gives_its_recordings_their_split(corpus, name, split):
    folder = corpus(a_dot_mp3="")
    assert splits(folder).of(name) == split
    assert splits(folder, split="folder").of(name) == split
    assert splits(folder, split="hash").of(name) is None


def test_a_file_named_like_a_split_is_not_a_folder(corpus):
    assert splits(corpus(test_dot_mp3="")).of("test.mp3") is None


def test_a_table_with_another_split_is_refused(corpus):
    folder = corpus(metadata_dot_csv="split,name\ntrian,a.mp3\n")
    with pytest.raises(InputError, match=r"metadata.csv gives a file the split 'trian'"):
        splits(folder)


def test_a_table_of_something_else_or_of_no_text_says_nothing(corpus, tmp_path):
    folder = corpus(prices_dot_csv="a,b\n1,2\n", empty_dot_csv="", split_dot_csv="splits\n1\n")
    (tmp_path / "corpus" / "binary.csv").write_bytes(b"\xff\xfe\n\0")
    assert splits(folder).of("a.mp3") is None


def test_a_table_of_splits_that_is_no_text_is_refused(corpus, tmp_path):
    folder = corpus(a_dot_mp3="")
    (tmp_path / "corpus" / "broken.csv").write_bytes(b"split,name\ntrain,\xff\xfe\n")
    with pytest.raises(InputError, match=r"broken.csv cannot be read as UTF-8 CSV"):
        splits(folder)


def test_a_split_from_metadata_needs_metadata(corpus):
    with pytest.raises(InputError, match="no CSV file with a column 'split'"):
        splits(corpus(a_dot_mp3=""), split="metadata")


def test_clips_of_one_song_share_a_group(corpus):
    found = splits(corpus(a_dot_mp3=""), group=r"Q\d_(.+)_\d+\.mid")
    assert found.group("emopia/Q1_abc_0.mid") == found.group("emopia/Q4_abc_7.mid") == "abc"
    assert found.group("maestro/x.mid") is None


@given(st.text(min_size=1))
def test_a_hash_falls_into_one_split_and_stays_there(key):
    split = hash_split(key, validation_share=0.2, test_share=0.3)
    assert split == hash_split(key, validation_share=0.2, test_share=0.3)
    # A larger share only takes from train.
    if split != "train":
        assert hash_split(key, validation_share=0.4, test_share=0.5) == split
    assert hash_split(key, validation_share=0, test_share=0) == "train"


def test_shares_are_kept():
    found = [hash_split(str(n), validation_share=0.1, test_share=0.2) for n in range(5000)]
    assert 400 < found.count("validation") < 600
    assert 850 < found.count("test") < 1150


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "./a/../a"),
        ("s3://bucket/a", "s3://bucket/a/c"),
    ],
)
def test_a_dataset_may_not_lie_in_its_corpus_nor_around_it(one, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="contain each other"):
        require_apart(open_folder(one), open_folder(other))


@pytest.mark.parametrize(
    ("one", "other"), [("a", "ab"), ("s3://bucket/a", "s3://bucket/ab"), ("b", "s3://bucket")]
)
def test_folders_beside_each_other_are_apart(one, other):
    require_apart(open_folder(one), open_folder(other))


def test_midi_is_known_by_its_name():
    assert Source("a/b.MID", 1, "").is_midi
    assert not Source("a/b.mid.mp3", 1, "").is_midi
