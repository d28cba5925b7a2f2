"""The verifier under attack and the mock that it trusts: mint a token, send it, judge the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mock_idp.attack.catalogue import ACCEPTED, BROKEN, REFUSED, UNSENDABLE, Attack, Result, verdict_of
from mock_idp.attack.verifier import UnsendableError, field_at
from mock_idp.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_idp.attack.verifier import Verifier, VerifierResponse
    from mock_idp.client import MockClient


@dataclass(frozen=True)
class AcceptedWhen:
    """The field of a JSON response (a name, or names joined by dots) and its value that signal an accepted token."""

    field: str
    value: object

    def verdict(self, response: VerifierResponse) -> str:
        """Return the verdict: 2xx with this value is accepted, any other 2xx refused, or broken if it is not JSON."""
        by_status = verdict_of(response.status)
        if by_status != ACCEPTED:
            return by_status
        if response.answer is None:
            return BROKEN
        found = field_at(response.answer, self.field)
        return (
            ACCEPTED
            if found == self.value and isinstance(found, bool) == isinstance(self.value, bool)
            else REFUSED
        )


@dataclass(frozen=True)
class Target:
    """A verifier that accepts a job with these options (fields of `Job`) and this audience, and trusts this mock.

    Every method raises mock_idp.client.MockUnavailableError.
    """

    mock: MockClient
    verifier: Verifier
    options: Mapping[str, Any]
    audience: str
    accepted_when: AcceptedWhen | None = None

    def mint(self, changes: Mapping[str, Any] | None = None, **fields: Any) -> str:
        """Mint a token for the job with `changes` to its options; `fields` are those of `POST /_mock/token`."""
        job = Job(**{**self.options, **(changes or {})})
        return self.mock.token({"job": job.as_json(), "audience": self.audience or None, **fields})

    def send(self, attack: Attack, token: str) -> Result:
        """Send one token, and judge the response."""
        try:
            response = self.verifier.send(token)
        except UnsendableError as error:
            return Result(attack, UNSENDABLE, 0, str(error), 0.0)
        judge = self.accepted_when.verdict if self.accepted_when else lambda given: verdict_of(given.status)
        return Result(attack, judge(response), response.status, response.note, response.seconds)

    def fire(self, attack: Attack) -> Result:
        """Mint and send the one token of an attack."""
        return self.send(attack, self.mint(attack.changes, fault=attack.fault or None))

    def key_requests(self) -> int:
        """Return the number of requests to the mock, by any client, for its discovery document and key set."""
        counts = self.mock.request_counts()
        return counts.get("jwks", 0) + counts.get("discovery", 0)

    def foreign_key_requests(self) -> int:
        """Return the number of requests to the mock, by any client, for the key set that forged headers point to."""
        return self.mock.request_counts().get("foreign-keys", 0)
