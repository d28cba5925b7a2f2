"""The release: the effect of its scripts on real repositories, and the permissions of its workflow."""

import json
import os
import re
import shutil
import sys
import tomllib

import pytest
import yaml

from kit import processes
from kit.processes import ROOT, output_of
from sentryagent_actions import __main__ as entry

IMAGE = f"docker://ghcr.io/sentryagent/actions@sha256:{'0' * 64}"
METADATA = ("action.yml", "issue-token/action.yml", "register-agent/action.yml")


def run(script, *arguments):
    return processes.run(sys.executable, "-B", script, *arguments)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that the scripts read and write."""
    folder = tmp_path / "checkout"
    for name in ("release", *METADATA, "pyproject.toml", "CHANGELOG.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("heading", "code", "said"),
    [
        ("## [{}] - 2026-11-24", 0, "v{}\n"),
        ("## [{}]", 2, "CHANGELOG.md has no heading"),
        ("## [{}0] - 2026-11-24", 2, "CHANGELOG.md has no heading"),
    ],
)
def test_a_version_is_released_once_the_changelog_knows_it(heading, code, said, checkout):
    """The tag is the version in pyproject.toml, which needs a dated heading in the changelog."""
    version = re.search(r'^version = "(.*)"$', (checkout / "pyproject.toml").read_text(), re.MULTILINE)[1]
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading.format(version)}\n")

    done = run(checkout / "release" / "version.py")

    assert done.returncode == code
    assert said.format(version) in done.stdout + done.stderr


def test_every_action_of_the_toolkit_gets_the_image(checkout):
    """The release commit changes one line in each action.yml, and nothing else."""
    before = {name: (checkout / name).read_text() for name in METADATA}

    assert run(checkout / "release" / "pin_images.py", IMAGE).returncode == 0

    for name, text in before.items():
        after = (checkout / name).read_text()
        assert yaml.safe_load(after)["runs"]["image"] == IMAGE
        differing = [
            it for it in zip(text.splitlines(), after.splitlines(), strict=True) if len(set(it)) == 2
        ]
        assert len(differing) == 1


@pytest.mark.parametrize("image", ["docker://ghcr.io/sentryagent/actions:v1", "Dockerfile", ""])
def test_an_image_that_can_be_moved_is_not_pinned(image, checkout):
    """Only an image digest is accepted: anyone who can move a tag could change the code in users' jobs."""
    done = run(checkout / "release" / "pin_images.py", image)
    assert done.returncode == 2
    assert "@sha256:DIGEST" in done.stderr
    assert IMAGE not in (checkout / "action.yml").read_text()


def test_metadata_that_is_not_understood_changes_no_file(checkout):
    """If one action.yml cannot be pinned, none is changed."""
    (checkout / METADATA[-1]).write_text("runs: {}\n")
    done = run(checkout / "release" / "pin_images.py", IMAGE)
    assert done.returncode == 2
    assert "register-agent/action.yml has 0 lines" in done.stderr
    assert (checkout / "action.yml").read_text() == (ROOT / "action.yml").read_text()


def git(folder, *arguments):
    identity = ("-c", "user.name=octocat", "-c", "user.email=octocat@octo-org.example")
    return output_of("git", *identity, "-C", folder, *arguments).strip()


class Mirror:
    """A published repository and its clones."""

    def __init__(self, folder):
        self.folder = folder
        self.url = folder / "origin.git"
        self.url.mkdir()
        git(self.url, "init", "-q", "--bare", "-b", "main")
        first = self.clone()
        (first / "old.txt").write_text("gone with the first release\n")
        git(first, "add", "--all")
        git(first, "commit", "-qm", "First")
        git(first, "push", "-q", "origin", "HEAD:main")

    def clone(self):
        clone = self.folder / f"clone{len(list(self.folder.iterdir()))}"
        git(self.folder, "clone", "-q", self.url, clone)
        return clone

    def release(self, version, text=None):
        """Push a release whose only file contains `text`, or of the clone if `text` is `None`."""
        clone = self.clone()
        if text is None:
            return run(ROOT / "release" / "push_release.py", clone, version)
        content = self.folder / f"content-of-{clone.name}"
        content.mkdir()
        (content / "action.yml").write_text(text)
        return run(ROOT / "release" / "push_release.py", clone, version, "--content", content)

    def files(self, ref):
        return git(self.url, "ls-tree", "-r", "--name-only", ref).splitlines()

    def text(self, ref):
        return git(self.url, "show", f"{ref}:action.yml")


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path)


def test_a_release_replaces_the_files_and_moves_the_major_tag(mirror):
    """The branch main, the version and the major tag have the new files; an earlier version's tag is unchanged."""
    assert mirror.release("v1.0.0", "one").returncode == 0
    assert mirror.release("v1.1.0", "two").returncode == 0

    assert mirror.files("v1.0.0") == mirror.files("main") == ["action.yml"]
    assert [mirror.text(ref) for ref in ("v1.0.0", "v1.1.0", "v1", "main")] == ["one", "two", "two", "two"]


def test_another_major_leaves_the_old_one(mirror):
    """The release of v2 leaves the tag v1 unchanged."""
    mirror.release("v1.0.0", "one")
    assert mirror.release("v2.0.0", "two").returncode == 0
    assert [mirror.text(ref) for ref in ("v1", "v2")] == ["one", "two"]


def test_a_release_that_is_there_is_not_made_again(mirror):
    """A re-run of the workflow with the same files succeeds and changes nothing."""
    mirror.release("v1.0.0", "one")
    refs = git(mirror.url, "show-ref")

    done = mirror.release("v1.0.0", "one")

    assert (done.returncode, done.stdout) == (0, "v1.0.0: already published\n")
    assert git(mirror.url, "show-ref") == refs


def test_a_version_is_never_moved(mirror):
    """A release of other files under a published version is refused."""
    mirror.release("v1.0.0", "one")

    done = mirror.release("v1.0.0", "other")

    assert done.returncode == 2
    assert "raise the version" in done.stderr
    assert mirror.text("v1.0.0") == mirror.text("v1") == mirror.text("main") == "one"


def test_a_release_of_a_checkout_leaves_its_branch(mirror):
    """Only tags refer to the toolkit's release commit; the branch does not move."""
    main = git(mirror.url, "rev-parse", "main")
    assert mirror.release("v1.0.0").returncode == 0
    assert git(mirror.url, "rev-parse", "main") == main
    assert git(mirror.url, "rev-parse", "v1.0.0^") == main
    assert git(mirror.url, "rev-parse", "v1") == git(mirror.url, "rev-parse", "v1.0.0")


def test_a_refused_push_leaves_nothing(mirror):
    """The push is atomic: if the major tag is refused, neither the version's tag nor main is pushed."""
    hook = mirror.url / "hooks" / "update"
    hook.write_text('#!/bin/sh\ntest "$1" != refs/tags/v1\n')
    hook.chmod(0o755)

    done = mirror.release("v1.0.0", "one")

    assert done.returncode == 2
    assert done.stderr.startswith("push_release: git push failed: ")
    assert git(mirror.url, "tag") == ""
    assert mirror.files("main") == ["old.txt"]


@pytest.mark.parametrize("version", ["1.0.0", "v1", "v1.0", "v01.0.0", "v1.0.0-rc1", "v1.0.0\n"])
def test_a_version_has_one_form(version, tmp_path):
    """Only a version of the form v1.2.3 becomes a tag."""
    done = run(ROOT / "release" / "push_release.py", tmp_path, version)
    assert done.returncode == 2
    assert "must have the form v1.2.3" in done.stderr


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def steps(workflow):
    found = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert len(found) > 15
    return found


def step_of(workflow, job, identity):
    [found] = [step for step in workflow["jobs"][job]["steps"] if step.get("id") == identity]
    return found


def dockerfiles(workflow):
    """The Dockerfile of each image that a release publishes."""
    include = workflow["jobs"]["image"]["strategy"]["matrix"]["include"]
    return {it["image"]: it["dockerfile"] for it in include if "image" in it}


def test_each_job_has_the_least_that_it_needs(workflow):
    """Each job of the release has only the permissions that it needs."""
    assert workflow["permissions"] == {}
    read = {"contents": "read"}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "plan": read,
        "image": read | {"packages": "write"},
        "index": {"attestations": "write", "id-token": "write", "packages": "write"},
        "wheels": read,
        "pypi": {"id-token": "write"},
        "actions": read,
        "toolkit": {"contents": "write"},
    }


def test_what_is_published_waits_for_a_reviewer(workflow):
    """Every job that publishes runs in a protected environment, and the only secret is the mirrors' deploy key."""
    environments = {
        name: job["environment"] for name, job in workflow["jobs"].items() if "environment" in job
    }
    assert environments == {
        "image": "release",
        "index": "release",
        "pypi": "pypi",
        "actions": "${{ matrix.action }}",
        "toolkit": "release",
    }
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert re.findall(r"secrets\.(\w+)", text) == ["DEPLOY_KEY"]


def test_foreign_actions_are_pinned_and_scripts_take_no_expressions(workflow):
    """Third-party actions are pinned to a commit with its version in a comment; scripts get values only through `env`."""
    text = (ROOT / ".github/workflows/release.yml").read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert len(uses) >= 8
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", it) for it in uses)
    scripts = [step["run"] for step in steps(workflow) if "run" in step]
    assert len(scripts) >= 8
    assert not [script for script in scripts if "${{" in script]


def test_the_workflow_runs_what_is_here(workflow):
    """The scripts and make targets in the workflow exist, and its check of the image expects the program's usage text."""
    scripts = "\n".join(step.get("run", "") for step in steps(workflow))
    named = set(re.findall(r"python3 (release/\w+\.py)", scripts))
    assert named == {
        f"release/{name}.py" for name in ("version", "actions_dist", "pin_images", "push_release")
    }
    assert all((ROOT / name).exists() for name in named)
    targets = re.findall(r"^make (\S+)", scripts, re.MULTILINE)
    assert targets
    assert all(f"\n{target}: " in (ROOT / "Makefile").read_text() for target in targets)
    assert f"usage: sentryagent-actions {'|'.join(entry._ACTIONS)}" in scripts


def test_an_image_carries_what_the_manual_promises(workflow):
    """An image has SBOM and provenance, its index an attestation, and no tag is set before all images are built."""
    build = step_of(workflow, "image", "push")["run"]
    for option in ("--sbom=true", "--provenance=mode=max", "push-by-digest=true"):
        assert option in build
    [attest] = [
        it for it in workflow["jobs"]["index"]["steps"] if it.get("uses", "").startswith("actions/attest@")
    ]
    assert attest["with"]["subject-digest"] == "${{ steps.push.outputs.digest }}"
    assert attest["with"]["push-to-registry"] is True
    assert "image" in workflow["jobs"]["index"]["needs"]
    tagging = [name for name, job in workflow["jobs"].items() if "--tag" in str(job["steps"])]
    assert tagging == ["index"]


def test_every_image_is_built_for_both_architectures_and_each_has_its_index(workflow):
    """Each image's digest per architecture is a job output, from which the image's index is created."""
    built = workflow["jobs"]["image"]
    matrix = built["strategy"]["matrix"]
    assert set(matrix["image"]) == dockerfiles(workflow).keys()
    assert {it["architecture"] for it in matrix["include"] if "architecture" in it} == {"amd64", "arm64"}
    pairs = [
        f"{image}-{architecture}" for image in matrix["image"] for architecture in matrix["architecture"]
    ]
    assert len(pairs) == 6
    assert built["outputs"] == {pair: f"${{{{ steps.push.outputs.{pair} }}}}" for pair in pairs}

    index = workflow["jobs"]["index"]
    assert index["strategy"]["matrix"]["include"] == [
        {"image": image}
        | {it: f"${{{{ needs.image.outputs.{image}-{it} }}}}" for it in matrix["architecture"]}
        for image in matrix["image"]
    ]
    assert index["outputs"] == {image: f"${{{{ steps.push.outputs.{image} }}}}" for image in matrix["image"]}


# A stand-in for docker, with the registry's only tag in the file `index`.
REVISION = "org.opencontainers.image.revision"
REGISTRY = f"""#!/bin/sh
echo "$3" >> asked
case "$*" in
  *create*"--annotation index:{REVISION}=ours") echo '{{"{REVISION}": "ours"}}' > index ;;
  *--format*) echo sha256:0 ;;
  *) cat index 2> /dev/null || {{ echo "ERROR: $SAYS" >&2; exit 1; }} ;;
esac
"""


@pytest.mark.parametrize(
    ("built_from", "says", "code", "creates"),
    [
        (None, "ghcr.io/sentryagent/idp:v1.0.0: not found", 0, True),
        (None, "unexpected status: 503 Service Unavailable", 1, False),
        ("ours", "", 0, False),
        ("other", "", 1, False),
    ],
)
def test_the_tag_of_an_image_is_never_moved(built_from, says, code, creates, workflow, tmp_path):
    """A tag is created if it does not exist, kept if this commit created it before, and refused if another commit did."""
    docker = tmp_path / "docker"
    docker.write_text(REGISTRY)
    docker.chmod(0o755)
    if built_from:
        (tmp_path / "index").write_text(json.dumps({REVISION: built_from}))
    step = step_of(workflow, "index", "push")
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **step["env"],
        "IMAGE": "ghcr.io/sentryagent/idp",
        "GITHUB_SHA": "ours",
        "GITHUB_OUTPUT": "output",
        "SAYS": says,
    }

    done = processes.run("bash", "-e", "-c", step["run"], cwd=tmp_path, env=environ)

    assert done.returncode == code, done.stdout + done.stderr
    assert ("create" in (tmp_path / "asked").read_text().split()) is creates
    if code == 0:
        assert (tmp_path / "output").read_text() == "digest=sha256:0\nidp=sha256:0\n"
    else:
        assert (says or "raise the version") in done.stdout


def test_all_images_stand_on_one_base(workflow):
    """`plan` resolves one base image, which is the one in every FROM line of every Dockerfile."""
    script = step_of(workflow, "plan", "plan")["run"]
    [command] = re.findall(r"base=\$\((.+)\)", script)
    base = output_of("sh", "-c", command, cwd=ROOT)
    for name in dockerfiles(workflow).values():
        lines = re.findall(r"^FROM .*", (ROOT / name).read_text(), re.MULTILINE)
        assert lines
        assert {line.split()[1] for line in lines} == {base.strip()}


def test_a_release_builds_from_what_the_dockerfile_copies(workflow):
    """The checkout is the build context, and the ignore file admits only the files that the Dockerfile copies."""
    for name in dockerfiles(workflow).values():
        ignore = ROOT / (".dockerignore" if name == "Dockerfile" else f"{name}.dockerignore")
        lines = ignore.read_text().splitlines()
        copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / name).read_text(), re.MULTILINE)
        assert copies
        assert "*" in lines
        assert {it[1:] for it in lines if it.startswith("!")} == set(" ".join(copies).split())


def test_what_is_deployed_and_documented_is_published(workflow):
    """Manuals and overlays name published images, the overlays with this version's tag."""
    published = {f"ghcr.io/sentryagent/{image}" for image in dockerfiles(workflow)}
    texts = [
        path.read_text()
        for pattern in ("*.md", "*/*.md", "deploy/**/*.y*ml", ".github/**/*.yml")
        for path in ROOT.glob(pattern)
    ]
    named = {name for text in texts for name in re.findall(r"ghcr\.io/sentryagent/[\w-]+", text)}
    assert named == published

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    overlays = [yaml.safe_load(it.read_text()) for it in ROOT.glob("deploy/*/overlays/*/kustomization.yaml")]
    images = [image for overlay in overlays for image in overlay["images"]]
    assert len(images) == len(overlays) > 1
    assert {image["newName"] for image in images} <= published
    assert {image["newTag"] for image in images} == {f"v{version}"}
