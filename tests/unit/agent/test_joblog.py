import logging

from litho.messages import DiskFacts, Planned
from litho_agent.joblog import FIRST_LINES, LAST_LINES, LONGEST, JobLog


def test_a_line_has_its_seconds_and_nothing_that_a_terminal_obeys():
    now = [100.0]
    log = JobLog(clock=lambda: now[0])
    now[0] = 112.34
    log.add("run \x1b[31mpartclone\n-s /dev/sda1")
    assert log.text() == "     12.3 s  run  [31mpartclone -s /dev/sda1\n"


def test_the_middle_of_a_very_long_log_is_left_out_and_counted():
    log = JobLog(clock=lambda: 0.0)
    for number in range(FIRST_LINES + LAST_LINES + 7):
        log.add(f"line {number} " + "x" * 2000)
    lines = log.text().splitlines()
    assert lines[0].split()[3] == "0"
    assert lines[FIRST_LINES].strip() == "... 7 lines left out ..."
    assert lines[-1].split()[3] == str(FIRST_LINES + LAST_LINES + 6)
    assert max(map(len, lines)) <= LONGEST + 20


def test_the_tail_is_whole_lines_within_the_limit():
    log = JobLog(clock=lambda: 0.0)
    for number in range(100):
        log.add(f"line {number}")
    tail = log.tail(200)
    assert len(tail) <= 200
    assert tail.endswith("line 99\n")
    assert all(line.startswith("      0.0 s  line ") for line in tail.splitlines())
    assert log.tail(10**6) == log.text()


def test_it_takes_news_and_log_records_traces_line_by_line():
    log = JobLog(clock=lambda: 0.0)
    log.hear(Planned(disk=DiskFacts(path="/dev/sda", size=1), steps=("sda1",), total=1))
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("litho_agent.x", logging.ERROR, "", 1, "broken", None, None)
        record.exc_info = __import__("sys").exc_info()
        log.handler().emit(record)
    text = log.text()
    assert "plan: disk /dev/sda" in text
    assert "litho_agent.x: broken" in text
    assert "ValueError: why" in text
