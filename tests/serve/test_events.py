"""What has happened is told in order, and again to whom it has missed."""

from __future__ import annotations

import json

from deep_piano.serve.events import KEPT, Events


def test_whoever_comes_back_gets_what_was_missed():
    events = Events()
    listener = events.listen()
    names = []
    for n in range(5):
        events.tell({"n": n})
        names.append(events.last)
    assert [json.loads(listener.get_nowait().data)["n"] for _ in range(5)] == [*range(5)]
    assert [json.loads(event.data)["n"] for event in events.since(names[2])] == [3, 4]
    assert events.since(names[-1]) == []


def test_what_is_not_known_any_more_is_said_to_be():
    events, other = Events(), Events()
    first = events.last
    for n in range(KEPT + 1):
        events.tell({"n": n})
    assert events.since(first) is None
    assert [events.since(name) for name in (other.last, "", "x", f"{first.split('-')[0]}-x")] == [
        None
    ] * 4


def test_the_end_reaches_everybody_who_still_listens():
    events = Events()
    gone, there = events.listen(), events.listen()
    events.leave(gone)
    events.end()
    assert gone.empty()
    assert there.get_nowait() is None
