"""Rows of a dataset, made of rule-made music."""

from __future__ import annotations

import hashlib

import numpy as np

from deep_piano.analysis import fingerprint
from deep_piano.analysis.descriptors import describe_audio, describe_notes
from deep_piano.codecs.registry import CODECS
from deep_piano.dataset.rows import Reject, Row
from tests.support.fakes import arpeggios


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


def write_dataset(folder, rows, *, codec="notes", row_group_bytes=1e6, shards=2, **settings):
    """Write a dataset of rows as `prepare` does, without a corpus; return its folder."""
    from deep_piano.config.sections import PrepareConfig
    from deep_piano.dataset.shards import read_facts, write_shard
    from deep_piano.infra.storage.open import open_folder
    from deep_piano.prepare import commit

    place = open_folder(folder)
    facts = []
    for index in range(shards):
        name = f"{index:05d}-of-{shards:05d}-{sha(str(folder))[:16]}.parquet"
        with place.write(f"shards/{name}") as path:
            write_shard(
                path,
                rows[index::shards],
                rejects=[],
                set_aside=[],
                spec=CODECS[codec].spec,
                digest="d",
                row_group_bytes=row_group_bytes,
            )
            facts.append(read_facts(path, name))
    about = commit.make_manifest(
        "corpus",
        PrepareConfig(codec=codec, **settings),
        corpus_digest="c",
        files=len(rows),
        ignored={},
        shards=facts,
        rejects=[],
        versions={},
    )
    commit.commit(place, about)
    return place


def arpeggio_rows(count=16, *, seconds=30.0, held_out=4):
    """Return recordings of music by rule, every fourth one held out, in two folders."""
    return [
        note_row(
            f"{'ab'[n % 8 == 0]}/{n}.mid",
            split="validation" if n % held_out == 0 else "train",
            seconds=seconds,
            seed=24 * n,
        )
        for n in range(count)
    ]
