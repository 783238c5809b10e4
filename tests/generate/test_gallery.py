"""The page of a bulk run: what stands in it, and what it does in a browser."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from deep_piano.errors import InputError
from deep_piano.generate import gallery
from deep_piano.generate.gallery import PAGE, known_pieces, write_gallery, write_page_of
from deep_piano.generate.records import RUN, Record, Records, require_same_run, write_manifest
from deep_piano.generate.votes import read_votes
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.notes import make_notes
from deep_piano.report.roll import piano_roll
from tests.support.browsers import chromium
from tests.support.recordings import write_sound

SECONDS = 6.0
HARMFUL = '</script><img src=x onerror="document.title=1">& %20#?.mp3'


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A sound and a picture, which all pieces share."""
    folder = tmp_path_factory.mktemp("material")
    tone = 0.1 * np.sin(np.arange(round(SECONDS * 8000)) * 0.3).astype(np.float32)
    write_sound(folder / "take.wav", tone, sr=8000)
    notes = make_notes([0.0, 3.0], [1.0, 5.0], [60, 72], [80, 90])
    for name in ("take.mid", "take.json"):
        (folder / name).write_text("{}")
    piano_roll(folder / "take.png", notes, seconds=SECONDS, seed_seconds=2.0, title="")
    return folder


@pytest.fixture
def bulk(tmp_path, material):
    """Return a function that writes a folder of pieces, two takes a seed."""

    def bulk(name, seeds, *, checkpoint="c0ffee", takes=2, files=True, made="once"):
        folder = open_folder(tmp_path / name)
        about = {"settings": {"seconds": SECONDS}, "checkpoint_sha256": checkpoint, "sound": None}
        require_same_run(folder, about, force=False)
        records = []
        for number, seed in enumerate(seeds):
            place = seed
            names = {f"{place}/seed.wav": "take.wav"}
            for take in range(1, takes + 1):
                for suffix in (".wav", ".png", ".mid", ".json"):
                    names[f"{place}/take-{take}{suffix}"] = f"take{suffix}"
            for target, source in names.items():
                path = folder.root / os.fsencode(unescaped(target)).decode(errors="surrogateescape")
                if files and (material / source).exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.link(material / source, path)
            for take in range(1, takes + 1):
                mine = {
                    n: f"{made}/{name}/{n}" for n in names if f"take-{take}." in n or "seed." in n
                }
                figures = {
                    "pitch_class_cosine": (number * 7 % 11 + take) / 13,
                    "nats_a_note": 9.0,
                    "seed_key": "C major",
                    "seed_key_certainty": "unclear",
                    "continuation_key": "C major" if take == 1 else "A minor",
                    "continuation_key_certainty": "fairly sure",
                    "longest_silence_s": 1.5,
                    "longest_loop": 2,
                }
                records.append(
                    Record(seed, take, "done", seconds=SECONDS, seed_seconds=2.0, notes=30,
                           figures=figures, files=mine)
                )  # fmt: skip
        records.append(Record("bad.mp3", 1, "failed", "is no sound"))
        write_manifest(folder, Records(records))
        return folder

    return bulk


def unescaped(name):
    return name.replace("\\xe9", "\udce9")


def told(page):
    """Return what a page was told."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def test_every_piece_is_there_with_files_that_exist(bulk):
    seeds = ["a.mp3", "inner/b.mp3", HARMFUL.replace("/", "_"), "caf\\xe9.mp3"]
    folder = bulk("pieces", seeds)
    write_gallery(folder, known_pieces(folder))
    page = (folder.root / PAGE).read_text()
    data = told(page)
    [run] = data["runs"]
    assert data["title"] == "pieces"
    assert data["beyond"] == 0
    assert ["seconds", "6.0"] in run["facts"]
    done = [piece for piece in run["pieces"] if piece["status"] == "done"]
    assert len(done) == 2 * len(seeds)
    for piece in done:
        for kind in ("sound", "roll", "heard"):
            assert (folder.root / os.fsdecode(unquote_to_bytes(piece[kind]))).is_file()
        assert piece["midi"].endswith(".mid")
    assert {"seed": "bad.mp3", "take": 1, "status": "failed", "reason": "is no sound"}.items() <= (
        next(piece for piece in run["pieces"] if piece["seed"] == "bad.mp3").items()
    )


def test_the_page_asks_for_nothing_from_elsewhere(bulk):
    folder = bulk("pieces", ["a.mp3"])
    write_gallery(folder, known_pieces(folder))
    page = (folder.root / PAGE).read_text()
    assert set(re.findall(r"\w+://[^\"'` ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name


def test_the_same_pieces_give_the_same_page_and_many_are_cut(bulk, monkeypatch):
    folder = bulk("pieces", ["a.mp3", "b.mp3"])
    write_gallery(folder, known_pieces(folder))
    first = (folder.root / PAGE).read_bytes()
    write_gallery(folder, known_pieces(folder))
    assert (folder.root / PAGE).read_bytes() == first
    monkeypatch.setattr(gallery, "MOST_PIECES", 3)
    write_gallery(folder, known_pieces(folder))
    data = told((folder.root / PAGE).read_text())
    assert (len(data["runs"][0]["pieces"]), data["beyond"]) == (3, 2)


def test_runs_of_one_name_are_told_apart_and_found_from_anywhere(bulk, tmp_path):
    first, second = bulk("one/pieces", ["a.mp3"]), bulk("two/pieces", ["a.mp3"], checkpoint="beef")
    out = tmp_path / "pages" / "deep" / "compare.html"
    write_page_of(out, [first, second])
    data = told(out.read_text())
    assert [run["name"] for run in data["runs"]] == ["pieces (1)", "pieces (2)"]
    assert [run["checkpoint"] for run in data["runs"]] == ["c0ffee", "beef"]
    for run in data["runs"]:
        sounds = [piece["sound"] for piece in run["pieces"] if "sound" in piece]
        assert sounds
        assert all((out.parent / sound).is_file() for sound in sounds)


def test_a_piece_is_told_by_its_sound_or_else_by_its_notes(tmp_path):
    folder = open_folder(tmp_path)
    notes = {"a.mp3/take-1.json": "01", "a.mp3/take-1.mid": "02", "a.mp3/take-1.musicxml": "03"}
    sound = {"a.mp3/seed.mp3": "04", "a.mp3/take-2.mp3": "05", "a.mp3/take-2.mid": "06"}
    records = [Record("a.mp3", 1, "done", files=notes), Record("a.mp3", 2, "done", files=sound)]
    require_same_run(folder, {"settings": {}}, force=False)
    write_manifest(folder, Records(records))
    write_gallery(folder, known_pieces(folder))
    [run] = told((tmp_path / PAGE).read_text())["runs"]
    assert [(piece["file"], piece["sha256"]) for piece in run["pieces"]] == [
        ("a.mp3/take-1.mid", "02"),
        ("a.mp3/take-2.mp3", "05"),
    ]


def test_a_folder_without_pieces_or_elsewhere_is_refused(bulk, tmp_path):
    with pytest.raises(InputError, match="holds no pieces"):
        known_pieces(open_folder(tmp_path))
    with pytest.raises(InputError, match="not on this machine"):
        write_page_of(tmp_path / "page.html", [bulk("a", ["a.mp3"]), open_folder("s3://music/b")])
    assert not (tmp_path / "page.html").exists()
    folder = bulk("damaged", ["a.mp3"])
    (folder.root / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        write_gallery(folder, known_pieces(folder))


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Return a function that opens a page; afterwards nothing may have gone wrong in any."""
    wrong, contexts = [], []

    def visit(path, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)  # ms: the machine may be busy
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(path.absolute().as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [one for one in wrong if not one.endswith(".wav")] == []  # media loads are broken off


@pytest.fixture
def page(bulk, visit):
    folder = bulk("pieces", ["a.mp3", "b.mp3", HARMFUL.replace("/", "_")])
    write_gallery(folder, known_pieces(folder))
    return visit(folder.root / PAGE)


def playing(page):
    page.wait_for_function("!audio.paused && audio.currentTime > 0.05")
    return page.locator("#playing").text_content()


@pytest.mark.browser
def test_pieces_and_seeds_are_played_and_the_playhead_moves(page):
    page.get_by_label("Play take 2").first.click()
    assert playing(page) == f"{HARMFUL.replace('/', '_')}: take 2"
    head = page.locator(".here:visible")
    before = head.evaluate("head => parseFloat(head.style.left)")
    page.wait_for_function(
        f"parseFloat(document.querySelector('.current .here').style.left) > {before}"
    )
    roll = page.locator(".current .roll")
    middle = page.evaluate("parseFloat(current.place(0.5)) / 100") * roll.bounding_box()["width"]
    roll.click(position={"x": middle, "y": 20})
    page.wait_for_function(f"audio.currentTime > {SECONDS / 2 - 0.1}")
    assert page.evaluate("audio.currentTime") < SECONDS / 2 + 2
    roll.click(position={"x": 1, "y": 20})  # the keyboard: from the beginning
    page.wait_for_function("audio.currentTime < 1")
    page.keyboard.press("j")
    assert playing(page) == "a.mp3: take 1"
    page.keyboard.press("k")
    page.keyboard.press("s")
    assert playing(page) == f"{HARMFUL.replace('/', '_')}: seed"
    page.keyboard.press(" ")
    page.wait_for_function("audio.paused")
    assert page.title() == "pieces"  # no name became part of the page


@pytest.mark.browser
def test_pieces_are_searched_filtered_and_sorted(page):
    shown = page.locator("#shown")
    assert shown.text_content() == "7 of 7 shown"
    page.keyboard.press("/")
    page.keyboard.type("B.MP3")
    assert page.locator("section:visible h2").all_text_contents() == ["b.mp3"]
    page.locator("#search").fill("")
    page.locator("#status").select_option("failed")
    assert page.locator(".piece:visible").text_content() == "take 1failed: is no sound"
    page.locator("#search").fill("nothing of this name")
    assert page.locator("#none").is_visible()
    page.locator("#clear").click()
    assert shown.text_content() == "7 of 7 shown"
    page.locator("#sort").select_option(label="sort: closest to the seed's harmony")
    cosines = [
        float(text) for text in page.locator("dt:text-is('harmony') + dd").all_text_contents()
    ]
    best = [max(pair) for pair in zip(cosines[::2], cosines[1::2], strict=True)]
    assert best == sorted(best, reverse=True)
    assert cosines[0] == best[0]
    page.locator("#least").evaluate("e => { e.value = 0.5; e.dispatchEvent(new Event('input')); }")
    left = [
        float(text)
        for text in page.locator("dt:text-is('harmony') + dd:visible").all_text_contents()
    ]
    assert left == [cosine for cosine in cosines if cosine >= 0.5]


@pytest.mark.browser
def test_a_piece_is_starred_and_the_star_is_kept(page):
    page.get_by_label("Star take 2").first.click()
    page.reload()
    page.locator("#status").select_option("starred")
    assert page.locator("#shown").text_content() == "1 of 7 shown"
    assert page.locator(".piece:visible strong").text_content() == "take 2"
    page.get_by_label("Play take 2").first.click()
    playing(page)
    page.keyboard.press("x")
    assert page.locator("#none").is_visible()


@pytest.mark.browser
def test_a_page_with_all_in_it_plays_wherever_it_is_sent(bulk, visit, tmp_path):
    out = tmp_path / "sent" / "page.html"
    folder = bulk("pieces", ["a.mp3"])
    write_page_of(out, [folder], single_file=True)
    shutil.rmtree(folder.root)
    page = visit(out)
    page.wait_for_function("document.querySelector('.roll img').naturalWidth > 0")
    page.get_by_label("Play take 2").click()
    playing(page)
    with page.expect_download() as download:
        page.locator("a:text-is('sound')").first.click()
    assert download.value.suggested_filename == "a.mp3, take 1.wav"
    assert page.evaluate("described(pieces[0]).file") == "a.mp3/take-1.wav"


@pytest.mark.browser
def test_a_key_is_told_with_its_certainty(page):
    told = page.locator("dt:text-is('key') + dd").all_text_contents()
    same = "C major, fairly sure; as the seed"
    other = "A minor, fairly sure; seed: unclear (perhaps C major)"
    assert told == [same, other] * 3


@pytest.mark.browser
def test_two_takes_are_compared_blind_and_the_votes_saved(page):
    page.keyboard.press("b")
    pairs = page.locator("#pair")
    assert pairs.text_content() == "Pair 1 of 3"
    assert "take" not in page.locator("#question").inner_text()
    assert page.locator("#prefer-0").is_disabled()
    page.keyboard.press("1")
    page.wait_for_function("!sides[0].paused && sides[0].currentTime > 0.3")
    page.keyboard.press("2")
    page.wait_for_function("sides[0].paused && !sides[1].paused && sides[1].currentTime > 0.3")
    page.keyboard.press("l")  # no vote: neither was heard beyond the seed
    assert (pairs.text_content(), page.evaluate("votes.length")) == ("Pair 1 of 3", 0)
    assert page.locator("#unheard").inner_text() == "Not heard yet: 1 and 2"
    listen(page, 1)
    assert page.locator("#unheard").inner_text() == "Not heard yet: 1"
    assert page.locator("#prefer-none").is_disabled()
    listen(page, 0)
    assert page.locator("#prefer-0").is_enabled()
    page.keyboard.press("l")
    assert page.locator("#prefer-0").is_disabled()
    cast(page, "a")
    hear_both(page)
    page.locator("#prefer-none").click()
    assert pairs.text_content() == "3 votes"
    shown = page.locator("#revealed").inner_text()
    assert shown.count("take 1") == shown.count("take 2") == 3
    assert shown.count("(preferred)") == 2
    with page.expect_download() as download:
        page.locator("#export").click()
    found = json.loads(download.value.path().read_text())
    assert [vote["preferred"] for vote in found["votes"]] == ["second", "first", None]
    assert {vote["seed"] for vote in found["votes"]} == {
        "a.mp3",
        "b.mp3",
        HARMFUL.replace("/", "_"),
    }
    for vote in found["votes"]:
        assert {vote["first"]["take"], vote["second"]["take"]} == {1, 2}
        assert vote["first"]["sha256"] == f"once/pieces/{vote['first']['file']}"
        assert min(vote["heard_s"]) >= min(vote["enough_s"]) > 0
    page.reload()
    page.keyboard.press("b")
    assert pairs.text_content() == "3 votes"  # kept, and no pair is asked twice


@pytest.mark.browser
def test_after_the_end_of_one_side_the_other_begins(page):
    page.keyboard.press("b")
    page.keyboard.press("1")
    page.wait_for_function("!sides[0].paused && sides[0].readyState > 0")
    page.evaluate("sides[0].currentTime = sides[0].duration - 0.1")
    page.wait_for_function("sides[0].ended")
    page.keyboard.press("2")
    page.wait_for_function("sides[1].currentTime > 0.05 && !sides[1].paused")
    assert page.evaluate("sides[1].currentTime") < SECONDS / 2


@pytest.mark.browser
def test_votes_and_stars_are_of_the_pieces_that_were_heard(bulk, visit):
    def make(**options):
        folder = bulk("pieces", ["a.mp3", "b.mp3"], **options)
        write_gallery(folder, known_pieces(folder))
        return folder.root / PAGE

    def remade(**options):
        make(files=False, **options)
        page.reload()
        page.locator("#status").select_option("starred")
        return page.evaluate("votes.length"), page.locator("#shown").text_content()

    make(takes=3)  # all files that are shown later
    page = visit(make(files=False))
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_label("Star take 2").first.click()
    page.keyboard.press("b")
    cast(page, "a")
    cast(page, "l")
    assert page.locator("#pair").text_content() == "2 votes"
    assert remade(made="anew") == (0, "0 of 5 shown")
    page.keyboard.press("b")
    assert page.locator("#pair").text_content() == "Pair 1 of 2"
    cast(page, "a")
    page.locator("#stop").click()
    assert remade(takes=3) == (2, "1 of 7 shown")
    assert remade(made="anew") == (1, "0 of 5 shown")
    page.evaluate("compare(); document.getElementById('forget').click()")
    assert remade(made="anew") == (0, "0 of 5 shown")
    assert remade() == (2, "1 of 5 shown")


@pytest.mark.browser
def test_two_runs_are_compared_by_seed_and_take(bulk, visit, tmp_path):
    runs = [bulk("old", ["a.mp3", "b.mp3"]), bulk("new", ["b.mp3", "c.mp3"], checkpoint="beef")]
    out = tmp_path / "compare.html"
    write_page_of(out, runs)
    page = visit(out)
    page.keyboard.press("b")
    for _ in range(2):  # the takes of the seed that both have
        cast(page, "a")
    votes = page.evaluate("votes")
    assert [vote["seed"] for vote in votes] == ["b.mp3"] * 2
    assert [{vote[one]["run"] for one in ("first", "second")} for vote in votes] == [
        {"old", "new"}
    ] * 2
    assert all(vote["first"]["take"] == vote["second"]["take"] for vote in votes)


@pytest.mark.browser
def test_of_three_runs_each_two_are_compared(bulk, visit, tmp_path):
    names = ["one", "two", "three"]
    runs = [bulk(name, ["a.mp3"], checkpoint=name, takes=1) for name in names]
    out = tmp_path / "compare.html"
    write_page_of(out, runs)
    page = visit(out)
    page.keyboard.press("b")
    assert page.locator("#pair").text_content() == "Pair 1 of 3"
    cast(page, "a")
    page.locator("#skip").click()
    cast(page, "l")
    votes = page.evaluate("votes")
    page.reload()
    page.keyboard.press("b")
    assert page.locator("#pair").text_content() == "Pair 1 of 1"  # the one that was skipped
    cast(page, "0")
    votes = page.evaluate("votes")
    found = {frozenset(one[side]["run"] for side in ("first", "second")) for one in votes}
    assert found == {frozenset(pair) for pair in itertools.combinations(names, 2)}
    shown = page.locator("#revealed").inner_text()
    assert all(shown.count(f"{name}, take 1") == 2 for name in names)
    (tmp_path / "votes.json").write_text(page.evaluate("exported()"))
    comparisons, unheard = read_votes([tmp_path / "votes.json"])
    assert ([sum(one.preferred) + one.undecided for one in comparisons], unheard) == ([1] * 3, 0)


def listen(page, side):
    """Hear as much of a side as a vote needs."""
    page.evaluate(f"if (sides[{side}].paused) listen({side})")
    page.wait_for_function(f"!sides[{side}].paused && sides[{side}].readyState > 0")
    page.evaluate(f"sides[{side}].currentTime = 1.9; sides[{side}].playbackRate = 8")
    page.wait_for_function(f"heardOf({side}) >= enough({side})")
    page.evaluate(f"if (!sides[{side}].paused) sides[{side}].pause(); allow()")


def hear_both(page):
    """Hear as much of a pair as a vote needs."""
    listen(page, 0)
    listen(page, 1)


def cast(page, key):
    """Hear both of a pair, and vote."""
    hear_both(page)
    page.keyboard.press(key)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_by_night(bulk, visit, scheme):
    folder = bulk("pieces", ["a.mp3"])
    write_gallery(folder, known_pieces(folder))
    page = visit(
        folder.root / PAGE,
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, color_scheme=scheme,
    )  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colour = "getComputedStyle(document.body).backgroundColor"
    light = sum(map(int, re.findall(r"\d+", page.evaluate(colour)))) > 380
    assert light == (scheme == "light")
    page.locator("#theme").tap()
    assert (sum(map(int, re.findall(r"\d+", page.evaluate(colour)))) > 380) != light
    assert page.locator("#search").is_hidden()  # room for music first
    page.get_by_text("Search and sort").tap()
    assert page.locator("#search").is_visible()
    page.get_by_label("Play take 1").tap()
    playing(page)


@pytest.mark.browser
def test_a_thousand_pieces_load_only_what_is_looked_at(bulk, visit):
    folder = bulk("pieces", [f"{number:03}.mp3" for number in range(500)])
    write_gallery(folder, known_pieces(folder))
    page = visit(folder.root / PAGE)
    loaded = "[...document.images].filter(image => image.complete && image.naturalWidth).length"
    page.wait_for_function(f"{loaded} > 0")
    assert page.evaluate("document.images.length") == 1000
    assert page.evaluate(loaded) < 100
    assert page.evaluate("audio.currentSrc") == ""
    last = page.locator(".roll img").last
    assert not last.evaluate("image => image.complete && image.naturalWidth > 0")
    last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].at(-1).naturalWidth > 0")


@pytest.mark.browser
def test_pieces_of_sound_show_their_wave_and_figures(tmp_path, material, visit):
    folder = open_folder(tmp_path / "pieces")
    figures = {"chroma_cosine": 0.81, "softest_db": -0.6, "loudest_db": 0.4, "peaks_on_keys": 0.94}
    names = {f"a.mp3/take-1{suffix}": "ab" for suffix in (".wav", ".png", ".json")}
    record = Record("a.mp3", 1, "done", seconds=SECONDS, figures=figures, files=names)
    write_manifest(folder, Records([record]))
    require_same_run(folder, {"settings": {}}, force=False)
    for suffix in (".wav", ".png"):
        with folder.write(f"a.mp3/take-1{suffix}") as path:
            shutil.copyfile(material / f"take{suffix}", path)
    write_gallery(folder, known_pieces(folder))
    page = visit(folder.root / PAGE)
    page.wait_for_function("document.querySelector('.chart').naturalWidth > 0")
    assert page.locator(".roll").count() == 0
    card = page.locator(".piece").inner_text()
    assert all(text in card for text in ("0.81", "-0.6 to 0.4 dB", "94 %"))
    page.locator("#least").evaluate("e => { e.value = 0.8; e.dispatchEvent(new Event('input')); }")
    assert page.locator(".piece").is_visible()
    page.locator("#least").evaluate("e => { e.value = 0.9; e.dispatchEvent(new Event('input')); }")
    assert page.locator(".piece").is_hidden()


def test_what_is_beyond_the_most_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("deep_piano.generate.gallery.MOST_PIECES", 3)
    folder = open_folder(tmp_path)
    write_manifest(folder, Records(Record(f"{n}.mid", 1, "done") for n in range(5)))
    with folder.write(RUN) as path:
        path.write_text("{}")  # of another version, or damaged
    write_gallery(folder, known_pieces(folder))
    page = (tmp_path / PAGE).read_text()
    assert '"beyond":2' in page
    assert [f'"seed":"{n}.mid"' in page for n in range(5)] == [True] * 3 + [False] * 2
