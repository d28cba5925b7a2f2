import json

import pytest

from mock_idp.job import JOB_FIELDS, Job, read_job
from mock_idp.strict_fields import InvalidFieldError


@pytest.mark.parametrize(
    ("options", "ref", "head_ref", "base_ref", "ref_type", "ref_name"),
    [
        ({}, "refs/heads/main", "", "", "branch", "main"),
        ({"ref": "feature/x"}, "refs/heads/feature/x", "", "", "branch", "feature/x"),
        ({"ref": "refs/tags/v1"}, "refs/tags/v1", "", "", "tag", "v1"),
        ({"ref": "refs/team/x"}, "refs/team/x", "", "", "branch", "refs/team/x"),
        ({"ref": "heads/tag/a.b-c@d"}, "refs/heads/heads/tag/a.b-c@d", "", "", "branch", "heads/tag/a.b-c@d"),
        ({"ref": "refs/heads/head/x"}, "refs/heads/head/x", "", "", "branch", "head/x"),
        ({"ref": "refs/pull/7/merge", "event": "deployment"}, "refs/pull/7/merge", "", "", "branch", "7/merge"),
        ({"ref": "", "event": "deployment"}, "", "", "", "branch", ""),
        ({"event": "release"}, "refs/tags/v1.0.0", "", "", "tag", "v1.0.0"),
        # Pull requests run on their merge commit; a given branch is the head.
        ({"event": "pull_request"}, "refs/pull/1/merge", "feature", "main", "branch", "1/merge"),
        ({"event": "pull_request", "ref": "x"}, "refs/pull/1/merge", "x", "main", "branch", "1/merge"),
        (
            {"event": "pull_request", "ref": "refs/pull/7/merge"},
            "refs/pull/7/merge", "feature", "main", "branch", "7/merge",
        ),
        (
            {"event": "pull_request_review", "pull_request": "7", "base_ref": "next"},
            "refs/pull/7/merge", "feature", "next", "branch", "7/merge",
        ),
        ({"id_token": "fork"}, "refs/pull/1/merge", "feature", "main", "branch", "1/merge"),
        # pull_request_target runs on the base branch.
        ({"event": "pull_request_target", "ref": "next"}, "refs/heads/next", "feature", "next", "branch", "next"),
    ],
)  # fmt: skip
def test_ref_and_branches_follow_from_event_and_ref(options, ref, head_ref, base_ref, ref_type, ref_name):
    """The event decides how the given ref is used."""
    job = Job(**options)

    assert (job.ref, job.head_ref, job.base_ref) == (ref, head_ref, base_ref)
    assert (job.ref_type, job.ref_name) == (ref_type, ref_name)


def test_ids_follow_from_names_without_case():
    """Ids depend on the repository's name, in any case."""
    one, two, other = Job(), Job(repository="Octo-Org/Hello-Agent"), Job(repository="octo-org/other")

    assert (one.repository_id, one.repository_owner_id) == (two.repository_id, two.repository_owner_id)
    assert one.repository_owner_id == other.repository_owner_id
    assert one.repository_id != other.repository_id
    assert one.repository_id.isdecimal()


def test_the_workflow_ref_has_the_commit_where_the_ref_is_empty():
    """A deployment of a commit has no ref, so its workflow ref ends with the commit."""
    job = Job(ref="", event="deployment")

    assert job.workflow_ref == f"octo-org/hello-agent/.github/workflows/ci.yml@{job.sha}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"repository": "hello-agent"}, "repository"),
        ({"repository": "a/b/c"}, "repository"),
        ({"repository": "a b/c"}, "repository"),
        ({"ref": "main branch"}, "ref"),
        ({"ref": "refs/heads/*"}, "ref"),
        ({"ref": "?"}, "ref"),
        ({"ref": "refs/head/main"}, "ref"),
        ({"ref": "refs/tag/v1"}, "ref"),
        ({"ref": "refs/pulls/1/merge"}, "ref"),
        ({"ref": "refs/pull/x/merge"}, "ref"),
        ({"ref": "refs/pull/1"}, "ref"),
        ({"ref": "refs/heads/"}, "ref"),
        ({"ref": "refs/tags"}, "ref"),
        ({"ref": "refs/"}, "ref"),
        ({"ref": "a..b"}, "ref"),
        ({"ref": "refs/heads/a//b"}, "ref"),
        ({"ref": "refs/heads/a.lock"}, "ref"),
        ({"ref": ".a"}, "ref"),
        ({"ref": "a/"}, "ref"),
        ({"event": "pull_request", "baseRef": "a..b"}, "baseRef"),
        ({"event": "pull_request", "headRef": "a b"}, "headRef"),
        ({"environment": "a\nb"}, "environment"),
        ({"runAttempt": ""}, "runAttempt"),
        ({"enterprise": "a b"}, "enterprise"),
        ({"event": "Push!"}, "event"),
        ({"event": "pull_reqest"}, "event"),
        ({"event": "tag"}, "event"),
        ({"jobId": "deploy prod"}, "jobId"),
        ({"repositoryProperties": {"Team Name": "a"}}, "repositoryProperties"),
        ({"runId": "9" * 20}, "runId"),
        ({"actor": "a b"}, "actor"),
        ({"workflow": ".github/workflows/ci.yml"}, "workflow"),
        ({"workflow": "ci"}, "workflow"),
        ({"calledWorkflow": "deploy.yml"}, "calledWorkflow"),
        ({"calledWorkflowSha": "a" * 40}, "calledWorkflowSha"),
        ({"enterpriseId": "1"}, "enterpriseId"),
        ({"sha": "abc"}, "sha"),
        ({"repositoryId": "x"}, "repositoryId"),
        ({"repositoryId": 1}, "repositoryId"),
        ({"visibility": "secret"}, "visibility"),
        ({"runnerEnvironment": "laptop"}, "runnerEnvironment"),
        ({"idToken": "read"}, "idToken"),
        ({"idToken": "fork", "event": "push"}, "idToken"),
        ({"pullRequest": "1"}, "pullRequest"),
        ({"headRef": "x"}, "headRef"),
        ({"event": "pull_request", "ref": "refs/tags/v1"}, "ref"),
        ({"event": "pull_request", "ref": "refs/pull/1/merge", "pullRequest": "2"}, "pullRequest"),
        ({"event": "pull_request_target", "ref": "refs/pull/1/merge"}, "ref"),
        ({"includeClaimKeys": ["colour"]}, "includeClaimKeys"),
        ({"includeClaimKeys": ["environment"]}, "environment"),
        ({"refProtected": "true"}, "refProtected"),
        ({"repositoryProperties": {"a": 1}}, "repositoryProperties"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_github_could_not_have_is_refused(body, field):
    """A value that GitHub's jobs cannot have is refused with the name of its field."""
    with pytest.raises(InvalidFieldError) as caught:
        read_job(body)

    assert caught.value.field == field


def test_every_field_can_be_given_as_a_member():
    """The JSON fields are those of Job in camelCase, with arrays for tuples."""
    body = {
        "repository": "Octo/Agent",
        "immutableSub": True,
        "includeClaimKeys": ["repo", "context"],
        "repositoryProperties": {"team": "blue"},
    }

    job = read_job(body)

    assert body.keys() <= JOB_FIELDS.keys()
    assert job == Job(
        repository="Octo/Agent",
        immutable_sub=True,
        include_claim_keys=("repo", "context"),
        repository_properties={"team": "blue"},
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ref": ""},
        {"ref": "refs/tags/v1", "event": "release", "ref_protected": True},
        {"event": "pull_request", "ref": "topic", "pull_request": "7"},
        {"event": "pull_request_target", "base_ref": "next"},
        {"id_token": "fork"},
        {"called_workflow": "o/r/.github/workflows/x.yml@v1", "called_workflow_sha": "a" * 40},
        {
            "environment": "Production:V1",
            "include_claim_keys": ("repo", "environment"),
            "immutable_sub": True,
        },
        {"enterprise": "octo", "repository_properties": {"team": "a"}, "visibility": "internal"},
    ],
)
def test_a_job_survives_the_way_over_http(options):
    """The JSON form of a job is read back as an equal job."""
    job = Job(**options)

    assert read_job(json.loads(json.dumps(job.as_json()))) == job
