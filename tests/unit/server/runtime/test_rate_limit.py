"""The limit of requests a minute: how many pass, and when the next one does."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.clock import Clock
from sentryagent_idp.errors import InvalidClient, RateLimited
from sentryagent_idp.runtime import rate_limit
from sentryagent_idp.runtime.rate_limit import PerMinute, WrongSecretsPerMinute

BEGIN = 6_000.0
"""The first moment of a window."""


@pytest.fixture
def clock():
    return Clock(BEGIN)


def passes(limit, key="key"):
    """Whether one more request passes, and else after how many seconds the next should."""
    try:
        limit.check(key)
    except RateLimited as refusal:
        return refusal.retry_after
    return True


def has_room(limit, key="key"):
    """Whether a request would pass."""
    try:
        limit.check_room(key)
    except RateLimited:
        return False
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
    clock = Clock(BEGIN)
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
    monkeypatch.setattr(rate_limit, "_MAX_KEYS", 3)
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


def test_a_look_counts_nothing(clock):
    """Only what is counted spends the allowance, and no more than all of it."""
    limit = PerMinute(2, what="address", clock=clock)
    assert all(has_room(limit) for _ in range(10))
    limit.count("key")
    assert has_room(limit)
    for _ in range(9):
        limit.count("key")
    assert (has_room(limit), has_room(limit, "other")) == (False, True)
    clock.now += 90
    assert has_room(limit)


def test_a_look_takes_no_room(clock, monkeypatch):
    """Looks at ever new keys fill nothing, so that later keys share no allowance."""
    monkeypatch.setattr(rate_limit, "_MAX_KEYS", 3)
    limit = PerMinute(1, what="address", clock=clock)
    for number in range(10):
        limit.check_room(f"key {number}")

    assert [count(limit, 1, key) for key in ("one", "two", "three")] == [1, 1, 1]


def prove(secret_is_right):
    if not secret_is_right:
        raise InvalidClient("It is wrong.")


def guess(limit, address="192.0.2.1", client="client", *, right=False):
    """One secret: whether it was right, wrong, or not looked at."""
    try:
        with limit.watch(address, client):
            prove(right)
    except InvalidClient:
        return "wrong"
    except RateLimited:
        return "limited"
    return "right"


def test_wrong_secrets_of_a_client_from_an_address(clock):
    """The eleventh in a minute is not looked at; another client, and the same one from elsewhere, are."""
    limit = WrongSecretsPerMinute(clock)

    assert [guess(limit) for _ in range(12)] == ["wrong"] * 10 + ["limited"] * 2
    assert guess(limit, right=True) == "limited"
    assert guess(limit, client="other", right=True) == "right"
    assert guess(limit, "192.0.2.2", right=True) == "right"
    clock.now += 120
    assert guess(limit, right=True) == "right"


def test_wrong_secrets_of_an_address(clock):
    """Twenty in a minute, for whichever clients."""
    limit = WrongSecretsPerMinute(clock)

    assert [guess(limit, client=f"client {n}") for n in range(22)] == ["wrong"] * 20 + ["limited"] * 2
    assert guess(limit, "192.0.2.2") == "wrong"


def test_right_secrets_spend_nothing(clock):
    """However many there are."""
    limit = WrongSecretsPerMinute(clock)

    assert {guess(limit, right=True) for _ in range(100)} == {"right"}
    assert guess(limit) == "wrong"


def test_strangers_lock_nobody_out(clock):
    """A client's secret is good while a thousand addresses guess it."""
    limit = WrongSecretsPerMinute(clock)
    for number in range(1_000):
        for _ in range(12):
            guess(limit, f"2001:db8:0:{number:x}::/64")

    assert guess(limit, right=True) == "right"


def test_other_spellings_of_a_client_are_the_same(clock):
    """A UUID in capitals names the same agent; what is longer than any id is cut, so that it fills no memory."""
    limit = WrongSecretsPerMinute(clock)
    for number in range(5):
        assert guess(limit, client="3f2504e0-4f89-41d3-9a0c-0305e82c3301") == "wrong"
        assert guess(limit, client="3F2504E0-4F89-41D3-9A0C-0305E82C3301") == "wrong"
        assert guess(limit, "192.0.2.2", f"{'x' * 64}{number}") == "wrong"
        assert guess(limit, "192.0.2.2", f"{'x' * 64}-{number}") == "wrong"

    assert guess(limit, client="3F2504e0-4f89-41d3-9a0c-0305e82c3301") == "limited"
    assert guess(limit, "192.0.2.2", "x" * 1_000) == "limited"
