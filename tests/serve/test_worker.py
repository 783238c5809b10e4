"""The process that does the work: what it hears in a recording."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.errors import AudioError
from deep_piano.infra.assets import cache
from deep_piano.music import transcription
from deep_piano.music.notes import excerpt, make_notes
from deep_piano.serve.worker import Look, Worker
from tests.support import recordings
from tests.support.recordings import SR, struck
from tests.support.serving import small_config

TALK_S, PLAYING_S = 48.0, 10.0
ONSETS = TALK_S + np.arange(0, PLAYING_S, 0.5)
PLAYED = make_notes(ONSETS, ONSETS + 0.4, 60 + np.arange(20) % 12, np.full(20, 70))


def playing():
    """Return ten seconds of soft, detached playing in tune."""
    samples = np.zeros(round((PLAYING_S + 1) * SR))
    for note in PLAYED:
        tone = struck(int(note["pitch"]), sr=SR, channels=1, seconds=0.9)[:, 0]
        begin = round((note["onset"] - TALK_S) * SR)
        samples[begin : begin + len(tone)] += tone
    return 0.12 * samples[: round(PLAYING_S * SR)] / np.abs(samples).max()


@pytest.fixture
def look(tmp_path, weights, three_keys, monkeypatch):
    """Return a function that has a recording heard; its notes are told by where they are struck."""
    monkeypatch.setattr(cache, "ensure", lambda name, progress=None: None)

    def look(samples, notes, *, name="recording.wav", options=()):
        whole_s = len(samples) / SR

        def transcribed(part, *, sr, progress=None):  # the part ends where the recording does
            return excerpt(notes, whole_s - len(part) / sr, whole_s)

        monkeypatch.setattr(transcription, "transcribe", transcribed)
        path = tmp_path / name
        recordings.write_sound(tmp_path / "recording.wav", samples)
        if options:
            recordings.ffmpeg("-i", tmp_path / "recording.wav", *options, path)
        worker = Worker(small_config(weights, three_keys))
        return worker.do(Look(path, "talk.wav", tmp_path), lambda stage, done: None)

    return look


def test_playing_after_much_talk_is_judged_alone(look):
    talk = np.resize(recordings.speech_like(), round(TALK_S * SR))
    heard = look(np.concatenate([talk, playing()]), PLAYED)
    assert len(heard["notes"]) == len(PLAYED)
    assert heard["window"] == pytest.approx([48, 58], abs=0.2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("no_header.mp3", ("-q:a", 2, "-write_xing", 0)),  # its length is only estimated
        ("live.webm", ("-c:a", "libopus", "-live", 1)),  # as browsers record: no length at all
    ],
)
def test_the_last_minute_is_heard_of_a_file_without_a_true_length(look, name, options):
    silent_s = 70.0
    samples = np.concatenate([np.zeros(round(silent_s * SR)), playing()])
    notes = PLAYED.copy()
    for at in ("onset", "offset"):
        notes[at] += silent_s - TALK_S
    heard = look(samples, notes, name=name, options=options)
    assert heard["whole_s"] == pytest.approx(silent_s + PLAYING_S, abs=0.2)
    assert heard["from_s"] == pytest.approx(silent_s + PLAYING_S - 60, abs=0.2)
    assert len(heard["notes"]) == len(PLAYED)


def test_talk_alone_is_refused(look):
    clicks = make_notes(ONSETS, ONSETS + 0.02, PLAYED["pitch"], PLAYED["velocity"])
    with pytest.raises(AudioError, match="as in speech or noise"):
        look(np.resize(recordings.speech_like(), round(58 * SR)), clicks)


def test_what_holds_no_note_is_refused(look):
    with pytest.raises(AudioError, match=r"only 0 piano notes found in 58\.0 s"):
        look(np.resize(recordings.speech_like(), round(58 * SR)), PLAYED[:0])
