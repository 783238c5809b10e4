"""Decoding and encoding, with files made here by FFmpeg, hostile ones included."""

from __future__ import annotations

import hashlib
import http.server
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deep_piano.errors import AudioError, DeepPianoError, InputError
from deep_piano.generate import seeds
from deep_piano.music import audio
from deep_piano.music import ffmpeg as ffmpeg_module
from tests.support.recordings import (
    SR,
    ffmpeg,
    noise_flac,
    write_ffmpeg,
    write_half,
    write_header_only,
    write_inf,
    write_nan,
    write_nothing,
    write_picture,
    write_silent_film,
    write_text,
)


@pytest.fixture
def tone():
    """Four seconds of 440 Hz at -6 dBFS, stereo."""
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * SR) / SR)
    return np.stack([wave, wave], axis=1).astype(np.float32)


def convert(source, target, *options):
    ffmpeg("-i", source, *options, target)
    return target


@pytest.fixture
def wav(tmp_path, tone):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone, SR)
    return path


def loudest_hz(samples, sr):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * sr / len(samples)


def fake_ffmpeg(tmp_path, monkeypatch, script, for_file="tone"):
    path = write_ffmpeg(tmp_path / "fake-ffmpeg", script, for_file=for_file)
    monkeypatch.setattr(ffmpeg_module, "ffmpeg_binary", lambda: path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp3", ("-c:a", "libmp3lame")),
        (".wav", ()),
        (".wav", ("-ar", "8000", "-ac", "1")),
        (".wav", ("-c:a", "pcm_f32le")),
        (".flac", ("-ar", "96000", "-sample_fmt", "s32")),
        (".flac", ("-ac", "6")),
        (".ogg", ("-c:a", "libvorbis")),
        (".opus", ("-c:a", "libopus")),
        (".m4a", ("-c:a", "aac")),
        (".mkv", ("-c:a", "flac")),
        (".aiff", ()),
    ],
)
def test_any_container_rate_and_channels_decode_to_mono(tmp_path, wav, suffix, options):
    path = convert(wav, tmp_path / f"converted{suffix}", *options)
    samples = audio.decode(path, sr=22_050)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(4 * 22_050, abs=0.1 * 22_050)
    assert loudest_hz(samples[2000:], 22_050) == pytest.approx(440, abs=1)
    assert 0.15 < np.abs(samples[2000:80_000]).max() < 0.6


def test_only_the_asked_stretch_is_decoded(tmp_path):
    hour = tmp_path / "hour.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=330:r=8000:d=3600", "-c:a", "pcm_u8", hour)
    samples = audio.decode(hour, sr=16_000, start_s=1800, seconds=10)
    assert len(samples) == 160_000
    assert loudest_hz(samples, 16_000) == pytest.approx(330, abs=1)


@pytest.mark.parametrize("sr", [16_000, 22_050, 44_100, 48_000])
def test_length_is_exact_at_every_rate(wav, sr):
    assert len(audio.decode(wav, sr=sr, seconds=2.5)) == round(2.5 * sr)


def test_start_is_exact(tmp_path):
    click = np.zeros(3 * SR, np.float32)
    click[2 * SR] = 0.9
    path = tmp_path / "click.flac"
    soundfile.write(path, click, SR)
    assert np.argmax(np.abs(audio.decode(path, sr=SR, start_s=1.5))) == SR // 2


@pytest.mark.parametrize(
    "name",
    [
        "with spaces.wav",
        "quo'te\"s.wav",
        "-y.wav",
        "co:lon.wav",
        "http:%2f.wav",
        "naïve 雨だれ.wav",
        "new\nline.wav",
        "100%d?*[a].wav",
        "$(touch x);&|.wav",
    ],
)
def test_any_file_name_works(tmp_path, wav, tone, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    wav.rename(path)
    assert len(audio.decode(path, sr=SR)) == 4 * SR
    audio.encode(path.with_suffix(".flac"), tone, sr=SR)
    assert soundfile.info(path.with_suffix(".flac")).frames == 4 * SR


def test_undecodable_file_name(tmp_path, wav):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    with pytest.raises(AudioError, match="no such file") as raised:
        audio.decode(path, sr=SR)
    str(raised.value).encode()
    wav.rename(path)
    assert len(audio.decode(path, sr=SR)) == 4 * SR


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file: .*song.mp3. Check"),
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "not an ordinary file"),
        (write_nothing, "is empty"),
        (write_text, "not audio that can be read: .*exit code"),
        (write_picture, "not audio that can be read"),
        (write_silent_film, "holds no sound"),
        (write_header_only, "holds no samples|not audio"),
        (write_nan, "NaN or infinite"),
        (write_inf, "NaN or infinite"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, make, message):
    path = tmp_path / "song.mp3"
    make(path)
    with pytest.raises(AudioError, match=message) as raised:
        audio.decode(path, sr=16_000, seconds=10)
    assert "\n" not in str(raised.value)


def test_unreadable_file(tmp_path, wav, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=r"cannot read .*tone.wav: Permission denied"):
        audio.decode(wav, sr=16_000)


def test_start_beyond_the_end_says_how_long_it_is(wav):
    with pytest.raises(AudioError, match=r"is 4.0 s long: it cannot start at 60 s"):
        audio.decode(wav, sr=16_000, start_s=60, seconds=10)


@pytest.mark.parametrize("start_s", [-1.0, float("nan"), float("inf")])
def test_impossible_start(wav, start_s):
    with pytest.raises(AudioError, match="start must be"):
        audio.decode(wav, sr=16_000, start_s=start_s)


@pytest.mark.parametrize("seconds", [0.0, -3.0, float("nan")])
def test_impossible_length(wav, seconds):
    with pytest.raises(AudioError, match="length must be"):
        audio.decode(wav, sr=16_000, seconds=seconds)


def test_damage_after_the_asked_stretch_does_not_matter(tmp_path):
    path = tmp_path / "damaged.flac"
    write_half(path)
    assert len(audio.decode(path, sr=16_000, seconds=5)) == 5 * 16_000


def test_damage_within_the_asked_stretch_says_where(tmp_path):
    path = tmp_path / "damaged.flac"
    write_half(path)
    with pytest.raises(AudioError, match=r"damaged: it decodes only up to (9|10)\.\d s: .+exit"):
        audio.decode(path, sr=16_000, seconds=15)


def test_damage_that_costs_no_length_only_warns(tmp_path, caplog):
    path = tmp_path / "scratched.flac"
    data, half = noise_flac(path)
    data[half : half + 40] = bytes(40)
    path.write_bytes(data)
    assert len(audio.decode(path, sr=16_000, seconds=19)) == 19 * 16_000
    assert "is damaged, what decodes is used" in caplog.text


def test_a_scratch_within_the_asked_stretch_is_no_reason_to_refuse_it(tmp_path, caplog):
    path = tmp_path / "scratched.flac"
    data, half = noise_flac(path)
    for place in range(half // 4, half // 2, half // 16):  # four frames of a quarter second
        data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    assert len(audio.decode(path, sr=16_000, seconds=10)) >= 9 * 16_000
    assert "is damaged, what decodes is used" in caplog.text


def test_truncated_m4a_names_the_reason(tmp_path, wav):
    path = convert(wav, tmp_path / "cut.m4a")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(AudioError, match=r"not audio that can be read: .+"):
        audio.decode(path, sr=16_000)


@pytest.fixture
def listener(tmp_path, wav):
    """A web server on loopback that counts who asks; yields its address and the requests."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{url}/tone.wav\n#EXT-X-ENDLIST\n",
    "hls of a file": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{file}\n"
    "#EXT-X-ENDLIST\n",
    "concat of a url": "ffconcat version 1.0\nfile '{url}/tone.wav'\n",
    "concat of a file": "ffconcat version 1.0\nfile '{file}'\n",
    "concat beside": "ffconcat version 1.0\nfile tone.wav\n",
    "m3u": "{url}/tone.wav\n{file}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet contentType="audio"><Representation id="0" bandwidth="1" '
    'mimeType="audio/wav"><BaseURL>{url}/tone.wav</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\n",
    "cue": 'FILE "{file}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'width="9" height="9"><image xlink:href="{url}/x.png" width="9" height="9"/></svg>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["song.mp3", "song.m3u8", "song.ffconcat"])
def test_crafted_playlists_open_nothing(tmp_path, wav, listener, kind, name):
    url, asked = listener
    path = tmp_path / name
    path.write_text(PLAYLISTS[kind].format(url=url, file=wav))
    with pytest.raises(AudioError, match="not audio that can be read"):
        audio.decode(path, sr=16_000, seconds=2)
    assert audio.duration_s(path) is None
    assert asked == []


def test_the_guard_is_what_stops_a_playlist(tmp_path, wav, listener):
    """Without our options the same playlist does reach the server: the test above can fail."""
    url, asked = listener
    path = tmp_path / "song.ffconcat"
    path.write_text(PLAYLISTS["concat of a url"].format(url=url))
    whitelist = ("-protocol_whitelist", "file,http,tcp", "-safe", "0")
    ffmpeg(*whitelist, "-f", "concat", "-i", path, tmp_path / "leak.wav")
    assert asked


def test_a_hanging_ffmpeg_is_ended_with_its_children(tmp_path, wav, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "sleep 600 & echo $! > child.pid; wait")
    monkeypatch.chdir(tmp_path)
    for limit_s in (1, 30):  # where a shell takes longer to start
        with pytest.raises(AudioError, match=rf"did not finish with .*tone.wav within {limit_s} s"):
            audio.decode(wav, sr=16_000, timeout_s=limit_s)
        if (tmp_path / "child.pid").exists():
            break
    child = int((tmp_path / "child.pid").read_text())
    until = time.monotonic() + 60
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process_id):
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process_id)], check=False, capture_output=True, text=True
    ).stdout.strip()
    return state not in {"", "Z"}


def test_a_crashing_ffmpeg_shows_its_last_words_and_exit_code(tmp_path, wav, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "echo first >&2; echo 'out of luck' >&2; exit 134")
    with pytest.raises(AudioError, match=r"out of luck \(ffmpeg's exit code: 134\)"):
        audio.decode(wav, sr=16_000)


@pytest.mark.parametrize("suffix", sorted(audio.ENCODED_SUFFIXES))
@pytest.mark.parametrize("channels", [1, 2])
def test_encode_gives_the_sound_back_and_the_same_bytes(tmp_path, tone, suffix, channels):
    samples = tone if channels == 2 else tone[:, 0]
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix.upper()}"
    audio.encode(first, samples, sr=SR)
    audio.encode(second, samples, sr=SR)
    assert first.read_bytes() == second.read_bytes()
    assert soundfile.info(first).channels == channels
    assert soundfile.info(first).samplerate == SR
    back = audio.decode(first, sr=SR)
    assert len(back) == pytest.approx(4 * SR, abs=2400)
    assert loudest_hz(back, SR) == pytest.approx(440, abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, second.name])


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_formats_keep_16_bits(tmp_path, tone, suffix):
    audio.encode(tmp_path / f"tone{suffix}", tone, sr=SR)
    back, _ = soundfile.read(tmp_path / f"tone{suffix}")
    np.testing.assert_allclose(back, tone, atol=1 / 32_768)


def test_encode_clips_instead_of_wrapping(tmp_path):
    audio.encode(tmp_path / "loud.wav", np.full(1000, 1.7, np.float32), sr=SR)
    back, _ = soundfile.read(tmp_path / "loud.wav")
    assert (back > 0.99).all()


def test_encode_nothing(tmp_path):
    audio.encode(tmp_path / "nothing.wav", np.zeros((0, 2), np.float32), sr=SR)
    assert soundfile.info(tmp_path / "nothing.wav").frames == 0


@pytest.mark.parametrize("name", ["piece.aac", "piece", "piece.mid"])
def test_encode_refuses_other_suffixes(tmp_path, tone, name):
    with pytest.raises(InputError, match=r"Choose one of .mp3, .wav, .flac, .ogg"):
        audio.encode(tmp_path / name, tone, sr=SR)


def test_a_failed_encode_leaves_nothing(tmp_path, tone, monkeypatch):
    target = tmp_path / "out" / "piece.mp3"
    fake_ffmpeg(tmp_path, monkeypatch, "cat > /dev/null; echo 'disk is full' >&2; exit 1", "")
    with pytest.raises(DeepPianoError, match=r"could not write .*piece.mp3: disk is full"):
        audio.encode(target, tone, sr=SR)
    assert list(target.parent.iterdir()) == []


def test_encode_into_a_place_that_is_no_folder(tmp_path, wav, tone):
    with pytest.raises(InputError, match="cannot write to"):
        audio.encode(wav / "piece.wav", tone, sr=SR)


@pytest.mark.parametrize("length_s", [0.0, 0.5, 1.99])
def test_short_seeds_are_refused_with_their_length(length_s):
    with pytest.raises(AudioError, match=f"too short: {length_s:.2f} s"):
        seeds.check_seed(np.full(round(length_s * 1000), 0.5, np.float32), sr=1000)


@pytest.mark.parametrize("level", [0.0, 1e-4, 9e-4])
def test_silent_seeds_are_refused(level):
    with pytest.raises(AudioError, match="seed is silent"):
        seeds.check_seed(np.full(3000, level, np.float32), sr=1000)


def test_a_quiet_seed_of_two_seconds_will_do():
    samples = np.zeros(2000, np.float32)
    samples[1000] = -2e-3
    seeds.check_seed(samples, sr=1000)


def test_content_hash(tmp_path, wav):
    assert audio.content_hash(wav) == hashlib.sha256(wav.read_bytes()).hexdigest()
    with pytest.raises(AudioError, match="no such file"):
        audio.content_hash(tmp_path / "none.wav")


def test_a_little_file_may_say_that_it_is_days_long(tmp_path):
    """At 1 Hz, 400 KB are 55 hours of sound: what is asked for is decoded, and no more."""
    path = tmp_path / "bomb.wav"
    soundfile.write(path, np.full(200_000, 0.1), 1, format="WAV")
    assert audio.duration_s(path) == pytest.approx(200_000)
    # Resampling holds back a sample of the file's own: a second.
    assert 28 * 16_000 < len(audio.decode(path, sr=16_000, seconds=30)) <= 30 * 16_000


def test_hours_of_silence_in_a_little_file_are_cut_to_what_is_asked(tmp_path):
    path = tmp_path / "silence.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "7200", path)
    assert path.stat().st_size < 2**20
    assert len(audio.decode(path, sr=8000, seconds=60)) == 60 * 8000


@pytest.mark.parametrize(
    ("channels", "sr"), [(1024, SR), (65_535, SR), (64, 4_000_000), (2, 2**31 - 1), (1, 10**8 - 11)]
)
def test_channels_and_rates_beyond_reason_cost_an_error(tmp_path, channels, sr):
    path, data = tmp_path / "odd.wav", b"\1\2" * 100_000
    shape = struct.pack("<HHIIHH", 1, channels, sr, 2 * sr % 2**32, 2 * channels % 2**16, 16)
    header = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16)
    path.write_bytes(header + shape + b"data" + struct.pack("<I", len(data)) + data)
    with pytest.raises(AudioError):
        audio.decode(path, sr=16_000, seconds=10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_ffmpeg_has_a_limit_of_memory(tmp_path, wav, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "sleep 1; ulimit -v >&2; exit 1")
    with pytest.raises(
        AudioError, match=rf"{ffmpeg_module.MOST_MEMORY // 1024} \(ffmpeg's exit code: 1"
    ):
        audio.decode(wav, sr=16_000)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_file_that_takes_more_memory_costs_that_file(tmp_path, monkeypatch):
    path = tmp_path / "greedy.wav"  # its resampling filter takes 0.3 GiB
    soundfile.write(path, np.full(100_000, 0.1), 10**8 - 11, format="WAV")
    monkeypatch.setattr(ffmpeg_module, "MOST_MEMORY", 700 * 2**20)
    with pytest.raises(AudioError, match=r"greedy\.wav"):
        audio.decode(path, sr=16_000, seconds=10)


def test_of_endless_complaints_the_last_are_kept(tmp_path, wav, monkeypatch):
    """More than a pipe holds, so that nobody waits for the other."""
    many = "i=0; while [ $i -lt 3000 ]; do echo 'one more of a long row of complaints' >&2; "
    fake_ffmpeg(tmp_path, monkeypatch, many + "i=$((i+1)); done; echo 'the last' >&2; exit 1")
    with pytest.raises(AudioError, match=r"the last \(ffmpeg's exit code: 1\)"):
        audio.decode(wav, sr=16_000)


@pytest.fixture
def vbr(tmp_path):
    """An MP3 of 12 s that does not say how long it is, and seems three times longer: it begins with
    silence, at a low bit rate."""
    path = tmp_path / "vbr.mp3"
    wave = 0.3 * np.random.default_rng(0).standard_normal(12 * SR)
    wave[: 4 * SR] = 0
    soundfile.write(tmp_path / "vbr.wav", wave.astype(np.float32), SR)
    without = ("-write_xing", 0, "-id3v2_version", 0)
    ffmpeg("-i", tmp_path / "vbr.wav", "-c:a", "libmp3lame", "-q:a", 0, *without, path)
    assert audio.duration_s(path) > 30
    return path


BEHIND = {
    "nothing": b"",
    "zeros": bytes(4096),
    "a page": b"<html><body>0</body></html>" * 50,
    "Lyrics3": b"LYRICSBEGIN" + b"IND0000200LYR00500" + b"la la " * 300 + b"001829LYRICS200",
    "ID3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "junk": bytes(np.random.default_rng(1).integers(0, 255, 3000, np.uint8)),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("seconds", [None, 30.0, 11.0])
def test_an_estimated_length_and_what_lies_behind_are_no_damage(vbr, behind, seconds, caplog):
    vbr.write_bytes(vbr.read_bytes() + BEHIND[behind])
    samples = audio.decode(vbr, sr=16_000, seconds=seconds)
    assert len(samples) == pytest.approx((seconds if seconds == 11 else 12.05) * 16_000, abs=800)
    assert "damaged" not in caplog.text


def test_what_lies_between_frames_or_a_last_one_that_is_cut_is_no_damage(vbr, caplog):
    data = vbr.read_bytes()
    vbr.write_bytes(data[: len(data) // 2] + b"\xaa" * 700 + data[len(data) // 2 : -100])
    assert len(audio.decode(vbr, sr=16_000)) > 11.9 * 16_000
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("options", [(), ("-write_xing", 0)])
def test_two_mp3s_joined_are_both_heard(tmp_path, wav, options, caplog):
    path = convert(wav, tmp_path / "one.mp3", *options)
    path.write_bytes(2 * path.read_bytes())
    assert len(audio.decode(path, sr=16_000)) == pytest.approx(8.1 * 16_000, abs=1600)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".m4a"])
def test_a_picture_that_is_too_large_is_no_damage(tmp_path, wav, suffix, caplog):
    cover = tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=c=red:s=16x16", "-frames:v", 1, cover)
    sound, path = convert(wav, tmp_path / f"sound{suffix}"), tmp_path / f"song{suffix}"
    both = ("-map", 0, "-map", 1, "-c", "copy", "-disposition:v", "attached_pic")
    ffmpeg("-i", sound, "-i", cover, *both, path)
    size = b"IHDR" + struct.pack(">II", 16, 16)
    assert path.read_bytes().count(size) == 1
    path.write_bytes(path.read_bytes().replace(size, b"IHDR" + struct.pack(">II", 30_000, 30_000)))
    assert len(audio.decode(path, sr=16_000, seconds=30)) == pytest.approx(64_000, abs=3200)
    assert "damaged" not in caplog.text


def write_film(path, wav, *options, delay_s=0):
    picture = ("-f", "lavfi", "-i", "testsrc=d=8:s=64x64:r=25")
    ffmpeg(*picture, "-itsoffset", delay_s, "-i", wav, *options, path)
    return path


def test_a_film_cut_at_its_front_is_no_damage(tmp_path, wav, caplog):
    film = write_film(tmp_path / "film.mpg", wav, "-c:v", "mpeg2video", "-g", 200, "-c:a", "mp2")
    data = film.read_bytes()
    film.write_bytes(data[len(data) // 4 // 2048 * 2048 :])
    # Its pictures go on for four seconds after its sound.
    assert 2 * 16_000 < len(audio.decode(film, sr=16_000, seconds=30)) < 4 * 16_000
    assert "damaged" not in caplog.text


def test_a_film_whose_sound_is_shorter_is_no_damage(tmp_path, wav, caplog):
    film = write_film(tmp_path / "film.mkv", wav, "-c:v", "mpeg4", "-c:a", "flac", delay_s=2)
    assert audio.duration_s(film) == pytest.approx(8, abs=0.1)
    assert len(audio.decode(film, sr=16_000)) == pytest.approx(4 * 16_000, abs=1600)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mkv"])
def test_a_download_that_broke_off_is_damaged(tmp_path, wav, suffix):
    path = tmp_path / f"cut{suffix}"
    front = () if suffix == ".mkv" else ("-movflags", "+faststart")
    if suffix == ".m4a":
        convert(wav, path, *front)
    else:
        write_film(path, wav, "-c:v", "mpeg4", "-c:a", "aac", *front)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 4])
    with pytest.raises(AudioError, match=r"is damaged: it decodes only up to \d\.\d s"):
        audio.decode(path, sr=16_000)


def noise(seconds=20, *, seed=0):
    wave = np.random.default_rng(seed).standard_normal(seconds * SR)
    low = np.convolve(wave, np.hanning(64) / 8, "same")  # encoders change the phase of high noise
    return (0.1 * low).astype(np.float32)


@pytest.mark.parametrize(("left", "right", "used"), [(1, -0.9, 1), (0.5, -1, 2), (1, -1, 1)])
@pytest.mark.parametrize("suffix", [".wav", ".ogg"])
def test_of_channels_that_cancel_out_the_louder_is_used(
    tmp_path, left, right, used, suffix, caplog
):
    path = tmp_path / f"inverted{suffix}"
    room = 0.1 * noise(seed=1)  # of the two microphones, not the same
    channels = np.stack([left * noise() + room, right * noise() - 0.5 * room[::-1]], axis=1)
    soundfile.write(path, channels, SR)
    samples = audio.decode(path, sr=SR, start_s=1, seconds=15)
    assert len(samples) == 15 * SR
    assert f"cancel each other out, so that number {used} of 2 alone is used" in caplog.text
    expected = channels[SR : 16 * SR, used - 1]
    assert np.corrcoef(samples, expected)[0, 1] > 0.9
    assert np.std(samples) == pytest.approx(np.std(expected), rel=0.05)


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 1), (1, 0), (0, 1), ("other", 1), (1, -0.2), ("other", -0.7)],
)
def test_other_stereo_is_mixed_as_ever(tmp_path, left, right, caplog):
    path = tmp_path / "stereo.wav"
    first = noise(seed=2) if left == "other" else left * noise()
    channels = np.stack([first, right * noise()], axis=1)
    soundfile.write(path, channels, SR, subtype="FLOAT")
    np.testing.assert_allclose(audio.decode(path, sr=SR), channels.mean(axis=1), atol=1e-6)
    assert "cancel" not in caplog.text


def test_a_pause_in_inverted_stereo_does_not_hide_it(tmp_path, caplog):
    wave = np.concatenate([np.zeros(30 * SR, np.float32), noise(3)])
    soundfile.write(tmp_path / "late.wav", np.stack([wave, -wave], axis=1), SR)
    assert np.abs(audio.decode(tmp_path / "late.wav", sr=SR)).max() > 0.1
    assert "cancel each other out" in caplog.text


@pytest.mark.parametrize("channels", [9, 12, 24])
def test_channels_without_a_layout_are_averaged(tmp_path, channels):
    path = tmp_path / "many.wav"
    waves = np.stack([noise(2, seed=n) for n in range(channels)], axis=1)
    soundfile.write(path, waves, SR, subtype="FLOAT")
    np.testing.assert_allclose(audio.decode(path, sr=SR), waves.mean(axis=1), atol=1e-6)


def test_sound_in_a_channel_that_mixes_leave_out_is_found(tmp_path, caplog):
    """Three channels are taken for two and one of bass, which is not mixed in."""
    path, wave = tmp_path / "three.wav", noise(2)
    soundfile.write(path, np.stack([0 * wave, 0 * wave, wave], axis=1), SR, subtype="FLOAT")
    np.testing.assert_allclose(audio.decode(path, sr=SR), wave, atol=1e-6)
    assert "number 3 of 3 alone is used" in caplog.text


@pytest.fixture
def two_sounds(tmp_path, wav):
    """Write a file of two sounds, the levels of which are given."""

    def write(first, second, *marks):
        path = tmp_path / "two.mkv"
        chain = f"[0:a]asplit[x][y];[x]volume={first}[a];[y]asetrate=22050,volume={second}[b]"
        maps = ("-filter_complex", chain, "-map", "[a]", "-map", "[b]", "-c:a", "flac")
        default = [("-disposition:a:0", marks[0]), ("-disposition:a:1", marks[1])] if marks else []
        ffmpeg("-i", wav, *maps, *(option for pair in default for option in pair), path)
        return path

    return write


@pytest.mark.parametrize(
    ("levels", "marks", "hz"),
    [
        ((1, 1), ("default", 0), 440),
        ((1, 1), ("default", "default"), 440),
        ((1, 1), (0, 0), 440),
        ((1, 1), (0, "default"), 220),
        ((0, 1), ("default", 0), 220),
        ((0, 1), (0, "default"), 220),
        ((1, 0), (0, "default"), 440),
    ],
)
def test_of_several_sounds_the_one_to_be_played_or_else_one_that_sounds(
    two_sounds, levels, marks, hz, caplog
):
    samples = audio.decode(two_sounds(*levels, *marks), sr=16_000, seconds=3)
    assert loudest_hz(samples, 16_000) == pytest.approx(hz, abs=1)
    silent = levels[1 if marks == (0, "default") else 0] == 0
    assert (" sounds is silent, number " in caplog.text) == silent


def test_several_sounds_may_all_be_silent(two_sounds):
    assert not audio.decode(two_sounds(0, 0), sr=16_000).any()


def test_what_a_file_says_of_itself_is_not_taken_for_a_complaint(tmp_path, wav, caplog):
    path = tmp_path / "tagged.mp3"
    lyrics = "one\n[error] two\n[info]   Stream #0:0: Audio: x, 44100 Hz, 9 channels\nDuration: 9"
    convert(
        wav, path, "-metadata", f"comment={lyrics}", "-metadata", f"Stream #0:7: Audio={lyrics}"
    )
    assert len(audio.decode(path, sr=16_000, seconds=30)) == pytest.approx(64_000, abs=3200)
    assert caplog.text == ""


def test_of_many_silent_sounds_a_few_are_listened_to(tmp_path, monkeypatch):
    path, silence = tmp_path / "many.mkv", ("-f", "lavfi", "-i", "anullsrc=r=8000:d=3")
    ffmpeg(*silence, *(30 * ("-map", "0:a")), "-c:a", "flac", path)
    limits, run_ffmpeg = [], audio.run_ffmpeg

    def spy(*options, timeout_s, **others):
        limits.append(timeout_s)
        return run_ffmpeg(*options, timeout_s=timeout_s, **others)

    monkeypatch.setattr(audio, "run_ffmpeg", spy)
    assert not audio.decode(path, sr=8000, timeout_s=30).any()
    assert len(limits) <= 16
    assert limits == sorted(limits, reverse=True)  # all of them share one limit
    assert limits[-1] < limits[0] <= 30
