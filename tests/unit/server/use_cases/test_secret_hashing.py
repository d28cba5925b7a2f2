"""Hashing of client secrets: few at a time, in separate threads."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from sentryagent_idp.errors import RateLimited
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases import secret_hashing
from sentryagent_idp.use_cases.secret_hashing import SecretHashing

MINUTE = 60


class SlowHashes:
    """Replaces Argon2: a hash runs until the test lets it end."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.threads = set()
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def __call__(self, *_):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
            self.threads.add(threading.current_thread().name)
        self.begun.release()
        assert self.may_end.wait(MINUTE)
        with self._lock:
            self._running -= 1
        return True


@pytest.fixture
def slow(monkeypatch):
    hashes = SlowHashes()
    monkeypatch.setattr(client_secret, "matches", hashes)
    monkeypatch.setattr(client_secret, "hash_secret", hashes)
    yield hashes
    hashes.may_end.set()


@pytest.fixture
def hashing():
    return SecretHashing()


def outcome(call):
    try:
        return call()
    except RateLimited as refusal:
        return refusal.retry_after


def test_two_at_a_time_and_eight_wait(slow, hashing, monkeypatch):
    """Of sixteen calls two run, eight wait and six are refused at once, whether they create or check hashes."""
    monkeypatch.setattr(secret_hashing, "_PATIENCE_SECONDS", MINUTE)
    calls = [lambda: hashing.matches_any(["stored"], "secret"), lambda: hashing.hash_secret("secret")] * 8

    with ThreadPoolExecutor(16) as pool:
        ended = as_completed([pool.submit(outcome, call) for call in calls])
        refused = [next(ended).result() for _ in range(6)]
        for _ in range(2):
            assert slow.begun.acquire(timeout=MINUTE)
        assert not slow.begun.acquire(blocking=False)
        slow.may_end.set()
        done = [future.result() for future in ended]

    assert (refused, done) == ([2] * 6, [True] * 10)
    assert slow.most == 2
    assert len(slow.threads) == 2


def test_nobody_waits_for_ever(slow, hashing, monkeypatch):
    """A call that waits too long is refused with a retry time, and its hash is not computed."""
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(hashing.hash_secret, "secret") for _ in range(2)]
        for _ in running:
            assert slow.begun.acquire(timeout=MINUTE)
        monkeypatch.setattr(secret_hashing, "_PATIENCE_SECONDS", 0)
        with pytest.raises(RateLimited, match="Too many client secrets"):
            hashing.hash_secret("late")
        slow.may_end.set()
        for future in running:
            outcome(future.result)

    assert not slow.begun.acquire(blocking=False)


def test_a_hash_that_fails_gives_its_place_back(hashing, monkeypatch):
    """An error reaches the caller and frees the slot."""

    def fail(_secret):
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr(client_secret, "hash_secret", fail)
        for _ in range(20):
            with pytest.raises(LookupError):
                hashing.hash_secret("secret")

    assert client_secret.matches(hashing.hash_secret("secret"), "secret")


def test_a_right_secret_is_hashed_once(hashing, monkeypatch):
    """A right secret is hashed only once, however often a service introspects; a wrong one is hashed each time."""
    hashed = []
    original = client_secret.matches
    monkeypatch.setattr(
        client_secret, "matches", lambda stored, secret: hashed.append(secret) or original(stored, secret)
    )
    secret, wrong = client_secret.generate(), client_secret.generate()
    stored, rotated = client_secret.hash_secret(secret), client_secret.hash_secret(wrong)

    assert [hashing.matches_any([stored], secret) for _ in range(3)] == [True] * 3
    assert hashed == [secret]
    assert [hashing.matches_any([stored], wrong) for _ in range(2)] == [False] * 2
    assert hashed == [secret, wrong, wrong]
    assert not hashing.matches_any([rotated], secret)
    assert hashing.matches_any([rotated, stored], secret)
    assert hashed == [secret, wrong, wrong, secret]
