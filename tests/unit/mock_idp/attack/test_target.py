from collections import Counter

import pytest

from mock_idp.attack.catalogue import Attack
from mock_idp.attack.target import AcceptedWhen, Target
from mock_idp.attack.verifier import UnsendableError, VerifierResponse


class Mock:
    """Returns the fields instead of a token."""

    def __init__(self, *endpoints):
        self.endpoints = endpoints

    def token(self, fields):
        return fields

    def request_counts(self):
        return Counter(self.endpoints)


class Verifier:
    def __init__(self, response):
        self.sent = []
        self._response = response

    def send(self, token):
        self.sent.append(token)
        if isinstance(self._response, Exception):
            raise self._response
        return self._response


@pytest.mark.parametrize(
    ("field", "value", "status", "answer", "verdict"),
    [
        ("active", True, 200, {"active": True}, "accepted"),
        ("active", True, 200, {"active": False}, "refused"),
        ("active", True, 200, {}, "refused"),
        ("active", True, 200, [], "refused"),
        ("active", True, 200, {"active": 1}, "refused"),
        ("active", 1, 200, {"active": True}, "refused"),
        ("active", True, 200, {"active": "true"}, "refused"),
        ("result", "ok", 200, {"result": "ok"}, "accepted"),
        ("data.user.active", True, 200, {"data": {"user": {"active": True}}}, "accepted"),
        ("data.user.active", True, 200, {"data": {"user": True}}, "refused"),
        ("error", None, 200, {"error": None}, "accepted"),
        ("active", True, 200, None, "broken"),
        ("active", True, 401, None, "refused"),
        ("active", True, 500, None, "broken"),
        ("active", True, 429, None, "limited"),
    ],
)
def test_an_answer_of_200_may_be_a_refusal(field, value, status, answer, verdict):
    """With 200, the configured field decides, for example `{"active": false}` (RFC 7662)."""
    target = Target(
        Mock(), Verifier(VerifierResponse(status, "", 0.1, answer)), {}, "aud", AcceptedWhen(field, value)
    )

    assert target.fire(Attack("alg-none", "…", "alg-none")).verdict == verdict


def test_a_token_has_the_job_and_the_fault_of_its_attack():
    """The token has the control's job options with the attack's changes, and the attack's fault."""
    verifier = Verifier(VerifierResponse(403, "no", 0.1))
    target = Target(Mock(), verifier, {"repository": "o/r", "ref": "main"}, "")

    result = target.fire(Attack("x", "…", "expired", changes={"ref": "evil"}))

    assert (result.verdict, result.status, result.note) == ("refused", 403, "no")
    [fields] = verifier.sent
    assert (fields["job"]["repository"], fields["job"]["ref"]) == ("o/r", "refs/heads/evil")
    assert (fields["audience"], fields["fault"]) == (None, "expired")


def test_a_token_that_cannot_be_sent_is_told_apart():
    """A token with a line break cannot be sent in a header, and is reported as unsendable."""
    target = Target(Mock(), Verifier(UnsendableError("line break")), {}, "aud")

    assert target.fire(Attack("line-break", "…", "line-break")).verdict == "unsendable"


def test_requests_for_keys_are_those_for_both_documents():
    """Requests for the key set and the discovery document count; requests for tokens do not."""
    mock = Mock("jwks", "discovery", "token", "foreign-keys", "jwks")

    target = Target(mock, Verifier(None), {}, "aud")
    assert (target.key_requests(), target.foreign_key_requests()) == (3, 1)
