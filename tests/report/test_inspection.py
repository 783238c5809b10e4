"""`inspect`: what is read, in which order, and what is said where it cannot be."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from deep_piano.analysis import descriptors
from deep_piano.analysis.keys import estimate_key
from deep_piano.config.sections import StorageConfig
from deep_piano.errors import AssetError, AudioError, InputError, MidiError
from deep_piano.infra.progress import Progress
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import make_notes
from deep_piano.music.segments import Performance
from deep_piano.report.inspection import inspect_dataset, inspect_recording
from tests.support.datasets import as_json
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_silence, write_sound, write_text

HERE = StorageConfig()


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    manifest = {**as_json(), "reading_digest": "00"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def transcriber(monkeypatch, tmp_path):
    """A network that finds two notes and one pedal in everything; return its inputs."""
    given = []

    class Fake:
        def __init__(self, folder):
            assert folder == tmp_path / "weights"

        def performance(self, samples, *, sr, progress):
            given.append((len(samples), sr))
            progress(Progress("transcribing", 1, 1))
            keys = make_notes([0, 1], [0.5, 2], [60, 64], [80, 90])
            return Performance(keys, np.array([0.0]), np.array([1.0]))

    monkeypatch.setattr("deep_piano.music.transcription.Transcriber", Fake)
    monkeypatch.setattr("deep_piano.infra.assets.cache.ensure", lambda name: tmp_path / "weights")
    return given


def size(picture):
    from matplotlib.image import imread

    return imread(picture).shape


def line(card, label):
    [found] = [text for text in card.splitlines() if text.strip().startswith(label)]
    return " ".join(found.split())


def test_a_datasets_card_is_said_and_nothing_drawn(dataset):
    card, pictures, _ = inspect_dataset(str(dataset), HERE)
    assert "40 recordings" in card
    assert f"{dataset}/rejects.csv" in card
    assert pictures == []
    assert [path.name for path in dataset.iterdir()] == ["manifest.json"]


def test_a_dataset_is_drawn_where_a_folder_is_given(dataset, tmp_path):
    plot = tmp_path / "new" / "pictures"
    _, pictures, _ = inspect_dataset(str(dataset), HERE, plot)
    assert pictures == [plot / "dataset.png"]
    assert size(pictures[0])[:2] == (900, 1600)


def test_a_dataset_on_s3_is_read_as_well(dataset, s3):
    bucket = s3.bucket()
    s3.client.upload_file(str(dataset / "manifest.json"), bucket, "a/b/manifest.json")
    card, _, _ = inspect_dataset(f"s3://{bucket}/a/b", StorageConfig(endpoint=s3.endpoint))
    assert "40 recordings" in card
    with pytest.raises(InputError, match=f"s3://{bucket}/a holds no dataset"):
        inspect_dataset(f"s3://{bucket}/a", StorageConfig(endpoint=s3.endpoint))


@pytest.mark.parametrize("name", ["nowhere", "empty", "two\nlines"])
def test_where_no_dataset_is_it_is_said_how_to_make_one(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no dataset: there is no manifest\.json") as raised:
        inspect_dataset(str(tmp_path / name), HERE)
    assert "`deep-piano prepare`, or run that again if it was stopped" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_manifest_that_is_broken_or_of_another_time_is_said_to_be(dataset, text):
    (dataset / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json (is broken|has the format)"):
        inspect_dataset(str(dataset), HERE)


def test_midi_is_described_without_a_network(tmp_path):
    write_midi(tmp_path / "etude.MID", improvised(random_state=1))
    card, pictures, _ = inspect_recording(tmp_path / "etude.MID")
    assert "etude.MID" in card
    assert "Sound" not in card
    assert line(card, "notes ") == "notes 112"
    assert line(card, "pedal down") == "pedal down 0.0% of the time"
    key = estimate_key(improvised(random_state=1))
    told = f"unclear perhaps {key.name}" if key.certainty == "unclear" else f"{key.name} {key[1]}"
    assert line(card, "key") == f"key {told}"
    assert "BPM, or half or double" in line(card, "tempo")
    assert pictures == []


@pytest.mark.parametrize("name", ["etude", "etude.kar", "etude.mp3"])
def test_midi_is_told_by_its_content(tmp_path, name):
    write_midi(tmp_path / "etude.mid", improvised(random_state=1))
    card, _, _ = inspect_recording((tmp_path / "etude.mid").rename(tmp_path / name))
    assert line(card, "notes ") == "notes 112"


def test_midi_is_drawn_with_its_descriptors(tmp_path, monkeypatch):
    write_midi(tmp_path / "etude.mid", improvised(random_state=1))
    drawn = {}

    def noting(*args, **options):
        drawn.update(options)
        real(*args, **options)

    from deep_piano.report import charts

    real = charts.recording_charts
    monkeypatch.setattr(charts, "recording_charts", noting)
    _, pictures, _ = inspect_recording(tmp_path / "etude.mid", tmp_path / "new")
    assert pictures == [tmp_path / "new" / "etude.mid.inspect.png"]
    assert size(pictures[0])[1] == 1600
    assert drawn["title"] == "etude.mid"
    assert drawn["audio_features"] is None
    assert drawn["note_features"].notes == 112


def test_sound_is_described_transcribed_and_drawn(tmp_path, transcriber):
    write_sound(tmp_path / "take.wav", played(improvised(random_state=1)))
    seen = []
    card, pictures, _ = inspect_recording(tmp_path / "take.wav", tmp_path, progress=seen.append)
    assert transcriber == [(14 * SR, SR)]
    assert seen == [Progress("transcribing", 1, 1)]
    assert line(card, "loudness").endswith("LUFS")
    assert line(card, "notes ") == "notes 2"
    assert line(card, "pedal down") == "pedal down 50.0% of the time"
    assert line(card, "key").split()[1] in ("unclear", "C", "G", "none")  # one line: the notes'
    assert line(card, "tempo").startswith("tempo un")
    assert pictures == [tmp_path / "take.wav.inspect.png"]
    assert size(pictures[0])[0] > 1000  # wave, mel spectrogram, chroma and notes


def test_silence_can_be_inspected(tmp_path, transcriber):
    write_silence(tmp_path / "silence.wav")
    card, pictures, _ = inspect_recording(tmp_path / "silence.wav", tmp_path)
    assert line(card, "loudness") == "loudness unknown"
    assert pictures[0].exists()


def test_of_a_long_recording_five_minutes_are_described(tmp_path, transcriber, monkeypatch):
    write_sound(tmp_path / "take.wav", played(improvised(random_state=1)))
    asked = []

    def describe(samples, *, sr, excerpt_s):
        asked.append(excerpt_s)
        return real(samples, sr=sr, excerpt_s=excerpt_s)

    real = descriptors.describe_audio
    monkeypatch.setattr(descriptors, "describe_audio", describe)
    inspect_recording(tmp_path / "take.wav")
    assert asked == [300]


def test_without_weights_it_is_said_that_they_are_missing(tmp_path, monkeypatch):
    write_sound(tmp_path / "take.wav", played(improvised(random_state=1)))

    def missing(name):
        raise AssetError(f"{name} cannot be fetched")

    monkeypatch.setattr("deep_piano.infra.assets.cache.ensure", missing)
    with pytest.raises(AssetError, match="transkun cannot be fetched"):
        inspect_recording(tmp_path / "take.wav")


@pytest.mark.parametrize(
    ("name", "write", "error", "message"),
    [
        ("gone.mid", None, InputError, r"no such file: .*gone.mid. Check its name"),
        ("gone.mp3", None, AudioError, r"no such file: .*gone.mp3. Check its name"),
        ("two\nlines.mid", None, InputError, r"no such file: .*two\\nlines.mid"),
        ("folder.mid", os.mkdir, InputError, r"no such file: .*folder.mid"),
        ("pipe.mid", os.mkfifo, InputError, r"no such file: .*pipe.mid"),
        ("x" * 300 + ".mid", None, InputError, r"cannot read .*x.mid: File name too long"),
        ("letter.mid", write_text, MidiError, r"letter.mid is not a MIDI file"),
        ("letter.mp3", write_text, AudioError, r"letter.mp3 is not audio that can be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, write, error, message):
    if write:
        write(tmp_path / name)
    with pytest.raises(error, match=message) as raised:
        inspect_recording(tmp_path / name, tmp_path / "plot")
    assert str(raised.value).isprintable()
    assert not (tmp_path / "plot").exists()


def test_a_midi_file_without_permission_is_named(tmp_path, monkeypatch):
    write_midi(tmp_path / "a.mid", improvised(random_state=1))

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("deep_piano.report.inspection.read_midi_and_pedal", denied)
    with pytest.raises(InputError, match=r"cannot read .*a.mid: Permission denied. Check its name"):
        inspect_recording(tmp_path / "a.mid")


def test_a_picture_that_cannot_be_written_is_said(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        inspect_dataset(str(dataset), HERE, tmp_path / "file")


def test_pictures_of_recordings_of_like_names_stay_apart(tmp_path):
    names = ["take.mid", "take.midi", "take", "take.mid.inspect.png"]
    for name in names:
        write_midi(tmp_path / "take.mid", improvised(random_state=1))
        (tmp_path / "take.mid").rename(tmp_path / name)
        inspect_recording(tmp_path / name, tmp_path / "plot")
    found = sorted(path.name for path in (tmp_path / "plot").iterdir())
    assert found == sorted(f"{name}.inspect.png" for name in names)


@pytest.mark.parametrize("letter", ["x", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\udcff"])
def test_a_picture_of_a_long_name_has_a_shorter_one(tmp_path, letter):
    write_midi(tmp_path / "take.mid", improvised(random_state=1))
    long = "y" + letter * (246 // len(os.fsencode(letter)))
    drawn = set()
    for name in (f"{long}1.mid", f"{long}2.mid", f"{long}2.kar"):
        (tmp_path / name).write_bytes((tmp_path / "take.mid").read_bytes())
        _, [picture], _ = inspect_recording(tmp_path / name, tmp_path / "plot")
        assert picture.is_file()
        assert picture.name.startswith(long[:100])
        assert picture.name.endswith(".inspect.png")
        if letter.isprintable():
            picture.name.encode()  # no character is cut in two
        drawn.add(picture)
    assert len(drawn) == 3


def test_a_folder_for_pictures_that_does_not_serve_is_refused_before_the_work(
    tmp_path, transcriber
):
    write_sound(tmp_path / "take.wav", played(improvised(random_state=1)))
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "take.wav.inspect.png").mkdir(parents=True)
    for plot, message in (
        ("file", "cannot write to .*file"),
        ("x" * 300, "cannot write .*xxx.*File name too long"),
        ("taken", "take.wav.inspect.png is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            inspect_recording(tmp_path / "take.wav", tmp_path / plot)
    assert transcriber == []
