"""The syntax of a policy's fields."""

import pytest

from sentryagent_idp.domain import policy_syntax

BRANCHES = [
    ("main", None),
    ("feature/login-2", None),
    ("release/*", None),
    ("**", None),
    ("a*b/**", None),
    ("\u00fcber", None),
    ("\U0001f469\u200d\U0001f4bb", None),
    ("-x", None),
    ("x" * 255, None),
    # The rules of git help check-ref-format.
    ("x" * 256, "longer than 255 bytes"),
    ("\u00fc" * 128, "longer than 255 bytes"),
    ("", "must not be empty"),
    ("a b", "git does not allow this branch name"),
    ("a~1", "git does not allow this branch name"),
    ("a^", "git does not allow this branch name"),
    ("a:b", "git does not allow this branch name"),
    ("a?", "git does not allow this branch name"),
    ("a[b]", "git does not allow this branch name"),
    ("a\\b", "git does not allow this branch name"),
    ("a..b", "git does not allow this branch name"),
    ("a@{b", "git does not allow this branch name"),
    ("a//b", "git does not allow this branch name"),
    ("/a", "git does not allow this branch name"),
    ("a/", "git does not allow this branch name"),
    ("a.", "git does not allow this branch name"),
    (".a", "git does not allow this branch name"),
    ("a/.b", "git does not allow this branch name"),
    ("a.lock", "git does not allow this branch name"),
    ("a.lock/b", "git does not allow this branch name"),
    # A prefix is the most common mistake, so the message says what to write.
    ("refs/heads/main", "write the branch without refs/heads/, such as main"),
    ("refs/heads/", "write the branch without refs/heads/, such as main"),
    ("refs/tags/v1", "tags in `tag`"),
    ("refs/pull/1/merge", "pull requests in `events`"),
    # B22
    ("main\n", "control characters"),
    ("ma\x00in", "control characters"),
    ("ma\x85in", "control characters"),
    ("ma\u202ein", "direction"),
    ("ma\u2028in", "control characters"),
    ("ma\ud800in", "control characters"),
]


@pytest.mark.parametrize(("name", "fault"), BRANCHES)
def test_branch(name, fault):
    """A branch is a valid git branch name, with optional wildcards; the message says what to write instead."""
    found = policy_syntax.branch(name)
    assert (found is None) if fault is None else (fault in found)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("v1.2", None),
        ("v*", None),
        ("refs/tags/v1", "write the tag without refs/tags/, such as v1"),
        ("refs/heads/main", "branches belong in `branch`"),
        ("v 1", "git does not allow this tag name"),
    ],
)
def test_tag(name, fault):
    """A tag follows the same rules with its own prefix."""
    found = policy_syntax.tag(name)
    assert (found is None) if fault is None else (fault in found)


def test_branch_and_tag_exclude_each_other():
    """A run is on a branch or a tag, so a policy with both would never match."""
    assert policy_syntax.branch_and_tag("main", None) is None
    assert policy_syntax.branch_and_tag(None, "v1") is None
    assert "two policies" in policy_syntax.branch_and_tag("main", "v1")


PULL_REQUEST, REVIEW, COMMENT = "pull_request", "pull_request_review", "pull_request_review_comment"


@pytest.mark.parametrize(
    ("events", "names_ref", "fault"),
    [
        (None, False, None),
        (None, True, None),
        (["push"], True, None),
        ([PULL_REQUEST], False, None),
        ([PULL_REQUEST, REVIEW, COMMENT], False, None),
        ([PULL_REQUEST, "push"], True, None),
        (["pull_request_target"], True, None),
        ([REVIEW], False, f"a run of {REVIEW} has the ref"),
        ([COMMENT, "push"], False, f"a run of {COMMENT} has the ref"),
        ([REVIEW, "push"], True, f"a run of {REVIEW} has the ref"),
        ([PULL_REQUEST], True, "on no branch or tag"),
        ([PULL_REQUEST, REVIEW], True, "on no branch or tag"),
    ],
)
def test_events_that_no_run_of_the_policy_has(events, names_ref, fault):
    """A policy whose events can never have its ref is refused."""
    found = policy_syntax.unreachable(events, names_ref=names_ref)

    assert (found is None) if fault is None else (fault in found)


@pytest.mark.parametrize(
    ("check", "value", "advice"),
    [
        (policy_syntax.repository, "acme/api.git", "remove .git"),
        (policy_syntax.environment, "prod ", "begins or ends with a space"),
        (
            policy_syntax.environment,
            "pr-*",
            "wildcards are not supported here; write a policy for each environment",
        ),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@v1", "the full ref (refs/heads/"),
        (
            policy_syntax.called_workflow,
            "acme/api/.github/workflows/d.yml@refs/tags/v*",
            "wildcards are not supported here",
        ),
        (policy_syntax.event, "workflow_call", "the event of its caller"),
        (policy_syntax.event, "merge_queue", "the event merge_group"),
        (policy_syntax.event, "workflow_dispach", "did you mean workflow_dispatch?"),
        (policy_syntax.event, "pull_request_comment", "did you mean pull_request_review_comment?"),
        (policy_syntax.workflow, "*.yml", "wildcards are not supported here"),
        (policy_syntax.repository, "acme/api.GIT", "remove .git"),
    ],
)
def test_what_can_never_match_is_told_with_its_remedy(check, value, advice):
    """A value that can never match is refused when the policy is written, with advice."""
    assert advice in check(value)


@pytest.mark.parametrize(
    ("check", "value", "is_accepted"),
    [
        (policy_syntax.repository, "acme/api", True),
        (policy_syntax.repository, "octocat_acme/api", True),
        (policy_syntax.repository, "_acme/api", False),
        (policy_syntax.repository, "acme/*", False),
        (policy_syntax.repository, "acme", False),
        (policy_syntax.environment, "Production: EU west", True),
        (policy_syntax.environment, "", False),
        (policy_syntax.environment, "a\tb", False),
        (policy_syntax.environment, "x" * 256, False),
        (policy_syntax.workflow, "deploy.yml", True),
        (policy_syntax.workflow, "deploy.yaml", True),
        (policy_syntax.workflow, ".github/workflows/deploy.yml", False),
        (policy_syntax.workflow, "deploy", False),
        (policy_syntax.workflow, ".yml", False),
        (policy_syntax.workflow, "deploy.yml\n", False),
        (policy_syntax.workflow, "", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/heads/main", True),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d@e.yml@refs/tags/v@1", True),
        (policy_syntax.called_workflow, f"acme/api/.github/workflows/d.yml@{'a' * 40}", True),
        (policy_syntax.called_workflow, "mona_acme/api/.github/workflows/d.yml@refs/heads/main", True),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d@refs/heads/main", False),
        (policy_syntax.called_workflow, "d.yml@refs/heads/main", False),
        (policy_syntax.called_workflow, "acme/*/.github/workflows/d.yml@refs/heads/main", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/heads/\u202emain", False),
        (policy_syntax.called_workflow, f"acme/api/.github/workflows/d.yml@{'@' * 16_000}", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@v1", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@main", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@abcdef1", False),
        (policy_syntax.called_workflow, f"acme/api/.github/workflows/d.yml@{'A' * 40}", False),
        (policy_syntax.called_workflow, f"acme/api/.github/workflows/d.yml@{'a' * 64}", True),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/pull/7/merge", True),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/notes/x", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/tags/v1*", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@*", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d*.yml@refs/tags/v1", False),
        (policy_syntax.called_workflow, "acme/api/.github/workflows/d.yml@refs/tags/v1 ", False),
        (policy_syntax.called_workflow, " acme/api/.github/workflows/d.yml@refs/tags/v1", False),
        (policy_syntax.repository, "acme/api.git", False),
        (policy_syntax.repository, "acme/api.github", True),
        (policy_syntax.environment, "prod ", False),
        (policy_syntax.environment, "\u00a0prod", False),
        (policy_syntax.environment, "pr-*", False),
        (policy_syntax.workflow, " deploy.yml", False),
        (policy_syntax.workflow, "deploy.yml ", False),
        (policy_syntax.event, "merge_group", True),
        (policy_syntax.event, "a_new_event", True),
        (policy_syntax.event, "workflow_job", True),
        (policy_syntax.event, "issues", True),
        (policy_syntax.event, "issue", False),
        (policy_syntax.event, "workflow_call", False),
        (policy_syntax.event, "merge_queue", False),
        (policy_syntax.event, "workflow_dispatch", True),
        (policy_syntax.event, "Push", False),
        (policy_syntax.event, "push\n", False),
        (policy_syntax.event, "*", False),
        (policy_syntax.event, "", False),
        (policy_syntax.flag, True, True),
        (policy_syntax.flag, False, False),
        (policy_syntax.flag, 1, False),
        (policy_syntax.flag, "true", False),
        (policy_syntax.numeric_id, "583231", True),
        (policy_syntax.numeric_id, "octocat", False),
        (policy_syntax.numeric_id, "0583231", False),
        (policy_syntax.numeric_id, "0", False),
        (policy_syntax.numeric_id, "1\n", False),
        (policy_syntax.numeric_id, "\u0661", False),
        (policy_syntax.numeric_id, "", False),
        (policy_syntax.numeric_id, "1" * 21, False),
    ],
)
def test_members(check, value, is_accepted):
    """Each field accepts the values that GitHub can have, and refuses others with a reason."""
    fault = check(value)
    assert (fault is None) is is_accepted
    assert fault is None or (fault[0].islower() and not fault.endswith("."))
