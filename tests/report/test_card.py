from __future__ import annotations

from dataclasses import fields, replace

import pytest
from rich.cells import cell_len

from deep_piano.report.card import dataset_card, encodable, recording_card
from tests.support.datasets import AUDIO, NOTES, a_manifest, an_empty_manifest, as_json

HOSTILE = [
    "a\nb\tc",
    "\x1b[31mred",
    "caf\udce9.mp3",
    "日本の曲" * 30 + ".mp3",
    "\u202eright",
    "x" * 300,
]


def widths(card):
    return [cell_len(line) for line in card.split("\n")]


def test_the_card_of_a_dataset_says_what_is_in_it():
    card = dataset_card(a_manifest(), uri="s3://music/notes")
    for text in (
        "40 recordings · 2.0 hours · 48,000 notes",
        "52 = 40 recordings + 3 dropped + 2 failed + 7 ignored",
        "4 .jpg, 3 hidden or in folders of the system",
        "notes-2: onset (160), pitch (88)",
        "2 of 12.5 MB together, 4 row groups",
        "Tempo, BPM",
        "Notes a second",
        "Loudness, LUFS",
        "Duration",
        "Left out: 5 of 45 files",
        "3 dropped: too short",
        "lasts 0.5 s",
    ):
        assert text in card
    assert card.endswith("s3://music/notes/rejects.csv")
    assert max(widths(card)) <= 80
    assert not card.endswith("\n")


def test_the_splits_come_in_the_order_of_their_use():
    lines = dataset_card(a_manifest()).splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("  Split"))
    assert [line.split()[0] for line in lines[begin + 1 : begin + 4]] == [
        "train",
        "validation",
        "test",
    ]
    assert lines[begin + 1].endswith("90.0%")


def test_a_bar_is_as_long_as_what_it_shows_and_never_gone():
    manifest = a_manifest(summary={"key": {"C major": 10**9, "G major": 5 * 10**8, "A minor": 1}})
    lines = {line.split()[0]: line for line in dataset_card(manifest).splitlines() if "or" in line}
    assert lines["C"].count("█") == 17  # the commonest: the whole width
    assert lines["C"].count("▏") == 1  # one in a thousand million
    assert lines["G"].count("█") == 8


def test_a_histogram_says_where_it_is_open():
    assert "≤40" not in dataset_card(a_manifest())
    summary = as_json()["summary"]
    summary["tempo_bpm"].update(min=12.0, max=300.0)
    card = dataset_card(a_manifest(summary=summary))
    assert "≤40" in card
    assert "≥220" in card


def test_only_the_first_few_names_of_a_rule_are_shown():
    rejects = [
        {"name": f"{n}.mid", "kind": "drop", "rule": "silent", "reason": "silent"}
        for n in range(1234)
    ]
    card = dataset_card(a_manifest(rejects=rejects))
    assert "1,234 dropped: silent" in card
    assert "and 1,231 more" in card
    assert "3.mid" not in card


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_stays_on_its_line(name):
    manifest = a_manifest()
    rows = len(dataset_card(manifest).splitlines())
    first, *others = manifest.rejects
    odd = first.model_copy(update={"name": name, "reason": f"{name} is odd"})
    corpus = manifest.corpus.model_copy(update={"uri": name})
    card = dataset_card(manifest.model_copy(update={"rejects": [odd, *others], "corpus": corpus}))
    assert len(card.splitlines()) == rows
    assert max(widths(card)) <= 80
    assert max(widths(recording_card(name, AUDIO, NOTES))) <= 80
    assert all(c.isprintable() for c in card.replace("\n", ""))


def test_the_card_of_an_empty_dataset():
    card = dataset_card(an_empty_manifest())
    assert "0 recordings" in card
    assert "Tempo" not in card
    assert "Left out" not in card
    assert card.endswith("rejects.csv")


def test_where_there_are_no_notes_it_counts_steps():
    codec = {
        "codec": "samples-1",
        "fields": [{"name": "sample", "size": 1, "continuous": True}],
        "context_size": 0,
    }
    card = dataset_card(a_manifest(codec=codec))
    assert "48,000 steps" in card
    assert "samples-1: sample (real)" in card


def test_a_card_is_written_in_the_encoding_there_is():
    card = dataset_card(a_manifest(), uri="/データ")
    assert encodable(card, "utf-8") == card
    assert encodable(card, None) == card
    plain = encodable(card, "ascii")
    assert plain.isascii()
    assert len(plain.splitlines()) == len(card.splitlines())
    assert "##" in plain
    assert encodable("caf\xe9 ▇", "latin-1") == "caf\xe9 #"


def test_a_recording_with_its_units():
    card = recording_card("nocturne.mp3", AUDIO, NOTES)
    for line in (
        "duration                4:47.2  min:s",
        "loudness                 -27.3  LUFS",
        "clipped                  0.25%  of the samples",
        "spectral roll-off        1,530  Hz",
        "tempo                       96  BPM",
        "lowest note                 C2  MIDI 36",
        "notes                    1,234",
        "pedal down             unknown",
        "key                    G major",
    ):
        assert f"    {line}\n" in card
    assert "   C    C#   D " in card
    assert "-412.3" in card
    assert max(widths(card)) <= 80


@pytest.mark.parametrize(("kind", "features"), [("audio", AUDIO), ("notes", NOTES)])
def test_every_descriptor_is_on_the_card(kind, features):
    card = recording_card("a", **{kind: features})
    others = {float: 0.5, int: 50, str: "B minor", tuple: (0.5,) * 12, type(None): 0.5}
    for field in fields(features):
        other = others[type(getattr(features, field.name))]
        changed = replace(features, **{field.name: other})
        assert recording_card("a", **{kind: changed}) != card, field.name


def test_a_recording_may_lack_either():
    assert "LUFS" not in recording_card("a.mid", notes=NOTES)
    assert "velocity" not in recording_card("a.mp3", audio=AUDIO)
    assert "a.xyz" in recording_card("a.xyz")


def test_what_a_silent_recording_has_no_number_for():
    audio = replace(AUDIO, loudness_lufs=float("-inf"), tempo_bpm=None, chroma=(0.0,) * 12)
    card = recording_card("silence.wav", audio)
    assert "    loudness                  none\n" in card
    assert "    tempo                  unknown\n" in card
