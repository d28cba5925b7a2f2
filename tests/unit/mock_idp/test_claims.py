import base64
import json
import re
import uuid
from pathlib import Path

import pytest

import mock_idp
from kit.processes import ROOT
from mock_idp.claims import (
    default_audience,
    discovery_document,
    id_token_claims,
    is_audience_issuable,
    job_claims,
    server_url,
)
from mock_idp.job import CLAIMS_SUPPORTED, Job
from mock_idp.strict_fields import InvalidFieldError

VECTORS = ROOT / "tests" / "vectors"
GITHUB = "https://token.actions.githubusercontent.com"
REAL_TOKENS = json.loads((VECTORS / "github_tokens.json").read_text())["tokens"]
ALWAYS_PRESENT = {
    "actor", "actor_id", "aud", "base_ref", "check_run_id", "event_name", "exp", "head_ref", "iat", "iss",
    "job_workflow_ref", "job_workflow_sha", "jti", "nbf", "ref", "ref_protected", "ref_type", "repository",
    "repository_id", "repository_owner", "repository_owner_id", "repository_visibility", "run_attempt", "run_id",
    "run_number", "runner_environment", "sha", "sub", "workflow", "workflow_ref", "workflow_sha",
}  # fmt: skip


def _claims(**options):
    return id_token_claims(Job(**options), issuer=GITHUB, audience=None, now=1000, jti="j")


def _job_of(real):
    """The job that GitHub ran, as its author described it."""
    called = real["claims"]["job_workflow_ref"]
    return Job(
        repository="octo-probe/oidc-claims-probe",
        repository_id="1400000001",
        repository_owner_id="40000001",
        visibility="private",
        immutable_sub=True,
        event="workflow_dispatch",
        ref="refs/heads/main",
        sha="f0ce60ef4523c1cb6e67b77d831a1b264a54afa5",
        environment=real["environment"] or "",
        actor="octo-probe",
        actor_id="40000001",
        workflow="dump-claims.yml",
        workflow_name="dump-claims",
        called_workflow=called if "reusable" in called else "",
        called_workflow_sha="f0ce60ef4523c1cb6e67b77d831a1b264a54afa5" if "reusable" in called else "",
        run_id="30000000043",
        check_run_id=real["claims"]["check_run_id"],
    )


@pytest.mark.parametrize("real", REAL_TOKENS, ids=lambda real: real["job"])
def test_a_real_token_is_minted_claim_by_claim(real, issuer):
    """Four real tokens are reproduced with names, order, types and values of the claims; random values in form only."""
    seen = real["claims"]
    job = _job_of(real)

    payload = id_token_claims(job, issuer=GITHUB, audience=seen["aud"], now=seen["iat"], jti=seen["jti"])

    node = seen.get("environment_node_id")
    if node:
        assert re.fullmatch(r"EN_kwDO[A-Za-z0-9_-]{16,20}", node)
        assert re.fullmatch(r"EN_kwDO[A-Za-z0-9_-]{16,20}", payload["environment_node_id"])
    assert payload | ({"environment_node_id": node} if node else {}) == seen
    minted = issuer.mint(job).split(".")[1]
    assert list(json.loads(base64.urlsafe_b64decode(minted + "=="))) == list(seen)
    assert uuid.UUID(seen["jti"]).version == 4


def test_two_environments_can_share_one_sub():
    """An escaped colon makes two `sub` values equal; `environment` tells them apart."""
    twins = [_claims(environment=name) for name in ("Production:V1", "Production%3AV1")]

    assert len({it["sub"] for it in twins}) == 1
    assert len({it["environment"] for it in twins}) == 2
    assert len({it["environment_node_id"] for it in twins}) == 2


def test_the_node_id_of_an_environment_is_packed_as_github_packs_it():
    """`EN_` and a MessagePack array of 0, the repository's id and the environment's; ids beyond 32 bits work too."""
    packed = [
        base64.urlsafe_b64decode(
            _claims(environment="e", repository_id=number)["environment_node_id"].removeprefix("EN_") + "=="
        )
        for number in ("5", str(1 << 40))
    ]

    assert packed[0][:8] == b"\x93\x00\xce\x00\x00\x00\x05\xcf"
    assert packed[1][:12] == b"\x93\x00\xcf\x00\x00\x01\x00\x00\x00\x00\x00\xcf"


@pytest.mark.parametrize(
    ("issuer", "enterprise"),
    [
        (f"{GITHUB}/octo-enterprise", "octo-enterprise"),
        ("http://127.0.0.1:3001/my-ent", "my-ent"),
        ("https://token.actions.octocorp.ghe.com/octocorp", "octocorp"),
        (GITHUB, None),
        ("https://token.actions.octocorp.ghe.com", None),
        ("https://ghes.example.com/_services/token", None),
    ],
)
def test_an_enterprises_own_issuer_names_it(issuer, enterprise):
    """An enterprise issuer's path is the slug, and its tokens have the enterprise claims."""
    claims = job_claims(Job(), issuer)

    assert claims.get("enterprise") == enterprise
    assert ("enterprise_id" in claims) is (enterprise is not None)
    assert job_claims(Job(enterprise="given", enterprise_id="7"), issuer)["enterprise_id"] == "7"


def test_ghes_has_no_sub_with_ids():
    """GHES issues no `sub` with ids, so the mock refuses such a job."""
    ghes = "https://ghes.example.com/_services/token"

    with pytest.raises(InvalidFieldError, match="`immutableSub` is not available on GHES"):
        job_claims(Job(immutable_sub=True), ghes)
    assert job_claims(Job(), ghes)["sub"] == "repo:octo-org/hello-agent:ref:refs/heads/main"


def test_a_plain_job_has_exactly_the_claims_that_are_always_there():
    """A plain job has all unconditional claims and no others."""
    assert _claims().keys() == ALWAYS_PRESENT


def test_every_claim_but_the_times_is_a_string():
    """As on GitHub, ids, numbers and booleans are strings, and only times are integers."""
    claims = _claims(environment="production", enterprise="octo", repository_properties={"team": "blue"})

    assert {name for name, value in claims.items() if not isinstance(value, str)} == {"exp", "iat", "nbf"}


def test_times_are_githubs():
    """A token lives for five minutes, and `nbf` is five minutes before `iat`."""
    claims = _claims()

    assert (claims["nbf"], claims["iat"], claims["exp"]) == (700, 1000, 1300)


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({}, "ref:refs/heads/main"),
        ({"ref": "refs/tags/v1"}, "ref:refs/tags/v1"),
        ({"event": "pull_request"}, "pull_request"),
        ({"event": "pull_request_target"}, "ref:refs/heads/main"),
        ({"environment": "production"}, "environment:production"),
        ({"environment": "Production:V1"}, "environment:Production%3AV1"),
        ({"environment": "a/b"}, "environment:a/b"),
        # The environment takes precedence, even on pull requests.
        ({"environment": "production", "event": "pull_request"}, "environment:production"),
        # A reusable workflow does not change the subject.
        ({"called_workflow": "octo-org/ci/.github/workflows/deploy.yml@refs/tags/v1"}, "ref:refs/heads/main"),
    ],
)
def test_both_forms_of_sub_have_the_same_context(options, context):
    """Both forms have the same context; the immutable one adds both ids to the repository's name."""
    classic, immutable = _claims(**options)["sub"], _claims(immutable_sub=True, **options)["sub"]

    job = Job()
    assert classic == f"repo:octo-org/hello-agent:{context}"
    owner, repository = f"octo-org@{job.repository_owner_id}", f"hello-agent@{job.repository_id}"
    assert immutable == f"repo:{owner}/{repository}:{context}"


@pytest.mark.parametrize(
    ("keys", "sub"),
    [
        (
            ("repository_owner", "repository_visibility"),
            "repository_owner:octo-org:repository_visibility:public",
        ),
        (
            ("repo", "context", "job_workflow_ref"),
            (
                "repo:octo-org/hello-agent:environment:a%3Ab:"
                "job_workflow_ref:octo-org/hello-agent/.github/workflows/ci.yml@refs/heads/main"
            ),
        ),
        (("environment", "repository_owner"), "environment:a%3Ab:repository_owner:octo-org"),
        (("repo_property_team",), "repo_property_team:blue"),
        (("head_ref",), "head_ref:"),
    ],
)
def test_a_custom_template_is_rendered_in_order(keys, sub):
    """Each key of `include_claim_keys` is rendered with its value; `repo` and `context` are parts of the default `sub`."""
    options = {"environment": "a:b", "repository_properties": {"team": "blue"}}

    assert _claims(include_claim_keys=keys, **options)["sub"] == sub


def test_conditional_claims_come_with_their_cause():
    """An environment, an enterprise and custom properties add their claims."""
    claims = job_claims(
        Job(environment="production", enterprise="octo", repository_properties={"team": "blue"})
    )

    assert (claims["environment"], claims["enterprise"], claims["repo_property_team"]) == (
        "production",
        "octo",
        "blue",
    )
    assert claims["environment_node_id"].startswith("EN_")
    assert claims["enterprise_id"].isdecimal()


def test_a_reusable_workflow_shows_in_the_job_workflow_claims_alone():
    """The caller is in `workflow_ref`, the called workflow in `job_workflow_ref`."""
    called = "octo-org/ci/.github/workflows/deploy.yml@refs/tags/v1"
    claims = job_claims(Job(called_workflow=called, called_workflow_sha="a" * 40))

    assert (claims["job_workflow_ref"], claims["job_workflow_sha"]) == (called, "a" * 40)
    assert claims["workflow_ref"] == "octo-org/hello-agent/.github/workflows/ci.yml@refs/heads/main"


def test_an_unnamed_workflow_is_named_by_its_file():
    """`workflow` is the workflow's name, or its path if it has none."""
    assert job_claims(Job())["workflow"] == ".github/workflows/ci.yml"
    assert job_claims(Job(workflow_name="Nightly — all"))["workflow"] == "Nightly — all"


@pytest.mark.parametrize(
    ("issuer", "server"),
    [
        (GITHUB, "https://github.com"),
        (f"{GITHUB}/octo-enterprise", "https://github.com"),
        ("http://127.0.0.1:3001", "https://github.com"),
        ("https://token.actions.octo.ghe.com", "https://octo.ghe.com"),
        ("https://ghes.example.com/_services/token", "https://ghes.example.com"),
    ],
)
def test_the_default_audience_follows_the_server(issuer, server):
    """The default audience is the owner's page on the issuer's server."""
    assert server_url(issuer) == server
    assert default_audience(Job(), issuer) == f"{server}/octo-org"


@pytest.mark.parametrize(
    ("audience", "issued"),
    [
        ("", True),
        ("sts.amazonaws.com", True),
        ("api://AzureADTokenExchange", True),
        ('["a","b"]', True),
        ("x" * 20000, True),
        ("github.com", True),
        ("https://github.com/", True),
        ("https://github.com/octo-org", True),
        ("https://GitHub.com/Octo-Org/", True),
        ("https://notgithub.com/octo-org", True),
        ("https://github.com/octo-org/hello-agent", True),
        ("https://github.com/octo-org/hello-agent/anything/at?all", True),
        ("https://github.com/octo-org/other", False),
        ("https://github.com/octo-org/hello-agent-evil", False),
        ("https://github.com/octo-org//", False),
        ("https://github.com/apps/cyspbot", False),
        ("https://github.com.example.com", False),
        ("https://api.github.com/repos/octo-org/hello-agent", False),
        ("git@github.com:octo-org/hello-agent", False),
        ("https://github.com:443/octo-org", False),
    ],
)
def test_audiences_are_refused_by_githubs_substring_rule(audience, issued):
    """Only the text after the first "github.com" decides."""
    assert is_audience_issuable(audience, Job()) is issued


def test_the_discovery_document_is_githubs():
    """The fields have GitHub's order, and there is no authorization or token endpoint."""
    document = discovery_document(f"{GITHUB}/octo")

    assert list(document) == [
        "issuer",
        "jwks_uri",
        "subject_types_supported",
        "response_types_supported",
        "claims_supported",
        "id_token_signing_alg_values_supported",
        "scopes_supported",
    ]
    assert document["jwks_uri"] == f"{GITHUB}/octo/.well-known/jwks"
    assert set(CLAIMS_SUPPORTED) >= ALWAYS_PRESENT


@pytest.mark.parametrize(
    ("options", "event_name", "ref", "ref_type", "context"),
    [
        ({"event": "push"}, "push", "refs/heads/main", "branch", "ref:refs/heads/main"),
        ({"ref": "refs/tags/v1"}, "push", "refs/tags/v1", "tag", "ref:refs/tags/v1"),
        ({"event": "pull_request"}, "pull_request", "refs/pull/1/merge", "branch", "pull_request"),
        ({"id_token": "fork"}, "pull_request", "refs/pull/1/merge", "branch", "pull_request"),
        (
            {"event": "pull_request_target"},
            "pull_request_target",
            "refs/heads/main",
            "branch",
            "ref:refs/heads/main",
        ),
        (
            {"event": "merge_group"},
            "merge_group",
            "refs/heads/gh-readonly-queue/main/pr-1-0123456789abcdef0123456789abcdef01234567",
            "branch",
            "ref:refs/heads/gh-readonly-queue/main/pr-1-0123456789abcdef0123456789abcdef01234567",
        ),
        ({"event": "schedule"}, "schedule", "refs/heads/main", "branch", "ref:refs/heads/main"),
        (
            {"event": "workflow_dispatch", "ref": "topic"},
            "workflow_dispatch",
            "refs/heads/topic",
            "branch",
            "ref:refs/heads/topic",
        ),
        ({"event": "release"}, "release", "refs/tags/v1.0.0", "tag", "ref:refs/tags/v1.0.0"),
        ({"event": "deployment", "ref": ""}, "deployment", "", "branch", "ref:"),
        (
            {"event": "pull_request", "environment": "a:b"},
            "pull_request",
            "refs/pull/1/merge",
            "branch",
            "environment:a%3Ab",
        ),
    ],
)
def test_each_event_has_its_ref_and_its_subject(options, event_name, ref, ref_type, context):
    """The event determines the ref and the subject."""
    claims = job_claims(Job(**options))

    assert (claims["event_name"], claims["ref"], claims["ref_type"]) == (event_name, ref, ref_type)
    assert claims["sub"] == f"repo:octo-org/hello-agent:{context}"


def test_a_called_workflow_has_its_callers_event():
    """A token never has the event `workflow_call`; the error says to use the caller's."""
    with pytest.raises(InvalidFieldError, match="must be the caller's event"):
        Job(event="workflow_call")


def test_every_claim_is_githubs_and_in_the_manual():
    """The mock's claims are all in the discovery document, and the manual describes each one."""
    everything = Job(environment="e", enterprise="x", called_workflow="o/r/.github/workflows/x.yml@v1")
    manual = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")

    assert job_claims(everything).keys() <= set(CLAIMS_SUPPORTED)
    assert [name for name in CLAIMS_SUPPORTED if f"`{name}`" not in manual] == []
