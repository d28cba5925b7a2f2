"""The attack pack: the tokens that a verifier of GitHub's ID tokens must refuse, and how it is judged. Pure.

A valid control token comes first, so that a refusal means something, and again at the end, to notice a verifier that
refuses everything after a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mock_idp.attack.risks import RISKS, Risk
from mock_idp.faults.tokens import TOKEN_FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
LIMITED: Final = "limited"
BROKEN: Final = "broken"
UNSENDABLE: Final = "unsendable"
NOT_SENT: Final = "not sent"
FOLLOWED: Final = "followed"
FETCHED: Final = "fetched"
# Statuses that say "later", not "no".
_LATER: Final = (408, 425, 429)
REPLAY: Final = "replay"
_OF_THE_REPOSITORY: Final = frozenset(
    {
        "missing-repository",
        "missing-repository-id",
        "repository-array",
        "repository-homoglyph",
        "duplicate-member",
    }
)


@dataclass(frozen=True)
class Attack:
    """A hostile token, or a probe with several: how it is made, and the verdict expected of a verifier.

    `fault` names an entry of the fault catalogue, `changes` are job options that replace the control's, and `probe`
    names an entry of `mock_idp.attack.probes.PROBES`. `binds` names the part of a policy that makes the token hostile;
    a policy without that part may accept it. Only the controls have no `risk`.
    """

    name: str
    description: str
    fault: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    expected: str = REFUSED
    probe: str = ""
    binds: str = ""

    @property
    def risk(self) -> Risk | None:
        """Who can make the token, how severe an acceptance is, and the remedy; None for a control."""
        return RISKS.get(self.name)


@dataclass(frozen=True)
class Result:
    """The verifier's reaction. `status` is 0 if there was no response; `seconds` is the duration.

    `measured` is the finding of a probe: the accepted leeway in seconds, or the number of requests for keys.
    """

    attack: Attack
    verdict: str
    status: int
    note: str
    seconds: float
    measured: int | None = None

    @property
    def is_as_expected(self) -> bool:
        """Whether the verdict is the expected one; a token that cannot be sent counts as harmless."""
        return self.verdict in {self.attack.expected, UNSENDABLE}


def verdict_of(status: int) -> str:
    """Return the verdict for a status. A server error is not a refusal: the hostile token reached a bug."""
    if 200 <= status <= 299:
        return ACCEPTED
    if status in _LATER:
        return LIMITED
    return REFUSED if 400 <= status <= 499 else BROKEN


CONTROL: Final = Attack("control", "a valid token", expected=ACCEPTED)
LAST_CONTROL: Final = Attack("control-again", "a valid token after all the hostile ones", expected=ACCEPTED)


def faults() -> Iterator[Attack]:
    """Return an attack for each fault of the catalogue."""
    return (
        Attack(name, fault.description, name, binds="repository" if name in _OF_THE_REPOSITORY else "")
        for name, fault in TOKEN_FAULTS.items()
    )


def probes() -> Iterator[Attack]:
    """Yield the attacks that need more than one token, or the mock's log."""
    for name, description in (
        (REPLAY, "a token that has already been accepted"),
        ("leeway-of-expiry", "a token that expired five minutes ago or earlier"),
        ("leeway-of-not-before", "a token that is not valid for another five minutes or more"),
        ("leeway-of-issued-at", "a token issued five minutes or more in the future"),
        ("keys-answer-503", "a forged token while the key set responds with 503"),
        ("keys-reset", "a forged token while connections to the key set break"),
        ("keys-garbage", "a forged token while the key set is not JSON"),
        ("keys-empty", "a forged token while the key set has no key"),
        ("fetch-for-each-token", "makes the verifier fetch keys with each token under a known kid"),
        ("fetch-for-each-unknown-kid", "makes the verifier fetch keys with each made-up kid"),
        ("own-url-followed", "makes the verifier fetch a key from the URL in a forged `jku` or `x5u`"),
    ):
        yield Attack(name, description, probe=name)
