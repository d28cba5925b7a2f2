"""The fields derived from claims: branch, tag and workflow file."""

import pytest

from sentryagent_idp.domain.identity import (
    WorkflowIdentity,
    is_repository,
    is_workflow_file,
    repository_key,
)

WORKFLOW_FILES = [
    # Everything before the ref is the file name, whatever it looks like (A14).
    ("basic.yml", "refs/heads/main"),
    ("basic.yaml", "refs/heads/main"),
    ("with-dash_and.dots..yml", "refs/heads/main"),
    ("at@sign.yml", "refs/heads/main"),
    ("two.yml@names.yml", "refs/heads/main"),
    ("basic.yml", "refs/heads/looks@like.yml"),
    ("basic.yml", "refs/heads/a@b@c.yml"),
    ("x.yml@refs/heads/main.yml".replace("/", "-"), "refs/heads/main"),
    ("deploy me.yml", "refs/tags/v1"),
    ("basic.yml", "refs/pull/6/merge"),
]


@pytest.mark.parametrize(("name", "ref"), WORKFLOW_FILES)
def test_workflow_file(name, ref, make_run):
    """The file name is the part between this repository's workflow folder and this run's ref."""
    run = make_run(ref=ref, workflow_ref=f"acme/api/.github/workflows/{name}@{ref}")
    assert run.workflow_file == name


NO_WORKFLOW_FILES = [
    None,
    "",
    "acme/api/.github/workflows/basic.yml",
    "acme/api/.github/workflows/basic.txt@refs/heads/main",
    "acme/api/.github/workflows/@refs/heads/main",
    "acme/api/.github/workflows/.yml@refs/heads/main",
    "acme/api/.github/workflows/.yaml@refs/heads/main",
    "acme/api/.github/workflows/sub/basic.yml@refs/heads/main",
    "acme/api/.github/workflows/basic.yml@refs/heads/main2",
    "acme/api/.github/workflows/basic.yml@refs/heads/other",
    "acme/api/.github/workflows/basic.yml\n@refs/heads/main",
    "acme/api/basic.yml@refs/heads/main",
    "evil/api/.github/workflows/basic.yml@refs/heads/main",
    "x/acme/api/.github/workflows/basic.yml@refs/heads/main",
    "acme/api2/.github/workflows/basic.yml@refs/heads/main",
]


@pytest.mark.parametrize("workflow_ref", NO_WORKFLOW_FILES)
def test_no_workflow_file(workflow_ref, make_run):
    """A `workflow_ref` with another repository, folder, ref or file type gives no workflow file."""
    assert make_run(workflow_ref=workflow_ref).workflow_file is None


def test_workflow_file_of_a_renamed_case(make_run):
    """The repository's name in `workflow_ref` is compared without case."""
    run = make_run(workflow_ref="Acme/API/.github/workflows/ci.yml@refs/heads/main")
    assert run.workflow_file == "ci.yml"


def test_workflow_file_at_a_commit(make_run):
    """If the ref is empty, `workflow_ref` ends with the commit."""
    run = make_run(ref="", sha="b" * 40)
    assert run.workflow_ref.endswith("b" * 40)
    assert run.workflow_file == "ci.yml"


@pytest.mark.parametrize("end", ["", "None"])
def test_workflow_file_at_nothing(end, make_run):
    """Without a ref and a commit there is no workflow file."""
    run = make_run(ref="", sha=None, workflow_ref=f"acme/api/.github/workflows/ci.yml@{end}")
    assert run.workflow_file is None


def test_hypothetical_run():
    """A simulated run has the given claims and no token."""
    claims = dict.fromkeys(("repository_id", "repository_owner_id", "event_name"), "1")
    run = WorkflowIdentity.hypothetical(
        "https://x", {**claims, "repository": "acme/api", "ref": "refs/heads/x"}
    )
    assert (run.jti, run.exp, run.sub, run.issuer, run.repository) == ("", 0, "", "https://x", "acme/api")


@pytest.mark.parametrize(
    ("ref", "ref_type", "branch", "tag"),
    [
        ("refs/heads/main", "branch", "main", None),
        ("refs/heads/a/b", "branch", "a/b", None),
        ("refs/tags/v1", "tag", None, "v1"),
        ("refs/heads/v1", "tag", None, None),
        ("refs/tags/v1", "branch", None, None),
        ("refs/heads/main", None, None, None),
        ("refs/pull/1/merge", "branch", None, None),
        ("main", "branch", None, None),
        ("", "branch", None, None),
    ],
)
def test_branch_and_tag(ref, ref_type, branch, tag, make_run):
    """Branch and tag require that `ref` and `ref_type` agree (A5)."""
    run = make_run(ref=ref, ref_type=ref_type)
    assert (run.branch, run.tag) == (branch, tag)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme/api", True),
        ("A-1/x.y_z-1", True),
        ("a/" + "b" * 100, True),
        ("a" * 39 + "/b", True),
        # An Enterprise Managed User, whose name ends with an underscore and the enterprise's short code.
        ("octocat_acme/api", True),
        ("_acme/api", False),
        # B22
        ("a" * 40 + "/b", False),
        ("a/" + "b" * 101, False),
        ("acme", False),
        ("acme/", False),
        ("/api", False),
        ("acme/api/x", False),
        ("acme/..", False),
        ("acme/.", False),
        ("-acme/api", False),
        ("ac.me/api", False),
        ("ac%me/api", False),
        ("acme/api\n", False),
        ("acme/*", False),
        ("acme/\u212a", False),
        ("acme/\u0430pi", False),
        ("acme/a pi", False),
    ],
)
def test_is_repository(name, expected):
    """A repository is an owner and a name in ASCII (B22)."""
    assert is_repository(name) is expected


def test_repository_names_have_no_case():
    """Names that differ only in case are the same repository."""
    assert repository_key("Acme/API") == "acme/api"


@pytest.mark.parametrize(
    ("name", "expected"), [("a.yml", True), ("a.yaml", True), (".yml", False), ("a/b.yml", False)]
)
def test_is_workflow_file(name, expected):
    """A workflow file is a YAML file with a name and without a folder."""
    assert is_workflow_file(name) is expected


def test_subject_keeps_githubs_spelling(make_run):
    """The subject of a bootstrap token keeps GitHub's spelling of the repository."""
    run = make_run(repository="Acme/API")
    assert (run.subject, run.repository_key) == ("repo:Acme/API", "acme/api")
