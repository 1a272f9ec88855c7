"""The pure rules of images over HTTP: words of sources, answers of servers, whom to ask next and whom to leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import UsageError
from litho.job import Job
from litho.library import sources
from litho.library.chunks import roll
from litho_agent.remote import answers, standing
from litho_agent.remote.answers import SourceError
from litho_agent.remote.chosen import chosen
from litho_agent.remote.standing import Standings
from litho_agent.remote.web import Web

MB = 1e6
RESTORE = Job(action="restore", image="golden")

# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nfs", ("nfs",)),
        ("nfs, controller,nfs", ("nfs", "controller")),
        ("http://h:80/lib/", ("http://h/lib",)),
        ("https://h:443,https://h:8443", ("https://h", "https://h:8443")),
        ("http://[FD00::1]:81/a/b", ("http://[fd00::1]:81/a/b",)),
    ],
)
def test_a_list_of_sources_is_read_as_it_is_told_to_people(text: str, found: tuple[str, ...]) -> None:
    assert sources.parse(text) == found
    assert sources.check(found) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "nfs,",
            "NFS",
            "ftp://h/x",
            "http://",
            "http:///x",
            "http://h:0/x",
            "http://h:70000",
            "http://h/a b",
        ),
        *("http://h/../x", "http://h/.git", "http://h/x?y=1", "http://h/x#y", "http://h\n/x", "http://-h/", "/lib"),
        *("http://h/" + "x" * 300, ",".join(f"http://h{n}" for n in range(9))),
    ],
)
def test_what_is_no_source_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        sources.parse(text)
    assert caught.value.code == "bad-source"
    assert "http://host/path" in caught.value.hint


@pytest.mark.parametrize("text", ["http://me:secret@h/x", "https://me@h", "http://@h/x"])
def test_an_account_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="must not hold an account") as caught:
        sources.parse(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_a_list_of_sources_or_a_usage_error(text: str) -> None:
    try:
        found = sources.parse(text)
    except UsageError:
        return
    assert sources.check(found) == found


def test_the_task_goes_before_the_site_and_the_mounted_library_is_what_holds_else() -> None:
    site = ("http://a/lib", "nfs")
    assert chosen(RESTORE, (), library="nfs://s/x").library == "nfs://s/x"
    assert chosen(RESTORE, (), library="nfs://s/x").webs == ()
    both = chosen(RESTORE, site, library="nfs://s/x")
    assert (both.library, both.webs) == ("nfs://s/x", (Web("http://a/lib"),))
    task = Job(action="restore", image="golden", sources=("controller",))
    own = chosen(task, site, library="nfs://s/x", controller="http://c:3080/", token="t-1.secret")
    assert (own.library, own.webs) == ("", (Web("http://c:3080/v1/library", "t-1.secret"),))
    assert "secret" not in repr(own)
    capture = Job(action="capture", image="golden")
    assert chosen(capture, site, library="nfs://s/x") == chosen(capture, (), library="nfs://s/x")
    with pytest.raises(UsageError, match="there is none here"):
        chosen(task, (), library="/lib")
    with pytest.raises(UsageError, match="'ftp://x' is no source"):
        chosen(RESTORE, ("ftp://x",), library="/lib")


# ---------------------------------------------------------------- answers

GOOD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 5-14/100"


def read(data: bytes, *, limit: int = 10, start: int | None = 5) -> answers.Body:
    return answers.body(answers.read_head(data), limit=limit, start=start)


def test_exactly_the_range_that_was_asked_for_is_taken() -> None:
    assert read(GOOD) == answers.Body(10, 100)
    assert read(b"HTTP/1.1 200 OK\r\ncontent-length: 7", start=None) == answers.Body(7, 7)
    assert answers.read_head(GOOD).lasts
    assert not answers.read_head(GOOD.replace(b"1.1", b"1.0")).lasts
    assert not answers.read_head(GOOD + b"\r\nConnection: Close").lasts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100", "knows no ranges"),
        (GOOD.replace(b"5-14", b"6-15"), "bytes 6 to 15"),
        (GOOD.replace(b"5-14", b"5-13"), "bytes 5 to 13"),
        (GOOD.replace(b"/100", b"/14"), "of 14"),
        (GOOD.replace(b"/100", b"/*"), "content-range cannot be understood"),
        (GOOD.replace(b"bytes 5", b"bytes -5"), "content-range cannot be understood"),
        (GOOD.replace(b"h: 10", b"h: 11"), "11 bytes"),
        (GOOD.replace(b"h: 10", b"h: +10"), "no number"),
        (GOOD.replace(b"Content-Length: 10\r\n", b""), "no content-length"),
        (GOOD + b"\r\nContent-Length: 10", "content-length twice"),
        (GOOD + b"\r\nContent-Encoding: gzip", "content-encoding: gzip"),
        (GOOD + b"\r\nTransfer-Encoding: chunked", "transfer-encoding: chunked"),
        (GOOD + b"\r\n folded", "a field that is none"),
        (GOOD + b"\r\nX: \x00", "a field that is none"),
        (GOOD + b"\nX: y", "a field that is none"),
        (b"SSH-2.0-OpenSSH_9.2", "does not speak HTTP"),
        (b"HTTP/2 200", "does not speak HTTP"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x/", "points elsewhere"),
        (b"HTTP/1.1 401 No", "does not let this node read"),
        (b"HTTP/1.1 416 No", "shorter"),
        (b"HTTP/1.1 100 Continue", "HTTP 100"),
        (GOOD + b"\r\nX: " + b"y" * 20_000, "more than 16384 bytes"),
    ],
)
def test_every_other_answer_is_the_end_of_the_source(data: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        read(data)
    assert caught.value.lasting


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_may_be_asked_again(status: int) -> None:
    with pytest.raises(SourceError, match=str(status)) as caught:
        read(b"HTTP/1.1 %d Busy" % status)
    assert (caught.value.lasting, caught.value.missing) == (False, False)


def test_a_file_that_is_not_there_is_no_failure_of_the_server() -> None:
    with pytest.raises(SourceError) as caught:
        read(b"HTTP/1.1 404 Not Found")
    assert caught.value.missing
    with pytest.raises(SourceError, match="11 bytes where at most 10 belong"):
        read(b"HTTP/1.1 200 OK\r\nContent-Length: 11", start=None)
    with pytest.raises(SourceError, match="range that nobody asked for"):
        read(GOOD, start=None)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_an_answer_or_a_source_error(data: bytes, behind: bool) -> None:
    try:
        body = read(b"HTTP/1.1 206 OK\r\n" + data if behind else data)
    except SourceError:
        return
    assert body.length == 10


# ---------------------------------------------------------------- whom to ask, whom to leave


def three() -> Standings:
    return Standings(["a", "b", "c"], now=0.0)


def give(all_: Standings, i: int, rate: float, *, times: int = 1, now: float = 1.0) -> str:
    said = ""
    for _ in range(times):
        all_.begun(i)
        all_.ended(i)
        said = all_.gave(i, int(4 * MB), 4 * MB / rate, now) or said
    return said


def test_each_source_is_tried_and_then_the_faster_one_gets_more() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    assert all_.choose(0.0) == 0
    give(all_, 0, 100 * MB)
    assert all_.choose(0.0) == 1, "its rate is not known yet"
    give(all_, 1, 40 * MB)
    taken = []
    for _ in range(7):
        i = all_.choose(0.0)
        assert i is not None
        all_.begun(i)
        taken.append(i)
    assert (taken.count(0), taken.count(1)) == (5, 2)


def test_a_source_that_fails_rests_and_is_left_after_four_times_in_a_row() -> None:
    all_ = three()
    assert "its span is asked for again: gone" in all_.failed(0, "gone", 0.0)
    assert all_.choose(0.1) == 1
    assert all_.choose(0.1, without={1, 2}) is None
    assert all_.wait(0.1, without={1, 2}) == pytest.approx(standing.REST_S - 0.1)
    assert all_.choose(0.3) == 0
    assert all_.failed(0, "gone", 0.3) == "", "one line is enough"
    all_.failed(0, "gone", 1.0)
    assert all_.failed(0, "gone", 2.0) == "the source a is left: it failed 4 times in a row, last: gone"
    assert all_.choose(100.0) == 1
    assert all_.choose(100.0, without={1, 2}) == 0, "the last one there is"


def test_a_source_that_was_left_is_taken_back_when_it_answers_and_no_other_stands() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    for n in range(4):
        all_.failed(0, "gone", float(n))
    assert all_.all[0].place == "left"
    all_.failed(1, "forbidden", 5.0, lasting=True)
    assert all_.choose(50.0) == 0
    assert give(all_, 0, MB, now=51.0) == "the source a answers again"
    assert all_.all[0].place == "stands"


def test_of_two_that_died_one_after_the_other_the_one_that_comes_back_is_asked_and_not_the_dead_one() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    for one in (0, 1):
        for n in range(5):
            all_.failed(one, "timed out", float(10 * one + n))
    assert [one.place for one in all_.all] == ["left", "stands"], "the last one there is"
    assert give(all_, 0, MB, now=50.0) == "the source a answers again"
    assert "the source b is left" in all_.failed(1, "timed out", 60.0)
    assert all_.choose(1000.0) == 0


def test_a_source_far_below_the_others_is_left_but_not_at_once() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    give(all_, 0, 100 * MB, times=standing.SPANS)
    assert not all_.drags(1, 1000, 1.0), "too early"
    assert all_.drags(1, 1000, 2.5)
    assert not all_.drags(1, int(30 * MB), 2.5), "not so slow"
    assert all_.slow(1, int(2.5 * MB), 2.5) == ("the source b is left: it gave 1.00 MB/s where another gave 100.0 MB/s")
    assert all_.drags(1, 1000, 2.5), "what it still owes is not waited for"
    assert all_.choose(3.0) == 0
    assert not all_.over(1e9)


def test_a_slow_source_that_answers_whole_spans_is_left_too_and_the_only_one_never() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    give(all_, 0, 100 * MB, times=3)
    assert "b is left" in give(all_, 1, 1 * MB)
    alone = Standings(["a"], now=0.0)
    assert give(alone, 0, 1000.0, times=9) == ""
    assert not alone.drags(0, 1, 50.0)


def test_small_files_say_nothing_of_a_rate() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    give(all_, 0, 100 * MB, times=3)
    for _ in range(50):
        assert all_.gave(1, 1000, 0.1, 1.0) == ""
    assert all_.all[1].rate == 0.0


def test_a_source_with_wrong_bytes_is_out_and_so_is_one_that_would_say_the_same_again() -> None:
    all_ = three()
    assert all_.wrong(0, "the pack x is damaged") == (
        "the source a is left for good: it gave other bytes than it should: the pack x is damaged"
    )
    assert all_.wrong(0, "again") == ""
    assert all_.failed(1, "no ranges", 0.0, lasting=True) == "the source b is left for good: no ranges"
    assert all_.choose(1e9, without={2}) is None
    assert all_.wait(1e9, without={2}) is None
    assert not all_.over(1.0)
    all_.failed(2, "no ranges", 0.0, lasting=True)
    assert all_.over(1.0)
    assert all_.causes() == ("a: it gave other bytes than it should: the pack x is damaged; b: no ranges; c: no ranges")


def test_it_is_over_when_nothing_has_come_for_as_long_as_is_documented() -> None:
    all_ = Standings(["a"], now=0.0)
    give(all_, 0, MB, now=100.0)
    for at in range(101, 240, 10):
        all_.failed(0, "refused", float(at))
        assert not all_.over(float(at))
    assert not all_.over(100.0 + standing.PATIENCE_S)
    assert all_.over(100.1 + standing.PATIENCE_S)


def test_what_one_source_lacks_and_the_other_does_not_answer_for_is_given_up_while_the_first_is_well() -> None:
    all_ = Standings(["a", "b"], now=0.0)
    give(all_, 0, MB, now=500.0)
    assert not all_.vain(500.0, 400.0, {0, 1})
    assert not all_.vain(900.0, 400.0, {0})
    all_.failed(1, "refused", 400.0)
    assert not all_.over(900.0)
    assert not all_.vain(400.0 + standing.PATIENCE_S, 400.0, {0})
    assert all_.vain(400.1 + standing.PATIENCE_S, 400.0, {0})
    assert all_.causes({0}) == "a: it does not have it; b: refused"
    give(all_, 1, MB, now=600.0)
    all_.failed(1, "refused", 601.0)
    assert not all_.vain(600.0 + standing.PATIENCE_S, 400.0, {0})


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("gfwls")), max_size=60))
def test_whatever_happens_one_that_is_out_is_never_asked(events: list[tuple[int, str]]) -> None:
    all_ = three()
    for now, (i, what) in enumerate(events):
        at = float(now)
        all_.begun(i)
        all_.ended(i)
        if what == "g":
            all_.gave(i, int(MB), 0.01, at)
        elif what == "w":
            all_.wrong(i, "x")
        elif what == "s":
            all_.slow(i, 10, 3.0)
        else:
            all_.failed(i, "x", at, lasting=what == "l")
        chosen_ = all_.choose(at + 1e6)
        if chosen_ is None:
            assert all_.over(at)
        else:
            assert all_.all[chosen_].place != "out"
        assert all(one.busy == 0 for one in all_.all)


def test_the_roll_holds_names_of_packs_and_catalogs_and_nothing_else_counts() -> None:
    one, two = "0" * 31 + "1", "0" * 31 + "2"
    found = roll.parse(f"{one}.idx\n{two}.catalog\n../../etc/passwd\n\x00\n".encode())
    assert found.live == {bytes.fromhex(one)}
    assert found.catalogs == {bytes.fromhex(two)}
    assert roll.parse(bytes(range(256)) * 9).live == frozenset()
