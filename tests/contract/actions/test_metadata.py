"""The action.yml files, the code, the manuals and their examples agree on inputs and outputs.

Every search asserts that it finds something, because an empty result would pass silently.
"""

import re
import shutil
import sys
import tomllib
from collections.abc import Mapping

import pytest
import yaml

from kit.processes import ROOT, output_of
from sentryagent_actions import __main__ as entry
from sentryagent_actions import command_line
from sentryagent_actions.errors import MANUALS
from sentryagent_actions.inputs import IssueTokenInputs, OneStepInputs, RegisterAgentInputs

AGENT_ID = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
ERROR_OUTPUTS = {"error-code", "http-status", "retryable", "request-id"}
TOKEN_OUTPUTS = {"access-token", "expires-at", "expires-in", "scope", "authenticated"}
AGENT_OUTPUTS = {"agent-id", "created"}

FOLDERS = {"issue-token": "issue-token", "register-agent": "register-agent", "toolkit": "."}
MANUAL_OF = {
    "issue-token": "issue-token/README.md",
    "register-agent": "register-agent/README.md",
    "toolkit": "docs/one-step-action.md",
}
OUTPUTS = {
    "issue-token": TOKEN_OUTPUTS | ERROR_OUTPUTS,
    "register-agent": AGENT_OUTPUTS | ERROR_OUTPUTS,
    "toolkit": TOKEN_OUTPUTS | AGENT_OUTPUTS | ERROR_OUTPUTS,
}
every_action = pytest.mark.parametrize("action", sorted(FOLDERS))


def metadata(action):
    return yaml.safe_load((ROOT / FOLDERS[action] / "action.yml").read_text())


class Recording(Mapping):
    """An environment that records which inputs are read."""

    def __init__(self, **inputs):
        self.inputs = {f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()}
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(name.removeprefix("INPUT_").lower())
        return self.inputs[name]

    def __iter__(self):
        return iter(self.inputs)

    def __len__(self):
        return len(self.inputs)


def asked_for(action):
    """Return the names of the inputs that the code reads for an action."""
    kinds = {"issue-token": IssueTokenInputs, "register-agent": RegisterAgentInputs, "toolkit": OneStepInputs}
    asked = set()
    ways = [{"agent_id": AGENT_ID}, {"agent_name": "bot@example.com"}]
    both = [{**ways[0], **ways[1]}]
    for way in ways if action == "toolkit" else both:
        environ = Recording(api_url="https://idp.example.com", **way)
        kinds[action].from_environ(environ)
        asked |= environ.asked
    return asked


def table(action, heading):
    """Return the rows of a manual's table by name."""
    text = (ROOT / MANUAL_OF[action]).read_text()
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"{MANUAL_OF[action]} has no section {heading}"
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", section[1], re.MULTILINE))
    assert rows, f"the section {heading} has no rows"
    return rows


@every_action
def test_declared_inputs_are_those_that_are_read(action):
    """The code reads exactly the declared inputs."""
    assert asked_for(action) == set(metadata(action)["inputs"])


@every_action
def test_only_the_expected_outputs_are_declared(action):
    """Exactly the expected outputs are declared, each with a description."""
    outputs = metadata(action)["outputs"]
    assert set(outputs) == OUTPUTS[action]
    assert all(output["description"] for output in outputs.values())


@every_action
def test_manual_lists_inputs_with_their_defaults(action):
    """The manual's table has each input, with the default from action.yml."""
    inputs, rows = metadata(action)["inputs"], table(action, "Inputs")
    assert set(rows) == set(inputs)
    for name, declared in inputs.items():
        default = rows[name].split(" | ")[0].strip("`")
        expected = "required" if declared["required"] else declared.get("default", "empty")
        assert default == expected, name
        assert declared["description"], name


@every_action
def test_manual_lists_outputs(action):
    """The manual's table has each output."""
    assert set(table(action, "Outputs")) == set(metadata(action)["outputs"])


@every_action
def test_declared_defaults_are_those_of_the_code(action):
    """A step that sets an input to its declared default behaves like a step that omits the input."""
    kinds = {"issue-token": IssueTokenInputs, "register-agent": RegisterAgentInputs, "toolkit": OneStepInputs}
    declared = {
        name: value["default"] for name, value in metadata(action)["inputs"].items() if "default" in value
    }
    assert declared
    given = {"api-url": "https://idp.example.com"}
    given |= {"agent-name": "bot@example.com"} if action == "register-agent" else {"agent-id": AGENT_ID}
    without, with_defaults = (
        kinds[action].from_environ({f"INPUT_{name.upper()}": value for name, value in inputs.items()})
        for inputs in (given, declared | given)
    )
    assert without == with_defaults


@every_action
def test_action_runs_in_the_one_image(action):
    """The metadata names the Dockerfile at the root, an action of the program, and the post step's file."""
    data = metadata(action)
    runs = data["runs"]
    assert (ROOT / FOLDERS[action] / runs["image"]).resolve() == ROOT / "Dockerfile"
    assert runs["using"] == "docker"
    assert runs["args"] == [action]
    assert action in entry._ACTIONS
    revokes = "revoke" in data["inputs"]
    assert runs.get("post-entrypoint") == ("/usr/local/bin/sentryagent-revoke" if revokes else None)
    assert data["branding"].keys() == {"icon", "color"}


WITHOUT_DOCKER = ("issue-token", "register-agent")


def host(path):
    return yaml.safe_load((ROOT / path / "action.yml").read_text())


@pytest.mark.parametrize("action", WITHOUT_DOCKER)
def test_action_without_docker_has_the_same_inputs_and_outputs(action):
    """Inputs are the same as for the action in Docker, except for their descriptions, and each output is passed on."""
    docker, without = metadata(action), host(f"{action}/host")
    for name, declared in docker["inputs"].items():
        own = without["inputs"][name]
        assert {**own, "description": ""} == {**declared, "description": ""}, name
    assert without["inputs"].keys() == docker["inputs"].keys()
    values = {name: output["value"] for name, output in without["outputs"].items()}
    assert values == {name: f"${{{{ steps.action.outputs.{name} }}}}" for name in docker["outputs"]}


@pytest.mark.parametrize("folder", ["issue-token/host", "register-agent/host", "issue-token/host/revoke"])
def test_action_without_docker_runs_this_version_and_nothing_of_the_workspace(folder):
    """Pipx starts outside the workspace, because it would run a program from a checked-out `__pypackages__`."""
    [step] = host(folder)["runs"]["steps"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert step["run"].startswith(f"pipx run --spec sentryagent-actions=={version} sentryagent-actions ")
    assert step["working-directory"] == "${{ runner.temp }}"
    assert "${{" not in step["run"]


@every_action
def test_options_of_the_command_are_the_inputs_of_the_action(action):
    """The command's options are exactly the action's inputs."""
    assert set(command_line.INPUTS[action]) == set(metadata(action)["inputs"])
    assert command_line.INPUTS.keys() == entry._ACTIONS.keys()


MADE = (
    "action.yml",
    "docs/one-step-action.md",
    *(
        f"{folder}/action.yml"
        for folder in ("issue-token/host", "register-agent/host", "issue-token/host/revoke")
    ),
)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that `make one-step` reads and writes, without the generated parts."""
    sources = [f"{folder}/{name}" for folder in MANUALS for name in ("action.yml", "README.md")]
    for name in ("release/one_step.py", "release/host_actions.py", "pyproject.toml", *sources, *MADE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in MADE:
        if name.endswith("action.yml"):
            (tmp_path / name).unlink()
    manual = tmp_path / "docs" / "one-step-action.md"
    manual.write_text(re.sub(r"^\| `.*\n", "", manual.read_text(), flags=re.MULTILINE))
    return tmp_path


def insert(path, text, before):
    """Insert text into a file, before the given text."""
    content = path.read_text()
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before))


def test_the_one_step_action_is_what_make_one_step_writes(checkout):
    """The committed files equal those generated from the other two actions; run `make one-step` if this fails."""
    for script in ("one_step.py", "host_actions.py"):
        output_of(sys.executable, "-B", checkout / "release" / script)

    for name in MADE:
        assert (checkout / name).read_text() == (ROOT / name).read_text(), name


def test_a_new_input_of_issue_token_reaches_the_one_step_action(checkout):
    """A new input of issue-token is declared and documented for the one-step action at the same position."""
    declared = "  colour:\n    description: Colour of the log\n    required: false\n    default: blue\n"
    row = "| `colour` | `blue` | Colour of the log, see [limits]({}#limits) |\n"
    insert(checkout / "issue-token" / "action.yml", declared, before="  ca-certificate:\n")
    insert(checkout / "issue-token" / "README.md", row.format(""), before="| `ca-certificate` |")

    output_of(sys.executable, "-B", checkout / "release" / "one_step.py")

    for name, text, before in (
        ("action.yml", declared, "  ca-certificate:\n"),
        ("docs/one-step-action.md", row.format("../issue-token/README.md"), "| `ca-certificate` |"),
    ):
        assert (checkout / name).read_text() == (ROOT / name).read_text().replace(before, text + before)


def steps_in(value):
    """Yield every step of a YAML document, at any depth."""
    if isinstance(value, dict):
        if "uses" in value or isinstance(value.get("run"), str):
            yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else []:
        yield from steps_in(item)


def examples():
    """Return (file, text, steps) of every YAML example in the manuals that uses one of our actions."""
    files = [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")]
    blocks = re.compile(r"^```ya?ml\n(.*?)^```", re.DOTALL | re.MULTILINE)
    found = [
        (path.relative_to(ROOT), text, list(steps_in(yaml.safe_load(text))))
        for path in files
        for text in blocks.findall(path.read_text())
        if "uses: sentryagent/" in text
    ]
    assert found
    return found


def action_of(step):
    """Return our action that a step uses, with or without Docker, or `None`."""
    owner, _, rest = step.get("uses", "").partition("/")
    name = rest.partition("@")[0].removesuffix("/host")
    return name if owner == "sentryagent" and name in FOLDERS else None


def test_examples_give_inputs_that_exist_and_all_that_are_required():
    """A workflow copied from a manual has all required inputs and no unknown ones."""
    shown = set()
    for path, _, steps in examples():
        for step in filter(action_of, steps):
            shown.add(step["uses"])
            inputs = metadata(action_of(step))["inputs"]
            assert set(step["with"]) <= set(inputs), (path, step)
            assert {name for name, value in inputs.items() if value["required"]} <= set(step["with"]), (
                path,
                step,
            )
    assert shown == {f"sentryagent/{action}@v1" for action in FOLDERS} | {
        f"sentryagent/{action}/host@v1" for action in WITHOUT_DOCKER
    }


def test_examples_read_outputs_that_exist():
    """Every output that an example reads exists in the action of that step."""
    read = 0
    for path, text, steps in examples():
        actions = {step["id"]: action_of(step) for step in steps if "id" in step}
        for step_id, output in re.findall(r"steps\.([a-z-]+)\.outputs\.([a-z-]+)", text):
            read += 1
            assert output in metadata(actions[step_id])["outputs"], (path, step_id, output)
    assert read >= 6


def test_examples_paste_nothing_into_a_shell():
    """No example has an expression inside a script, which would put tokens and injected text into a shell."""
    scripts = [(path, step["run"]) for path, _, steps in examples() for step in steps if "run" in step]
    assert len(scripts) >= 3
    for path, script in scripts:
        assert "${{" not in script, path


@pytest.mark.parametrize("manual", sorted(MANUALS))
def test_every_code_that_errors_link_to_has_its_paragraph(manual):
    """The manual's headings for error codes are exactly the codes that errors link to."""
    text = (ROOT / manual / "README.md").read_text()
    headings = re.findall(r"^### ([A-Z_]+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(MANUALS[manual])
    assert re.search(r"^## Troubleshooting$", text, re.MULTILINE)
