from collections import Counter

import pytest

from mock_idp.attack.catalogue import Attack, Result
from mock_idp.attack.probes import PROBES

NOW = 1_790_000_000


class Mock:
    """Counts requests and keeps each planned fault until it is cleared."""

    now = NOW

    def __init__(self):
        self.asked = Counter()
        self.planned = []

    def ask(self, endpoint):
        self.asked[endpoint] += 1

    def plan_fault(self, endpoint, **how):
        self.planned.append((endpoint, how))

    def clear_faults(self):
        self.planned = []


class Target:
    """Judges a token's fields with a function, which may request keys from the mock."""

    def __init__(self, judge):
        self.mock = Mock()
        self.sent = []
        self._judge = judge

    def mint(self, _changes=None, **fields):
        return fields

    def send(self, attack, token):
        self.sent.append(token)
        return Result(attack, self._judge(self.mock, token), 401, "", 0.1)

    def key_requests(self):
        return self.mock.asked["jwks"] + self.mock.asked["discovery"]

    def foreign_key_requests(self):
        return self.mock.asked["foreign-keys"]


def _probe(name, judge):
    target = Target(judge)
    return PROBES[name](target, Attack(name, "…", probe=name)), target


@pytest.mark.parametrize(
    ("answers", "verdict", "good"),
    [
        (["accepted", "refused"], "refused", True),
        (["accepted", "accepted"], "accepted", False),
        (["refused"], "not sent", False),
    ],
)
def test_a_replay_is_the_same_token_twice(answers, verdict, good):
    """The second response counts, and only if the first one accepted the token."""
    replies = iter(answers)

    result, target = _probe("replay", lambda _mock, _token: next(replies))

    assert (result.verdict, result.is_as_expected) == (verdict, good)
    assert all(token is target.sent[0] for token in target.sent)


@pytest.mark.parametrize(
    ("leeway", "note", "good"),
    [
        (0, "accepts 0 s, refuses 1 s", True),
        (30, "accepts 30 s, refuses 60 s", True),
        (150, "accepts 150 s, refuses 180 s", True),
        (299, "accepts 240 s, refuses 300 s", True),
        (300, "accepts 300 s, refuses 600 s", False),
        (1800, "accepts 1800 s, refuses 3600 s", False),
        (10**9, "accepts 86400 s, no limit found", False),
    ],
)
@pytest.mark.parametrize(
    ("name", "claim", "sign"),
    [("leeway-of-expiry", "exp", -1), ("leeway-of-not-before", "nbf", 1), ("leeway-of-issued-at", "iat", 1)],
)
def test_the_leeway_is_found_for_each_time(name, claim, sign, leeway, note, good):
    """A leeway below five minutes is fine ("a few minutes", RFC 7519); the other two times stay valid."""

    def judge(_mock, token):
        claims = token["claims"]
        assert claims["exp"] > max(claims["iat"], claims["nbf"])
        for right in {"exp": ("iat", "nbf"), "nbf": ("iat",), "iat": ("nbf",)}[claim]:
            assert claims[right] <= NOW
        assert claim == "exp" or claims["exp"] > NOW
        return "accepted" if sign * (claims[claim] - NOW) <= leeway else "refused"

    result, target = _probe(name, judge)

    assert (result.note, result.is_as_expected) == (note, good)
    assert result.measured == int(note.split()[1])
    assert len(target.sent) <= 5


@pytest.mark.parametrize("verdict", ["broken", "limited"])
def test_a_crash_or_a_limit_is_no_leeway(verdict):
    """A crash or a rate limit says nothing about the leeway."""
    result, _ = _probe("leeway-of-expiry", lambda _mock, _token: verdict)

    assert (result.verdict, result.is_as_expected) == (verdict, False)


@pytest.mark.parametrize(
    ("name", "planned"),
    [
        ("keys-answer-503", [("jwks", {"status": 503}), ("discovery", {"status": 503})]),
        ("keys-reset", [("jwks", {"fault": "reset"}), ("discovery", {"fault": "reset"})]),
        ("keys-garbage", [("jwks", {"fault": "garbage"}), ("discovery", {"fault": "garbage"})]),
        ("keys-empty", [("jwks", {"fault": "empty-keys"})]),
    ],
)
@pytest.mark.parametrize(
    ("verdict", "expected"), [("refused", "refused"), ("broken", "refused"), ("limited", "refused"), ("accepted", "accepted")]
)  # fmt: skip
def test_without_keys_everything_but_a_yes_is_right(name, planned, verdict, expected):
    """Without keys the verifier may respond with an error, but must not accept; the faults last for that one token."""

    def judge(mock, token):
        assert mock.planned == planned
        assert token["fault"] == "foreign-key"
        mock.ask("jwks")
        return verdict

    result, target = _probe(name, judge)

    assert (result.verdict, result.note) == (expected, "requested keys 1 times")
    assert target.mock.planned == []


def test_faults_are_cleared_if_the_run_is_interrupted():
    """An interrupted run clears its faults, so that the mock is not left broken for its next user."""

    def judge(_mock, _token):
        raise KeyboardInterrupt

    target = Target(judge)
    with pytest.raises(KeyboardInterrupt):
        PROBES["keys-reset"](target, Attack("keys-reset", "…"))
    assert target.mock.planned == []


def test_a_verifier_that_never_asks_has_not_met_the_failure():
    """A verifier that never requests keys passes, but the note says that the failure was not tested."""
    result, _ = _probe("keys-reset", lambda _mock, _token: "refused")

    assert (result.is_as_expected, result.note) == (
        True,
        "did not request keys, so the failure had no effect",
    )


@pytest.mark.parametrize(
    ("fetches", "verdict", "note"),
    [
        ({}, "refused", "10 tokens, 0 requests for keys"),
        ({1: ["discovery", "jwks"]}, "refused", "10 tokens, 2 requests for keys"),
        ({1: ["jwks"], 2: ["jwks"], 3: ["jwks"]}, "fetched", "10 tokens, 3 requests for keys"),
    ],
)
@pytest.mark.parametrize(("name", "kids"), [("fetch-for-each-token", 0), ("fetch-for-each-unknown-kid", 10)])
def test_fetches_of_keys_are_counted(name, kids, fetches, verdict, note):
    """Key requests are counted over ten forged tokens, each with an unknown kid or with the issuer's own."""
    count = iter(range(1, 100))

    def judge(mock, _token):
        for endpoint in fetches.get(next(count), []):
            mock.ask(endpoint)
        return "refused"

    result, target = _probe(name, judge)

    assert (result.verdict, result.note) == (verdict, note)
    assert result.measured == sum(map(len, fetches.values()))
    assert len({token["header"]["kid"] for token in target.sent if token["header"]}) == kids


def test_a_forged_token_that_is_accepted_is_worse_than_a_fetch():
    """An accepted forged token is reported as accepted, whatever was fetched."""
    assert _probe("fetch-for-each-unknown-kid", lambda _mock, _token: "accepted")[0].verdict == "accepted"


@pytest.mark.parametrize(
    ("follows", "verdict"), [("own-jku", "followed"), ("own-x5u", "followed"), ("", "refused")]
)
def test_a_verifier_that_follows_a_forged_url_is_found_in_the_log(follows, verdict):
    """A verifier that fetches a key from the attacker's URL is found in the log; earlier requests do not count."""

    def judge(mock, token):
        if token["fault"] == follows:
            mock.ask("foreign-keys")
        return "refused"

    target = Target(judge)
    target.mock.ask("foreign-keys")

    assert PROBES["own-url-followed"](target, Attack("own-url-followed", "…")).verdict == verdict
