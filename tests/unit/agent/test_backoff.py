from hypothesis import given
from hypothesis import strategies as st

from litho_agent.backoff import pause


def test_the_span_doubles_with_every_failure_up_to_the_most():
    assert [pause(n, first_s=1, most_s=10, draw=lambda: 1.0) for n in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 10, 10]


@given(st.integers(-5, 10**9), st.floats(0, 1))
def test_a_pause_is_never_less_than_half_the_first_nor_more_than_the_most(tries, dice):
    assert 0.25 <= pause(tries, draw=lambda: dice) <= 30.0


def test_two_agents_do_not_wait_equally_long():
    assert len({pause(5) for _ in range(20)}) > 1
