"""Transcription: its logic with invented networks, the real one against the package's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deep_piano.errors import AssetError, AudioError
from deep_piano.infra.assets import cache
from deep_piano.infra.progress import Progress
from deep_piano.music import transcription, tuning
from deep_piano.music.segments import (
    SAMPLE_RATE,
    SEGMENT_S,
    SEGMENT_SAMPLES,
    SYMBOLS,
    Intervals,
)
from deep_piano.music.transcription import Transcriber, transcribe_segments
from deep_piano.music.transkun import FrontEnd, Transkun
from deep_piano.music.transkun_layers import Team, Weights
from tests.support.segments import as_rows, intervals

REFERENCE = Path(__file__).parents[1] / "data" / "transkun_reference.npz"
TONES = (  # onset s, offset s, pitch, loudness
    (0.5, 1.4, 48, 70),
    (0.5, 1.3, 64, 90),
    (1.0, 1.6, 67, 60),
    (1.5, 2.6, 72, 100),
    (1.5, 2.4, 55, 50),
    (2.1, 2.5, 60, 80),
    (2.5, 3.6, 62, 75),
    (2.5, 3.6, 65, 75),
    (2.5, 3.6, 69, 95),
)


def piano_tones() -> np.ndarray:
    """Four seconds of decaying, slightly inharmonic partials at 44,100 Hz."""
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    sound = np.zeros(time.size)
    for onset, offset, pitch, loudness in TONES:
        since, fundamental = np.clip(time - onset, 0, None), 440 * 2 ** ((pitch - 69) / 12)
        envelope = np.minimum(since / 0.004, 1) * np.exp(-np.clip(time - offset, 0, None) / 0.05)
        for k in range(1, 13):
            hertz = fundamental * k * np.sqrt(1 + 3e-4 * k * k)
            if hertz < 8000:
                decay = np.exp(-since * (0.7 + 0.35 * k) * np.sqrt(fundamental / 262))
                level = (loudness / 127) ** 2 * k ** (-1.8 + 0.8 * loudness / 127)
                sound += level * envelope * decay * np.sin(2 * np.pi * hertz * since)
    return (0.2 * sound).astype(np.float32)


# Segments and samples


class FakeNetwork:
    """Finds one note at the first sample that is not silent."""

    def __init__(self) -> None:
        self.segments: list[np.ndarray] = []

    def __call__(self, samples: np.ndarray) -> Intervals:
        self.segments.append(samples)
        onset = float(np.flatnonzero(samples)[0]) / SAMPLE_RATE
        return intervals((onset, onset + 0.5, 60))


@pytest.mark.parametrize(
    ("seconds", "segments"), [(0.1, 1), (10, 1), (16, 1), (16.1, 2), (28, 2), (28.1, 3)]
)
def test_the_network_hears_sixteen_seconds_at_a_time(seconds: float, segments: int) -> None:
    network, told = FakeNetwork(), []
    samples = np.ones(round(seconds * SAMPLE_RATE), np.float32)
    transcribe_segments(network, samples, sr=SAMPLE_RATE, progress=told.append)
    assert [segment.shape for segment in network.segments] == [(SEGMENT_SAMPLES,)] * segments
    assert told == [Progress("transcribing", done, segments) for done in range(1, segments + 1)]


def test_short_audio_is_padded_with_silence() -> None:
    network = FakeNetwork()
    transcribe_segments(network, np.ones(1000, np.float32), sr=SAMPLE_RATE)
    assert network.segments[0][:1000].all()
    assert not network.segments[0][1000:].any()


def test_times_are_those_of_the_whole_recording() -> None:
    samples = np.zeros(30 * SAMPLE_RATE, np.float32)
    samples[20 * SAMPLE_RATE] = 1
    keys = transcribe_segments(FakeNetwork(), samples, sr=SAMPLE_RATE).keys
    assert as_rows(keys) == [(20, 20.5, 60)]


@pytest.mark.parametrize("cents", [-40, 30, 45])
def test_a_piano_between_two_keys_is_retuned_and_keeps_its_times(cents: int) -> None:
    t = np.arange(40 * SAMPLE_RATE) / SAMPLE_RATE
    sound = np.sin(2 * np.pi * 440 * tuning.speed(cents) * t).astype(np.float32)
    sound[: 25 * SAMPLE_RATE] = 0
    network = FakeNetwork()
    keys = transcribe_segments(network, sound, sr=SAMPLE_RATE).keys
    given = network.segments[-1][: 4 * SAMPLE_RATE]
    peak = np.argmax(np.abs(np.fft.rfft(given * np.hanning(len(given))))) / 4
    assert peak == pytest.approx(440, abs=1)
    assert keys["onset"][0] == pytest.approx(25, abs=0.05)  # the resampler rings before it


def test_a_piano_that_is_nearly_in_tune_is_read_as_it_is() -> None:
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    sound = np.sin(2 * np.pi * 440 * tuning.speed(18) * t).astype(np.float32)
    network = FakeNetwork()
    transcribe_segments(network, sound, sr=SAMPLE_RATE)
    assert np.array_equal(network.segments[0][: len(sound)], sound)


@pytest.mark.parametrize("samples", [np.zeros(SAMPLE_RATE), np.empty(0)])
def test_silence_has_no_notes(samples: np.ndarray) -> None:
    network = FakeNetwork()
    performance = transcribe_segments(network, samples, sr=SAMPLE_RATE)
    assert performance.sounding().size == performance.pedal_down_s.size == 0
    assert not network.segments


def test_another_sampling_rate_is_resampled() -> None:
    network = FakeNetwork()
    sound = np.sin(np.arange(2 * 16_000)).astype(np.float32)
    transcribe_segments(network, sound, sr=16_000)
    assert np.flatnonzero(network.segments[0])[-1] == pytest.approx(2 * SAMPLE_RATE, abs=10)


def test_samples_that_are_not_numbers_are_refused() -> None:
    samples = np.array([0, np.nan, np.inf, 0], np.float32)
    with pytest.raises(AudioError, match="2 of 4 samples are NaN or infinite"):
        transcribe_segments(FakeNetwork(), samples, sr=SAMPLE_RATE)


def test_stereo_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="must be mono"):
        transcribe_segments(FakeNetwork(), np.zeros((10, 2)), sr=SAMPLE_RATE)


# The network with invented weights


def tiny_weights(base: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in the shapes of the checkpoint, an eighth of its size."""
    rng = np.random.default_rng(seed)
    size, weights = 4 * base, {}

    def add(name: str, *shape: int, bias: bool = True) -> None:
        fan = max(1, int(np.prod(shape[1:])))
        weights[f"{name}.weight"] = rng.normal(0, fan**-0.5, shape).astype(np.float32)
        if bias:
            weights[f"{name}.bias"] = rng.normal(0, 0.1, shape[:1]).astype(np.float32)

    extractor = "framewiseFeatureExtractor"
    weights[f"{extractor}.freq2mels"] = rng.random((2049, 229), np.float32) / 100
    weights[f"{extractor}.spectrogramExtractor.win"] = np.hanning(4096).astype(np.float32)
    for name in ("sigma", "center"):
        weights[f"{extractor}.spectrogramExtractor.winGen.{name}"] = rng.normal(0, 1, 5)
    add("scorer.map.0", 2 * size + 1, size)
    for name, out in (("velocityPredictor", 128), ("refinedOFPredictor", 4)):
        add(f"{name}.0", 32, 3 * size)
        add(f"{name}.3", out, 32)
    for name, dim, axes in (("", base, 1), ("AttnTF", size, 2), ("AttnTE", size, 2)):
        add(f"backbone.posEmbedBuilder{name}.proj", dim, axes)
        add(f"backbone.posEmbedBuilder{name}.mlp.0", 4 * dim, dim)
        add(f"backbone.posEmbedBuilder{name}.mlp.3", dim, 4 * dim)
    add("backbone.inputConv", base, 6, 3, 3)
    for index, (fan_in, fan_out) in {1: (1, 2), 5: (2, 4), 9: (4, 4), 13: (4, 4)}.items():
        add(f"backbone.downConv.{index}", fan_out * base, fan_in * base, 3, 3)
        add(f"backbone.downConv.{index + 1}", fan_out * base)
    weights["backbone.upConv1dSkip.weight"] = rng.normal(0, size**-0.5, (size, size, 8))
    weights["backbone.upConv1dSkip.bias"] = rng.normal(0, 0.1, size)
    for layer in range(6):
        for axis in "FT":
            attention = f"backbone.encoderLayers.{layer}.mhaBlock{axis}"
            for kind in "qkv":
                weights[f"{attention}.module.{kind}_proj_weight"] = rng.normal(
                    0, size**-0.5, (size, size)
                )
            add(f"{attention}.module.out_proj", size, size)
            forward = f"backbone.encoderLayers.{layer}.fnnBlock{axis}"
            add(f"{forward}.module.0", 4 * size, size)
            add(f"{forward}.module.3", size, 4 * size)
            for block in (attention, forward):
                weights[f"{block}.scale"] = rng.normal(0, 1, size)
    return {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("tiny")
    save_file(tiny_weights(), folder / "weights.safetensors")
    return folder


def test_a_random_network_gives_well_formed_intervals(tiny_folder: Path) -> None:
    network = Transcriber(tiny_folder)._network
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.1, SEGMENT_SAMPLES).astype(np.float32)
    found = network(samples)
    assert found.pitch.size > 0
    assert set(found.pitch.tolist()) <= set(SYMBOLS)
    assert (found.begin_s < found.end_s).all()
    assert found.begin_s.min() >= 0
    assert found.end_s.max() < SEGMENT_S + 0.05
    assert 0 <= found.velocity.min() <= found.velocity.max() <= 127
    for pitch in np.unique(found.pitch):
        begin, end = (column[found.pitch == pitch] for column in (found.begin_s, found.end_s))
        assert (begin[1:] >= end[:-1]).all()


def test_notes_do_not_depend_on_the_number_of_threads() -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, SEGMENT_SAMPLES).astype(np.float32)
    one, three = (Transkun(tiny_weights(), threads=threads)(samples) for threads in (1, 3))
    assert one.pitch.size > 0
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_log_mel_has_six_views_and_does_not_mind_the_gain() -> None:
    log_mel = FrontEnd(Weights(tiny_weights()))
    samples = np.zeros(SEGMENT_SAMPLES, np.float32)
    samples[: 4 * SAMPLE_RATE] = piano_tones()
    with Team(1) as team:
        mel, louder = log_mel(samples, team), log_mel(64 * samples, team)
    assert mel.shape == (691, 229, 6)
    np.testing.assert_allclose(mel, louder, atol=1e-5)
    assert mel.min() >= -1e-6
    assert mel[400:].max() < mel[50:150].max() / 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scorer.map.0.bias", None, r"no array 'scorer\.map\.0\.bias'"),
        ("velocityPredictor.3.weight", None, r"no array 'velocityPredictor\.3\.weight'"),
        ("scorer.map.0.weight", np.zeros((5, 5), np.float32), "do not fit the network"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, name: str, value: np.ndarray | None, message: str
) -> None:
    from safetensors.numpy import save_file

    weights = tiny_weights()
    del weights[name]
    save_file(weights | ({} if value is None else {name: value}), tmp_path / "weights.safetensors")
    with pytest.raises(AssetError, match=message):
        Transcriber(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_broken_weights_are_named_with_the_way_out(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(AssetError, match=r"weights\.safetensors: .*assets fetch transkun"):
        Transcriber(tmp_path)


def test_weights_are_fetched_and_loaded_once(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "ensure", lambda name: {"transkun": tiny_folder}[name])
    transcription._load.cache_clear()
    for _ in range(2):
        transcription.transcribe(np.zeros(100), sr=SAMPLE_RATE)
    assert transcription._load.cache_info().misses == 1
    transcription._load.cache_clear()


# The network with its own weights, against what the package computes


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    folder = cache.path("transkun")
    if folder is None:
        pytest.skip("the asset 'transkun' is not fetched (deep-piano assets fetch transkun)")
    return Transcriber(folder)


def padded_tones() -> np.ndarray:
    return np.pad(piano_tones(), (0, SEGMENT_SAMPLES - 4 * SAMPLE_RATE))


@pytest.mark.assets
def test_the_network_equals_the_package_inside(transcriber: Transcriber) -> None:
    network = transcriber._network
    assert isinstance(network, Transkun)
    with Team(2) as team:
        mel = network.log_mel(padded_tones(), team)
        score, single, context = network.scored(network.context(mel, team))
    with np.load(REFERENCE) as reference:
        at = {name: tuple(reference[f"{name}_at"]) for name in ("context", "score", "single")}
        np.testing.assert_allclose(mel[reference["mel_at"]], reference["mel"], atol=1e-4)
        np.testing.assert_allclose(context[at["context"]], reference["context"], atol=5e-3)
        np.testing.assert_allclose(score[at["score"]], reference["score"], atol=5e-3)
        np.testing.assert_allclose(single[at["single"]], reference["single"], atol=5e-3)


@pytest.mark.assets
def test_the_network_equals_the_package_in_its_notes(transcriber: Transcriber) -> None:
    found = transcriber._network(padded_tones())
    with np.load(REFERENCE) as reference:
        np.testing.assert_array_equal(found.pitch, reference["pitch"])
        np.testing.assert_array_equal(found.velocity, reference["velocity"])
        np.testing.assert_array_equal(found.has_begin, reference["has_begin"])
        np.testing.assert_array_equal(found.has_end, reference["has_end"])
        np.testing.assert_allclose(found.begin_s, reference["begin_s"], atol=1e-3)
        np.testing.assert_allclose(found.end_s, reference["end_s"], atol=3e-3)


@pytest.mark.assets
def test_it_hears_the_notes_that_were_played(transcriber: Transcriber) -> None:
    notes = transcriber(piano_tones(), sr=SAMPLE_RATE)
    played = sorted((row[:3] for row in TONES), key=lambda row: (row[0], row[2]))
    found = sorted(as_rows(notes), key=lambda row: (round(row[0], 1), row[2]))
    assert [pitch for _, _, pitch in found] == [pitch for _, _, pitch in played]
    for (onset, offset, _), (true_onset, true_offset, _) in zip(found, played, strict=True):
        assert onset == pytest.approx(true_onset, abs=0.03)
        assert offset == pytest.approx(true_offset, abs=0.1)
