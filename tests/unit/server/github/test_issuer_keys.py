"""GitHub's keys with a controlled clock: fetch frequency, waiting requests and trusted responses."""

import json
import queue
import threading
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kit.clock import Clock, Schedule
from kit.processes import PATIENCE_SECONDS
from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable
from sentryagent_idp.github import issuer_keys
from sentryagent_idp.github.issuer_keys import GithubIssuerKeys

ISSUER = "https://token.actions.githubusercontent.com"


class Issuer:
    """An in-process issuer with changeable responses that counts its requests."""

    def __init__(self, clock):
        self.clock = clock
        self.kids = ["k1"]
        self.discovery = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks"}
        self.answer = None
        self.fetches = 0
        self.urls = []
        self.seconds = 0.0
        self.entered = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def __call__(self, request):
        self.urls.append(str(request.url))
        if request.url.path.endswith("/openid-configuration"):
            return httpx.Response(200, json=self.discovery)
        self.fetches += 1
        self.entered.set()
        assert self.release.wait(PATIENCE_SECONDS)
        self.clock.now += self.seconds
        answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer or httpx.Response(200, json={"keys": [{**JWK, "kid": kid} for kid in self.kids]})


class Timetable(Schedule):
    """Records the time at which each task is due."""

    def __call__(self, delay, task):
        super().__call__(delay and self.clock.now + delay, task)

    def advance(self, seconds):
        """Advance the clock, running each task at its time."""
        end = self.clock.now + seconds
        while due := [it for it in self.later if it[0] <= end]:
            first = min(due, key=lambda it: it[0])
            self.later.remove(first)
            self.clock.now = max(self.clock.now, first[0])
            first[1]()
        self.clock.now = max(self.clock.now, end)


JWK = {
    **jwt.get_algorithm_by_name("RS256").to_jwk(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(), as_dict=True
    ),
    "use": "sig",
    "alg": "RS256",
}


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def issuer(clock):
    return Issuer(clock)


@pytest.fixture
def schedule(clock):
    return Timetable(clock)


@pytest.fixture
def client(issuer):
    with httpx.Client(transport=httpx.MockTransport(issuer)) as client:
        yield client


@pytest.fixture
def keys(client, clock, schedule):
    return GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=schedule)


def _unknown(keys, kid="unknown"):
    with pytest.raises(InvalidOidcToken) as caught:
        keys.find(kid)
    assert caught.value.reason == "unknown_key"
    return caught.value


def _unavailable(keys, kid="k1"):
    with pytest.raises(IssuerUnavailable) as caught:
        keys.find(kid)
    return caught.value


# Fetching


def test_first_use_fetches_once(keys, issuer):
    """The first token fetches both documents, and later ones fetch nothing."""
    for _ in range(3):
        assert keys.find("k1").key_size == 2048
    assert issuer.urls == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/.well-known/jwks"]


def test_warm_up_fetches_before_the_first_token(keys, issuer):
    """After a warm-up the first token does not wait."""
    keys.warm_up()
    assert keys.find("k1")
    assert issuer.fetches == 1


def test_only_a_request_that_waits_leaves_the_loop(client, clock, schedule):
    """A request whose key is cached does not leave the loop."""
    waits = []

    def off_loop(wait):
        waits.append(wait)
        return wait()

    keys = GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=schedule, off_loop=off_loop)
    keys.find("k1")
    assert len(waits) == 1
    keys.find("k1")
    assert len(waits) == 1


def test_documents_are_asked_for_uncompressed_and_one_by_one(client, clock, schedule, issuer):
    """Compression could hide the real size, so it is not requested; each connection ends with its fetch."""
    seen = []
    client.event_hooks = {"request": [lambda request: seen.append(request.headers)]}
    GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=schedule).find("k1")
    assert [(it["Accept-Encoding"], it["Connection"]) for it in seen] == [("identity", "close")] * 2


# Unknown kids: B4.

BROKEN = {
    "status": httpx.Response(500),
    "not found": httpx.Response(404),
    "redirect": httpx.Response(302, headers={"Location": f"{ISSUER}/other"}),
    "no content": httpx.Response(204),
    "refused": httpx.ConnectError("refused"),
    "timeout": httpx.ReadTimeout("slow"),
    "html": httpx.Response(200, html="<html>"),
    "empty body": httpx.Response(200, content=b""),
    "empty set": httpx.Response(200, json={"keys": []}),
    "no keys": httpx.Response(200, json={}),
    "same kid twice": httpx.Response(200, json={"keys": [{**JWK, "kid": "k1"}] * 2}),
    "other algorithm": httpx.Response(200, json={"keys": [{**JWK, "kid": "k1", "alg": "HS256"}]}),
    "too large": httpx.Response(200, json={"keys": [{**JWK, "kid": "k1", "x5c": ["A" * 262_144]}]}),
    "compressed": httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b")
    ),
    "deep": httpx.Response(200, content=b"[" * 100_000),
}


@pytest.mark.parametrize("answer", [None, *BROKEN.values()], ids=["up", *BROKEN])
def test_a_thousand_unknown_kids_cost_one_refresh(answer, keys, issuer, clock):
    """Unknown kids cause at most one fetch in 30 s, counted from its start, whatever the issuer responds."""
    keys.warm_up()
    issuer.answer = answer
    for number in range(1000):
        _unknown(keys, f"x{number}")
    assert issuer.fetches == 2
    clock.now += 29.9
    _unknown(keys)
    assert issuer.fetches == 2
    clock.now += 0.2
    _unknown(keys)
    assert issuer.fetches == 3


@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_answer_never_replaces_a_good_set(answer, keys, issuer, clock):
    """A failed fetch keeps the cached keys (B5)."""
    keys.warm_up()
    issuer.answer = answer
    _unknown(keys)
    assert keys.find("k1")
    status = keys.status()
    assert status["state"] == "fresh"
    assert status["lastError"]
    issuer.answer = None
    clock.now += 31
    _unknown(keys)
    assert keys.status()["lastError"] is None


def test_a_slow_issuer_is_asked_no_more_often(keys, issuer, clock):
    """The 30 s count from the start of a refresh, however slow it is."""
    keys.warm_up()
    issuer.seconds = 4.0
    started = clock.now
    _unknown(keys)
    clock.now = started + 29
    _unknown(keys)
    assert issuer.fetches == 2
    clock.now = started + 30
    _unknown(keys)
    assert issuer.fetches == 3


def test_the_age_of_a_set_counts_from_the_start_of_its_fetch(keys, issuer):
    """The age counts from the start of the fetch, so that a slow response does not prolong trust in revoked keys."""
    issuer.seconds = 4.0
    keys.warm_up()
    assert keys.status()["ageSeconds"] == 4


def test_a_published_key_is_taken_within_35_seconds(keys, issuer, clock):
    """A key published just after a refresh is found by the next one."""
    keys.warm_up()
    issuer.seconds = 4.0
    _unknown(keys, "k2")
    asked = clock.now - 4.0
    issuer.kids.append("k2")
    clock.now = asked + 30
    assert keys.find("k2")
    assert clock.now - asked <= 35


def test_a_rotated_key_is_taken_at_once(keys, issuer):
    """The first unknown kid after a while is looked up without delay."""
    keys.warm_up()
    issuer.kids = ["k1", "k2"]
    assert keys.find("k2")


def test_an_answer_after_the_deadline_is_refused(keys, issuer):
    """A body that takes more than five seconds in total is refused: it could trickle forever."""
    keys.warm_up()
    issuer.seconds = 6.0
    issuer.kids = ["k2"]
    _unknown(keys, "k2")
    assert keys.status()["lastError"] == "the response from token.actions.githubusercontent.com timed out"


def test_slow_discovery_leaves_no_time_for_the_keys(client, clock, schedule, issuer):
    """The time limit applies to both documents together."""
    client.event_hooks = {"response": [lambda _: setattr(clock, "now", clock.now + 5)]}
    keys = GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=schedule)
    _unavailable(keys)
    assert issuer.fetches == 0


# Cold start and outages.


def test_cold_start_with_the_issuer_down(keys, issuer, clock):
    """Without keys the response is 503 with the time of the next attempt, and there is one attempt in 30 s."""
    issuer.answer = BROKEN["refused"]
    assert _unavailable(keys).retry_after == 30
    clock.now += 12.5
    refusal = _unavailable(keys)
    assert refusal.retry_after == 18
    assert "try again in 18 s" in refusal.message
    assert issuer.fetches == 1
    assert keys.status() == {
        "state": "missing",
        "ageSeconds": None,
        "lastError": "it does not respond (ConnectError)",
    }
    issuer.answer = None
    clock.now += 17.5
    assert keys.find("k1")


def test_the_issuer_comes_back_without_a_token(keys, issuer, schedule):
    """After a failed warm-up the keys are fetched again in 30 s, even if no token arrives."""
    issuer.answer = BROKEN["status"]
    keys.warm_up()
    issuer.answer = None
    schedule.advance(30)
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}


def test_keys_are_refreshed_every_ten_minutes(keys, issuer, schedule):
    """A revoked key disappears with the next refresh, whether or not any token arrives."""
    keys.warm_up()
    issuer.kids = ["k2"]
    schedule.advance(599)
    assert keys.find("k1")
    schedule.advance(1)
    assert issuer.fetches == 2
    assert keys.find("k2")
    _unknown(keys, "k1")
    schedule.advance(6000)
    assert issuer.fetches == 13


def test_stale_keys_serve_for_a_day(keys, issuer, schedule, clock):
    """While the issuer is down the cached keys are used for 24 h, reported as stale, and then dropped."""
    keys.warm_up()
    issuer.answer = BROKEN["refused"]
    schedule.advance(630)
    assert keys.status()["state"] == "fresh"
    schedule.advance(1)
    assert keys.status() == {
        "state": "stale",
        "ageSeconds": 631,
        "lastError": "it does not respond (ConnectError)",
    }
    clock.now += 24 * 3600 - 631
    assert keys.find("k1")
    clock.now += 1
    _unavailable(keys)
    assert keys.status()["state"] == "missing"
    issuer.answer = None
    schedule.advance(30)
    assert keys.find("k1")


def test_an_outage_is_retried_twice_a_minute(keys, issuer, schedule):
    """A failed refresh is retried every 30 s, by a single chain of tasks."""
    keys.warm_up()
    issuer.answer = BROKEN["status"]
    schedule.advance(600)
    assert issuer.fetches == 2
    schedule.advance(300)
    assert issuer.fetches == 12
    assert len(schedule.later) == 1


def test_an_error_of_ours_does_not_end_the_refreshes(keys, issuer, schedule):
    """An unexpected exception in one refresh does not prevent the next."""
    keys.warm_up()
    issuer.answer = KeyError("a fault of the program")
    with pytest.raises(KeyError):
        schedule.advance(600)
    assert keys.status()["lastError"] == "an internal error; see the log"
    issuer.answer = None
    schedule.advance(30)
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}


def test_a_machine_that_has_no_thread_left(keys, issuer, schedule, monkeypatch):
    """If no thread can be started, the refresh fails with this reason and frees its slot for the next."""

    def fail(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", fail)
        keys.warm_up()
        schedule.advance(90)
    assert keys.status()["lastError"] == "cannot start a thread for the fetch"
    assert issuer.fetches == 0
    schedule.advance(30)
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}


# Allowed URLs: B2, B18.


@pytest.mark.parametrize(
    "jwks_uri",
    [
        "https://evil.example/jwks",
        "http://token.actions.githubusercontent.com/jwks",
        "https://token.actions.githubusercontent.com:8443/jwks",
        "https://token.actions.githubusercontent.com@evil.example/jwks",
        "https://user@token.actions.githubusercontent.com/jwks",
        "https://token.actions.githubusercontent.com.evil.example/jwks",
        "https://token.actions.githubusercontent.com\\@evil.example/jwks",
        "//evil.example/jwks",
        "/jwks",
        "file:///etc/passwd",
        "https://[::1",
        "",
    ],
)
def test_the_document_cannot_send_us_elsewhere(jwks_uri, keys, issuer):
    """Keys are only fetched from the issuer's own origin."""
    issuer.discovery["jwks_uri"] = jwks_uri
    _unavailable(keys)
    assert all(httpx.URL(url).host == "token.actions.githubusercontent.com" for url in issuer.urls)
    assert issuer.fetches == 0


def test_the_document_of_another_issuer(keys, issuer):
    """A discovery document that names another issuer is refused."""
    issuer.discovery["issuer"] = f"{ISSUER}/acme"
    _unavailable(keys)
    assert keys.status()["lastError"] == "its discovery document names another issuer"


@pytest.mark.parametrize(
    ("issuer_url", "is_accepted"),
    [
        ("https://ghe.example/_services/token", True),
        ("http://127.0.0.1:3001", True),
        ("http://[::1]:3001", True),
        ("http://localhost:3001", True),
        ("http://ghe.example/_services/token", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        ("ftp://127.0.0.1", False),
        ("token.actions.githubusercontent.com", False),
    ],
)
def test_which_issuers_are_asked(issuer_url, is_accepted, client):
    """Keys are only fetched over https, or over http from loopback."""
    if is_accepted:
        assert GithubIssuerKeys(issuer_url, client).status()["state"] == "missing"
    else:
        with pytest.raises(ValueError, match="must be an https address"):
            GithubIssuerKeys(issuer_url, client)


def test_the_path_of_the_issuer_is_kept(clock, schedule):
    """The documents of an issuer with a path, such as an enterprise's, are below this path."""
    base = "https://ghe.example/_services/token"
    seen = []

    def answer(request):
        seen.append(str(request.url))
        document = {"issuer": base, "jwks_uri": f"{base}/.well-known/jwks"}
        return httpx.Response(200, json=document if len(seen) == 1 else {"keys": [{**JWK, "kid": "k1"}]})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert GithubIssuerKeys(base, client, monotonic=clock, schedule=schedule).find("k1")
    assert seen == [f"{base}/.well-known/openid-configuration", f"{base}/.well-known/jwks"]


def test_messages_and_states_repeat_no_kid(keys):
    """The kid is chosen by the sender, so it is neither in the response nor in the status."""
    keys.warm_up()
    refusal = _unknown(keys, "SENDER-CHOSEN")
    assert "SENDER-CHOSEN" not in refusal.message + json.dumps([refusal.details, keys.status()])


# Many threads at once.


@pytest.fixture
def threaded(client, clock):
    """Keys whose refreshes run in threads as in production, with a controlled clock."""
    threads = []

    def in_thread(delay, task):
        if not delay:
            threads.append(threading.Thread(target=task, daemon=True))
            threads[-1].start()

    yield GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=in_thread)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


def _ask_in_threads(keys, kid, count, answers):
    def ask():
        try:
            answers.put(keys.find(kid))
        except (InvalidOidcToken, IssuerUnavailable) as error:
            answers.put(error)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_known_kids_wait_for_nothing(threaded, issuer):
    """During a slow refresh known kids are found at once, and of many unknown kids only two requests wait."""
    threaded.warm_up()
    assert threaded.find("k1")
    issuer.entered.clear()
    issuer.release.clear()
    answers = queue.Queue()
    _ask_in_threads(threaded, "k2", 20, answers)
    refused = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(18)]
    assert {error.reason for error in refused} == {"unknown_key"}
    assert issuer.entered.wait(PATIENCE_SECONDS)
    started = time.perf_counter()
    assert threaded.find("k1")
    assert time.perf_counter() - started < 4, "it waited for the fetch, which ends after 5 s"
    issuer.kids.append("k2")
    issuer.release.set()
    waited = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(2)]
    assert all(isinstance(key, rsa.RSAPublicKey) for key in waited)
    assert issuer.fetches == 2


def test_first_tokens_share_one_fetch(threaded, issuer):
    """At a cold start all requests share one fetch and get their key."""
    issuer.release.clear()
    answers = queue.Queue()
    threads = _ask_in_threads(threaded, "k1", 20, answers)
    assert issuer.entered.wait(PATIENCE_SECONDS)
    issuer.release.set()
    assert all(isinstance(answers.get(timeout=PATIENCE_SECONDS), rsa.RSAPublicKey) for _ in threads)
    assert issuer.fetches == 1


def test_nobody_waits_longer_than_the_fetch_may_take(threaded, issuer, clock):
    """A request that arrives after the fetch's time limit does not wait for it."""
    issuer.release.clear()
    answers = queue.Queue()
    _ask_in_threads(threaded, "k1", 1, answers)
    assert issuer.entered.wait(PATIENCE_SECONDS)
    clock.now += 5
    assert _unavailable(threaded).retry_after == 25
    issuer.release.set()
    assert isinstance(answers.get(timeout=PATIENCE_SECONDS), IssuerUnavailable | rsa.RSAPublicKey)


def test_a_warm_up_in_flight_is_joined(client, clock, issuer):
    """A token during a warm-up that is too slow gets 503 with Retry-After 1, and does not start another fetch."""
    tasks = []
    keys = GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=lambda _, task: tasks.append(task))
    keys.warm_up()
    issuer.answer = BROKEN["status"]
    issuer.release.clear()
    warm_up = threading.Thread(target=tasks.pop(), daemon=True)
    warm_up.start()
    assert issuer.entered.wait(PATIENCE_SECONDS)
    clock.now += 5
    assert _unavailable(keys).retry_after == 1
    issuer.release.set()
    warm_up.join(PATIENCE_SECONDS)
    assert issuer.fetches == 1


def test_a_hanging_refresh_is_given_up(client, clock, issuer):
    """After 30 s a hanging refresh no longer blocks the next one, and its late result is ignored."""
    threads = []

    def first_in_a_thread(delay, task):
        if delay:
            return
        threads.append(threading.Thread(target=task, daemon=True))
        threads[-1].start()
        if len(threads) > 1:
            threads[-1].join(PATIENCE_SECONDS)

    keys = GithubIssuerKeys(ISSUER, client, monotonic=clock, schedule=first_in_a_thread)
    issuer.release.clear()
    keys.warm_up()
    assert issuer.entered.wait(PATIENCE_SECONDS)
    hanging, issuer.release = issuer.release, threading.Event()
    issuer.release.set()
    clock.now += 30
    issuer.kids = ["k2"]
    assert keys.find("k2")
    issuer.kids = ["k1"]
    hanging.set()
    threads[0].join(PATIENCE_SECONDS)
    assert keys.find("k2")
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}
    assert issuer.fetches == 2


def test_a_due_refresh_leaves_one_in_flight_alone(client, clock, issuer):
    """A periodic refresh that is due during another one is not started, but tried again in 30 s."""
    tasks = []
    keys = GithubIssuerKeys(
        ISSUER, client, monotonic=clock, schedule=lambda delay, task: tasks.append((delay, task))
    )
    issuer.release.clear()
    keys.warm_up()
    (_, keep_fresh) = tasks.pop()
    in_flight = threading.Thread(target=keep_fresh, daemon=True)
    in_flight.start()
    assert issuer.entered.wait(PATIENCE_SECONDS)
    keep_fresh()
    assert [delay for delay, _ in tasks] == [30]
    issuer.release.set()
    in_flight.join(PATIENCE_SECONDS)
    assert issuer.fetches == 1
    assert keys.find("k1")


def test_pause_is_longer_than_a_fetch():
    """The promised 35 s are the pause plus one fetch."""
    assert (issuer_keys.PAUSE_SECONDS, issuer_keys.FETCH_SECONDS) == (30, 5)
