"""Plans: a pure function of what the corpus holds and what the settings say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.shards import SHARD_NAME, read_facts, write_shard
from deep_piano.prepare.plan import Known, dataset_digest, plan, reading_digest
from deep_piano.prepare.sources import Source
from tests.support.rows import note_row, reject, sha

SETTINGS = PrepareConfig(shard_mb=0.05, validation_share=0)


def sources(count, *, size=10_000):
    return [Source(f"{n:04d}.mid", size, sha(f"{n:04d}.mid")) for n in range(count)]


@pytest.fixture
def know(tmp_path):
    """Return what is known after shards with these rows, rejects and recordings set aside."""

    def make(rows=(), *, rejects=(), set_aside=(), settings=SETTINGS, known=None):
        known = known or Known(reading_digest(settings))
        path = tmp_path / f"{len(known.shards)}.parquet"
        write_shard(
            path,
            rows,
            rejects=rejects,
            set_aside=set_aside,
            spec=CODECS["notes"].spec,
            digest=reading_digest(settings),
            row_group_bytes=1e6,
        )
        known.add(read_facts(path, path.name))
        return known

    return make


def nothing(settings=SETTINGS):
    return Known(reading_digest(settings))


def aside(plans):
    return {one.reject.name: one.reject for shard in plans for one in shard.set_aside}


def held_out(plans):
    return [s.name for shard in plans for s in shard.sources if s.split == "validation"]


def test_every_file_is_meant_for_one_shard():
    found = [
        source for shard in plan(sources(100), nothing(), SETTINGS) for source in shard.sources
    ]
    assert sorted(found, key=lambda source: source.name) == sources(100)


def test_shards_are_as_large_as_asked_and_their_number_is_a_power_of_two():
    plans = plan(sources(100), nothing(), SETTINGS)  # 1 MB at 0.05 MB a shard
    assert {shard.name[9:14] for shard in plans} == {"00032"}
    assert max(len(shard.sources) for shard in plans) < 20
    assert len(plan(sources(100), nothing(), PrepareConfig())) == 1


@pytest.mark.parametrize("shard_mb", [32.0, 1e-9])
def test_shards_of_an_immense_corpus_are_found_again(shard_mb):
    [one] = plan(sources(1, size=10**13), nothing(), PrepareConfig(shard_mb=shard_mb))
    assert "-of-65536-" in one.name
    assert SHARD_NAME.fullmatch(one.name)


def test_samples_of_a_compressed_file_fill_more_shards_than_its_bytes():
    mp3s = [replace(source, name=f"{source.name}.mp3") for source in sources(100)]
    settings = SETTINGS.model_copy(update={"codec": "samples"})
    assert len(plan(mp3s, nothing(settings), settings)) > len(plan(mp3s, nothing(), SETTINGS))


@given(st.permutations(range(12)))
def test_the_order_of_files_changes_nothing_but_their_order(order):
    files = sources(12)
    names = [shard.name for shard in plan(files, nothing(), SETTINGS)]
    shuffled = plan(sorted((files[n] for n in order), key=lambda s: s.name), nothing(), SETTINGS)
    assert [shard.name for shard in shuffled] == names


def test_a_file_more_changes_one_shard():
    before = {shard.name for shard in plan(sources(100), nothing(), SETTINGS)}
    after = {shard.name for shard in plan(sources(101), nothing(), SETTINGS)}
    assert len(after - before) == 1


@pytest.mark.parametrize(
    "change", [{"name": "other.mid"}, {"split": "test"}, {"group": "g"}, {"sha256": sha("x")}]
)
def test_whatever_decides_over_a_shard_changes_its_name(change):
    files = sources(3)
    before = {shard.name for shard in plan(files, nothing(), PrepareConfig())}
    files[1] = replace(files[1], **change)
    assert {shard.name for shard in plan(files, nothing(), PrepareConfig())} != before


@pytest.mark.parametrize("setting", sorted(PrepareConfig.model_fields))
def test_a_setting_decides_over_reading_over_layout_or_over_nothing(setting):
    other = {
        "codec": "mulaw",
        "group": "(a)",
        "split": "hash",
        **dict.fromkeys(("sr", "min_notes", "max_failures", "workers", "transcribers"), 5000),
        **{name: 7.5 for name in ("trim_silence_db", "min_density", "max_density")},
    }.get(setting, 0.75)
    changed = PrepareConfig().model_copy(update={setting: other})
    reads = reading_digest(changed) != reading_digest(PrepareConfig())
    makes = dataset_digest(changed) != dataset_digest(PrepareConfig())
    running = {"time_limit_seconds", "max_failures", "workers", "transcribers"}
    running |= {"silence_seconds"}
    layout = {"split", "validation_share", "test_share", "group"}
    layout |= {"shard_mb", "row_group_mb", "max_similarity"}
    assert (reads, makes) == (setting not in running | layout, setting not in running)


def test_shards_read_with_other_settings_say_nothing(know):
    other = PrepareConfig(min_notes=7)
    known = know([note_row()], settings=other)
    assert known.has(sha("a.mid"))
    elsewhere = nothing()
    assert not elsewhere.add(next(iter(known.shards.values())))
    assert not elsewhere.has(sha("a.mid"))


def test_the_same_sound_under_another_name_is_a_duplicate_and_the_first_name_stays(know):
    rows = [note_row("0000.mid"), replace(note_row("0001.mid", seed=1), id=note_row("0000.mid").id)]
    found = aside(plan(sources(2), know(rows), SETTINGS))
    assert list(found) == ["0001.mid"]
    assert (found["0001.mid"].rule, found["0001.mid"].kind) == ("duplicate", "drop")
    assert found["0001.mid"].reason == "the same sound as 0000.mid"


def test_near_duplicates_are_set_aside_unless_that_is_off(know):
    rows = [note_row("0000.mid", seconds=60), note_row("0001.mid", seconds=60)]
    rows[1] = replace(rows[1], id=sha("other"))
    known = know(rows)
    [reject] = aside(plan(sources(2), known, SETTINGS)).values()
    assert (reject.rule, reject.value, reject.limit) == ("near_duplicate", 1.0, 0.5)
    assert reject.reason == "100% like 0000.mid"
    off = SETTINGS.model_copy(update={"max_similarity": 1.0})
    assert aside(plan(sources(2), known, off)) == {}


def test_what_was_set_aside_comes_back_when_the_first_one_leaves(know):
    rows = [note_row("0000.mid", seconds=60), note_row("0001.mid", seconds=60)]
    rows[1] = replace(rows[1], id=sha("other"))
    known = know(rows)
    plans = plan(sources(2), known, SETTINGS)
    after = know(rows[:1], set_aside=[one for shard in plans for one in shard.set_aside])
    assert aside(plan(sources(2), after, SETTINGS)) == aside(plans)
    assert [after.unread(shard) for shard in plans] == [[]] * len(plans)
    [alone] = plan(sources(2)[1:], after, SETTINGS)
    assert aside([alone]) == {}
    assert after.unread(alone) == sources(2)[1:], "of which only the fingerprint is there"


def test_a_small_corpus_holds_out_the_recording_with_the_lowest_hash(know):
    settings = SETTINGS.model_copy(update={"validation_share": 0.001, "test_share": 0.0})
    known = know([note_row(f"{n:04d}.mid", seed=n) for n in range(4)], settings=settings)
    [name] = held_out(plan(sources(4), known, settings))
    assert held_out(plan(sources(4)[::-1], known, settings)) == [name]
    assert held_out(plan(sources(4), nothing(settings), settings)) == []  # nothing read yet


def test_a_group_is_held_out_together_and_never_the_only_one(know):
    settings = SETTINGS.model_copy(update={"validation_share": 0.001, "test_share": 0.0})
    known = know([note_row(f"{n:04d}.mid", seed=n) for n in range(4)], settings=settings)
    two = [replace(source, group=f"g{n % 2}") for n, source in enumerate(sources(4))]
    assert len(held_out(plan(two, known, settings))) == 2
    one = [replace(source, group="g") for source in sources(4)]
    assert held_out(plan(one, known, settings)) == []


def test_nothing_is_held_out_where_the_corpus_names_the_splits_or_none_is_wanted(know):
    known = know([note_row(f"{n:04d}.mid", seed=n) for n in range(4)])
    named = [replace(source, split="train") for source in sources(4)]
    assert held_out(plan(named, known, SETTINGS)) == []
    assert held_out(plan(sources(4), known, SETTINGS)) == []  # validation_share is 0


def test_failures_can_be_forgotten_with_the_shards_they_stand_in(know):
    known = know([note_row()], rejects=[reject("x.mp3"), reject("y.mp3", kind="drop")])
    known.forget_failures()
    assert not known.has(sha("x.mp3"))
    assert known.has(sha("y.mp3"))
    assert known.has(sha("a.mid"))
    assert known.shards == {}


def test_fingerprints_survive_being_set_aside(know):
    row = note_row("0001.mid", seconds=60)
    rows = [note_row("0000.mid", seconds=60), replace(row, id=sha("other"))]
    [one] = [one for shard in plan(sources(2), know(rows), SETTINGS) for one in shard.set_aside]
    assert np.array_equal(one.fingerprint, row.fingerprint)
    assert one.id == sha("other")


def test_what_was_taken_for_another_kind_is_read_again(know):
    sound = replace(note_row("1111.wav"), kind="audio")
    known = know([note_row("0000.mid"), sound], rejects=[reject("x.mp3")])
    hashes = [sha(name) for name in ("0000.mid", "1111.wav", "x.mp3")]

    def rename(*names):
        known.forget_misnamed(Source(*one) for one in zip(names, (1, 1, 1), hashes, strict=True))
        return [known.has(sha256) for sha256 in hashes]

    assert rename("0.mid", "1.mp3", "y.mp3") == [True, True, True]
    # What is MIDI by its content is so whatever its name.
    assert rename("0.mp3", "1.mid", "x.mid") == [True, False, False]
