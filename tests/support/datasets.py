"""A dataset's manifest and a recording's descriptors, made up for tests of what is shown."""

from __future__ import annotations

from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
from deep_piano.dataset.manifest import Manifest
from deep_piano.dataset.summary import summarise

AUDIO = AudioFeatures(
    duration_s=287.23,
    loudness_lufs=-27.31,
    peak_dbfs=-3.12,
    clipping_share=0.0025,
    silence_share=0.021,
    spectral_centroid_hz=812.4,
    spectral_rolloff_hz=1530.0,
    zero_crossing_rate=0.0412,
    mfcc=(-412.3, 98.1, -12.2, 30.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
    chroma=(0.2, 0.01, 0.15, 0.02, 0.12, 0.03, 0.08, 0.2, 0.01, 0.1, 0.02, 0.06),
    tempo_bpm=96.2,
    key="G major",
    tuning_strength=0.83,
)
NOTES = NoteFeatures(
    notes=1234,
    density_per_s=4.3,
    lowest_pitch=36,
    highest_pitch=84,
    velocity_mean=61.2,
    velocity_sd=12.3,
    pedal_share=None,
    tempo_bpm=96.0,
    key="G major",
    duration_s=287.2,
)


def as_json():
    """Return what the manifest of 40 recordings and 5 files that were left out is read from."""
    rejects = [
        *(
            _reject(f"short {n}.mid", "drop", "too short", "lasts 0.5 s; 5 s are asked for")
            for n in range(3)
        ),
        _reject("letter.mp3", "failure", "decode", "letter.mp3 is not audio: it is text."),
        _reject("日本の曲.flac", "failure", "decode", "日本の曲.flac is empty."),
    ]
    return {
        "format": 1,
        "codec": {
            "codec": "notes-2",
            "fields": [
                {"name": name, "size": size, "continuous": False}
                for name, size in (("onset", 160), ("pitch", 88))
            ],
            "context_size": 0,
        },
        "settings": {},
        "settings_digest": "00",
        "reading_digest": "00",
        "versions": {},
        "corpus": {"uri": "s3://music/all", "digest": "d"},
        "totals": {
            **{"files": 45, "recordings": 40, "drops": 3, "failures": 2, "ignored": 7},
            "left_alone": {".jpg": 4, "hidden": 3},
            **_amount(40, 7200.0, 48_000),
            "bytes": 12_500_000,
            "splits": {
                "test": _amount(2, 360.0, 2400),
                "train": _amount(36, 6480.0, 43_200),
                "validation": _amount(2, 360.0, 2400),
            },
        },
        "summary": summarise(
            {
                "duration_s": [60.0 + 6 * n for n in range(40)],
                "tempo_bpm": [80.0 + n for n in range(40)],
                "density_per_s": [4 + n / 10 for n in range(40)],
                "loudness_lufs": [None, *(-30 + n / 5 for n in range(39))],
                "key": ["C major"] * 30 + ["A minor"] * 7 + ["G major"] + ["none"] * 2,
            }
        ),
        "shards": [
            {
                "name": f"0000{n}-of-00002-{n:016x}.parquet",
                "bytes": 6_250_000,
                "sha256": "ab",
                "row_groups": [{"split": "train", **_amount(10, 1800.0, 12_000)}] * 2,
            }
            for n in range(2)
        ],
        "rejects": rejects,
    }


def a_manifest(**parts):
    """Return the manifest of `as_json`, with other parts."""
    return Manifest.model_validate(as_json() | parts)


def an_empty_manifest():
    """Return the manifest of a corpus that held nothing."""
    names = ("duration_s", "tempo_bpm", "density_per_s", "loudness_lufs", "key", "chroma")
    totals = {
        **{"files": 0, "recordings": 0, "drops": 0, "failures": 0, "ignored": 0},
        **_amount(0, 0.0, 0),
        "bytes": 0,
        "splits": {name: _amount(0, 0.0, 0) for name in ("train", "validation", "test")},
    }
    return a_manifest(
        totals=totals, summary=summarise({n: [] for n in names}), shards=[], rejects=[]
    )


def _amount(recordings, duration_s, steps):
    return {"recordings": recordings, "duration_s": duration_s, "steps": steps}


def _reject(name, kind, rule, reason):
    return {
        **{"name": name, "kind": kind, "rule": rule, "reason": reason},
        **{"value": None, "limit": None, "source_sha256": "ab"},
    }
