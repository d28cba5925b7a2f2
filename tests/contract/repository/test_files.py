"""What must not be in any file of the repository, and what every lock file holds."""

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
# A folder in somebody's home, or a checkout of a build machine.
MACHINE = re.compile(r"(?<![\w.~])/(?:home/(?!runner/)|Users/|root/|work/)[\w.-]+/")
JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")


def tracked():
    """The text of every file that git knows, by its name."""
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
    """It can be installed from any index, and only what was locked can come from there."""
    text = lock.read_text()
    assert not REGISTRY.search(text)
    requirements = [block for block in re.split(r"(?m)^(?=\w)", text) if "==" in block]
    assert requirements
    assert all("--hash=sha256:" in block for block in requirements)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_pins_what_is_required_with_its_extras(lock):
    """Pip takes `coverage` for another package than `coverage[toml]`, and would look for its newest release."""
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
    """Whether it is here: a lock also serves other systems and versions of Python."""
    return any(importlib.metadata.distributions(name=package))


def is_asked_for(requirement, extras):
    """Whether a package with these extras has this requirement on this machine."""
    return not requirement.marker or any(
        requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
    )


def test_there_are_lock_files():
    """The programs, their build, the tests, each image and the provider's extra have one."""
    assert {lock.name for lock in LOCKS} == {
        f"{it}.txt" for it in ("run", "build", "server", "mock", "dev", "action", "otel")
    }


def test_no_file_names_a_path_of_a_machine():
    """What works in one checkout only is no part of the repository."""
    assert offenders(MACHINE) == []


def test_no_file_holds_a_token():
    """Not even an expired one; tests make theirs when they run, but for a few whose text is the point."""
    assert offenders(JWT, but=("tests/",)) == []


def test_every_link_between_files_leads_somewhere():
    """A relative link in a document names a file that git knows."""
    documents = {name: text for name, text in tracked().items() if name.endswith(".md")}
    links = [
        (name, (ROOT / name).parent / target)
        for name, text in documents.items()
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    ]
    assert links
    assert [f"{name}: {target.name}" for name, target in links if not target.exists()] == []


def slug(heading):
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_to_a_heading_leads_to_one():
    """A fragment names a heading of the document that the link leads to."""
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
    """What users paste has no right beyond the ID token, and no secret."""
    workflow = yaml.safe_load(example.read_text())
    assert workflow["permissions"] == {}
    assert [job["permissions"] for job in workflow["jobs"].values()] == [{"id-token": "write"}]
    assert "secrets." not in example.read_text()


@every_example
def test_an_example_gives_the_inputs_and_reads_the_outputs_that_exist(example):
    """No input that the action does not know, each that it requires, and no output that it never sets."""
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
    """Whoever follows two manuals meets no second policy with the same conditions, and the first one suffices for both."""
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
