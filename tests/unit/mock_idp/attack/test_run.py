import itertools

import pytest

from mock_idp.attack.catalogue import CONTROL, catalogue
from mock_idp.attack.run import AttackRun, ControlRefusedError, chosen
from mock_idp.attack.verifier import UnsendableError, VerifierResponse
from mock_idp.request_log import RequestLog


class Mock(RequestLog):
    """Mints the name of the fault, or of the repository, instead of a token."""

    def __init__(self, log=()):
        self.log = list(log)

    def mint(self, *, job, audience, fault):
        return fault or f"{audience} {job.repository}"

    def requests(self):
        return self.log


class Verifier:
    """Answers by a function of the token."""

    def __init__(self, answer):
        self.sent = []
        self._answer = answer

    def send(self, token):
        self.sent.append(token)
        return VerifierResponse(self._answer(token), "note", 0.1)


def _by_name(names):
    return [attack for attack in catalogue({}) if attack.name in names]


def _run(verifier, names, mock=None, limit=10.0, monotonic=lambda: 0.0):
    run = AttackRun(mock or Mock(), verifier, {}, "aud", limit, monotonic)
    return {result.attack.name: result for result in run.results(_by_name(names))}


def test_tokens_are_judged_by_the_answers():
    """The right one is accepted, the wrong ones are refused or not."""
    verifier = Verifier(
        lambda token: {"aud octo-org/hello-agent": 200, "expired": 401, "alg-none": 500}[token]
    )

    results = _run(verifier, {"control", "expired", "alg-none"})

    assert {name: (it.verdict, it.is_as_expected) for name, it in results.items()} == {
        "control": ("accepted", True),
        "expired": ("refused", True),
        "alg-none": ("broken", False),
        "own-url-followed": ("refused", True),
    }


def test_a_refused_control_ends_the_run_before_any_attack():
    """A verifier that refuses everything would look perfect."""
    verifier = Verifier(lambda _token: 403)

    with pytest.raises(ControlRefusedError, match="403 note"):
        _run(verifier, {"control", "expired"})
    assert len(verifier.sent) == 1


@pytest.mark.parametrize(
    ("answers", "verdict", "good"),
    [([200, 409], "refused", True), ([200, 200], "accepted", False), ([401, 401], "not sent", False)],
)
def test_a_replay_is_the_same_token_twice(answers, verdict, good):
    """The second answer counts, and only where the first one was a yes."""
    replies = iter(answers)
    verifier = Verifier(lambda _token: next(replies))

    result = _run(verifier, {"replay"})["replay"]

    assert (result.verdict, result.is_as_expected) == (verdict, good)
    assert len(set(verifier.sent)) == 1


def test_a_token_that_cannot_be_sent_is_told_apart():
    """A line break cannot stand in a header."""

    class Picky(Verifier):
        def send(self, token):
            raise UnsendableError("line break")

    assert _run(Picky(None), {"line-break"})["line-break"].verdict == "unsendable"


def test_what_is_left_when_the_time_is_over_counts_as_not_done():
    """The run ends, and not with success."""
    ticks = itertools.count(0, 4)

    results = _run(
        Verifier(lambda _token: 200),
        {"control", "expired", "alg-none", "own-jwk"},
        limit=5,
        monotonic=lambda: next(ticks),
    )

    assert [it.verdict for it in results.values()][:4] == ["accepted", "not sent", "not sent", "not sent"]
    assert not results["expired"].is_as_expected


def test_a_verifier_that_follows_a_forged_url_is_found_in_the_log():
    """It asked an attacker for the key."""
    entry = {"endpoint": "foreign-keys", "method": "GET", "status": 200, "repository": None, "audience": None}

    result = _run(Verifier(lambda _token: 401), set(), Mock([entry]))["own-url-followed"]

    assert (result.verdict, result.is_as_expected, result.note) == (
        "followed",
        False,
        "such requests in the mock's log: 1",
    )


def test_attacks_are_chosen_by_name_and_controls_stay():
    """`only` and `skip` leave the controls in."""
    assert [it.name for it in chosen({}, ["expired", "replay"], ["replay"])] == [
        "control",
        "expired",
        "control-again",
    ]
    assert chosen({}, [], ["expired"])[0] is CONTROL
    assert len(chosen({}, [], ["expired"])) == len(catalogue({})) - 1
    with pytest.raises(KeyError, match="fly"):
        chosen({}, [], ["fly"])
