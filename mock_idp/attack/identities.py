"""Attacks with genuine tokens of another job: another repository, ref, event, environment, workflow or runner. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mock_idp.attack.catalogue import CONTROL, LAST_CONTROL, Attack, faults, probes
from mock_idp.claims import GHES_ISSUER_PATH
from mock_idp.job import REF_OF_EVENT, Job, stable_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

POLICY: Final = ("repository", "ref", "event", "environment", "workflow", "runner", "visibility")
_ALWAYS: Final = ("repository", "ref", "event")
_GIVEN: Final = {
    "environment": ("environment",),
    "workflow": ("workflow", "called_workflow"),
    "runner": ("runner_environment",),
    "visibility": ("visibility",),
}
# Workflows for these events run on the default branch, and outsiders can trigger them.
_DEFAULT_BRANCH_EVENTS: Final = ("pull_request_target", "workflow_run", "issue_comment")


def default_policy(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts that a policy binds by default: repository, ref, event, and those that the options name."""
    named = (part for part, names in _GIVEN.items() if any(options.get(name) for name in names))
    return (*_ALWAYS, *named)


def catalogue(options: Mapping[str, Any], policy: Collection[str] | None = None) -> tuple[Attack, ...]:
    """Return every attack on a verifier that accepts a job with these options (fields of `Job`), controls included.

    `policy` names the parts of the job that the verifier compares. Raises InvalidFieldError for an impossible job.
    """
    bound = default_policy(options) if policy is None else policy
    attacks = (*_identities(Job(**options)), *faults(), *probes())
    return (CONTROL, *(it for it in attacks if not it.binds or it.binds in bound), LAST_CONTROL)


def for_issuer(attacks: Collection[Attack], issuer: str) -> list[Attack]:
    """Return the attacks with jobs that this issuer's kind of GitHub could have: GHES has no `sub` with ids."""
    is_ghes = urlsplit(issuer).path == GHES_ISSUER_PATH
    return [attack for attack in attacks if not (is_ghes and attack.changes.get("immutable_sub"))]


def _identities(job: Job) -> Iterator[Attack]:
    yield from _repositories(job)
    yield from _refs(job)
    yield from _events(job)
    yield from _environments(job)
    yield from _workflows(job)
    other_runner = "self-hosted" if job.runner_environment == "github-hosted" else "github-hosted"
    yield Attack(
        "other-runner",
        f"a {other_runner} runner",
        changes={"runner_environment": other_runner},
        binds="runner",
    )
    visibility = "public" if job.visibility == "private" else "private"
    yield Attack(
        "other-visibility", f"the repository while it was {visibility}", changes={"visibility": visibility}, binds="visibility"
    )  # fmt: skip


def _repositories(job: Job) -> Iterator[Attack]:
    of_name = {"repository_id": "", "repository_owner_id": ""}
    recycled = {name: stable_id(f"recycled {job.repository} {name}") for name in of_name}
    other_form = {"immutable_sub": not job.immutable_sub, "include_claim_keys": ()}
    namesake = {"repository": f"octo-evil/{job.name}", **of_name}
    taken_over = "the right name after it was given up and taken by another owner"
    for name, description, changes in (
        ("look-alike-repository", "a repository whose name begins with the right one", {"repository": f"{job.repository}-evil", **of_name}),
        ("look-alike-owner", "an owner whose name begins with the right one", {"repository": f"{job.owner}-evil/{job.name}", **of_name}),
        ("namesake", "the right repository name under another owner", namesake),
        ("namesake-in-other-sub-form", "the same, with the other form of `sub`", namesake | other_form),
        ("recycled-name", taken_over, recycled),
        ("recycled-name-in-other-sub-form", f"{taken_over}, with the other form of `sub`", recycled | other_form),
    ):  # fmt: skip
        yield Attack(name, description, changes=changes, binds="repository")


def _refs(job: Job) -> Iterator[Attack]:
    if not job.ref.startswith("refs/heads/") or job.event.startswith("pull_request"):
        return
    for name, ref, description in (
        ("other-branch", "refs/heads/evil", "another branch"),
        ("look-alike-branch", f"{job.ref}-evil", "a branch whose name begins with the right one"),
        ("tag-named-as-branch", job.ref.replace("heads", "tags", 1), "a tag with the name of the branch"),
    ):
        yield Attack(name, description, changes={"ref": ref}, binds="ref")


def _events(job: Job) -> Iterator[Attack]:
    pull_request = {"event": "pull_request", "ref": REF_OF_EVENT, "environment": "", "include_claim_keys": ()}
    if job.event != "pull_request":
        yield Attack("pull-request", "a job of the event pull_request", changes=pull_request, binds="event")
    own = {"pull_request": "", "head_ref": "", "base_ref": ""}
    for event in _DEFAULT_BRANCH_EVENTS:
        if job.event != event:
            changes = {"event": event, "ref": REF_OF_EVENT, **own}
            yield Attack(
                event.replace("_", "-"),
                f"a job of the event {event}, which runs on the default branch",
                changes=changes,
                binds="event",
            )


def _environments(job: Job) -> Iterator[Attack]:
    if not job.environment:
        return
    none = {"environment": "", "include_claim_keys": ()}
    yield Attack("no-environment", "a job without the environment", changes=none, binds="environment")
    other = {"environment": f"{job.environment}-evil"}
    yield Attack(
        "other-environment", "an environment whose name begins with the right one", changes=other, binds="environment"
    )  # fmt: skip


def _workflows(job: Job) -> Iterator[Attack]:
    """Yield attacks that change both `workflow_ref` and `job_workflow_ref`, as the policy may compare either."""
    right = (
        job.called_workflow
        or f"{job.repository}/.github/workflows/{job.workflow}@{job.ref or 'refs/heads/main'}"
    )
    repository, _, file_at_ref = right.partition("/.github/workflows/")
    file = file_at_ref.partition("@")[0]
    namesake = f"octo-evil/{repository.partition('/')[2]}"
    for name, description, workflow, called in (
        ("other-workflow", "another workflow file of the repository", "evil.yml", ""),
        ("look-alike-workflow", "a workflow whose file name ends with the right one", f"evil-{file}", ""),
        (
            "workflow-of-another-repository",
            "another workflow, which calls a file of the right name in a repository of the attacker",
            "evil.yml",
            f"{namesake}/.github/workflows/{file_at_ref}",
        ),
        (
            "workflow-on-another-ref",
            "another workflow, which calls the right one as it is on a branch of the attacker",
            "evil.yml",
            f"{repository}/.github/workflows/{file}@refs/heads/evil",
        ),
    ):
        changes = {"workflow": workflow, "called_workflow": called, "called_workflow_sha": ""}
        yield Attack(name, description, changes=changes, binds="workflow")


def chosen(attacks: Collection[Attack], only: Collection[str], skip: Collection[str]) -> list[Attack]:
    """Return the attacks to fire, always with the controls. Raises KeyError for a name that is not in `attacks`."""
    known = {attack.name: attack for attack in attacks}
    for name in (*only, *skip):
        if name not in known:
            raise KeyError(name)
    return [
        attack
        for name, attack in known.items()
        if attack.risk is None or (name not in skip and (not only or name in only))
    ]
