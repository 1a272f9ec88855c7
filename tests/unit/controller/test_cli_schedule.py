"""What `--at`, `--wave` and `--stop-after` mean, and what of them is refused."""

import datetime

import pytest

from litho.errors import UsageError
from litho_controller.cli.schedule import moment, when

NOW = datetime.datetime(2026, 3, 10, 21, 30, 20).timestamp()


def said(**options):
    return when({"at": None, "priority": 0, "wave": None, "stop_after": 0, **options}, now=NOW)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("now", (2026, 3, 10, 21, 30, 20)),
        ("+90m", (2026, 3, 10, 23, 0, 20)),
        ("+2d", (2026, 3, 12, 21, 30, 20)),
        ("22:30", (2026, 3, 10, 22, 30)),
        ("9:05", (2026, 3, 11, 9, 5)),
        ("21:30", (2026, 3, 11, 21, 30)),
        ("2026-12-24T22:30", (2026, 12, 24, 22, 30)),
        ("2026-12-24 22:30", (2026, 12, 24, 22, 30)),
        ("2026-03-10T21:30", (2026, 3, 10, 21, 30)),
    ],
)
def test_a_word_means_one_moment(text, found):
    assert moment(text, now=NOW) == datetime.datetime(*found).timestamp()


@pytest.mark.parametrize(
    "text", ["", " ", "tomorrow", "25:00", "22:60", "+", "+1", "+1y", "-1h", "2026-13-01T00:00", "1"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="is no time"):
        said(at=text)


@pytest.mark.parametrize("text", ["2025-12-24T22:30", "2026-03-10T21:29", "2026-03-10"])
def test_a_date_that_is_over_does_not_start_at_once(text):
    with pytest.raises(UsageError, match="is over"):
        said(at=text)


@pytest.mark.parametrize("text", ["", " "])
def test_a_wave_that_says_nothing_does_not_start_all_nodes_at_once(text):
    with pytest.raises(UsageError, match="says no sizes"):
        said(wave=text)


def test_a_stop_belongs_to_a_wave():
    with pytest.raises(UsageError, match="belongs to --wave"):
        said(stop_after=3)
    assert (said(stop_after=3, wave="2,50%").wave, said().wave, said().at) == ("2,50%", "", None)
