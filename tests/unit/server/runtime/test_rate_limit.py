"""The limit of requests per minute, and the wait after a refusal."""

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
"""The start of a window."""


@pytest.fixture
def clock():
    return Clock(BEGIN)


def passes(limit, key="key"):
    """Return `True` if one more request passes, or else the seconds to wait."""
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
    """Count how many of these requests pass."""
    return sum(passes(limit, key) is True for _ in range(tries))


def test_so_many_pass_in_a_minute(clock):
    """Each key has its own allowance."""
    limit = PerMinute(3, what="repository", clock=clock)

    assert (count(limit, 5, "one"), count(limit, 5, "two")) == (3, 3)


def test_the_refusal_says_whose_allowance_is_spent(clock):
    """The message names what is limited; a refused request does not count."""
    limit = PerMinute(1, what="repository", clock=clock)
    limit.check("key")

    with pytest.raises(RateLimited, match="from this repository") as refusal:
        limit.check("key")

    assert refusal.value.retry_after == 60


def test_no_burst_at_the_turn_of_a_minute(clock):
    """A client that spent its allowance at the end of a minute regains it gradually in the next one."""
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
    """Even when the weights exactly equal the allowance, the client must wait at least a second."""
    limit = PerMinute(10, what="address", clock=clock)
    assert count(limit, 10) == 10
    clock.now = BEGIN + 90
    assert [passes(limit) for _ in range(6)] == [True] * 5 + [1]


def test_silence_gives_all_of_it_back(clock):
    """After two minutes without requests the whole allowance is available."""
    limit = PerMinute(2, what="address", clock=clock)
    for later in (120, 3_600, 10**6):
        assert count(limit, 5) == 2
        clock.now += later


@given(
    allowance=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 60)), max_size=8),
)
def test_the_wait_is_as_long_as_it_must_be(allowance, steps):
    """A refused request passes after the wait, and not more than a second earlier."""
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
    # Exactly at the start of a minute the previous one still has its full weight, so move just past it.
    clock.now = refused_at + wait + 0.001
    assert passes(limit) is True


def test_a_hundred_thousand_keys_are_counted_one_by_one(clock):
    """100,000 keys are counted individually, as documented; later ones share one allowance."""
    limit = PerMinute(1, what="address", clock=clock)

    assert sum(passes(limit, str(number)) is True for number in range(100_010)) == 100_001


def test_new_keys_share_one_allowance_beyond_the_bound(clock, monkeypatch):
    """Keys beyond the limit share one allowance, so that they cannot fill the memory or affect known keys."""
    monkeypatch.setattr(rate_limit, "_MAX_KEYS", 3)
    limit = PerMinute(2, what="address", clock=clock)
    for key in ("one", "two", "three"):
        assert count(limit, 1, key) == 1

    assert [passes(limit, f"new {number}") is True for number in range(4)] == [True, True, False, False]
    assert count(limit, 5, "one") == 1
    clock.now += 120
    assert count(limit, 5, "new 0") == 2


class SlowKey(str):
    """A key whose lookup lets other threads run."""

    __slots__ = ()

    def __hash__(self):
        time.sleep(0.0001)
        return super().__hash__()


def test_threads_get_no_more(clock):
    """Concurrent requests do not exceed the allowance."""
    limit = PerMinute(20, what="address", clock=clock)

    with ThreadPoolExecutor(8) as pool:
        passed = sum(pool.map(lambda _: count(limit, 10, SlowKey("key")), range(8)))

    assert passed == 20


def test_zero_counts_nothing(clock):
    """An allowance of 0 means no limit."""
    assert count(PerMinute(0, what="address", clock=clock), 1_000) == 1_000


def test_a_look_counts_nothing(clock):
    """`check_room` does not spend the allowance; only `count` does."""
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
    """`check_room` stores no keys, so that later keys keep their own allowance."""
    monkeypatch.setattr(rate_limit, "_MAX_KEYS", 3)
    limit = PerMinute(1, what="address", clock=clock)
    for number in range(10):
        limit.check_room(f"key {number}")

    assert [count(limit, 1, key) for key in ("one", "two", "three")] == [1, 1, 1]


def prove(secret_is_right):
    if not secret_is_right:
        raise InvalidClient("It is wrong.")


def guess(limit, address="192.0.2.1", client="client", *, right=False):
    """Try a secret; return "right", "wrong" or "limited"."""
    try:
        with limit.watch(address, client):
            prove(right)
    except InvalidClient:
        return "wrong"
    except RateLimited:
        return "limited"
    return "right"


def test_wrong_secrets_of_a_client_from_an_address(clock):
    """The eleventh wrong secret in a minute is refused unchecked, but only for this client and this address."""
    limit = WrongSecretsPerMinute(clock)

    assert [guess(limit) for _ in range(12)] == ["wrong"] * 10 + ["limited"] * 2
    assert guess(limit, right=True) == "limited"
    assert guess(limit, client="other", right=True) == "right"
    assert guess(limit, "192.0.2.2", right=True) == "right"
    clock.now += 120
    assert guess(limit, right=True) == "right"


def test_wrong_secrets_of_an_address(clock):
    """An address has twenty wrong secrets a minute, whichever clients they are for."""
    limit = WrongSecretsPerMinute(clock)

    assert [guess(limit, client=f"client {n}") for n in range(22)] == ["wrong"] * 20 + ["limited"] * 2
    assert guess(limit, "192.0.2.2") == "wrong"


def test_right_secrets_spend_nothing(clock):
    """Right secrets do not count."""
    limit = WrongSecretsPerMinute(clock)

    assert {guess(limit, right=True) for _ in range(100)} == {"right"}
    assert guess(limit) == "wrong"


def test_strangers_lock_nobody_out(clock):
    """A client's secret still works while a thousand addresses guess it."""
    limit = WrongSecretsPerMinute(clock)
    for number in range(1_000):
        for _ in range(12):
            guess(limit, f"2001:db8:0:{number:x}::/64")

    assert guess(limit, right=True) == "right"


def test_other_spellings_of_a_client_are_the_same(clock):
    """Client ids are compared without case, and cut, so that long ids do not fill the memory."""
    limit = WrongSecretsPerMinute(clock)
    for number in range(5):
        assert guess(limit, client="3f2504e0-4f89-41d3-9a0c-0305e82c3301") == "wrong"
        assert guess(limit, client="3F2504E0-4F89-41D3-9A0C-0305E82C3301") == "wrong"
        assert guess(limit, "192.0.2.2", f"{'x' * 64}{number}") == "wrong"
        assert guess(limit, "192.0.2.2", f"{'x' * 64}-{number}") == "wrong"

    assert guess(limit, client="3F2504e0-4f89-41d3-9a0c-0305e82c3301") == "limited"
    assert guess(limit, "192.0.2.2", "x" * 1_000) == "limited"
