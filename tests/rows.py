"""Rows of a dataset, made of rule-made music."""

from __future__ import annotations

import hashlib

import numpy as np

from deep_piano import fingerprint
from deep_piano.codecs import CODECS
from deep_piano.features import describe_audio, describe_notes
from deep_piano.rules import Reject
from deep_piano.shards import Row
from tests.fakes import arpeggios


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def note_row(name="a.mid", *, split="train", seconds=20.0, seed=0):
    notes = arpeggios(seconds, rng=np.random.default_rng(seed), tonic=48 + seed % 24)
    return Row(
        id=sha(f"heard {name}"),
        name=name,
        source_sha256=sha(name),
        split=split,
        kind="midi",
        duration_s=float(notes["offset"].max()),
        sequence=CODECS["notes"].encode(notes),
        fingerprint=fingerprint.of_notes(notes),
        audio=None,
        notes=describe_notes(notes, pedal_share=0.25),
    )


def sound_row(codec, name="a.wav", *, split="train", seconds=1.0, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype("f4")
    return Row(
        id=sha(f"heard {name}"),
        name=name,
        source_sha256=sha(name),
        split=split,
        kind="audio",
        duration_s=seconds,
        sequence=CODECS[codec].encode(samples),
        fingerprint=np.empty(0, np.uint32),
        audio=describe_audio(samples, sr=16_000, excerpt_s=0),
        notes=None,
    )


def reject(name="bad.mp3", *, kind="failure", rule="unreadable"):
    return Reject(name, kind, rule, "it is broken", source_sha256=sha(name))
