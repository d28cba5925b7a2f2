"""The permissions of the repository's workflows, and the reviews before they publish."""

import pytest
import yaml

from kit.processes import ROOT

# Permissions to publish: packages, tags and releases, or signatures and uploads in the name of this workflow.
PUBLISHING = {"packages", "contents", "id-token", "attestations", "deployments", "pages", "artifact-metadata"}


def workflows():
    found = {path.name: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*.y*ml")}
    assert found.keys() >= {"ci.yml", "release.yml"}
    return found


def writes(workflow, job):
    """The write permissions of a job, or of its workflow if the job lists none."""
    permissions = job.get("permissions", workflow.get("permissions"))
    if not isinstance(permissions, dict):
        # Without a list, the repository's default applies, which may be write-all.
        return set() if permissions == "read-all" else PUBLISHING
    return {name for name, access in permissions.items() if access == "write"}


def unguarded(workflow):
    """The jobs that can publish or read a secret without a reviewer's approval."""
    return [
        name
        for name, job in workflow["jobs"].items()
        if not job.get("environment") and (writes(workflow, job) & PUBLISHING or "${{ secrets." in str(job))
    ]


@pytest.mark.parametrize(("name", "workflow"), workflows().items(), ids=workflows().keys())
def test_no_job_publishes_without_an_environment(name, workflow):
    """Anyone who can start a workflow still needs an environment's reviewer to publish."""
    assert unguarded(workflow) == []


def job(**members):
    return {"permissions": {}, "jobs": {"it": {"runs-on": "ubuntu-24.04", **members}}}


@pytest.mark.parametrize(
    ("workflow", "jobs"),
    [
        (job(), []),
        (job(permissions={"contents": "read"}), []),
        (job(permissions={"packages": "write"}), ["it"]),
        (job(permissions={"contents": "write"}), ["it"]),
        (job(permissions={"id-token": "write"}), ["it"]),
        (job(permissions={"packages": "write"}, environment=""), ["it"]),
        (job(permissions={"packages": "write"}, environment="release"), []),
        (job(permissions={"packages": "write"}, environment={"name": "release"}), []),
        (job(permissions="write-all"), ["it"]),
        (job(permissions="read-all"), []),
        (job() | {"permissions": {"packages": "write"}}, ["it"]),
        (job(permissions={}) | {"permissions": "write-all"}, []),
        ({"jobs": job()["jobs"]}, ["it"]),
        (job(env={"KEY": "${{ secrets.DEPLOY_KEY }}"}), ["it"]),
    ],
)
def test_what_counts_as_publishing(workflow, jobs):
    """The check is right: a job's permissions replace the workflow's, and the repository's default is not trusted."""
    assert unguarded(workflow) == jobs


def test_whatever_a_release_publishes_waits_for_the_first_review():
    """Every publishing job, even with its own environment, depends on the images, which wait for `release`."""
    release = workflows()["release.yml"]
    jobs = release["jobs"]

    def before(name):
        needs = jobs[name].get("needs", [])
        direct = [needs] if isinstance(needs, str) else needs
        return set(direct).union(*map(before, direct))

    assert jobs["image"]["environment"] == "release"
    publishing = {
        name for name, it in jobs.items() if writes(release, it) & PUBLISHING or "environment" in it
    }
    assert publishing == {"image", "index", "pypi", "actions", "toolkit"}
    assert all("image" in before(name) for name in publishing - {"image"})
