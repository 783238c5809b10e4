"""Names of files: recordings or not, and which split they belong to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import InputError
from deep_piano.infra.storage.open import open_folder, require_apart
from deep_piano.music.recordings import in_words, is_recording, kinds, survey
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
    return Splits(folder, *survey(folder), PrepareConfig(**settings))


@pytest.mark.parametrize(
    "name",
    ["a.mp3", "b/C.WAV", "x.y.flac", "clip.mp4", "score.MID", "é.ogg"]
    + [
        f"a.{x}"
        for x in ["3gp", "3g2", "aifc", "ts", "m2ts", "mts", "weba", "wave", "mpga", "wmv", "asf"]
    ],
)
def test_audio_and_midi_are_recordings(name):
    assert is_recording(name)


@pytest.mark.parametrize(
    "name", ["a.txt", "mp3", ".mp3", "b/._a.mp3", ".x/a.mp3", "cover.jpg", "metadata.csv"]
)
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


SYSTEMS = [
    ".hidden/a.mp3",
    ".Trash-1000/files/a.mp3",
    "x/@eaDir/a.mp3",
    "__MACOSX/._a.mp3",
    "#recycle/a.mid",
]


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_hidden_or_thrown_away_is_no_recording_and_that_is_said(
    corpus, tmp_path, name, caplog
):
    folder = corpus(b_dot_mp3="x")
    path = tmp_path / "corpus" / name
    path.parent.mkdir(parents=True)
    path.write_text("y")
    (path.parent / "splits.csv").write_text(f"file,split\n{path.name},nonsense\nb.mp3,test\n")
    recordings, others = survey(folder)
    assert [entry.name for entry in recordings] == ["b.mp3"]
    assert kinds(others) == {"hidden": 2}
    said = "1 recordings that are hidden, or in folders such as" in caplog.text
    assert said != name.endswith("._a.mp3")
    assert splits(folder).of("b.mp3") is None


def test_what_is_left_alone_is_counted_by_what_it_is(corpus, tmp_path):
    names = ["cover.JPG", "b.jpg", "b/c.jpg", "notes.txt", "README", ".DS_Store", "a.mp3"]
    for name in names:
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text("x")
    _, others = survey(corpus())
    assert kinds(others) == {".jpg": 3, "": 1, ".txt": 1, "hidden": 1}
    assert in_words(kinds(others)) == (
        "3 .jpg, 1 without a suffix, 1 .txt, 1 hidden or in folders of the system"
    )
    assert in_words(kinds(others), most=2) == "3 .jpg, 1 without a suffix, 2 of other kinds"


def test_a_corpus_without_recordings_is_refused(corpus):
    with pytest.raises(InputError, match=r"holds no recording \(1 other files: 1 .txt\)"):
        survey(corpus(readme_dot_txt="z"))


def test_maestros_table_gives_audio_and_midi_their_split(corpus):
    table = (
        "canonical_composer,split,year,midi_filename,audio_filename,duration\n"
        '"Bach, J. S.",test,2004,2004/a.midi,2004/a.wav,61.5\n'
        "Liszt,validation,2006,2006/b.midi,2006/b.wav,9.5\n"
    )
    names = ("2004__a_dot_midi", "2004__a_dot_wav", "2006__b_dot_midi", "2006__c_dot_midi")
    there = {f"maestro__{name}": "x" for name in names}
    found = splits(corpus(maestro__x_dot_csv=table, **there, **{"2004__a_dot_midi": "x"}))
    assert found.of("maestro/2004/a.midi") == found.of("maestro/2004/a.wav") == "test"
    assert found.of("maestro/2006/b.midi") == "validation"
    assert found.of("maestro/2006/c.midi") is None
    assert found.of("2004/a.midi") is None
    assert [doubt[:37] for doubt in found.doubts] == ["maestro/x.csv: 2 of its 2 rows name a"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("train/a.mp3", "train"), ("Valid/b/c.mp3", "validation"), ("test/a.mid", "test")],
)
def test_a_folder_gives_its_recordings_their_split(corpus, name, split):
    folder = corpus(a_dot_mp3="x")
    assert splits(folder).of(name) == split
    assert splits(folder, split="folder").of(name) == split
    assert splits(folder, split="hash").of(name) is None


def test_a_file_named_like_a_split_is_not_a_folder(corpus):
    assert splits(corpus(test_dot_mp3="x")).of("test.mp3") is None


def test_a_table_with_another_split_is_refused(corpus):
    folder = corpus(metadata_dot_csv="split,name\ntrian,a.mp3\n", a_dot_mp3="x")
    with pytest.raises(InputError, match=r"metadata.csv gives \S+ the split 'trian'"):
        splits(folder)


def test_a_table_of_something_else_says_nothing(corpus):
    folder = corpus(prices_dot_csv="a,b\n1,2\n", empty_dot_csv="", a_dot_mp3="x")
    assert splits(folder).of("a.mp3") is None
    assert splits(folder).doubts == []


@pytest.mark.parametrize("name", ["x_dot_csv", "x_dot_tsv"])
def test_a_table_that_names_no_file_is_warned_of_or_refused(corpus, name, caplog):
    folder = corpus(**{name: "split\tname\ntest\tb.mp3\n"}, a_dot_mp3="x")
    found = splits(folder)
    assert found.of("a.mp3") is None
    found.tell()
    assert "0 of its 1 rows name a file of the corpus, and 1 of 1 files" in caplog.text
    with pytest.raises(InputError, match=r"no table gives .*: x\..sv: 0 of its 1 rows name a file"):
        splits(folder, split="metadata")
    assert splits(folder, split="hash").doubts == []


def test_a_split_from_metadata_needs_metadata(corpus):
    with pytest.raises(InputError, match="holds no CSV file with a column 'split'"):
        splits(corpus(a_dot_mp3="x"), split="metadata")


def test_clips_of_one_song_share_a_group(corpus):
    found = splits(corpus(a_dot_mp3="x"), group=r"Q\d_(.+)_\d+\.mid")
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
