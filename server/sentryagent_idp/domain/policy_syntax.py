"""Validation of a policy's fields: each check returns the problem, a sentence without its full stop, or `None`.

A condition that can never match is refused when it is written, not discovered at the first failing run.
"""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from sentryagent_idp.domain.identity import is_repository, is_workflow_file
from sentryagent_idp.domain.text import has_bidi, has_unprintable
from sentryagent_idp.errors import choice_reason

MAX_NAME_BYTES = 255
"""The longest name of a branch, tag, environment or workflow file that GitHub and its file systems allow."""

_MAX_REFERENCE_LENGTH = 1024
"""The maximum length of a `job_workflow_ref`; the longest repository, file and ref have about 700 characters."""

_WRONG_EVENTS = {
    "workflow_call": "a called workflow has the event of its caller: list that one, and name the called file in `calledWorkflow`",
    "merge_queue": "a run of the merge queue has the event merge_group",
    "pullrequest": "this event is called pull_request",
    "pull_requests": "this event is called pull_request",
    "merge_request": "this event is called pull_request",
    "manual": "a run that a person starts has the event workflow_dispatch",
    "dispatch": "this event is called workflow_dispatch or repository_dispatch",
    "cron": "this event is called schedule",
    "scheduled": "this event is called schedule",
    "tag": "a run for a pushed tag has the event push: list that one, and name the tag in `tag`",
    "commit": "this event is called push",
}
"""Names that people mistake for events, and advice."""

# Source: GitHub's page "Events that trigger workflows"; `dynamic` starts GitHub's own workflows.
_EVENTS = (
    "branch_protection_rule", "check_run", "check_suite", "create", "delete", "deployment", "deployment_status",
    "discussion", "discussion_comment", "dynamic", "fork", "gollum", "image_version", "issue_comment", "issues",
    "label", "merge_group", "milestone", "page_build", "project", "project_card", "project_column", "public",
    "pull_request", "pull_request_review", "pull_request_review_comment", "pull_request_target", "push",
    "registry_package", "release", "repository_dispatch", "schedule", "status", "watch", "workflow_dispatch",
    "workflow_run",
)  # fmt: skip
_MISSPELT = 0.85
"""The similarity to an event from which a name is its misspelling; any other name may be an event that GitHub adds."""

_OF_PULL_REQUEST = frozenset({"pull_request", "pull_request_review", "pull_request_review_comment"})
"""Events whose runs have a ref under refs/pull/, which a policy covers only if it lists pull_request."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PULL_REQUEST_REF = re.compile(r"refs/pull/[0-9]+/(?:head|merge)")
_FORBIDDEN_IN_REF = re.compile(r"[ ~^:?\[\\]|\.\.|@\{|//|^/|/$|\.$")
_FORBIDDEN_COMPONENT = re.compile(r"(?:\A|/)\.|\.lock(?:\Z|/)")


def _rule(is_valid: Callable[[Any], object], problem: str) -> Callable[[Any], str | None]:
    return lambda value: None if is_valid(value) else problem


def one_of(*words: str) -> Callable[[str], str | None]:
    """Return a check that a value is one of these words."""
    return _rule(words.__contains__, choice_reason(words))


_repository = _rule(is_repository, "it must be one repository as owner/repo, in ASCII and without wildcards")
_event = _rule(
    re.compile(r"[a-z_]+").fullmatch,
    "it must be the name of an event as workflows write it, such as workflow_dispatch",
)


def repository(name: str) -> str | None:
    """Check a repository's name."""
    if name.lower().endswith(".git"):
        return "remove .git, which belongs to the clone URL and not to the repository's name"
    return _repository(name)


def event(name: str) -> str | None:
    """Check an event's name."""
    return _event(name) or _WRONG_EVENTS.get(name) or _misspelt_event(name)


def _misspelt_event(name: str) -> str | None:
    if name in _EVENTS:
        return None
    nearest = get_close_matches(name, _EVENTS, n=1, cutoff=_MISSPELT)
    return f"it is not one of GitHub's events; did you mean {nearest[0]}?" if nearest else None


numeric_id = _rule(
    re.compile(r"[1-9][0-9]{0,19}").fullmatch,
    "it must be GitHub's numeric id, as a string of digits without leading zeros",
)
# `False` might be read as the opposite condition, which does not exist.
flag = _rule(lambda value: value is True, "write true, or leave it out: false would require nothing")


def text(kind: str, value: str) -> str | None:
    """Check a text; `kind` says what it is, such as a branch."""
    if not value:
        return f"it must not be empty; leave it out to allow any {kind}"
    if _is_deceptive(value):
        return "it contains control characters or characters that change the direction of the text"
    if value != value.strip():
        return "it begins or ends with a space; remove the space"
    if len(value.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return None


def _ref_name(kind: str, prefix: str, name: str) -> str | None:
    """Check the part of a ref after `prefix` by git-check-ref-format(1), but allow `*`, which is our wildcard."""
    if (problem := text(kind, name)) is not None:
        return problem
    if name.startswith(prefix):
        return f"write the {kind} without {prefix}, such as {name.removeprefix(prefix) or 'main'}"
    if name.startswith("refs/"):
        return "it must not start with refs/; branches belong in `branch`, tags in `tag`, pull requests in `events`"
    if _FORBIDDEN_IN_REF.search(name) or _FORBIDDEN_COMPONENT.search(name):
        return f"git does not allow this {kind} name (git help check-ref-format); the only wildcards are * and **"
    return None


branch = partial(_ref_name, "branch", "refs/heads/")
tag = partial(_ref_name, "tag", "refs/tags/")


def environment(name: str) -> str | None:
    """Check an environment's name."""
    if "*" in name:
        return "wildcards are not supported here; write a policy for each environment"
    return text("environment", name)


def unreachable(events: Sequence[str] | None, *, names_ref: bool) -> str | None:
    """Check for events that no run allowed by the policy can have; `names_ref` if the policy has `branch` or `tag`."""
    of_pull_request = _OF_PULL_REQUEST.intersection(events or ())
    if of_pull_request and "pull_request" not in of_pull_request:
        return (
            f"a run of {min(of_pull_request)} has the ref of a pull request, which a policy covers only if `events` "
            "lists pull_request too"
        )
    if of_pull_request and names_ref and of_pull_request == set(events or ()):
        return "a pull request run is on no branch or tag; leave `branch` and `tag` out, or list other events"
    return None


def branch_and_tag(branch_name: str | None, tag_name: str | None) -> str | None:
    """Check that a policy does not have both a branch and a tag."""
    if branch_name is None or tag_name is None:
        return None
    return "a run is on a branch or on a tag, never on both; write two policies"


def workflow(name: str) -> str | None:
    """Check the file name of the workflow that is started, which may call another one."""
    if (problem := text("workflow", name)) is not None:
        return problem
    if "*" in name:
        return "wildcards are not supported here; write a policy for each workflow"
    if is_workflow_file(name):
        return None
    return "it must be only the file's name under .github/workflows/, such as deploy.yml"


def _is_workflow_reference(reference: str) -> bool:
    name, _, rest = reference.partition("/.github/workflows/")
    # File and ref may both contain `@`, so each is tried as the separator.
    cuts = [index for index, character in enumerate(rest) if character == "@"]
    has_file_and_ref = any(is_workflow_file(rest[:cut]) and _is_revision(rest[cut + 1 :]) for cut in cuts)
    return is_repository(name) and has_file_and_ref and not _is_deceptive(reference)


def _is_revision(text: str) -> bool:
    """Whether the text is a full ref or a commit id, as at the end of the claim `job_workflow_ref`."""
    names = {"refs/heads/": branch, "refs/tags/": tag}
    for prefix, problem in names.items():
        if text.startswith(prefix):
            return problem(text.removeprefix(prefix)) is None
    return bool(_COMMIT.fullmatch(text) or _PULL_REQUEST_REF.fullmatch(text))


_called_workflow = _rule(
    # The length first, because the other check takes time quadratic in it.
    lambda reference: len(reference) <= _MAX_REFERENCE_LENGTH and _is_workflow_reference(reference),
    "it must be the whole claim job_workflow_ref, with the full ref (refs/heads/…, refs/tags/…) or the commit id "
    "after `@`, such as octo-org/automation/.github/workflows/deploy.yml@refs/heads/main",
)


def called_workflow(reference: str) -> str | None:
    """Check the reference to a called workflow."""
    if "*" in reference:
        return "wildcards are not supported here; write the whole claim job_workflow_ref"
    return _called_workflow(reference)


def _is_deceptive(text: str) -> bool:
    return has_unprintable(text) or has_bidi(text)
