"""The limit of requests a minute: how many pass, and when the next one does."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import limits
from server.errors import RateLimited
from server.limits import PerMinute

BEGIN = 6_000.0
"""The first moment of a window."""


class Clock:
    def __init__(self):
        self.now = BEGIN

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def passes(limit, key="key"):
    """Whether one more request passes, and else after how many seconds the next should."""
    try:
        limit.check(key)
    except RateLimited as refusal:
        return refusal.retry_after
    return True


def count(limit, tries, key="key"):
    """How many of so many requests pass."""
    return sum(passes(limit, key) is True for _ in range(tries))


def test_so_many_pass_in_a_minute(clock):
    """The allowance of each key is its own."""
    limit = PerMinute(3, what="repository", clock=clock)

    assert (count(limit, 5, "one"), count(limit, 5, "two")) == (3, 3)


def test_the_refusal_says_whose_allowance_is_spent(clock):
    """The message names what is counted; a refused request is not counted."""
    limit = PerMinute(1, what="repository", clock=clock)
    limit.check("key")

    with pytest.raises(RateLimited, match="from this repository") as refusal:
        limit.check("key")

    assert refusal.value.retry_after == 60


def test_no_burst_at_the_turn_of_a_minute(clock):
    """Whoever spent all at the end of a minute gets a part of it as the next one goes on."""
    limit = PerMinute(60, what="address", clock=clock)
    clock.now = BEGIN + 59
    assert count(limit, 100) == 60
    clock.now = BEGIN + 60
    assert count(limit, 100) == 0
    clock.now = BEGIN + 90
    assert count(limit, 100) == 30
    clock.now = BEGIN + 180
    assert count(limit, 100) == 60


def test_the_wait_is_never_zero_seconds(clock):
    """At the very moment where the weights add up to the allowance, a client is still told to wait a second."""
    limit = PerMinute(10, what="address", clock=clock)
    assert count(limit, 10) == 10
    clock.now = BEGIN + 90
    assert [passes(limit) for _ in range(6)] == [True] * 5 + [1]


def test_silence_gives_all_of_it_back(clock):
    """Two minutes later nothing of it counts, however long the silence was."""
    limit = PerMinute(2, what="address", clock=clock)
    for later in (120, 3_600, 10**6):
        assert count(limit, 5) == 2
        clock.now += later


@given(
    allowance=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 60)), max_size=8),
)
def test_the_wait_is_as_long_as_it_must_be(allowance, steps):
    """What is refused passes after the seconds that the refusal names, and did not a second and more before."""
    clock = Clock()
    limit = PerMinute(allowance, what="address", clock=clock)
    for seconds, tries in steps:
        clock.now += seconds
        count(limit, tries)
    count(limit, allowance)
    wait = passes(limit)
    assert wait is not True
    assert 1 <= wait <= 60
    refused_at = clock.now
    if wait > 1:
        clock.now = refused_at + wait - 1.001
        assert passes(limit) is not True
    # At the very turn of a minute the last one has its full weight still.
    clock.now = refused_at + wait + 0.001
    assert passes(limit) is True


def test_a_hundred_thousand_keys_are_counted_one_by_one(clock):
    """The bound on the memory is the documented one: key 100,001 shares the allowance of all that come after it."""
    limit = PerMinute(1, what="address", clock=clock)

    assert sum(passes(limit, str(number)) is True for number in range(100_010)) == 100_001


def test_new_keys_share_one_allowance_beyond_the_bound(clock, monkeypatch):
    """They cannot fill the memory, and take nothing from the keys that are known."""
    monkeypatch.setattr(limits, "_MAX_KEYS", 3)
    limit = PerMinute(2, what="address", clock=clock)
    for key in ("one", "two", "three"):
        assert count(limit, 1, key) == 1

    assert [passes(limit, f"new {number}") is True for number in range(4)] == [True, True, False, False]
    assert count(limit, 5, "one") == 1
    clock.now += 120
    assert count(limit, 5, "new 0") == 2


class SlowKey(str):
    """Lets other threads in wherever it is looked up."""

    __slots__ = ()

    def __hash__(self):
        time.sleep(0.0001)
        return super().__hash__()


def test_threads_get_no_more(clock):
    """Of requests at the same moment as many pass as of others."""
    limit = PerMinute(20, what="address", clock=clock)

    with ThreadPoolExecutor(8) as pool:
        passed = sum(pool.map(lambda _: count(limit, 10, SlowKey("key")), range(8)))

    assert passed == 20


def test_zero_counts_nothing(clock):
    """0 is no limit."""
    assert count(PerMinute(0, what="address", clock=clock), 1_000) == 1_000
