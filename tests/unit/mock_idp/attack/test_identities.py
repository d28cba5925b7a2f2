import pytest

from mock_idp.attack.catalogue import ACCEPTED, CONTROL, LAST_CONTROL
from mock_idp.attack.identities import POLICY, catalogue, chosen, default_policy, for_issuer
from mock_idp.job import Job

CALLED = "acme/workflows/.github/workflows/deploy.yml@v1"


def test_the_pack_is_large_and_its_controls_surround_it():
    """There are more than 100 attacks with unique names, and only the two controls are to be accepted."""
    attacks = catalogue({})

    names = [attack.name for attack in attacks]
    assert len(names) == len(set(names)) > 100
    assert (attacks[0], attacks[-1]) == (CONTROL, LAST_CONTROL)
    assert {attack.name for attack in attacks if attack.expected == ACCEPTED} == {"control", "control-again"}
    assert all(attack.description for attack in attacks)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "repository": "acme/bot",
            "ref": "refs/heads/release",
            "repository_id": "7",
            "repository_owner_id": "8",
        },
        {"ref": "refs/tags/v1"},
        {"ref": ""},
        {"environment": "production", "immutable_sub": True},
        {"environment": "production", "include_claim_keys": ("repo", "environment")},
        {"event": "pull_request", "pull_request": "5", "head_ref": "feature"},
        {"event": "pull_request_target"},
        {"event": "workflow_run"},
        {"runner_environment": "self-hosted", "visibility": "private"},
        {"event": "schedule", "called_workflow": CALLED},
    ],
)
def test_every_attack_of_an_identity_is_another_job_than_the_control(options):
    """Each attack changes the control's job into a different job that GitHub could run, whatever the control is."""
    control = Job(**options)
    policy = POLICY if options.get("environment") else set(POLICY) - {"environment"}

    changed = {it.name: Job(**{**options, **it.changes}) for it in catalogue(options, policy) if it.changes}
    assert [name for name, job in changed.items() if job == control] == []
    assert changed["recycled-name"].repository == control.repository
    assert changed["recycled-name"].repository_id != control.repository_id
    assert changed["recycled-name-in-other-sub-form"].immutable_sub is not control.immutable_sub
    assert changed["namesake"].repository_id != control.repository_id


@pytest.mark.parametrize(
    ("options", "there", "not_there"),
    [
        ({}, {"other-branch", "pull-request", "workflow-run", "issue-comment"}, {"no-environment"}),
        ({"environment": "production"}, {"no-environment", "other-environment"}, set()),
        ({"ref": "refs/tags/v1"}, set(), {"other-branch", "tag-named-as-branch"}),
        ({"event": "pull_request"}, {"pull-request-target"}, {"pull-request", "other-branch"}),
        ({"event": "workflow_run"}, {"pull-request"}, {"workflow-run"}),
    ],
)
def test_the_pack_has_what_makes_sense_for_the_job(options, there, not_there):
    """The attacks depend on the job: for example, a pull-request control is not attacked with a pull request."""
    names = {attack.name for attack in catalogue(options)}

    assert there <= names
    assert not not_there & names


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, ("repository", "ref", "event")),
        ({"environment": "production"}, ("repository", "ref", "event", "environment")),
        ({"workflow": "deploy.yml"}, ("repository", "ref", "event", "workflow")),
        ({"called_workflow": CALLED}, ("repository", "ref", "event", "workflow")),
        ({"runner_environment": "self-hosted"}, ("repository", "ref", "event", "runner")),
        ({"visibility": "private"}, ("repository", "ref", "event", "visibility")),
        ({"actor": "octocat"}, ("repository", "ref", "event")),
    ],
)
def test_who_names_a_part_of_the_job_has_a_policy_for_it(options, policy):
    """Parts of the job that are named are part of the default policy; others the verifier need not compare."""
    assert default_policy(options) == policy


def test_a_verifier_that_compares_no_repository_is_not_blamed_for_it():
    """A verifier that does not compare the repository is not tested with wrong repository claims."""
    of_repository = {
        "missing-repository", "missing-repository-id", "repository-array", "repository-homoglyph", "duplicate-member",
    }  # fmt: skip

    assert of_repository <= {attack.name for attack in catalogue({}, ["repository"])}
    assert of_repository.isdisjoint(attack.name for attack in catalogue({}, ["ref"]))
    assert len(catalogue({}, ["ref"])) > 100


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        ("repository", {"look-alike-repository", "look-alike-owner", "namesake", "namesake-in-other-sub-form", "recycled-name", "recycled-name-in-other-sub-form"}),
        ("ref", {"other-branch", "look-alike-branch", "tag-named-as-branch"}),
        ("event", {"pull-request", "pull-request-target", "workflow-run", "issue-comment"}),
        ("environment", {"no-environment", "other-environment"}),
        ("workflow", {"other-workflow", "look-alike-workflow", "workflow-of-another-repository", "workflow-on-another-ref"}),
        ("runner", {"other-runner"}),
        ("visibility", {"other-visibility"}),
    ],
)  # fmt: skip
def test_only_what_the_policy_compares_is_attacked(policy, rows):
    """Each part of the policy has its own attacks, and no others run."""
    assert {
        attack.name for attack in catalogue({"environment": "production"}, [policy]) if attack.changes
    } == rows


@pytest.mark.parametrize(
    ("options", "name", "workflow_ref", "job_workflow_ref"),
    [
        ({}, "other-workflow", "o/r/.github/workflows/evil.yml@refs/heads/main", None),
        ({}, "look-alike-workflow", "o/r/.github/workflows/evil-ci.yml@refs/heads/main", None),
        ({}, "workflow-of-another-repository", "o/r/.github/workflows/evil.yml@refs/heads/main", "octo-evil/r/.github/workflows/ci.yml@refs/heads/main"),
        ({}, "workflow-on-another-ref", "o/r/.github/workflows/evil.yml@refs/heads/main", "o/r/.github/workflows/ci.yml@refs/heads/evil"),
        ({"called_workflow": CALLED}, "other-workflow", "o/r/.github/workflows/evil.yml@refs/heads/main", None),
        ({"called_workflow": CALLED}, "look-alike-workflow", "o/r/.github/workflows/evil-deploy.yml@refs/heads/main", None),
        ({"called_workflow": CALLED}, "workflow-of-another-repository", "o/r/.github/workflows/evil.yml@refs/heads/main", "octo-evil/workflows/.github/workflows/deploy.yml@v1"),
        ({"called_workflow": CALLED}, "workflow-on-another-ref", "o/r/.github/workflows/evil.yml@refs/heads/main", "acme/workflows/.github/workflows/deploy.yml@refs/heads/evil"),
    ],
)  # fmt: skip
def test_neither_the_file_nor_the_called_one_is_the_right_workflow(
    options, name, workflow_ref, job_workflow_ref
):
    """Each attack gets part of a workflow claim right, but never all of it."""
    options = {"repository": "o/r", **options}
    attack = next(it for it in catalogue(options, ["workflow"]) if it.name == name)

    job = Job(**{**options, **attack.changes})
    assert job.workflow_ref == workflow_ref
    assert (job.called_workflow or None) == job_workflow_ref


@pytest.mark.parametrize(
    ("issuer", "has_them"),
    [
        ("https://token.actions.githubusercontent.com", True),
        ("https://token.actions.octocorp.ghe.com", True),
        ("https://ghes.example.com/_services/token", False),
    ],
)
def test_ghes_has_no_sub_with_ids(issuer, has_them):
    """GHES has no `sub` with ids, so the mock refuses such jobs and the attacks leave them out."""
    names = {attack.name for attack in for_issuer(catalogue({}), issuer)}

    assert ({"namesake-in-other-sub-form", "recycled-name-in-other-sub-form"} <= names) is has_them
    assert {"control", "namesake", "recycled-name", "expired"} <= names


def test_attacks_are_chosen_by_name_and_controls_stay():
    """`only` and `skip` never remove the controls."""
    pack = catalogue({})

    names = [it.name for it in chosen(pack, ["expired", "replay"], ["replay"])]
    assert names == ["control", "expired", "control-again"]
    assert chosen(pack, [], ["expired"])[0] is CONTROL
    assert len(chosen(pack, [], ["expired"])) == len(pack) - 1
    with pytest.raises(KeyError, match="fly"):
        chosen(pack, [], ["fly"])
