"""`make actions-dist` writes self-contained repositories."""

import re
import sys

import pytest
import yaml

from kit.processes import ROOT, run

ACTIONS = ("issue-token", "register-agent")
DIGEST = f"docker://ghcr.io/sentryagent/actions@sha256:{'0' * 64}"


def write(folder, *options):
    return run(sys.executable, "-B", ROOT / "release" / "actions_dist.py", "--to", folder, *options)


def content(folder):
    """The content and executable bits of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o111)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    done = write(folder)
    assert done.returncode == 0, done.stderr
    return folder


every_action = pytest.mark.parametrize("action", ACTIONS)


def test_both_actions_are_written_and_nothing_else(dist):
    """There is exactly one folder for each published repository."""
    assert {path.name for path in dist.iterdir()} == set(ACTIONS)


@every_action
def test_the_image_is_built_from_the_folder_alone(action, dist):
    """The Dockerfile is next to action.yml, and the folder contains all files that it copies and no others."""
    folder = dist / action
    metadata = yaml.safe_load((folder / "action.yml").read_text())
    copied = re.findall(r"^COPY (\S+) ", (folder / "Dockerfile").read_text(), re.MULTILINE)
    needed = {str(path.relative_to(folder)) for source in copied for path in folder.glob(source)}

    assert metadata["runs"]["image"] == "Dockerfile"
    assert copied
    assert all(list(folder.glob(source)) for source in copied)
    beside = {"action.yml", "Dockerfile", ".dockerignore", "README.md", "LICENSE", "host/action.yml"}
    beside |= {"host/revoke/action.yml"} if action == "issue-token" else set()
    assert content(folder).keys() == needed | beside


@every_action
def test_no_path_leads_out_of_the_folder(action, dist):
    """The metadata, the Dockerfile and the manual's links do not refer to files outside the folder."""
    folder = dist / action
    for name in ("action.yml", "Dockerfile", ".dockerignore"):
        assert "../" not in (folder / name).read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", (folder / "README.md").read_text())
    assert links
    assert all(re.match(r"https://|#", link) for link in links)


@every_action
def test_only_the_image_differs_from_the_action_in_place(action, dist):
    """Apart from the image, the published action.yml equals its source, including order and comments."""
    source, published = ((root / action / "action.yml").read_text().splitlines() for root in (ROOT, dist))
    differing = [lines for lines in zip(source, published, strict=True) if lines[0] != lines[1]]
    assert [published for _, published in differing] == ["  image: Dockerfile"]


@every_action
def test_the_sources_are_copied_byte_for_byte(action, dist):
    """The package, the Dockerfile and the requirements equal the tested files, including their modes."""
    for name, published in content(dist / action).items():
        if name not in {"action.yml", "README.md"}:
            source = ROOT / action / name if name.startswith("host/") else ROOT / name
            assert published == (source.read_bytes(), source.stat().st_mode & 0o111), name


def test_a_second_run_replaces_the_first(tmp_path):
    """A second run removes files that the toolkit no longer has and leaves the others unchanged."""
    assert write(tmp_path).returncode == 0
    first = content(tmp_path)
    (tmp_path / "issue-token" / "sentryagent_actions" / "removed.py").write_text("")

    assert write(tmp_path).returncode == 0
    assert content(tmp_path) == first


def test_a_release_names_its_image_by_digest(tmp_path):
    """With `--image`, the metadata names the image by digest, and no user's run builds it."""
    assert write(tmp_path, "--image", DIGEST).returncode == 0
    for action in ACTIONS:
        metadata = yaml.safe_load((tmp_path / action / "action.yml").read_text())
        assert metadata["runs"]["image"] == DIGEST


@pytest.mark.parametrize(
    "image", ["ghcr.io/sentryagent/actions:v1", "docker://ghcr.io/sentryagent/actions:v1", "Dockerfile"]
)
def test_an_image_that_can_be_moved_is_refused(image, tmp_path):
    """A tag is not accepted, because anyone who can move it could change the code in users' jobs."""
    done = write(tmp_path / "dist", "--image", image)
    assert done.returncode == 2
    assert "@sha256:DIGEST" in done.stderr
    assert not (tmp_path / "dist").exists()
