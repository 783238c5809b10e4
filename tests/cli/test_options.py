from __future__ import annotations

import click
import pytest

from deep_piano.cli.options import Clock


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("72", 72.0), ("1:12", 72.0), ("0:05.5", 5.5), ("10:00", 600.0), (3, 3.0)],
)
def test_a_time_is_seconds_or_minutes_and_seconds(given, seconds):
    assert Clock().convert(given, None, None) == seconds


@pytest.mark.parametrize("given", ["1:2:3", "x", "", "1:", ":", "a:12"])
def test_other_times_are_refused(given):
    with pytest.raises(click.BadParameter, match=r"is no time\. Give it as 72 or 1:12"):
        Clock().convert(given, None, None)
