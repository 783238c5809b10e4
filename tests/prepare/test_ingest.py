"""One file: a row, or a reason why not, whatever the file is."""

from __future__ import annotations

import errno
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Reject, Row
from deep_piano.errors import (
    AssetError,
    AudioError,
    DecodeTimeout,
    DeepPianoError,
    FileError,
    InputError,
)
from deep_piano.music import audio, tuning
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import make_notes
from deep_piano.prepare import ingest as module
from deep_piano.prepare.ingest import TranscriberLostError, ingest, reason_of, split_of
from deep_piano.prepare.sources import Source
from tests.support.fakes import SOUND_CODECS, fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import (
    ffmpeg,
    write_ffmpeg,
    write_half,
    write_header_only,
    write_nan,
    write_nothing,
    write_silence,
    write_silent_film,
    write_sound,
    write_text,
    write_tone,
)

SR = 16_000
ANYTHING = {"min_seconds": 0, "min_tuning_strength": 0, "max_silence_share": 1}
MUSIC = improvised(random_state=1)


@cache
def take():
    return played(MUSIC, sr=SR)


@pytest.fixture
def read(tmp_path):
    """Return what becomes of a file of this folder, as the codec mulaw unless told otherwise."""

    def call(name, *, source=None, transcribe=None, **settings):
        return ingest(
            tmp_path / name,
            source or Source(name, 1, "the file's hash"),
            PrepareConfig(**{"codec": "mulaw", **settings}),
            transcribe=transcribe or fake_transcriber(),
        )

    return call


@pytest.fixture
def sound(tmp_path):
    write_sound(tmp_path / "take.wav", take(), sr=SR)
    return tmp_path / "take.wav"


def test_midi_becomes_a_row_of_notes(tmp_path, read):
    write_midi(tmp_path / "a.mid", MUSIC)
    row = read("a.mid", codec="notes")
    notes = read_midi(tmp_path / "a.mid")
    assert isinstance(row, Row)
    assert (row.name, row.source_sha256, row.kind) == ("a.mid", "the file's hash", "midi")
    assert np.array_equal(row.sequence[:, 1], notes["pitch"] - 21)
    assert row.duration_s == pytest.approx(notes["offset"].max() - notes["onset"].min())
    assert (row.audio, row.notes.notes) == (None, len(notes))
    assert row.notes.pedal_share == 0
    assert row.fingerprint.shape == (64,)


def test_sound_becomes_a_row_of_the_notes_that_are_heard(sound, read):
    row = read("take.wav", codec="notes")
    assert (row.kind, row.notes.pedal_share) == ("audio", 0.5)
    assert row.duration_s == row.audio.duration_s == pytest.approx(14, abs=0.1)
    assert len(row.sequence) == row.notes.notes > 64
    assert row.sequence[0, 0] == 0  # time begins with the first note
    assert row.fingerprint.shape == (64,)


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_sound_becomes_a_row_of_samples(sound, read, codec):
    row = read("take.wav", codec=codec, trim_silence_db=None)
    expected = CODECS[codec].encode(audio.decode(sound, sr=SR))
    assert (row.sequence.shape, row.sequence.dtype) == ((14 * SR, 1), expected.dtype)
    assert np.array_equal(row.sequence, expected)
    assert (row.kind, row.notes) == ("audio", None)
    assert row.duration_s == row.audio.duration_s == 14


def test_a_codec_of_sound_leaves_midi_out_without_reading_it(read):
    reject = read("nowhere.mid")
    assert (reject.kind, reject.rule) == ("drop", "no_audio")
    assert reject.reason == "it holds notes, and the codec mulaw encodes sound"


@pytest.mark.parametrize("name", ["take.mp3", "take.rmi", "take.KAR"])
def test_midi_is_told_by_its_content(tmp_path, read, name):
    write_midi(tmp_path / "take.mid", MUSIC)
    (tmp_path / "take.mid").rename(tmp_path / name)
    row = read(name, codec="notes")
    assert (row.kind, row.audio) == ("midi", None)
    assert row.notes.notes == len(MUSIC)
    assert read(name).rule == "no_audio"


@pytest.mark.parametrize("sr", [None, 8_000, 22_050])
def test_sound_is_decoded_at_the_rate_that_is_asked_for(sound, read, sr):
    row = read("take.wav", sr=sr, trim_silence_db=None)
    assert len(row.sequence) == 14 * (sr or CODECS["mulaw"].sr)
    assert row.duration_s == 14


def test_the_transcriber_is_given_the_codecs_rate_or_the_one_asked_for(sound, read):
    given = []

    def hear(samples, sr):
        given.append((sr, round(len(samples) / sr)))
        return fake_transcriber()(samples, sr)

    read("take.wav", codec="notes", transcribe=hear)
    read("take.wav", codec="notes", transcribe=hear, sr=SR)
    assert given == [(CODECS["notes"].sr, 14), (SR, 14)]


def test_the_same_sound_has_the_same_id_whatever_its_file(tmp_path, sound, read):
    shutil.copy(sound, tmp_path / "renamed.wav")
    ffmpeg("-i", sound, "-metadata", "title=Another", "-c", "copy", tmp_path / "retagged.wav")
    ffmpeg("-i", sound, tmp_path / "lossless.flac")
    ids = {read(name).id for name in ("take.wav", "renamed.wav", "retagged.wav", "lossless.flac")}
    assert len(ids) == 1
    # Trims and filters come after it: what a recording is does not depend on them.
    assert read("take.wav", trim_start_seconds=1, trim_silence_db=None).id in ids


def test_another_sound_has_another_id(tmp_path, sound, read):
    changed = take().copy()
    changed[7 * SR] += 2**-14
    write_sound(tmp_path / "changed.wav", changed, sr=SR)
    write_sound(tmp_path / "shorter.wav", take()[:-1], sr=SR)
    ids = [read(name).id for name in ("take.wav", "changed.wav", "shorter.wav")]
    assert len(set(ids)) == 3


def test_the_same_notes_have_the_same_id_whatever_their_file(tmp_path, read):
    for name, notes in {"a.mid": MUSIC, "b.midi": MUSIC, "c.mid": MUSIC[:-1]}.items():
        write_midi(tmp_path / name, notes)
    data = (tmp_path / "b.midi").read_bytes()
    (tmp_path / "b.midi").write_bytes(data.replace(b"Piano", b"Grand"))
    a, b, c = (read(name, codec="notes").id for name in ("a.mid", "b.midi", "c.mid"))
    assert a == b != c


def test_a_recording_goes_where_the_corpus_says_and_else_where_its_hash_does():
    settings = PrepareConfig(validation_share=0.5, test_share=0.5)
    named = Source("a", 1, "", split="train")
    assert split_of(named, "any", settings) == "train"
    found = {split_of(Source("a", 1, ""), str(n), settings) for n in range(20)}
    assert found == {"validation", "test"}
    grouped = Source("a", 1, "", group="song")
    assert len({split_of(grouped, str(n), settings) for n in range(20)}) == 1


def test_both_ends_are_cut(sound, read):
    whole = read("take.wav", trim_silence_db=None)
    row = read("take.wav", trim_silence_db=None, trim_start_seconds=1, trim_end_seconds=2.5)
    assert row.duration_s == row.audio.duration_s == 10.5
    assert np.array_equal(row.sequence, whole.sequence[SR : round(-2.5 * SR)])


def test_silence_at_both_ends_is_cut_after_what_the_settings_say(tmp_path, read):
    pause = np.zeros(3 * SR, np.float32)
    write_sound(tmp_path / "a.wav", np.concatenate([take(), pause, take(), pause]), sr=SR)
    row = read("a.wav", trim_start_seconds=14)
    assert row.duration_s == pytest.approx(14, abs=0.2)
    kept = read("a.wav", trim_start_seconds=14, trim_silence_db=None)
    assert kept.duration_s == 20


@pytest.mark.parametrize("cut", [(20, 0), (0, 20), (8, 8), (14, 0), (0, 14), (86400, 86400)])
@pytest.mark.parametrize("name", ["take.wav", "take.mid"])
def test_nothing_is_left_where_more_is_cut_than_there_is(tmp_path, sound, read, name, cut):
    write_midi(tmp_path / "take.mid", MUSIC)
    settings = {"codec": "notes", "trim_start_seconds": cut[0], "trim_end_seconds": cut[1]}
    reject = read(name, **settings)
    assert (reject.rule, reject.value, reject.limit) == ("too_short", 0, 10)
    assert reject.reason == "0.0 s of it are left (limit: 10)"
    # Nor is there any sound or note where no length is asked for.
    assert read(name, **settings, min_seconds=0).kind == "drop"
    assert read(name, **settings, **ANYTHING).rule == "too_few_notes"


def test_nothing_at_all_can_be_encoded(sound, read):
    row = read("take.wav", trim_end_seconds=20, **ANYTHING)
    assert (row.duration_s, row.sequence.shape, row.fingerprint.shape) == (0, (0, 1), (0,))


def test_midi_is_cut_as_sound_is(tmp_path, read):
    onset = np.arange(1, 80, 0.5)
    write_midi(tmp_path / "a.mid", make_notes(onset, onset + 0.4, 60 + onset % 7, onset))
    row = read("a.mid", codec="notes", trim_start_seconds=10, trim_end_seconds=20.2)
    assert (row.notes.notes, row.duration_s) == (100, pytest.approx(49.7, abs=0.01))
    held = make_notes([*onset, 79.6], [*(onset + 0.4), 200], [60] * 159, [60] * 159)
    write_midi(tmp_path / "b.mid", held)
    row = read("b.mid", codec="notes", trim_end_seconds=100)
    assert row.duration_s == row.notes.duration_s == pytest.approx(99, abs=0.01)


def test_a_pause_before_the_first_note_does_not_count(tmp_path, read):
    late = MUSIC.copy()
    for name in ("onset", "offset"):
        late[name] += 30
    write_midi(tmp_path / "late.mid", late)
    write_midi(tmp_path / "a.mid", MUSIC)
    rows = [read(name, codec="notes") for name in ("a.mid", "late.mid")]
    assert rows[0].duration_s == pytest.approx(rows[1].duration_s, abs=0.01)
    assert read("late.mid", codec="notes", min_seconds=20).rule == "too_short"


def test_the_length_is_the_decoded_one_whatever_the_header_says(tmp_path, sound, read):
    data = bytearray(sound.read_bytes())
    data[40:44] = (0x7FFF_FF00).to_bytes(4, "little")
    (tmp_path / "lies.wav").write_bytes(data)
    assert read("lies.wav", trim_silence_db=None).duration_s == 14


def test_a_recording_that_is_too_long_is_decoded_a_second_further_and_no_more(
    sound, read, monkeypatch
):
    asked = []

    def decode(path, *, seconds, **options):
        asked.append(seconds)
        return audio_decode(path, seconds=seconds, **options)

    audio_decode = audio.decode
    monkeypatch.setattr(audio, "decode", decode)
    reject = read("take.wav", max_seconds=12)
    assert (reject.rule, reject.value, reject.limit) == ("too_long", 13, 12)
    assert asked == [13]
    assert isinstance(read("take.wav", max_seconds=14), Row)
    assert read("take.wav", max_seconds=13.9).value == 14


def test_midi_is_too_long_before_it_is_cut_as_sound_is(tmp_path, read):
    write_midi(tmp_path / "a.mid", improvised(40, random_state=2))
    reject = read("a.mid", codec="notes", max_seconds=20, trim_end_seconds=25)
    assert (reject.kind, reject.rule) == ("drop", "too_long")


def test_a_transcriber_is_not_asked_about_what_is_left_out_anyway(tmp_path, read):
    write_silence(tmp_path / "silence.wav")
    write_tone(tmp_path / "short.wav", seconds=3)

    def hear(samples, sr):
        raise AssertionError("not needed")

    found = [read(name, codec="notes", transcribe=hear) for name in ("silence.wav", "short.wav")]
    assert [reject.rule for reject in found] == ["silent", "too_short"]
    assert found[1] == Reject(
        "short.wav",
        "drop",
        "too_short",
        "3.0 s of it are left (limit: 10)",
        value=3.0,
        limit=10.0,
        source_sha256="the file's hash",
    )


@pytest.mark.parametrize(("cents", "said"), [(-42, True), (30, True), (0, False), (15, False)])
def test_a_piano_between_two_keys_is_named(tmp_path, read, cents, said, caplog):
    samples = tuning.retuned(played(MUSIC, sr=SR), sr=SR, cents=-cents)
    write_sound(tmp_path / "old.wav", samples, sr=SR)
    assert isinstance(read("old.wav", codec="notes"), Row)
    told = [record for record in caplog.records if getattr(record, "event", "") == "retuned"]
    assert len(told) == said
    if told:
        assert told[0].tuning_cents == pytest.approx(cents, abs=1)
        assert told[0].getMessage().startswith("old.wav: the piano is ")


def test_sound_in_which_nothing_is_heard_is_left_out(sound, read):
    nothing = make_notes([], [], [], [])
    reject = read("take.wav", codec="notes", transcribe=lambda *_: (nothing, 0.0))
    assert (reject.rule, reject.value) == ("too_few_notes", 0)


def test_midi_without_notes_is_left_out(tmp_path, read):
    write_midi(tmp_path / "none.mid", make_notes([], [], [], []))
    assert read("none.mid", codec="notes").rule == "too_short"
    assert read("none.mid", codec="notes", min_seconds=0).rule == "too_few_notes"


ODD = 'it\'s \\x41 "two\nlines" \N{MUSICAL KEYBOARD} '


@pytest.mark.parametrize(
    ("suffix", "write", "reason"),
    [
        (".mp3", write_nothing, "it is empty (0 bytes)"),
        (".mp3", write_text, "it is not audio that can be read: "),
        (".wav", write_header_only, "it holds no samples"),
        (".wav", write_nan, "it holds NaN or infinite samples"),
        (".mp4", write_silent_film, "it holds no sound"),
        (".flac", write_half, "it is damaged: it decodes only up to 9.9 s: "),
        (".mid", write_nothing, "it is not a MIDI file"),
        (".mid", write_text, "it is not a MIDI file"),
        (".mid", lambda path: path.write_bytes(b"MThd\0\0\0\6\0"), "it is a broken MIDI file: "),
        (".mid", Path.mkdir, "Is a directory"),
        (".wav", Path.mkdir, "it is a folder"),
        (".mid", lambda path: None, "No such file or directory"),
        (".wav", lambda path: None, "no such file: it"),
    ],
)
@pytest.mark.parametrize("stem", ["plain", ODD])
def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path, read, stem, suffix, write, reason):
    write(tmp_path / (stem + suffix))
    reject = read(stem + suffix, codec="notes")
    assert (reject.kind, reject.rule) == ("failure", "unreadable")
    assert reject.source_sha256 == "the file's hash"
    assert reject.reason.startswith(reason)
    assert reject.reason.isprintable()
    assert str(tmp_path) not in reject.reason
    assert " 0x" not in reject.reason
    assert reject == read(stem + suffix, codec="notes")


@pytest.mark.parametrize(
    ("error", "rule", "reason"),
    [
        (DecodeTimeout("FFmpeg did not finish"), "time_limit", "it did not decode within 7 s"),
        (MemoryError(), "memory", "there is not enough memory to read it"),
        (AudioError("3 samples are NaN"), "unreadable", "3 samples are NaN"),
        (ZeroDivisionError("division"), "unreadable", "ZeroDivisionError: division"),
        (KeyError("a"), "unreadable", "KeyError: 'a'"),
        (ValueError(), "unreadable", "ValueError"),
        (
            RuntimeError("<object at 0x7f3a91> broke\non [mp3 @ 0x55aa] two lines"),
            "unreadable",
            r"RuntimeError: <object> broke\non [mp3] two lines",
        ),
        (UnicodeError("\udce9 \x1b[31m"), "unreadable", r"UnicodeError: \udce9 \x1b[31m"),
    ],
)
def test_whatever_goes_wrong_is_a_failure_with_a_reason_of_one_line(
    sound, read, error, rule, reason
):
    def hear(samples, sr):
        raise error

    reject = read("take.wav", codec="notes", transcribe=hear, time_limit_seconds=7)
    assert (reject.kind, reject.rule, reject.reason) == ("failure", rule, reason)
    assert reject.source_sha256 == "the file's hash"


@pytest.mark.parametrize(
    "error",
    [
        TranscriberLostError("no transcriber answers"),
        AssetError("the weights are missing"),
        DeepPianoError("no ffmpeg was found"),
        ModuleNotFoundError("No module named 'librosa'"),
        KeyboardInterrupt(),
    ],
)
def test_what_the_next_file_would_meet_as_well_is_raised(sound, read, error):
    def hear(samples, sr):
        raise error

    with pytest.raises(type(error)) as raised:
        read("take.wav", codec="notes", transcribe=hear)
    assert raised.value is error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_a_machine_that_has_run_out_blames_no_file(sound, read, number):
    def hear(samples, sr):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise FileError("cannot read it") from error

    with pytest.raises(
        DeepPianoError, match=rf"{os.strerror(number)}\. No file is to blame"
    ) as raised:
        read("take.wav", codec="notes", transcribe=hear)
    assert not isinstance(raised.value, InputError)


def test_an_ffmpeg_that_breaks_blames_no_file(sound, read, tmp_path, monkeypatch):
    program = write_ffmpeg(tmp_path / "bin" / "ffmpeg", "")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert isinstance(read("take.wav"), Row)
    write_ffmpeg(program, "echo 'cannot open shared object file' >&2; exit 127")
    with pytest.raises(DeepPianoError, match="cannot open shared object file") as raised:
        read("take.wav")
    assert not isinstance(raised.value, InputError)
    assert isinstance(read("take.wav"), Row)


def test_a_machine_without_ffmpeg_blames_no_file(sound, read, monkeypatch):
    def missing():
        raise DeepPianoError("no ffmpeg was found")

    monkeypatch.setattr("deep_piano.music.ffmpeg.ffmpeg_binary", missing)
    with pytest.raises(DeepPianoError, match="no ffmpeg was found"):
        read("take.wav")


def test_a_decoder_that_hangs_is_ended(sound, read, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "ffmpeg"
    write_ffmpeg(program, "sleep 1000 & wait", for_file="take.wav")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    reject = read("take.wav", time_limit_seconds=0.25)
    assert (reject.rule, reject.reason) == ("time_limit", "it did not decode within 0.25 s")


def test_a_reason_does_not_say_where_a_file_lies():
    place = "/home/me/it's \n mine.mp3"
    assert reason_of(FileNotFoundError(2, "No such file", place), place) == "No such file"
    assert reason_of(AudioError(f"{place} is broken"), place) == "it is broken"
    assert reason_of(AudioError(r"/home/me/it's \n mine.mp3 is broken"), place) == "it is broken"
    assert reason_of(ValueError(f"not good: {place!r}"), Path(place)).startswith(
        "ValueError: not good: "
    )
    assert "home" not in reason_of(ValueError(f"not good: {place!r}"), Path(place))


def test_a_row_is_named_as_the_corpus_names_it_wherever_the_file_is_read(sound, read):
    row = read("take.wav", source=Source("other/name.wav", 1, "h", split="test"))
    assert (row.name, row.source_sha256, row.split) == ("other/name.wav", "h", "test")
    again = read("take.wav")
    assert np.array_equal(row.sequence, again.sequence)
    assert row.id == again.id


def test_a_failure_can_be_looked_into(sound, read, caplog):
    caplog.set_level("DEBUG", module.__name__)
    read("take.wav", codec="notes", transcribe=lambda *_: 1 / 0)
    assert "take.wav failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
