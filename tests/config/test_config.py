from __future__ import annotations

import typing
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from deep_piano.config.load import load_config
from deep_piano.config.sections import Config, GenerateConfig, TrainConfig
from deep_piano.errors import ConfigError

DOCUMENTED = Path(__file__).parents[2] / "ray_config.yaml"


@pytest.fixture
def settings(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_documented_file_holds_every_setting_with_its_default():
    tree = yaml.safe_load(DOCUMENTED.read_text(encoding="utf-8"))
    tree.pop("profiles")
    assert tree == Config().model_dump()
    assert load_config(DOCUMENTED) == load_config() == Config()


def test_every_setting_is_explained_in_the_documented_file():
    uncommented = [
        line.split(":")[0].strip()
        for line in DOCUMENTED.read_text(encoding="utf-8").splitlines()
        if line.strip() and "#" not in line
    ]
    # Names that say it all, or that the line above explains.
    assert set(uncommented) <= {
        *("onset", "pitch", "velocity", "duration"),
        *("warmup_steps", "weight_decay", "random_state"),
    }


def test_presets_are_those_of_the_model():
    model = pytest.importorskip("deep_piano.models.config")
    annotation = TrainConfig.model_fields["preset"].annotation
    assert set(typing.get_args(annotation)) == set(model.PRESETS)


def test_a_file_changes_what_it_names_and_nothing_else(settings):
    config = load_config(settings("generate:\n  seconds: 60\ntrain: {learning_rate: 1e-3}\n"))
    assert config.generate == GenerateConfig(seconds=60.0)
    assert config.train == TrainConfig(learning_rate=0.001)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_the_defaults(settings, text):
    assert load_config(settings(text)) == Config()


def test_one_number_stands_for_every_attribute(settings):
    config = load_config(settings("generate: {temperature: 0.9, top_p: {pitch: 0.8}}"))
    assert set(config.generate.temperature.model_dump().values()) == {0.9}
    assert config.generate.top_p.pitch == 0.8
    assert config.generate.top_p.onset == 1.0


def test_overrides_win_and_none_means_not_given(settings):
    path = settings("generate: {seconds: 60, takes: 3, top_p: 0.5}")
    overrides = {"generate": {"seconds": 90, "takes": None, "temperature": 1.2}, "train": {}}
    config = load_config(path, overrides)
    assert (config.generate.seconds, config.generate.takes) == (90.0, 3)
    assert (config.generate.top_p.onset, config.generate.temperature.onset) == (0.5, 1.2)
    assert config.train == TrainConfig()


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        load_config().generate.seconds = 60.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generate: {secnods: 60}", "no setting 'generate.secnods': did you mean 'generate.secon"),
        ("generate: {top_p: {picth: 1}}", "did you mean 'generate.top_p.pitch'"),
        ("generat: {seconds: 60}", "no setting 'generat': did you mean 'generate'"),
        ("seconds: 60", "no setting 'seconds': did you mean 'generate.seconds'"),
        ("zzz: 1", "no setting 'zzz': see ray_config.yaml"),
        ("on: 1", "name must be a word. Received: True"),
        ("generate: {seconds: 0}", "'generate.seconds' must be greater than or equal to 5. Rec"),
        ("generate: {seconds: 36000}", "less than or equal to 3600. Received: 36000"),
        ("generate: {seconds: -1}", "Received: -1"),
        ("generate: {seconds: .nan}", "Received: nan"),
        ("generate: {seconds: .inf}", "Received: inf"),
        ("generate: {seconds: '60'}", "a valid number. Received: '60'"),
        ("generate: {seconds: true}", "a valid number. Received: True"),
        ("generate: {takes: 1.5}", "a valid integer. Received: 1.5"),
        ("generate: {takes: 0}", "Received: 0"),
        (
            "generate: {temperature: 0}",
            "'generate.temperature.onset' must be greater than or equal to 0.01",
        ),
        ("generate: {temperature: {pitch: 9}}", "'generate.temperature.pitch' must be less"),
        ("generate: {temperature: warm}", "generate.temperature must be a group of settings"),
        ("generate: {top_p: 1.01}", "less than or equal to 1"),
        ("generate: {top_k: -1}", "greater than or equal to 0"),
        ("generate: {random_state: 4294967296}", "less than 4294967296"),
        ("generate: {checkpoint: ''}", "'generate.checkpoint' must"),
        ("generate: {checkpoint: 7}", "a valid string. Received: 7"),
        ("generate: 3", "generate must be a group of settings. Received: 3"),
        ("generate: {random_state: 0b10}", "'generate.random_state' must be a valid integer"),
        ("generate: {seconds: 1:30}", "'generate.seconds' must be a valid number"),
        ("generate: {takes: 2, keep: 4}", r"such that keep \(4\) is at most takes \(2\)"),
        ("generate: {keep: 2}", r"keep \(2\) is at most takes \(1\)"),
        ("generate: {takes: yes}", "'generate.takes' must be a valid integer. Received: True"),
        ("[1, 2]", r"must be a group of settings. Received: \[1, 2\]"),
        ("train: {preset: huge}", "'train.preset' must be 'tiny', 'small', 'base' or 'large'. R"),
        (
            "train: {velocity_range: 0.6}",
            "'train.velocity_range' must be less than or equal to 0.5",
        ),
        ("train: {batch: 1, batch: 2}", "line 1 cannot be understood: 'batch' is given twice"),
        ("generate:\n  seconds: [1,\n", "line 3 cannot be understood"),
        ("generate: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
        ("a: &a [*a]", "no setting 'a'"),
        ("? [1]\n: 2", "unhashable key"),
        (
            "generate:\n  checkpoint: 2024-99-99",
            "line 2 cannot be understood: '2024-99-99' is no timestamp",
        ),
        ("generate: {takes: !!int abc}", "line 1 cannot be understood: 'abc' is no int"),
        ("generate: {score: !!bool perhaps}", "'perhaps' is no bool"),
        ("generate: {sound: !!timestamp today}", "'today' is no timestamp"),
        ("? !!float x\n: 2", "'x' is no float"),
        ("generate: !!set [1]", "expected a mapping node"),
        (f"generate: {{random_state: {'9' * 5000}}}", "'9{10,60}' is no int"),
        ("generate: " + "[" * 5000, "nested too deeply"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        ("\x00", "cannot be understood"),
    ],
)
def test_a_bad_file_is_one_line_that_says_what_to_do(settings, text, message):
    path = settings(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [("010", 10), ("0x10", 16), ("0o10", 8), ("1_000", 1000), ("+7", 7), ("00", 0)],
)
def test_whole_numbers_are_those_of_yaml_1_2(settings, written, value):
    path = settings(f"generate: {{random_state: {written}}}")
    assert load_config(path).generate.random_state == value


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e2", 100.0), ("12.", 12.0), ("1_0.5", 10.5), ("0e0", 0.0), ("09.5", 9.5), ("+.5e1", 5.0)],
)
def test_real_numbers_are_those_of_yaml_1_2(settings, written, value):
    path = settings(f"generate: {{seed_start: {written}}}")
    assert load_config(path).generate.seed_start == value


@pytest.mark.parametrize("written", [".inf", "-.INF", ".nan"])
def test_what_is_no_finite_number_is_refused(settings, written):
    with pytest.raises(ConfigError, match="must be a finite number"):
        load_config(settings(f"generate: {{seconds: {written}}}"))


@pytest.mark.parametrize(
    "text",
    [
        "generate:\n#  seconds: 60\n",
        "generate:\n  temperature:\n  # pitch: 0.9\n",
        "generate:\nbulk:\nprepare:\nstorage:\ntrain:\nprofiles:\n",
        "profiles:\n  laptop:\n    # workers: 2\n",
        "profiles: {laptop: {generate: null}}",
    ],
)
def test_a_group_in_which_all_is_commented_out_is_empty(settings, text):
    assert load_config(settings(text)) == Config()


def test_an_empty_group_of_a_profile_leaves_the_files_own(settings):
    path = settings("generate: {seconds: 60}\nprofiles:\n  a:\n    generate:\n")
    assert load_config(path, profile="a").generate.seconds == 60


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot read the settings"):
        load_config(tmp_path / name)


def test_a_bad_override_names_the_command_line(settings):
    with pytest.raises(ConfigError, match=r"36000.* \(in the command line\)$"):
        load_config(settings("generate: {seconds: 60}"), {"generate": {"seconds": 36000}})
    with pytest.raises(ConfigError, match=r"no setting 'generate\.second'"):
        load_config(None, {"generate": {"second": 60}})
    with pytest.raises(ConfigError, match="no setting 'generates'"):
        load_config(None, {"generates": {"seconds": 60}})


def test_an_attribute_on_the_command_line_leaves_the_others_as_the_file_has_them(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("generate:\n  temperature:\n    onset: 0.8\n", encoding="utf-8")
    config = load_config(path, {"generate": {"temperature": {"pitch": 0.9}}})
    assert config.generate.temperature.model_dump() == {
        "onset": 0.8,
        "pitch": 0.9,
        "velocity": 1.0,
        "duration": 0.95,
        "sample": 1.0,
    }


def test_documented_profiles_say_where_work_is_done_and_not_what_comes_out():
    tree = yaml.safe_load(DOCUMENTED.read_text(encoding="utf-8"))
    assert list(tree["profiles"]) == ["laptop", "single-gpu", "cluster"]
    for name in tree["profiles"]:
        changed = {
            f"{section}.{setting}"
            for section, settings in load_config(DOCUMENTED, profile=name)
            for setting, value in settings
            if value != getattr(getattr(Config(), section), setting)
        }
        assert changed
        assert {setting.split(".")[1] for setting in changed} <= {
            *("workers", "transcribers", "gpus_per_worker"),
            *("max_failures", "nodes_within_seconds", "silence_seconds", "attempts"),
        }


PROFILES = """
generate: {seconds: 60, top_p: 0.5}
prepare: {workers: 7, transcribers: 3}
profiles:
  one: {prepare: {workers: 2}, train: {hop: 100, window: 128}}
  two: {extends: one, prepare: {transcribers: null}, generate: {top_p: {pitch: 0.7}}}
  three:
    extends: two
    prepare: {workers: 4}
"""


def test_command_line_over_profile_over_what_it_extends_over_the_file(settings):
    path = settings(PROFILES)
    assert load_config(path).prepare.workers == 7
    assert load_config(path, profile="one").prepare.workers == 2
    two = load_config(path, profile="two")
    assert (two.prepare.workers, two.prepare.transcribers, two.train.hop) == (2, None, 100)
    assert (two.generate.seconds, two.generate.top_p.pitch) == (60.0, 0.7)
    assert two.generate.top_p.onset == 0.5
    three = load_config(path, {"prepare": {"transcribers": 9, "workers": None}}, profile="three")
    assert (three.prepare.workers, three.prepare.transcribers) == (4, 9)
    assert type(three) is Config
    assert two.train.model_fields_set == {"hop", "window"}


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("{a: {bulk: {wrokers: 1}}}", "'bulk.wrokers': did you mean 'bulk.workers'.*profile 'a' "),
        ("{a: {extend: b}, b: {}}", "no setting 'extend': did you mean 'extends'"),
        ("{a: {bulk: {batch: 0}}}", "'bulk.batch' must be greater than or equal to 1.*profile 'a'"),
        ("{a: {extends: a}}", "extend each other in a circle: a -> a"),
        ("{a: {extends: b}, b: {extends: c}, c: {extends: a}}", "a -> b -> c -> a"),
        ("{lap: {}, b: {extends: lpa}}", "no profile 'lpa': did you mean 'lap'.*profile 'b'"),
        ("{a: {extends: [b]}}", r"no profile \['b'\]: there are a"),
        ("{a: {on: 1}}", "name must be a word. Received: True"),
        ("{a: 3}", "'profiles.a' must be a valid dictionary. Received: 3"),
        ("{a: {profiles: {}}}", "no setting 'profiles'"),
        ("{a: {train: {window: 16, hop: 17}}}", r"hop is at most window \(16\)"),
        ("[a]", "'profiles' must be a valid dictionary"),
        ("{1: {}}", "must be a valid string. Received: 1"),
    ],
)
def test_a_bad_profile_is_refused_though_it_is_not_chosen(settings, profiles, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(settings(f"profiles: {profiles}"))
    assert "\n" not in str(caught.value)


def test_a_profile_that_is_not_there(settings):
    with pytest.raises(ConfigError, match="no profile 'lap': did you mean 'laptop'"):
        load_config(DOCUMENTED, profile="lap")
    with pytest.raises(ConfigError, match="no profile 'zzz': there are none"):
        load_config(settings("bulk: {batch: 1}"), profile="zzz")
    with pytest.raises(ConfigError, match=r"'laptop'.*as --config ray_config\.yaml"):
        load_config(None, profile="laptop")
    with pytest.raises(ConfigError, match="no setting 'profils': did you mean 'profiles'"):
        load_config(settings("profils: {}"))
