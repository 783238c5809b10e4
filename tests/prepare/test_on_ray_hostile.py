"""PREPARE ends well with the hostile corpus, and every file of it is accounted for."""

from __future__ import annotations

import csv
import json
import os
import re

import pytest

from deep_piano.config.load import load_config
from deep_piano.dataset.manifest import read_manifest
from deep_piano.dataset.shards import read_rows
from deep_piano.errors import DeepPianoError
from deep_piano.infra.storage.open import open_folder
from deep_piano.prepare.on_ray import prepare
from tests.support.clusters import contents, one_node
from tests.support.fakes import fake_transcriber
from tests.support.hostile import for_sound, write_hanging_ffmpeg, write_hostile_corpus

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CODECS = ("notes", "mulaw")
MAX_FAILURES = 10


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The corpus, what to expect of it by codec, and its state before anyone reads it."""
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    expected = write_hostile_corpus(folder)
    by_codec = {"notes": expected, "mulaw": for_sound(folder, expected)}
    return folder, by_codec, state(folder)


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory):
    """A cluster whose workers find the FFmpeg that hangs; they take PATH over when it starts."""
    binary = write_hanging_ffmpeg(tmp_path_factory.mktemp("bin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
        with one_node():
            yield


@pytest.fixture(scope="module")
def prepared(hostile, tmp_path_factory):
    """Prepare the hostile corpus, once for each codec; return the folder and the manifest."""
    made = {}

    def call(codec):
        if codec not in made:
            folder = tmp_path_factory.mktemp(codec) / "dataset"
            made[codec] = folder, run(hostile, folder, codec=codec)
        return made[codec]

    return call


def run(hostile, folder, **settings):
    # For one file; far more than any other takes, also on a busy machine and where FFmpeg is
    # started for the first time.
    small = {"time_limit_seconds": 30.0, "shard_mb": 2.0}
    return prepare(
        open_folder(hostile[0]),
        open_folder(folder),
        load_config(None, {"prepare": small | settings}),
        transcriber=fake_transcriber,
    )


def state(folder):
    """Return the kind, size and time of the last change of everything below a folder."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 -- a name may be no UTF-8
            status = os.lstat(path)
            found[path] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def outcomes(folder, manifest):
    """Return what became of each file: ("recording", None), or a reject's kind and rule."""
    rows = [row for path in (folder / "shards").iterdir() for row in read_rows(path)]
    found = [(row.name, ("recording", None)) for row in rows]
    found += [(one.name, (one.kind, one.rule)) for one in manifest.rejects]
    assert len(dict(found)) == len(found), "a file is accounted for once"
    return dict(found)


@pytest.mark.parametrize("codec", CODECS)
def test_every_file_is_accounted_for(codec, hostile, prepared):
    expected = {n: e for n, e in hostile[1][codec].items() if e.outcome != "ignored"}
    found = outcomes(*prepared(codec))
    assert set(found) == set(expected)
    wrong = {
        name: (found[name], one.outcome, one.rule)
        for name, one in expected.items()
        if found[name][0] != one.outcome or one.rule not in (None, found[name][1])
    }
    assert not wrong


@pytest.mark.parametrize("codec", CODECS)
def test_counts_reconcile(codec, hostile, prepared):
    folder, manifest = prepared(codec)
    expected = [one.outcome for one in hostile[1][codec].values()]
    totals = manifest.totals
    assert totals.files == totals.recordings + totals.drops + totals.failures
    assert totals.recordings == expected.count("recording")
    assert totals.drops == expected.count("drop")
    assert totals.failures == expected.count("failure")
    assert totals.ignored == expected.count("ignored")
    assert totals.recordings == sum(s.recordings for s in totals.splits.values())
    assert len(manifest.shards) > 2
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest.to_json()


@pytest.mark.parametrize("codec", CODECS)
def test_reasons_are_for_people_and_the_same_everywhere(codec, hostile, prepared):
    folder, manifest = prepared(codec)
    for reject in manifest.rejects:
        reason = reject.reason
        assert reason, reject
        assert reason.isprintable(), reject  # hence one line
        assert not re.search(r"0x[0-9a-f]{4}", reason), reject
        assert str(hostile[0]) not in reason, reject
        assert str(hostile[0].parent) not in reason, reject
    with (folder / "rejects.csv").open(newline="", encoding="utf-8") as file:
        listed = [(row["name"], row["rule"], row["reason"]) for row in csv.DictReader(file)]
    assert listed == [(one.name, one.rule, one.reason) for one in manifest.rejects]


@pytest.mark.parametrize("codec", CODECS)
def test_measured_values_break_their_limits(codec, prepared):
    measured = [one for one in prepared(codec)[1].rejects if one.value is not None]
    assert {one.rule for one in measured} >= {"silent", "clipped", "not_piano_like"}
    for one in measured:
        too_little = one.rule in ("too_short", "too_few_notes", "not_piano_like") or (
            one.rule == "silent" and one.limit < 0.01  # of a peak, not of the time
        )
        assert one.value < one.limit if too_little else one.value >= one.limit, one


def test_descriptors_are_of_what_was_decoded_not_of_what_headers_say(prepared):
    folder, manifest = prepared("mulaw")
    rows = {row.name: row for path in (folder / "shards").iterdir() for row in read_rows(path)}
    assert rows["says 12 seconds.wav"].duration_s == pytest.approx(12, abs=0.1)
    assert rows["says ten hours.wav"].duration_s == pytest.approx(14, abs=0.2)
    assert rows["says an hour.mp3"].duration_s == pytest.approx(14, abs=0.2)
    assert rows["truncated.mp3"].duration_s == pytest.approx(13, abs=0.2)
    assert max(row.duration_s for row in rows.values()) < 14.2
    assert manifest.totals.duration_s == pytest.approx(
        sum(row.duration_s for row in rows.values()), abs=0.01
    )


def test_another_run_makes_the_same_bytes(hostile, prepared, tmp_path):
    folder, manifest = prepared("mulaw")
    assert run(hostile, tmp_path / "again", codec="mulaw", workers=1) == manifest
    assert contents(tmp_path / "again") == contents(folder)


def test_too_many_failures_end_it_early_and_the_next_run_ends_well(hostile, prepared, tmp_path):
    folder, manifest = prepared("notes")
    dataset = tmp_path / "dataset"
    with pytest.raises(DeepPianoError, match=f"{MAX_FAILURES} may .* raise max_failures") as caught:
        run(hostile, dataset, max_failures=MAX_FAILURES)
    assert str(caught.value).isprintable()
    stopped_at = int(re.search(r"stopped: (\d+) files failed", str(caught.value))[1])
    assert MAX_FAILURES < stopped_at < manifest.totals.failures
    assert read_manifest(open_folder(dataset)) is None
    assert run(hostile, dataset) == manifest
    assert contents(dataset) == contents(folder)


def test_nothing_in_the_corpus_is_touched(hostile, prepared):
    for codec in CODECS:
        prepared(codec)
    folder, _, before = hostile
    assert state(folder) == before
