"""The attack pack: which tokens a verifier of GitHub's has to refuse, and how it is judged. Pure.

A control comes first, so that a refusal means something; it comes again at the end, so that a verifier which refuses
everything after a while is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.job import REF_OF_EVENT, Job, stable_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
LIMITED: Final = "limited"
BROKEN: Final = "broken"
UNSENDABLE: Final = "unsendable"
NOT_SENT: Final = "not sent"
# Statuses that say "later", not "no".
_LATER: Final = (408, 425, 429)


@dataclass(frozen=True)
class Attack:
    """One token, or one token sent twice: how it is made, and what a verifier has to do with it.

    `fault` is a name of the catalogue, `changes` are options of the job that replace the control's.
    """

    name: str
    description: str
    fault: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    expected: str = REFUSED
    replayed: bool = False


@dataclass(frozen=True)
class Result:
    """What the verifier did; `status` is 0 if it gave no response. Duration in seconds."""

    attack: Attack
    verdict: str
    status: int
    note: str
    seconds: float

    @property
    def is_as_expected(self) -> bool:
        """Whether the verdict is the expected one; a token that cannot be sent is harmless."""
        return self.verdict in {self.attack.expected, UNSENDABLE}

    def as_json(self) -> dict[str, Any]:
        """The result for the report."""
        return {
            "name": self.attack.name,
            "story": self.attack.description,
            "expected": self.attack.expected,
            "verdict": self.verdict,
            "status": self.status or None,
            "note": self.note,
            "seconds": round(self.seconds, 3),
            "asExpected": self.is_as_expected,
        }


def verdict_of(status: int) -> str:
    """What a status says about the token. A server error is not a refusal: a hostile token got through to a bug."""
    if 200 <= status <= 299:
        return ACCEPTED
    if status in _LATER:
        return LIMITED
    return REFUSED if 400 <= status <= 499 else BROKEN


CONTROL: Final = Attack("control", "a right token", expected=ACCEPTED)
LAST_CONTROL: Final = Attack("control-again", "a right token after all the wrong ones", expected=ACCEPTED)
FOLLOWED: Final = Attack("own-url-followed", "asked the URL in a forged `jku` or `x5u` for a key")


def catalogue(options: Mapping[str, Any]) -> tuple[Attack, ...]:
    """Every attack on a verifier that accepts a job with these options (fields of `Job`), the controls included."""
    faults = (Attack(name, fault.description, name) for name, fault in TOKEN_FAULTS.items())
    replay = Attack("replay", "the very token that was accepted a moment ago", replayed=True)
    return (CONTROL, *_identities(options), *faults, replay, LAST_CONTROL)


def _identities(options: Mapping[str, Any]) -> Iterator[Attack]:
    """Genuine tokens of another job: of another repository, event, ref or environment."""
    job = Job(**options)
    other_ids = {"repository_id": "", "repository_owner_id": ""}
    for name, repository, description in (
        (
            "look-alike-repository",
            f"{job.repository}-evil",
            "a repository whose name begins with the right one",
        ),
        ("look-alike-owner", f"{job.owner}-evil/{job.name}", "an owner whose name begins with the right one"),
        ("namesake", f"octo-evil/{job.name}", "the right repository name of another owner"),
    ):
        yield Attack(name, description, changes={"repository": repository, **other_ids})
    recycled = {name: stable_id(f"recycled {job.repository} {name}") for name in other_ids}
    yield Attack(
        "recycled-name", "the right name after it was given up and taken by another owner", changes=recycled
    )
    for event in ("pull_request", "pull_request_target"):
        if job.event != event:
            on_pull_request = {"event": event, "ref": REF_OF_EVENT, "environment": ""}
            yield Attack(event.replace("_", "-"), f"a job of the event {event}", changes=on_pull_request)
    yield from _refs(job)
    if job.environment:
        yield Attack("no-environment", "a job without the environment", changes={"environment": ""})
        other = {"environment": f"{job.environment}-evil"}
        yield Attack(
            "other-environment", "an environment whose name begins with the right one", changes=other
        )


def _refs(job: Job) -> Iterator[Attack]:
    if not job.ref.startswith("refs/heads/") or job.event.startswith("pull_request"):
        return
    for name, ref, description in (
        ("other-branch", "refs/heads/evil", "another branch"),
        ("look-alike-branch", f"{job.ref}-evil", "a branch whose name begins with the right one"),
        ("tag-named-as-branch", job.ref.replace("heads", "tags", 1), "a tag with the name of the branch"),
    ):
        yield Attack(name, f"{description}, where the policy names the branch", changes={"ref": ref})
