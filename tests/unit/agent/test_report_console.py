import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.messages import DiskFacts, Failed, Planned, Started, Stopped, Succeeded
from litho.progress import Progress
from litho_agent.mover import Note, Tick
from litho_agent.report import Silent
from litho_agent.report.console import Console, JsonLines, bar_line, plain, sentence, span

DISK = DiskFacts(path="/dev/sda", size=500 * 10**9, serial="S3Z1", model="SAMSUNG")
MB = 10**6


def progress(**changes):
    known = {
        "phase": "partition",
        "part": 1,
        "parts": 3,
        "done": 420 * MB,
        "total": 1000 * MB,
        "fraction": 0.42,
        "rate": 110.0 * MB,
        "eta_s": 5.3,
        "elapsed_s": 4.0,
    }
    return Progress(**(known | changes))


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.9, "0:07"), (125, "2:05"), (3723, "1:02:03"), (1e12, "99:59:59"), (-1, "0:00")],
)
def test_seconds_are_told_as_a_clock_does(seconds, text):
    assert span(seconds) == text


def test_the_live_line_holds_part_bar_percent_bytes_rate_and_time_left():
    line = bar_line(progress(), 120)
    assert line == ("partition 1 of 3  [" + "#" * 16 + "-" * 24 + "]   42%  420 MB of 1.0 GB  110 MB/s  0:05 left")


def test_the_bar_goes_when_there_is_no_room_and_the_line_never_wraps():
    assert "[" not in bar_line(progress(), 65)
    assert len(bar_line(progress(), 20)) == 20
    assert bar_line(progress(), 0) == ""


FIGURES = st.builds(
    Progress,
    phase=st.text(max_size=64),
    done=st.integers(0, 2**62),
    total=st.integers(0, 2**62),
    fraction=st.floats(0, 1),
    rate=st.floats(0, 1e15),
    eta_s=st.one_of(st.none(), st.floats(0, 1e9)),
)


@given(FIGURES, st.integers(0, 300))
def test_no_figure_makes_a_line_that_is_too_long_or_cannot_be_printed(shown, width):
    line = bar_line(shown, width)
    assert len(line) <= width
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)


@given(st.text())
def test_nothing_that_a_terminal_would_obey_comes_through(text):
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in plain(text))


def test_an_escape_sequence_loses_its_power():
    assert plain("a\x1b[2Jb\r\nc\u202ed") == "a [2Jb c d"


def test_on_a_terminal_one_line_is_drawn_over_itself_and_sentences_go_above_it():
    out = io.StringIO()
    show = Console(out, live=True)
    show.hear(Tick(progress=progress()))
    show.hear(Note(text="a bad sector"))
    show.hear(Tick(progress=progress(fraction=0.5)))
    show.close()
    text = out.getvalue()
    assert text.count("\n") == 2
    first, rest = text.split("\n", 1)
    assert first.startswith("\rpartition 1 of 3")
    assert first.endswith("\r\x1b[Knote: a bad sector")
    assert rest.startswith("partition 1 of 3")
    assert " 50%" in rest


def test_elsewhere_a_line_comes_every_few_seconds_and_at_each_phase():
    out, clock = io.StringIO(), Clock()
    show = Console(out, live=False, clock=clock)
    for second in range(12):
        clock.now = 100.0 + second
        show.hear(Tick(progress=progress(part=1 if second < 8 else 2)))
    lines = out.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["partition 1 of 3", "partition 1 of 3", "partition 2 of 3"]
    assert lines[0] == "partition 1 of 3: 42%  420 MB of 1.0 GB  110 MB/s  0:05 left"
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_before_the_total_is_known_the_time_so_far_is_told():
    out = io.StringIO()
    Console(out, live=False).hear(Tick(progress=Progress(phase="survey", done=5 * MB, rate=1.0, elapsed_s=61)))
    assert out.getvalue() == "survey: 0%  5.0 MB  1 B/s  1:01 so far\n"


def test_the_plan_names_the_disk_so_that_a_person_finds_it():
    lines = sentence(Planned(disk=DISK, steps=("save sda1 (ext4)", "save sda2"), total=3 * 10**9))
    assert lines == [
        "plan: disk /dev/sda  500 GB  serial S3Z1  model SAMSUNG",
        "  - save sda1 (ext4)",
        "  - save sda2",
        "  in all 3.0 GB of used data",
    ]


def test_each_end_has_a_sentence():
    done = Succeeded(image="g", version=2, used=100 * MB, stored=MB, seconds=2.0, disk=DISK, notes=("sda3 skipped",))
    assert sentence(done) == [
        "done: g:2  100 MB used, 1.0 MB in the library, 0:02, 50.0 MB/s",
        "note: sda3 skipped",
    ]
    assert sentence(msgspec.structs.replace(done, seconds=0.0, notes=()))[0].endswith("0:00")
    lost = sentence(msgspec.structs.replace(done, lost=8192, notes=()))
    assert lost[0].endswith("50.0 MB/s; 8.2 kB of the source could not be read")
    assert sentence(Failed(code="x", reason="it broke")) == ["failed: it broke"]
    assert sentence(Stopped(touched=True))[0].endswith("the disk was written to and is not usable as it is")
    assert sentence(Started()) == ["started"]


def test_json_lines_are_the_wires_own_words():
    out = io.StringIO()
    show = JsonLines(out)
    show.hear(Started())
    show.hear(Tick(progress=progress()))
    show.say("claiming")
    show.hear(Failed(code="disk-missing", reason="no disk", exit_code=5))
    show.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["started", "tick", "note", "failed"]
    assert lines[1]["progress"]["done"] == 420 * MB
    assert lines[3]["exit_code"] == 5


class Broken(io.StringIO):
    def write(self, _):
        raise BrokenPipeError


@pytest.mark.parametrize(
    "show", [Console(Broken(), live=True), Console(Broken(), live=False), JsonLines(Broken()), Silent()]
)
def test_a_screen_that_went_away_does_not_stop_the_job(show):
    show.hear(Tick(progress=progress()))
    show.say("words")
    assert show.hear(Failed(code="x", reason="y")) is None
