"""Rules for all files of the repository: lock files, paths, tokens, links, example workflows."""

import importlib.metadata
import json
import re

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kit.processes import ROOT, tracked_files

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
REGISTRY = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host")
# A path in a user's home folder or on a build machine.
MACHINE = re.compile(r"(?<![\w.~])/(?:home/(?!runner/)|Users/|root/|work/)[\w.-]+/")
JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")


def tracked():
    """The text of every tracked file, by name."""
    texts = {name: (ROOT / name).read_text("utf-8") for name in tracked_files()}
    assert len(texts) > 100
    return texts


def offenders(pattern, *, but=()):
    return [
        f"{name}: {found[0]}"
        for name, text in tracked().items()
        if not name.startswith(but)
        for found in pattern.finditer(text)
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_names_no_registry_and_has_hashes(lock):
    """A lock file can be installed from any index, and its hashes admit only the locked files."""
    text = lock.read_text()
    assert not REGISTRY.search(text)
    requirements = [block for block in re.split(r"(?m)^(?=\w)", text) if "==" in block]
    assert requirements
    assert all("--hash=sha256:" in block for block in requirements)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_pins_what_is_required_with_its_extras(lock):
    """A lock names extras: pip treats `coverage[toml]` as missing if only `coverage` is locked, and fetches its latest release."""
    pinned = [Requirement(line) for line in re.findall(r"(?m)^\S+==\S+", lock.read_text())]
    extras = {canonicalize_name(requirement.name): requirement.extras for requirement in pinned}
    lacking = [
        f"{package} needs {needed}"
        for package, has in extras.items()
        if installed(package)
        for needed in map(Requirement, importlib.metadata.requires(package) or ())
        if is_asked_for(needed, has) and needed.extras - extras.get(canonicalize_name(needed.name), set())
    ]
    assert lacking == []


def installed(package):
    """Whether a package is installed here: a lock also serves other systems and Python versions."""
    return any(importlib.metadata.distributions(name=package))


def is_asked_for(requirement, extras):
    """Whether a requirement applies on this machine, given the package's extras."""
    return not requirement.marker or any(
        requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
    )


def test_there_are_lock_files():
    """The programs, their build, the tests, each image and the provider's extra have a lock file."""
    assert {lock.name for lock in LOCKS} == {
        f"{it}.txt" for it in ("run", "build", "server", "mock", "dev", "action", "otel")
    }


def test_no_file_names_a_path_of_a_machine():
    """No file contains a path that exists only on one machine."""
    assert offenders(MACHINE) == []


def test_no_file_holds_a_token():
    """No file outside the tests contains a token, not even an expired one."""
    assert offenders(JWT, but=("tests/",)) == []


def test_every_link_between_files_leads_somewhere():
    """Every relative link in a document names an existing file."""
    documents = {name: text for name, text in tracked().items() if name.endswith(".md")}
    links = [
        (name, (ROOT / name).parent / target)
        for name, text in documents.items()
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    ]
    assert links
    assert [f"{name}: {target.name}" for name, target in links if not target.exists()] == []


def slug(heading):
    """The fragment that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_to_a_heading_leads_to_one():
    """Every fragment in a link is a heading of the linked document."""
    documents = {ROOT / name: text for name, text in tracked().items() if name.endswith(".md")}
    headings = {
        path.resolve(): {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
        for path, text in documents.items()
    }
    links = [
        (path, (path.parent / target).resolve() if target else path, fragment)
        for path, text in documents.items()
        for target, fragment in re.findall(r"\]\(((?!https?:)[^)#\s]*)#([^)\s]+)\)", text)
    ]
    assert links
    assert [
        f"{path.name}: {target.name}#{it}" for path, target, it in links if it not in headings[target]
    ] == []


every_example = pytest.mark.parametrize(
    "example", sorted(ROOT.glob("examples/workflows/*")), ids=lambda path: path.stem
)


@every_example
def test_an_example_asks_for_its_one_permission_in_the_job(example):
    """An example's jobs have only the permission `id-token: write`, and use no secret."""
    workflow = yaml.safe_load(example.read_text())
    assert workflow["permissions"] == {}
    assert [job["permissions"] for job in workflow["jobs"].values()] == [{"id-token": "write"}]
    assert "secrets." not in example.read_text()


@every_example
def test_an_example_gives_the_inputs_and_reads_the_outputs_that_exist(example):
    """An example sets all required and no unknown inputs, and reads only existing outputs."""
    text = example.read_text()
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"] if "uses" in step]
    assert steps
    for step in steps:
        name = re.fullmatch(r"sentryagent/([a-z-]+)@v1", step["uses"])[1]
        folder = ROOT if name == "toolkit" else ROOT / name
        action = yaml.safe_load((folder / "action.yml").read_text())
        required = {name for name, declared in action["inputs"].items() if declared["required"]}
        assert required <= step["with"].keys() <= action["inputs"].keys()
        read = set(re.findall(rf"steps\.{step['id']}\.outputs\.([a-z-]+)", text))
        assert read
        assert read <= action["outputs"].keys()


def test_all_ways_to_register_are_shown_with_one_trust_policy():
    """All manuals and examples use the same policy to register, so the first one suffices if a user follows several."""
    manuals = ("README.md", "register-agent/README.md", "docs/one-step-action.md")
    examples = [f"examples/workflows/{name}.yml" for name in ("register", "one-step", "matrix")]
    shown = {}
    for name in (*manuals, *examples):
        _, *starts = re.split(r"(?=\{\"repository\": )", (ROOT / name).read_text())
        shown[name] = [json.JSONDecoder().raw_decode(start)[0] for start in starts]
    assert all(shown.values())
    assert [
        (name, policy)
        for name, policies in shown.items()
        for policy in policies
        if policy.keys() - {"scopes", "grants"} != {"repository", "branch", "trustRegistered"}
        or (policy["branch"], policy["trustRegistered"]) != ("main", True)
    ] == []
