from __future__ import annotations

import math
import os
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from click import ClickException
from click.testing import CliRunner

from bench import (
    ablations,
    bridges,
    bulk,
    closed_loop,
    common,
    compiled_loop,
    continuations,
    controls,
    decode,
    endings,
    fill,
    form,
    generate,
    growth,
    prepare,
    realism,
    recordings,
    remix,
    serve,
    train,
    transcribed,
    velocities,
)
from bench.recordings import Row, compare_with_others, criteria_table, faults, longest_quiet_s
from bench.stages import REST, Stopwatch
from deep_piano.analysis.keys import Key
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.note_context import FEATURES, NoteContext
from deep_piano.codecs.notes import SPEC, encode
from deep_piano.codecs.notes import decode as decode_notes
from deep_piano.config.sections import PrepareConfig
from deep_piano.generate.tasks import Run
from deep_piano.infra.backend import load_tensorflow
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models.config import ModelConfig, weight_shapes
from deep_piano.music import audio
from deep_piano.music.notes import make_notes
from deep_piano.prepare import tasks
from deep_piano.prepare.plan import Known, plan, reading_digest
from deep_piano.train.loop import Update
from tests.support.fakes import TINY, arpeggios, random_checkpoint
from tests.support.rows import note_row, write_dataset


@pytest.mark.parametrize(
    ("script", "option"),
    [
        (ablations, "--notes"),
        (bridges, "--pieces"),
        (decode, "--checkpoint"),
        (compiled_loop, "--calls"),
        (closed_loop, "--compiled"),
        (generate, "--checkpoint"),
        (continuations, "--index"),
        (controls, "--pieces"),
        (endings, "--random-state"),
        (form, "--candidates"),
        (bulk, "--takes"),
        (recordings, "--checkpoint"),
        (prepare, "--codec"),
        (growth, "--corpus"),
        (serve, "--runs"),
        (train, "--preset"),
        (fill, "--pieces"),
        (remix, "--pieces"),
        (transcribed, "--workers"),
        (velocities, "--audio"),
    ],
)
def test_each_script_says_what_it_does(script, option):
    result = CliRunner().invoke(script.main, ["--help"])
    assert result.exit_code == 0
    assert "Markdown" in result.output
    assert option in result.output


def good_row(**changes):
    figures = dict(
        recording="one", random_state=0, asked_s=180.0, seconds=180.0, sounds_s=179.4,
        last_offset_s=179.25, silence_s=1.0, quiet_s=1.5, note_s=12.0, loop=3, peak_dbfs=-0.9,
        lufs=-16.2, cosine=0.8, shuffled=0.6,
    )  # fmt: skip
    return Row(**{**figures, **changes})


def test_a_good_piece_has_no_faults():
    assert faults(good_row()) == []
    without_sound = {"seconds": None, "sounds_s": None, "quiet_s": None}
    assert faults(good_row(**without_sound, peak_dbfs=None, lufs=None)) == []
    table, kept = criteria_table([good_row(), good_row(random_state=1)])
    assert kept
    assert "missed" not in table


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seconds": 181.1}, "length of the file"),
        ({"sounds_s": 178.9}, "it sounds for"),
        ({"last_offset_s": 178.0}, "last note ends at"),
        ({"silence_s": 4.1}, "silence between notes"),
        ({"quiet_s": 4.1}, "quiet in the sound"),
        ({"note_s": 20.1}, "longest note"),
        ({"loop": 17}, "longest loop"),
        ({"peak_dbfs": 0.0}, "peak"),
        ({"lufs": -18.1}, "loudness"),
        ({"lufs": -13.9}, "loudness"),
        ({"lufs": -math.inf}, "loudness"),
        ({"silence_s": math.nan}, "silence between notes"),
        ({"error": "no notes were found"}, "no notes were found"),
    ],
)
def test_one_fault_is_found_and_fails_the_whole(changes, fault):
    bad = good_row(**changes)
    (found,) = faults(bad)
    assert fault in found
    table, kept = criteria_table([good_row(), bad])
    assert not kept
    assert table.count("missed") == 1


@pytest.mark.parametrize(("shuffled", "kept"), [(0.69, True), (0.71, False), (math.nan, True)])
def test_a_piece_must_be_nearer_to_its_own_seed(shuffled, kept):
    assert criteria_table([good_row(shuffled=shuffled)])[1] is kept


def test_no_piece_at_all_is_no_success():
    assert not criteria_table([good_row(error="silent")])[1]


def test_a_continuation_is_compared_with_the_seeds_of_all_others():
    c, f_sharp = (make_notes([0.0], [1.0], [pitch], [80]) for pitch in (60, 66))
    both = make_notes([0.0, 0.0], [1.0, 1.0], [60, 66], [80, 80])
    row = good_row(recording="one", continuation=c)
    compare_with_others([row], {"one": c, "two": f_sharp, "three": both})
    assert row.shuffled == pytest.approx((0 + math.sqrt(0.5)) / 2)


def test_quiet_is_looked_for_everywhere():
    level = np.zeros(1000, np.float32)
    assert longest_quiet_s(level, sr=100) == 10.0
    level[[200, 900]] = 0.5
    assert longest_quiet_s(level, sr=100) == pytest.approx(6.99)
    level[500] = 0.9e-3  # below -60 dBFS
    assert longest_quiet_s(level, sr=100) == pytest.approx(6.99)
    assert longest_quiet_s(np.ones(5, np.float32), sr=100) == 0


def test_a_step_reads_what_it_multiplies_and_the_rows_it_looks_up():
    bytes_a_step, multiply_adds = decode.step_cost(random_checkpoint())
    units, hidden, sizes = TINY.units, TINY.head_units, [field.size for field in SPEC.fields]
    multiplied = (
        sum(part.features for part in SPEC.context[:2]) * units
        + TINY.layers * 8 * units * units
        + len(sizes) * units * hidden
        + sum(part.features for part in SPEC.context[1:]) * hidden
        + hidden * sum(field.outputs for field in SPEC.fields)
    )
    assert multiply_adds == multiplied
    assert 4 * multiplied < bytes_a_step < 4 * (multiplied + 30 * (units + hidden) + 600)
    shapes = weight_shapes(SPEC, ModelConfig())
    assert sum(map(math.prod, shapes.values())) * 4 > 2e7


def test_a_stage_counts_its_own_time_only(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr("bench.stages.now", lambda: (next(clock), 0.0))
    watch = Stopwatch()  # at 0
    with watch.measure("outer"), watch.measure("inner"):  # at 1, 2
        pass  # at 3, 4
    watch.pause()  # at 5
    assert {name: times[0] for name, times in watch.main.items()} == {
        REST: 2.0,
        "outer": 2.0,
        "inner": 1.0,
    }


@pytest.fixture(scope="module")
def two_recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for index, name in enumerate(("one.wav", "an other's.wav")):
        noise = np.random.default_rng(index).normal(0, 0.1, 32_000).astype(np.float32)
        audio.encode(folder / name, noise, sr=16_000)
    return folder


WAVEFORM = PrepareConfig(codec="mulaw", min_seconds=1, min_tuning_strength=0, max_similarity=1)


def test_the_limit_decodes_what_prepare_decodes(two_recordings, caplog):
    paths = prepare.recordings(two_recordings)
    commands = prepare.decode_commands(paths, WAVEFORM)
    assert [command[-1] for command in commands] == ["pipe:1"] * 2
    assert all(f"file:{path}" in one for path, one in zip(paths, commands, strict=True))
    assert prepare.decode_alone(commands, cores=2) == 2 * 4 * 32_000
    assert not caplog.records


def test_the_pool_builds_the_shards_that_prepare_builds(two_recordings, tmp_path):
    class InThisProcess:
        imap_unordered = staticmethod(map)

    corpus, dataset = open_folder(two_recordings), open_folder(tmp_path)
    shards = prepare.pooled(corpus, dataset, WAVEFORM, InThisProcess())
    assert {entry.name for entry in dataset.entries()} >= {f"shards/{name}" for name in shards}
    again = prepare.pooled(corpus, open_folder(tmp_path / "again"), WAVEFORM, InThisProcess())
    assert again == shards != {}


def test_growth_makes_results_up_that_are_like_real_ones(tmp_path, monkeypatch):
    run = Run(None, None, "mid", Mock(checkpoint=random_checkpoint(), only_new=False))
    seed, written = growth.made_up_seed(run, "a.mid")
    [take] = growth.MadeUpComposer().work({("a.mid", 0): seed}).values()
    record = growth.made_up_record(run, "a.mid", seed, take)
    assert record.done
    assert (record.notes, record.seed_sha256) == (growth.PIECE_NOTES, seed.digest)
    assert len(record.files) == len(growth.KINDS)
    assert [*written] == ["a.mid/seed.mp3"]
    monkeypatch.setattr(tasks, "ingest", growth.made_up_row)
    corpus, dataset = open_folder(tmp_path / "corpus"), open_folder(tmp_path / "dataset")
    growth.write_files(corpus.root, 3)
    sources = prepare.survey_hashed(corpus, PrepareConfig(), map)
    [planned] = plan(sources, Known(reading_digest(PrepareConfig())), PrepareConfig())
    facts = prepare.shard(corpus, dataset, PrepareConfig(), planned, rejects={}, rows_in={})
    assert facts.table.num_rows == 3
    assert not facts.rejects


def test_growth_counts_a_block_and_its_memory(capsys):
    took = growth.Took(10)
    with growth.watched(took):
        for done in (0, 1, 10):
            took.show(Progress("preparing", done, 10))
    assert took.seconds > 0
    if Path("/proc/self/status").is_file():
        assert 0 < max(took.at_first, took.at_tenth, took.at_last) <= took.driver
    growth.print_growth("prepare", [took], made_up=True)
    assert "prepare, its results made up" in capsys.readouterr().out


def test_growth_takes_the_same_files_of_a_corpus_every_time(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in "abcd":
        (corpus / f"{name}.mid").write_text(name)
    for count in (2, 4):
        growth.link_files(tmp_path / f"{count}", corpus, count)
    some, every = ({path.name for path in (tmp_path / f"{n}").iterdir()} for n in (2, 4))
    assert len(some) == 2
    assert some < every == {f"{name}.mid" for name in "abcd"}
    with pytest.raises(ClickException, match="not 9"):
        growth.link_files(tmp_path / "9", corpus, 9)


def test_the_parts_add_up(two_recordings, capsys, monkeypatch):
    for module in {module for module, _, _ in prepare.STAGES}:
        for name, value in list(vars(import_module(module)).items()):
            monkeypatch.setattr(f"{module}.{name}", value)  # what the timers wrap is put back
    prepare.print_parts(prepare.recordings(two_recordings), WAVEFORM)
    printed = capsys.readouterr()
    assert "there is no" not in printed.err
    rows = [line.strip("| ").split(" | ") for line in printed.out.splitlines()[2:]]
    *parts, total = [float(ms.strip("*")) for _, ms, *_ in rows]
    assert sum(parts) == pytest.approx(total, abs=1)
    assert len(parts) == len(prepare.STAGES) + 1
    assert dict((name, ms) for name, ms, *_ in rows)["descriptors"] != "0.0"


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="Linux tells a process's time")
def test_processor_time_is_read_of_processes_that_are_there():
    assert common.ray_workers(os.getpid()) == []
    assert common.processor_s([os.getpid(), 2**22 + 1]).keys() == {os.getpid()}


def test_training_multiplies_each_kernel_three_times_a_note():
    units, hidden, sizes = TINY.units, TINY.head_units, [field.size for field in SPEC.fields]
    known = sum(sum(sizes[:index]) + field.beside.size for index, field in enumerate(SPEC.fields))
    kernels = (
        (sum(sizes) + sum(part.size for part in SPEC.context[:2])) * units
        + TINY.layers * 8 * units * units
        + (len(sizes) * units + known) * hidden
        + hidden * sum(field.outputs for field in SPEC.fields)
    )
    assert train.flops_a_note(SPEC, TINY) == 6 * kernels


def test_an_update_is_timed_between_validations_only():
    notes, elapsed_s = 10, {1: 9.0, 2: 12.0, 3: 13.0, 4: 14.0, 6: 19.0, 7: 20.5}
    told = [
        Update(
            step,
            8,
            1.0,
            2.0 if step in (2, 6) else None,
            step * notes / seconds,
            "note",
            "nats a note",
        )
        for step, seconds in elapsed_s.items()
    ]
    assert train.update_s(told, notes) == pytest.approx((1.0 + 1.0 + 1.5) / 3)
    with pytest.raises(ClickException, match="raise --updates"):
        train.update_s(told[:2], notes)


def test_training_is_held_against_the_peak_and_fit():
    took = {
        train.OURS: [train.Stretch(1.0)] * 2 + [train.Stretch(99.0)],
        train.PLAIN: [train.Stretch(1.5)],
    }
    ours, plain = train.way_rows(took, 10, 100, 1250.0)
    assert ours[-2:] == ["0.80", "1.00"]
    assert plain[-1] == "1.50"


def test_continuations_are_held_against_what_was_played(tmp_path, weights):
    rows = [
        note_row(f"{c}/{n}.mid", split="validation", seconds=40, seed=n)
        for c in "ab"
        for n in (1, 2)
    ]
    write_dataset(tmp_path / "dataset", [*rows, note_row()])
    CorpusIndex.build([(row.name, row.sequence) for row in rows]).save(tmp_path / "index")
    options = [
        "--checkpoint",
        weights,
        "--index",
        tmp_path / "index",
        "--seconds",
        30,
        "--workers",
        1,
    ]
    arguments = [str(a) for a in (tmp_path / "dataset", *options)]
    shown = CliRunner().invoke(continuations.main, arguments)
    assert shown.exit_code == 0, shown.output
    tables = shown.stdout.split("\n\n")
    assert [table.count("\n") for table in tables] == [4, 4, 4, 4, 1]  # a, b, all
    adherence, _, _, originality, verdict = tables
    assert [line.split(" | ")[1:3] for line in adherence.splitlines()[2:]] == [
        ["2", "4"], ["2", "4"], ["4", "8"],
    ]  # fmt: skip
    # What was really played is in this index, from the end of the seed on.
    assert int(originality.splitlines()[-1].split(" | ")[-1].strip(" |")) > 100
    assert "of 8 pieces" in verdict


def test_what_was_played_overlaps_with_itself_and_keeps_to_itself():
    notes = decode_notes(note_row(seconds=60).sequence)
    case = continuations.Case("a", "a.mid", Path("a.mid"), notes, notes[notes["onset"] < 10], 10.0)
    case.pieces = [case.real, case.real]
    found = continuations.adherence([case])
    assert (found.cosine, found.same_key) == (found.real_cosine, found.real_same_key)
    alike = continuations.realism([case])
    assert alike.common_ends == alike.real_common_ends


@pytest.mark.tf
@pytest.mark.parametrize("name", ["", "NVIDIA H100"])
def test_a_mocked_gpu_is_made_ready(name, monkeypatch):
    config = load_tensorflow().config
    prepared = []
    monkeypatch.setattr("deep_piano.decoding.xla.prepare_gpu", lambda: prepared.append(name))
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [kind] if name else [])
    for which in ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"):
        monkeypatch.setattr(config.threading, which, lambda count: None)  # once a process
    details = {"device_name": name}
    monkeypatch.setattr(config.experimental, "get_device_details", lambda gpu: details)
    assert common.ready_tensorflow() == name
    assert prepared == [name] * bool(name)


def test_what_is_alike_is_not_told_apart_and_overlaps():
    rng = np.random.default_rng(0)
    one, same = ([arpeggios(70, rng=rng, tonic=50 + n) for n in range(6)] for _ in range(2))
    other = [arpeggios(70, rng=rng, tonic=50 + n, step_s=0.1) for n in range(6)]
    assert realism.told_apart(one, other) > 0.95
    assert realism.told_apart(one, same) < 0.8
    areas, apart = (realism.overlapped_areas(one, parts) for parts in (same, other))
    assert np.mean(list(areas.values())) > 0.8
    assert apart["density"] < 0.1
    assert math.isnan(realism.told_apart(one[:1], other[:1]))
    assert realism.told_apart(one, other, figures=realism.habits) > 0.95
    assert realism.told_apart(one, same, figures=realism.habits) < 0.8
    assert math.isnan(realism.overlapped_areas(one[:2], other)["density"])


def test_a_blanked_part_says_what_nothing_says(rng):
    """Of both memories: what a stream says that remembers nothing. The rest is left as it is."""
    sequence = encode(arpeggios(30, rng=rng))[None]
    plain, silent, blanked = (
        NoteContext(1),
        NoteContext(1),
        ablations.Blanked(1, ["memory", "chords"]),
    )
    for context, remembers in ((plain, True), (silent, False), (blanked, True)):
        context.start(0, remembers=remembers)
    whole, nothing, found = (
        context.window(sequence[:, :-1], sequence[:, 1:]) for context in (plain, silent, blanked)
    )
    assert (whole.classes != nothing.classes).any()
    for one, other in zip(nothing, found, strict=True):
        np.testing.assert_array_equal(one, other)
    every = ablations.Blanked(1, [*ablations.PARTS, ablations.SECOND])
    every.start(0)
    found = every.window(sequence[:, :-1], sequence[:, 1:])
    assert not found.copied.any()
    told = [name for name, place in FEATURES.items() if found.features[..., place].any()]
    assert told == ["struck", "sounding", "recent", "seed", "rate"]


@pytest.mark.tf
@pytest.mark.slow
def test_parts_are_left_out_in_turn(tmp_path):
    rows = [
        note_row(f"{corpus}/{n}.mid", split=split, seed=n)
        for corpus in ("maestro", "pop909")
        for n, split in enumerate(("train", "validation"))
    ]
    write_dataset(tmp_path, rows)
    arguments = [str(tmp_path), "--preset", "tiny", "--notes", "4096", "--only", "all but memory"]
    shown = CliRunner().invoke(ablations.main, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[-1].startswith("| all but memory |")
    assert next(iter(ablations.all_rows())) == "plain"


def test_what_comes_back_is_found_and_what_does_not_is_not(rng):
    seed, other = (arpeggios(8, rng=rng, tonic=tonic) for tonic in (48, 54))
    noise = make_notes(
        *(np.sort(rng.uniform(60, 120, 300)) + end for end in (0.0, 0.3)),
        rng.integers(40, 90, 300),
        [80] * 300,
    )
    again = seed.copy()
    for edge in ("onset", "offset"):
        again[edge] = seed[edge] * 1.1 + 75.0
    later = np.sort(np.concatenate([noise, again]), order="onset")
    assert form.melody_again(seed, later) == 1
    assert form.melody_again(other, later) < 0.8
    assert form.harmony_again(seed, again) > 0.9 > form.harmony_again(other, again)
    assert form.copied(seed, again) > form.copied(other, noise)


def test_a_step_at_a_boundary_is_found_and_none_elsewhere():
    onset = np.arange(0, 100, 0.25)
    away = (onset >= 40) & (onset < 70)
    keys = np.where(away, [[54], [58], [61], [52]], [[60], [64], [67], [59]]).T
    pitch = keys[np.arange(len(onset)), np.arange(len(onset)) % 4]
    notes = make_notes(onset, onset + 0.2, pitch, np.where(away, 60, 80))
    asked = [(Key(0, "major"), Key(6, "major"))]
    density, register, loudness, classes, _ = map(
        float, bridges.steps([notes], asked, bridges.BOUNDARIES_S)
    )
    assert (density, register) == (0, 6.25)
    assert loudness == pytest.approx((0.25 + 1 / 3) / 2, abs=0.001)
    assert classes > 0.7
    within = bridges.steps([notes], asked, bridges.MIDDLES_S)
    assert within[:4] == ["0.000"] * 4


def test_an_ending_that_slows_down_is_seen():
    onset = np.append(np.arange(0, 60, 0.25), 60 + np.array([0.0, 1.0, 2.0, 3.0, 4.0, 4.02]))
    steady = make_notes(onset, onset + 0.2, [60] * len(onset), [80] * len(onset))
    steady["velocity"][-6:] = 40
    steady["pitch"][-1] = 64
    steady["offset"][-1] = 67.0
    assert len(endings.last_chord(steady)) == 2
    np.testing.assert_allclose(endings.slows(steady), [[0.25, 0.5]] * 4, rtol=0.01)
    assert endings.slows(steady[-10:]) is None
    assert endings.profile([steady] * 3)[2:] == ["2.0", "3.0 (3.0 to 3.0)"]
    [part] = endings.earlier(steady)
    assert len(part) == 40


def test_a_melody_has_what_nothing_sounds_above():
    notes = make_notes([0, 0, 1, 2, 3], [0.9, 4, 1.9, 2.5, 4], [60, 50, 62, 45, 58], [80] * 5)
    assert form.melody_of(notes)["pitch"].tolist() == [60, 62, 58]
    [end] = form.last(make_notes([0, 5, 20], [4, 12, 21], [60, 62, 64], [80] * 3))
    assert end["pitch"].tolist() == [64]
