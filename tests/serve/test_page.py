"""The page in a browser: from a recording to a piece that is kept, by mouse, finger and key.

With DEEP_PIANO_SCREENSHOTS=FOLDER the tests leave pictures of what they saw there.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from deep_piano.config.sections import Config
from deep_piano.music.audio import decode
from deep_piano.music.midi import read_midi
from deep_piano.serve.worker import work
from tests.support import recordings
from tests.support.browsers import chromium
from tests.support.recordings import struck
from tests.support.serving import Serving, small_server

pytestmark = pytest.mark.browser

LONGEST_MS = 120_000
AXE = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@pytest.fixture(scope="session")
def playing(tmp_path_factory):
    """A recording of fourteen seconds: a scale, struck twice a second."""
    sr = 44_100
    samples = np.zeros(14 * sr)
    for n in range(26):
        begin = n * sr // 2
        tone = struck(60 + [0, 4, 7, 12, 7, 4][n % 6], sr=sr, channels=1, seconds=0.9)[:, 0]
        samples[begin : begin + len(tone)] += tone[: len(samples) - begin]
    path = tmp_path_factory.mktemp("playing") / "my song.wav"
    recordings.write_sound(path, samples)
    return path


@pytest.fixture(scope="module")
def browser(playing):
    with chromium(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={playing}",
    ) as browser:
        yield browser


@pytest.fixture
def visit(browser, served):
    """Return a function that opens the page; afterwards nothing may have gone wrong in any."""
    wrong, contexts = [], []

    def watched(page):
        page.set_default_timeout(LONGEST_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("request", lambda asked: wrong.append(asked.url) if foreign(asked.url) else None)
        page.goto(served.url)
        page.locator("#stored:has-text('Stored in')").wait_for()
        return page

    def foreign(url):
        return not url.startswith((served.url, "data:", "blob:" + served.url))

    def visit(script=None, context=None, **options):
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
        if script:
            context.add_init_script(script)
        return watched(context.new_page())

    yield visit
    for context in contexts:
        context.close()
    served_errors = "the server responded with a status of 4"  # a sentence was asked for
    assert [one for one in wrong if served_errors not in one] == []


def shot(page, name):
    folder = os.environ.get("DEEP_PIANO_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def until(page, condition):
    """Wait until a condition holds; Playwright's own waiting evaluates text, which is forbidden."""
    for _ in range(LONGEST_MS // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition} has never been true")


def drop(page, name, content):
    """Drop a file onto the page; `content` is its bytes, or how many zeros it has."""
    data = page.evaluate_handle(
        """([name, text, zeros]) => {
            const bytes = zeros ? new Uint8Array(zeros)
                : Uint8Array.from(atob(text), one => one.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name));
            return data;
        }""",
        [name, "", content]
        if isinstance(content, int)
        else [name, base64.b64encode(content).decode(), 0],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})


def heard(page):
    """Wait until the page says what it has heard; return that."""
    page.locator("#heard:has-text('note')").wait_for()
    return page.locator("#heard").text_content()


def shown(page):
    """Return the piece that is shown."""
    return page.evaluate("sessionStorage.getItem('deep_piano piece')")


def compose(page, *, takes=1, seconds=20):
    """Ask for a piece, and wait until its takes are shown; return its id."""
    before = shown(page)
    page.locator("#control-takes").fill(str(takes))
    page.locator("#control-seconds").fill(str(seconds))
    page.locator("#make").click()
    return composed(page, before, takes)


def composed(page, before, takes=1):
    """Wait until another piece is shown than before; return its id."""
    until(page, f"sessionStorage.getItem('deep_piano piece') !== {json.dumps(before)}")
    until(page, f"document.querySelectorAll('#takes .take').length === {takes}")
    return shown(page)


def download(page, name):
    with page.expect_download() as found:
        page.get_by_label(f"Download take 1 as {name}").click()
    return found.value


@pytest.mark.slow
def test_a_recording_is_dropped_and_its_piece_plays_and_is_taken_away(
    visit, playing, tmp_path, browser
):
    page = visit()
    shot(page, "1-play")
    drop(page, playing.name, playing.read_bytes())
    assert re.fullmatch(r"\d\d notes, C major \((sure|fairly sure|unclear)\)", heard(page))
    assert page.locator("#seed-name").text_content() == "my song.wav"
    begin, end = (float(page.locator(f"#{name}").input_value()) for name in ("begin", "end"))
    assert end - begin == pytest.approx(10)
    page.locator("#hear").click()
    until(page, f"!audio.paused && audio.currentTime >= {begin}")
    shot(page, "2-trim")
    compose(page, takes=2)
    page.get_by_label("Play take 2").click()
    until(page, "!audio.paused && audio.currentTime > 0.3")
    shot(page, "3-listen")
    head = page.locator(".take.current .here")
    assert float(re.match(r"left: ([\d.]+)%", head.get_attribute("style"))[1]) > 0
    page.get_by_label("Play take 1").click()  # goes on with the other
    until(page, "!audio.paused && audio.src.includes('/1/mp3')")
    page.locator("#audio").evaluate("audio => audio.pause()")
    for name, suffix in [("mp3", ".mp3"), ("WAV", ".wav")]:
        found = download(page, name)
        assert found.suggested_filename == f"my song, take 1{suffix}"
        assert len(decode(found.path(), sr=8000)) == pytest.approx(20 * 8000, abs=800)
    assert len(read_midi(download(page, "MIDI").path()))
    import music21

    score = download(page, "MusicXML").path().read_text()
    assert len(music21.converter.parseData(score, format="musicxml").parts) == 2
    alone = tmp_path / "alone.html"
    download(page, "one page that plays").save_as(alone)
    other = browser.new_page()
    asked = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(alone.as_uri())
    other.locator("#roll").click(position={"x": 400, "y": 50})
    until(other, "!audio.paused && audio.currentTime > 1")
    shot(other, "4-alone")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    other.close()


@pytest.mark.slow
def test_the_microphone_is_recorded_as_it_is(visit, served):
    page = visit(
        "const ask = MediaDevices.prototype.getUserMedia;"
        "MediaDevices.prototype.getUserMedia = function (wanted) {"
        "  window.wanted = wanted; return ask.call(this, wanted); };"
    )
    page.locator("#record").click()
    until(page, "document.getElementById('level').value > 0.5")
    shot(page, "5-record")
    until(page, "/0:0[3-9]/.test(document.getElementById('clock').textContent)")
    page.locator("#stop").click()
    heard(page)
    asked = page.evaluate("wanted.audio")
    assert asked == dict.fromkeys(
        ("echoCancellation", "noiseSuppression", "autoGainControl"), False
    )
    seed = page.evaluate("sessionStorage.getItem('deep_piano seed')")
    assert 2 < served.store.seed(seed)["seconds"] < 60
    compose(page)
    page.get_by_label("Play take 1").click()
    until(page, "!audio.paused && audio.currentTime > 0.1")


@pytest.fixture
def locked(tmp_path, weights, three_keys):
    server = small_server(tmp_path / "music", weights, three_keys, token="a-token-of-a-test")
    yield server
    server.close()


def test_the_link_with_the_token_opens_from_another_site_and_reloads(browser, locked):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    mail = "http://mail.example/"
    link = f"<a href='{locked.url}?token=a-token-of-a-test'>a page</a>"
    context.route(mail, lambda route: route.fulfill(body=link, content_type="text/html"))
    there = page.locator("#stored:has-text('Stored in')")
    try:
        page.goto(mail)
        page.locator("a").click()
        there.wait_for()
        assert page.url == locked.url
        for again in (page.reload, page.reload, lambda: page.goto(locked.url)):
            again()
            there.wait_for()
        page.go_back()
        page.go_forward()
        there.wait_for()
    finally:
        context.close()


KEYBOARD = """
const input = Object.assign(new EventTarget(), {name: "Stage piano"});
navigator.requestMIDIAccess = async () => ({inputs: new Map([["1", input]])});
window.press = (at, ...data) => input.dispatchEvent(
  Object.assign(new Event("midimessage"), {data: new Uint8Array(data), at}));
const now = {get() { return this.at ?? performance.now(); }};
Object.defineProperty(Event.prototype, "timeStamp", now);
"""


def test_a_midi_keyboard_gives_its_notes_and_its_pedal(visit, served):
    page = visit(KEYBOARD)
    page.locator("#keyboard").click()
    page.evaluate("""() => {
        press(1000, 0xb3, 64, 127);  // the pedal, on channel 4
        for (let n = 0; n < 20; n++) {
            press(1000 + 250 * n, 0x90, 60 + n % 12, 80);
            press(1100 + 250 * n, 0x90, 60 + n % 12, 0);
            press(1100 + 250 * n, 0xf8);  // a clock, of no interest
        }
        press(6000, 0xb3, 64, 0);
    }""")
    assert page.locator("#recording-says").text_content() == "20 notes from Stage piano"
    shot(page, "6-keyboard")
    page.locator("#stop").click()
    assert heard(page).startswith("20 notes")
    seed = page.evaluate("sessionStorage.getItem('deep_piano seed')")
    notes = np.array(served.store.seed(seed)["notes"])
    assert notes[:, 2].tolist() == [60 + n % 12 for n in range(20)]
    assert np.diff(notes[:, 0]) == pytest.approx(0.25, abs=0.002)
    assert notes[-1, 1] == pytest.approx(5.0, abs=0.01)  # the pedal holds what a key does not
    assert (notes[:, 1] - notes[:, 0]).min() > 0.2


def test_keys_that_are_held_when_it_is_stopped_sound_until_then(visit, served):
    page = visit(KEYBOARD)
    page.locator("#keyboard").click()
    page.evaluate("""() => {
        const begun = performance.now() - 5000;
        for (let n = 0; n < 20; n++) {
            press(begun + 200 * n, 0x90, 60 + n % 12, 80);
            press(begun + 100 + 200 * n, 0x80, 60 + n % 12, 0);
        }
        for (const key of [48, 52, 55]) press(begun + 4500, 0x90, key, 80);
        press(begun + 4500, 0xb0, 55, 0);  // no key
    }""")
    page.wait_for_timeout(500)
    page.locator("#stop").click()
    assert heard(page).startswith("23 notes")
    seed = page.evaluate("sessionStorage.getItem('deep_piano seed')")
    notes = np.array(served.store.seed(seed)["notes"])
    held = notes[notes[:, 2] < 60]
    assert held[:, 2].tolist() == [48, 52, 55]
    assert (held[:, 1] - held[:, 0]).min() > 1
    assert np.ptp(held[:, 1]) < 0.01


ASKED_FIRST = """
window.asked = [];
const first = answer => (...given) => new Promise((allow, refuse) => {
    asked.push({allow: () => allow(answer(...given)), refuse: () => refuse(new Error("no"))}); });
const microphone = MediaDevices.prototype.getUserMedia;
MediaDevices.prototype.getUserMedia = first(async wanted => {
    window.stream = await microphone.call(navigator.mediaDevices, wanted);
    return stream;
});
const input = Object.assign(new EventTarget(), {name: "Stage piano"});
navigator.requestMIDIAccess = first(() => ({inputs: new Map([["1", input]])}));
window.twice = id => { for (const n of [1, 2]) document.getElementById(id).click(); };
"""


@pytest.mark.parametrize("button", ["record", "keyboard"])
def test_two_clicks_while_the_browser_asks_begin_one_recording(visit, button):
    page = visit(ASKED_FIRST)
    page.evaluate("button => twice(button)", button)
    assert page.evaluate("asked.length") == 1
    assert page.locator("#choose").is_disabled()
    page.evaluate("asked.pop().refuse()")
    page.locator("#wrong:has-text('cannot be used')").wait_for()
    assert page.evaluate("document.activeElement.id") == button
    page.evaluate("button => twice(button)", button)
    assert page.locator("#wrong").is_hidden()
    page.evaluate("asked.pop().allow()")
    page.locator("#stop").click()
    until(page, "!document.getElementById('choose').disabled")
    assert page.evaluate("asked.length") == 0
    if button == "record":
        until(page, "stream.getTracks().every(track => track.readyState === 'ended')")


@pytest.mark.slow
def test_a_server_that_is_started_anew_takes_no_recording_away(
    browser, tmp_path, weights, three_keys
):
    server = small_server(tmp_path / "music", weights, three_keys)
    context = browser.new_context()
    context.add_init_script(KEYBOARD)
    page = context.new_page()
    page.set_default_timeout(LONGEST_MS)
    try:
        page.goto(server.url)
        page.locator("#stored:has-text('Stored in')").wait_for()
        page.locator("#keyboard").click()
        page.evaluate("""() => {
            window.before = true;
            for (let n = 0; n < 20; n++) {
                press(1000 + 250 * n, 0x90, 60 + n % 12, 80);
                press(1100 + 250 * n, 0x90, 60 + n % 12, 0);
            }
        }""")
        server.close()
        with page.expect_response(lambda answer: "/api/events" in answer.url and answer.ok):
            server = small_server(tmp_path / "music", weights, three_keys, port=server.port)
        page.wait_for_timeout(500)
        assert page.evaluate("window.before")
        page.locator("#stop").click()
        until(page, "!window.before")
        assert heard(page).startswith("20 notes")
    finally:
        context.close()
        server.close()


def test_without_midi_and_microphone_there_are_no_such_buttons(visit):
    page = visit(
        "delete Navigator.prototype.requestMIDIAccess;"
        "Object.defineProperty(Navigator.prototype, 'mediaDevices', {value: undefined});"
    )
    shown = [page.locator(f"#{name}").is_visible() for name in ("keyboard", "record", "capture")]
    assert shown == [False, False, True]
    assert page.locator("#captured").get_attribute("capture") is not None


@pytest.mark.slow
def test_trimming_by_hand_stands_in_the_facts(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    box = page.locator("#wave").bounding_box()
    seconds = served.store.seed(page.evaluate("sessionStorage.getItem('deep_piano seed')"))[
        "seconds"
    ]
    page.locator("#begin").focus()
    before = float(page.locator("#begin").input_value())
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#begin").input_value()) == pytest.approx(before + 0.1)
    x = [box["x"] + box["width"] * s / seconds for s in (before + 0.1, 6.0)]
    page.mouse.move(x[0], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(x[1], box["y"] + 20, steps=5)
    page.mouse.up()
    begin = float(page.locator("#begin").input_value())
    assert begin == pytest.approx(6, abs=0.15)
    said = page.locator("#heard").text_content()
    piece = compose(page)
    about = served.store.piece(piece)
    facts = served.folder / "pieces" / piece / "piece.json"
    settings = json.loads(facts.read_text())["settings"]
    assert settings["seed_start"] == begin == about["window"]["seed_start"]
    assert settings["seed_seconds"] == pytest.approx(
        float(page.locator("#end").input_value()) - begin
    )
    assert int(said.split()[0]) <= 30
    page.locator("#begin").fill("0")
    page.locator("#end").fill("0")  # the shortest window
    assert page.locator("#window").text_content() == "0.0\u20132.0 s: 2.0 s"


@pytest.mark.slow
def test_shape_reaches_the_engine_and_the_same_again_gives_the_same(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    page.locator("#control-temperature").fill("1.2")
    page.locator("#control-guidance").fill("1.5")
    page.locator("#more summary").click()
    assert "Temperature: onset 1.20" in page.locator("#numbers").text_content()
    assert "Guidance: onset 1.50, pitch 3.75" in page.locator("#numbers").text_content()
    shot(page, "7-shape")
    first, second = (served.store.piece(compose(page)) for _ in range(2))
    assert first["takes"][0]["files"] == second["takes"][0]["files"]
    facts = json.loads((served.folder / "pieces" / first["id"] / "piece.json").read_text())
    assert facts["settings"]["temperature"]["pitch"] == 1.2
    assert facts["settings"]["guidance"]["pitch"] == 3.75
    before = shown(page)
    page.locator("#again").click()
    other = served.store.piece(composed(page, before))
    assert other["takes"][0]["random_state"] == 1
    assert other["takes"][0]["files"]["piece.mid"] != first["takes"][0]["files"]["piece.mid"]


TABLE = [
    {"setting": "density", "label": "Density", "ends": ["sparser", "busier"], "default": None},
    {"setting": "key", "label": "Key", "choices": ["C major", "A minor"], "default": None},
    {"setting": "low", "label": "Lowest", "default": None, "more": True},
    {"setting": "loud", "label": "Loudness", "ends": ["soft", "loud"], "default": 0.5},
]


def test_a_control_of_the_table_is_drawn_and_left_out_until_it_is_touched(visit):
    page = visit()
    usual = {
        "least": 0,
        "most": 2,
        "step": 0.1,
        "ends": [],
        "choices": [],
        "numbers": {},
        "useless": [],
    }
    table = [usual | {"more": False} | one for one in TABLE]
    wanted = "async () => (await import('/page/shape.js')).wanted()"
    page.evaluate("async table => (await import('/page/shape.js')).setUpShape(table)", table)
    assert page.evaluate(wanted) == {"loud": 0.5}
    page.evaluate("document.getElementById('shape').hidden = false")
    page.locator("#control-density").fill("1.5")
    page.locator("#control-key").select_option("A minor")
    page.locator("#more summary").click()
    page.locator("#control-low").fill("1")
    asked = {"density": 1.5, "key": "A minor", "low": 1, "loud": 0.5}
    assert page.evaluate(wanted) == asked
    assert page.locator("#numbers").text_content() == "Density: 1.5. Loudness: 0.5"
    page.locator("#control-key").select_option("as in my playing")
    page.locator("#control-low").fill("")
    assert page.evaluate(wanted) == {"density": 1.5, "loud": 0.5}


@pytest.mark.slow
def test_keep_up_to_here_and_continue_differently(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    old = served.store.piece(compose(page, seconds=30))
    roll, keep = (
        page.get_by_role("slider", name="Position in take 1"),
        page.locator(".take p button"),
    )
    assert keep.is_disabled()
    width = roll.bounding_box()["width"]
    roll.click(position={"x": width * 20 / 30, "y": 30})
    page.keyboard.press("Tab")
    roll.focus()
    page.keyboard.press("Home")
    assert keep.is_disabled()
    for _ in range(2):
        page.keyboard.press("PageUp")
    assert roll.get_attribute("aria-valuetext") == "0:20"
    assert keep.text_content() == "Keep up to 0:20 and continue differently"
    shot(page, "8-keep")
    before = shown(page)
    keep.click()
    new = served.store.piece(composed(page, before))
    assert new["window"]["keep_until"] == 20
    assert page.locator("#piece-facts").text_content() == "Continues sketch.mid, kept up to 0:20."
    rolls = [
        np.array(json.loads((served.folder / "pieces" / one["id"] / "roll-1.json").read_text()))
        for one in (old, new)
    ]
    kept = [notes[notes[:, 0] < 19.99] for notes in rolls]
    follows = [notes[notes[:, 0] > 20.01] for notes in rolls]
    assert np.array_equal(kept[0][:, 2:], kept[1][:, 2:])
    assert np.abs(kept[0][:, 0] - kept[1][:, 0]).max() < 0.0011
    assert follows[0][:, 2].tolist() != follows[1][:, 2].tolist()


@pytest.mark.slow
def test_a_span_is_made_anew_by_keys_alone(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    old = served.store.piece(compose(page, seconds=30))
    page.locator("#control-form").select_option("rondo")  # of no use for a span
    begin, end = (page.get_by_label(f"Span {what}, take 1") for what in ("begins", "ends"))
    anew, span = page.locator(".take details button"), page.locator(".take .span")
    assert begin.is_hidden()
    page.get_by_role("slider", name="Position in take 1").focus()
    page.keyboard.press("PageUp")
    page.locator(".take summary").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.take .span').offsetWidth > 0")
    assert anew.text_content() == "Make 0:10\u20130:20 anew"
    begin.focus()
    page.keyboard.press("ArrowRight")
    assert begin.get_attribute("aria-valuetext") == "0:10"
    for _ in range(30):
        page.keyboard.press("PageUp")  # past the end, which gives way
    assert float(begin.input_value()) == 29
    assert float(end.input_value()) == 30
    begin.fill("8")
    end.fill("2")  # past the beginning, which gives way, to 2 s at least
    assert (begin.input_value(), end.input_value()) == ("2", "3")
    end.fill("16")
    begin.fill("12")
    left, width = (float(part) for part in re.findall(r"([\d.]+)%", span.get_attribute("style")))
    assert (left, width) == pytest.approx((40, 13.33), abs=0.01)
    shot(page, "12-span")
    before = shown(page)
    anew.focus()
    page.keyboard.press("Enter")
    new = served.store.piece(composed(page, before))
    assert new["takes"][0]["new"] == [12, 16]
    assert new["takes"][0]["random_state"] == old["takes"][0]["random_state"] + 1
    said = page.locator("#piece-facts").text_content()
    assert said == "Continues sketch.mid, with 0:12\u20130:16 made anew."
    assert anew.text_content() == "Make 0:12\u20130:16 anew"  # once more
    shot(page, "13-anew")
    end.fill("30")
    anew.click()
    page.locator("#wrong:has-text('nothing is struck after 30 s')").wait_for()


@pytest.mark.slow
def test_another_is_made_as_the_piece_that_is_shown(visit, served, sketch, playing):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    page.locator("#begin").fill("3")
    first = compose(page)
    of_sketch = served.store.piece(first)
    page.locator(".take .roll").click(position={"x": 600, "y": 30})
    page.get_by_role("button", name="Keep up to").click()
    kept = served.store.piece(composed(page, first))
    page.set_input_files("#file", playing)
    page.locator("#seed-name:has-text('my song.wav')").wait_for()
    page.get_by_role("button", name="My rhythm, new pitches").click()
    remixed = served.store.piece(composed(page, kept["id"]))
    page.evaluate("sessionStorage.removeItem('deep_piano seed')")  # no recording is chosen
    for old in (of_sketch, kept, remixed):
        served.store.change(old["id"], title=old["id"], starred=None)
    page.reload()
    page.locator("#takes .take").wait_for()
    assert page.locator("#trim").is_hidden()
    for old in (of_sketch, kept, remixed):
        page.locator(f"#pieces .name:has-text('{old['id']}')").click()
        until(page, f"sessionStorage.getItem('deep_piano piece') === '{old['id']}'")
        page.locator("#again").click()
        new = served.store.piece(composed(page, old["id"]))
        assert (new["seed"], new["window"]) == (old["seed"], old["window"])
        states = [one["takes"][0]["random_state"] for one in (old, new)]
        assert states[1] == states[0] + 1
        assert new["takes"][0]["files"]["piece.mid"] != old["takes"][0]["files"]["piece.mid"]


@pytest.mark.slow
def test_a_remix_keeps_the_rhythm_or_the_pitches(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    page.locator("#control-density").fill("1.5")  # of no use for a rhythm
    page.locator("#control-takes").fill("2")
    before = shown(page)
    page.get_by_role("button", name="My rhythm, new pitches").click()
    new = served.store.piece(composed(page, before, takes=2))
    said = page.locator("#piece-facts").text_content()
    assert re.fullmatch(r"Keeps the rhythm of sketch.mid from \d\.\d s on, 10.0 s.", said)
    shot(page, "14-remix")
    before = shown(page)
    page.locator("#again").click()
    again = served.store.piece(composed(page, before, takes=2))
    assert again["window"] == new["window"]
    assert again["takes"][0]["random_state"] == 1
    before = shown(page)
    page.get_by_role("button", name="My pitches, new rhythm").click()
    other = served.store.piece(composed(page, before, takes=2))
    assert other["window"]["remix"] == "pitches"
    facts = json.loads((served.folder / "pieces" / other["id"] / "piece-1.json").read_text())
    assert facts["settings"]["density"] == 1.5
    page.locator("#more summary").click()
    page.locator("#control-most_shared").fill("12")
    page.locator("#make").click()
    page.locator("#wrong:has-text('--most-shared needs an index of the corpus')").wait_for()


@pytest.mark.slow
def test_the_percentage_never_falls_a_reload_goes_on_and_cancel_ends(visit, served, sketch):
    page = visit("""
        window.seen = [];
        const all = {subtree: true, childList: true, attributes: true, characterData: true};
        new MutationObserver(() => {
            const bar = document.querySelector("#jobs progress");
            if (bar) seen.push(bar.value);
        }).observe(document, all);
    """)
    page.set_input_files("#file", sketch)
    said = heard(page)
    page.locator("#more summary").click()
    page.locator("#control-candidates").fill("16")
    page.locator("#control-takes").fill("4")
    page.locator("#control-seconds").fill("600")
    page.evaluate("seen.length = 0")  # those of another job
    page.locator("#make").click()
    until(page, "document.querySelector('#jobs progress')?.value >= 17")
    seen = page.evaluate("seen")
    shot(page, "9-progress")
    page.reload()
    page.locator("#jobs progress").wait_for()
    assert page.locator("#jobs").text_content().startswith("sketch: composing")
    assert heard(page) == said
    until(page, f"document.querySelector('#jobs progress').value >= {seen[-1]}")
    for percents in (seen, page.evaluate("seen")):
        assert percents == sorted(percents)
    took = page.evaluate("""async () => {
        const begun = performance.now();
        document.querySelector("#jobs button").click();
        while (!document.getElementById("jobs").hidden) await new Promise(requestAnimationFrame);
        return performance.now() - begun;
    }""")
    assert took > 0
    assert [*(served.folder / "work").iterdir()] == []
    page.locator("#control-candidates").evaluate("field => { field.value = 1; }")
    compose(page)


def test_what_is_wrong_costs_one_sentence_and_the_page_lives_on(visit, tmp_path, sketch):
    page = visit()
    wrong = page.locator("#wrong")
    recordings.write_tone(tmp_path / "second.wav", seconds=1)
    recordings.write_half(tmp_path / "half.flac")
    recordings.write_text(tmp_path / "letter.mp3")
    for name, said in [
        ("second.wav", "the seed is too short: 1.00 s"),
        ("half.flac", "half.flac is damaged"),
        ("letter.mp3", "letter.mp3 is not audio that can be read"),
        ("large.wav", "large.wav has 51 MB, more than 50 MB"),
    ]:
        if (tmp_path / name).exists():
            page.set_input_files("#file", tmp_path / name)
        else:
            drop(page, name, 51_000_000)
        page.locator(f"#wrong:has-text('{said}')").wait_for()
        assert wrong.is_visible()
    shot(page, "10-wrong")
    page.set_input_files("#file", sketch)
    heard(page)
    assert wrong.is_hidden()


def test_each_failure_is_told_and_the_last_that_is_there_is_opened(visit, tmp_path, sketch):
    page = visit("window.named = new Set();")
    recordings.write_tone(tmp_path / "second.wav", seconds=1)
    recordings.write_text(tmp_path / "letter.mp3")
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    content |= dict.fromkeys(["first.mid", "last.mid"], sketch.read_bytes())
    page.evaluate("""() => new MutationObserver(() => named.add(
        document.getElementById("seed-name").textContent)).observe(
        document.getElementById("seed-name"), {childList: true, characterData: true})""")
    for name in ("first.mid", "second.wav", "last.mid", "letter.mp3"):
        drop(page, name, content[name])
    for said in ("letter.mp3 is not audio", "the seed is too short"):
        page.locator(f"#wrong:has-text('{said}')").wait_for()
    heard(page)
    assert page.evaluate("[...named]") == ["last.mid"]
    assert len(page.locator("#wrong").text_content().splitlines()) == 2


@pytest.mark.slow
def test_pieces_are_starred_renamed_opened_and_deleted(visit, served, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    piece = compose(page)
    page.get_by_label("Star take 1").click()
    page.locator("#title").fill("Rain <b>drops</b>")
    page.keyboard.press("Enter")
    named = page.locator("#pieces .name").first
    page.locator("#pieces .name:has-text('★ Rain <b>drops</b>')").wait_for()
    assert page.locator("#pieces b").count() == 0
    assert served.store.piece(piece)["takes"][0]["starred"]
    page.reload()
    page.locator("#takes .take").wait_for()
    assert page.locator("#title").input_value() == "Rain <b>drops</b>"
    assert page.get_by_label("Star take 1").get_attribute("aria-pressed") == "true"
    named.click()
    count = page.locator("#pieces .name").count()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Delete Rain <b>drops</b>").click()
    until(page, f"document.querySelectorAll('#pieces .name').length < {count}")
    assert page.locator("#listen").is_hidden()
    assert piece not in [one["id"] for one in served.store.pieces()]
    assert str(served.folder) in page.locator("#stored").text_content()


@pytest.mark.slow
def test_a_piece_that_is_opened_again_plays_from_its_beginning_and_pauses(visit, sketch):
    page = visit()
    page.set_input_files("#file", sketch)
    heard(page)
    compose(page)
    page.get_by_label("Play take 1").click()
    until(page, "!audio.paused")
    page.get_by_role("slider", name="Position in take 1").focus()
    page.keyboard.press("PageUp")
    until(page, "audio.currentTime > 10")
    page.locator("#pieces .name").first.click()
    until(page, "audio.paused")
    page.get_by_label("Play take 1").click()
    head = "document.querySelector('.take.current .here')?.style.left"
    until(page, f"!audio.paused && parseFloat({head}) > 0")
    assert page.evaluate("audio.currentTime") < 10
    page.get_by_label("Pause take 1").click()
    until(page, "audio.paused")


@pytest.mark.slow
def test_two_tabs_know_of_each_other_and_keep_their_own(visit, sketch, playing):
    one = visit()
    other = visit(context=one.context)
    one.set_input_files("#file", sketch)
    other.set_input_files("#file", playing)
    heard(one)
    heard(other)
    assert one.locator("#seed-name").text_content() == "sketch.mid"
    assert other.locator("#seed-name").text_content() == "my song.wav"
    count = other.locator("#pieces .name").count()
    compose(one)
    until(other, f"document.querySelectorAll('#pieces .name').length > {count}")
    assert other.locator("#listen").is_hidden()


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(visit):
    page = visit()

    def to(name):
        for _ in range(60):
            page.keyboard.press("Tab")
            if (
                page.evaluate("document.activeElement.id || document.activeElement.ariaLabel")
                == name
            ):
                return
        raise AssertionError(f"{name} is never reached")

    to("example")
    page.keyboard.press("Enter")
    heard(page)
    to("begin")
    page.keyboard.press("ArrowLeft")
    to("control-seconds")
    page.keyboard.type("20")
    to("control-temperature")
    page.keyboard.press("ArrowRight")
    before = shown(page)
    to("make")
    page.keyboard.press("Enter")
    composed(page, before)
    to("Play take 1")
    page.keyboard.press("Enter")
    until(page, "!audio.paused && audio.currentTime > 0.1")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_it_fits_a_phone_by_day_and_by_night_and_everybody_can_use_it(visit, sketch, scheme):
    page = visit(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme=scheme
    )
    assert page.locator("#capture").is_visible()
    page.set_input_files("#file", sketch)
    heard(page)
    page.locator("#more summary").tap()
    compose(page, takes=2)
    page.locator(".take summary").first.tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        page.evaluate("""[...document.querySelectorAll("button, select, input")]
        .filter(one => one.offsetParent && one.getBoundingClientRect().height < 24).length""")
        == 0
    )
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 380) == (scheme == "light")
    shot(page, f"11-phone-{scheme}")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": AXE}})
    assert found.response["violations"] == []
    assert len(found.response["passes"]) > 20


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.tf
def test_the_example_plays_with_all_that_is_real_and_speech_is_refused(browser, tmp_path):
    server = Serving(tmp_path / "music", Config(), work)
    recordings.write_sound(tmp_path / "speech.wav", recordings.speech_like())
    page = browser.new_page()
    page.set_default_timeout(LONGEST_MS)
    try:
        page.goto(server.url)
        page.locator("#example").click()
        assert heard(page) == "41 notes, A minor (fairly sure)"
        compose(page, seconds=60)
        page.get_by_label("Play take 1").click()
        until(page, "!audio.paused && audio.currentTime > 0.5")
        page.set_input_files("#file", tmp_path / "speech.wav")
        page.locator("#wrong:has-text('Give a recording of a piano')").wait_for()
        assert heard(page) == "41 notes, A minor (fairly sure)"  # it lives on
    finally:
        page.close()
        server.close()
