"""The repository's commands: every documented command exists, and CI runs every test layer."""

import ast
import re
import shlex
import tomllib

import click
import pytest
import yaml

from kit import manual
from kit.processes import ROOT, output_of, tracked_files
from mock_idp.cli.main import cli as mock_idp
from sentryagent_actions import command_line
from sentryagent_idp.cli.main import main as sentryagent_idp

MAKEFILE = (ROOT / "Makefile").read_text()
MANUALS = sorted(
    {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")}
)


def make(*arguments):
    return output_of("make", "--no-print-directory", *arguments, cwd=ROOT)


def targets():
    """The phony targets of the Makefile."""
    found = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    assert {"demo", "test", "lint", "install", "help", "actions-dist"} <= found
    return found


def recipe(target):
    """The recipe of a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found, f"no recipe for {target}"
    return found[1]


def test_help_lists_every_target_with_what_it_does():
    """`make help` and `make` list each target once, with a description."""
    shown = re.findall(r"^  make ([a-z-]+) +\S", make("help"), re.MULTILINE)
    assert sorted(shown) == sorted(targets())
    assert make() == make("help")


@pytest.mark.parametrize("manual", MANUALS)
def test_a_manual_names_no_target_that_does_not_exist(manual):
    """Every `make …` in a manual is an existing target."""
    named = re.findall(r"(?:^|[`$] |`|&& )make ([a-z][a-z-]*)", (ROOT / manual).read_text(), re.MULTILINE)
    assert set(named) <= targets()


def test_the_readme_names_the_commands_that_a_visitor_needs():
    """The README names the commands for the demo, the tests and the environment."""
    named = set(re.findall(r"make ([a-z][a-z-]*)", (ROOT / "README.md").read_text()))
    assert named >= {"demo", "test", "install"}


def test_lint_covers_code_types_imports_workflows_and_scripts():
    """`make lint` runs each checker, and the workflow checkers also check the examples."""
    lines = recipe("lint")
    for checker in (
        "ruff format --check",
        "ruff check",
        "mypy",
        "lint-imports",
        "zizmor",
        "actionlint",
        "shellcheck",
    ):
        assert checker in lines
    assert len(re.findall(r"(?:zizmor|actionlint) .*\$\(EXAMPLES\)", lines)) == 2


def test_lint_covers_every_shell_script():
    """Shellcheck checks every file with a shell's shebang."""
    scripts = {
        name for name in tracked_files() if re.match(rb"#!.*\b(ba|da)?sh\b", (ROOT / name).read_bytes()[:80])
    }
    assert scripts
    assert scripts == set(re.search(r"shellcheck (.*)", recipe("lint"))[1].split())


def marked_layers():
    """The optional test layers for which a test exists."""
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    layers = {
        layer for text in tests for layer in re.findall(r"\bmark\.(docker|postgres|node|browser|ops)\b", text)
    }
    assert layers
    return layers


def test_ci_runs_lint_and_every_layer_that_has_tests():
    """`.ci/run` runs a developer's commands, with exactly the test layers that exist."""
    text = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make lint$", text, re.MULTILINE)
    assert re.search(r"^SENTRYAGENT_TEST_REQUIRE=\S.* make test$", text, re.MULTILINE)
    assert set(re.search(r"^layers=\((.*)\)$", text, re.MULTILINE)[1].split()) == marked_layers()


def test_github_runs_the_same_commands():
    """GitHub's workflow runs the same commands and requires the same layers."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    jobs = workflow["jobs"]
    runs = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    required = ",".join(job["env"]["SENTRYAGENT_TEST_REQUIRE"] for job in jobs.values() if "env" in job)
    for command in ("make lint", "make test", "make demo"):
        assert command in runs
    assert set(required.split(",")) == marked_layers()


def test_github_tests_every_supported_python():
    """The workflow's matrix has the versions in pyproject.toml."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    classifiers = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == classifiers
    assert classifiers


@pytest.mark.parametrize("file", ["ci.yml"])
def test_no_job_of_ours_has_more_rights_than_it_names(file):
    """Jobs have only read access, a time limit and no credentials in the checkout; the workflow itself has no permissions."""
    text = (ROOT / ".github" / "workflows" / file).read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 20
    checkouts = text.count("uses: actions/checkout@")
    assert checkouts == len(workflow["jobs"]) == text.count("persist-credentials: false")


# A removed command, and a placeholder.
NOT_A_COMMAND = {
    "mock-idp run FILE.yml": "CHANGELOG.md",
    "sentryagent-actions ACTION": "sentryagent_actions/",
}


def strings(source):
    """The string literals of a program, including docstrings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(it.value if isinstance(it, ast.Constant) else "X" for it in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named_commands():
    """The file and the words of each of our commands in documents and programs."""
    for name in tracked_files("*.md"):
        scripts = manual.blocks(name, *manual.SHELL)
        texts = [*manual.named_in_text((ROOT / name).read_text())]
        texts += [words for block in scripts for words in manual.named_in_shell(block.text)]
        yield from ((name, words) for words in texts)
    for name in tracked_files("server/*.py", "mock_idp/*.py", "sentryagent_actions/*.py", "examples/*.py"):
        found = map(manual.named_in_text, strings((ROOT / name).read_text()))
        yield from ((name, words) for commands in found for words in commands)


def test_what_is_installed_with_pip_is_a_distribution_of_ours():
    """Documents install only our distributions: another user could register any other name and run code at readers."""
    texts = [(ROOT / name).read_text() for name in tracked_files("*.md", "*.py", "*.yml", "*.yaml")]
    option = r"(?: --?[\w-]+)*"
    named = {
        it
        for text in texts
        for it in re.findall(rf"\bpipx? (?:install|run){option} (sentryagent[\w-]*)", text)
    }
    ours = {tomllib.loads(path.read_text())["project"]["name"] for path in ROOT.glob("*/pyproject.toml")}
    assert {"sentryagent-idp", "sentryagent-actions"} <= named <= ours


def check(words):
    """Raise `click.UsageError` if our program would refuse these words; values are not checked."""
    program, *rest = words
    if program == "sentryagent-actions":
        return check_action(rest)
    command, context = {"sentryagent-idp": sentryagent_idp, "mock-idp": mock_idp}[program], None
    while True:
        context = click.Context(command, parent=context, info_name=command.name)
        _, extra, _ = command.make_parser(context).parse_args(list(rest))
        if not isinstance(command, click.Group):
            break
        if not extra:
            return None
        command, rest = command.get_command(context, extra[0]), extra[1:]
        if command is None:
            raise click.UsageError(f"no command {extra[0]}")
    if extra:
        raise click.UsageError(f"too many words: {extra}")
    return None


def check_action(words):
    """Do the same for the actions' command."""
    if words and words[0] not in command_line.INPUTS:
        raise click.UsageError(f"no action {words[0]}")
    options = [it.partition("=")[0].removeprefix("--") for it in words[1:] if it.startswith("-")]
    unknown = set(options) - {*command_line.INPUTS[words[0]], "inputs-from", "help"} if words else set()
    if unknown:
        raise click.UsageError(f"no option {unknown}")


def test_every_command_that_is_named_exists_with_its_options():
    """Every command of ours in documents and in the programs' texts exists, with its options."""
    named = [*named_commands()]
    assert {name for name, _ in named} >= {
        "docs/operations.md",
        "server/sentryagent_idp/tokens/signing_key.py",
    }
    wrong = []
    for name, words in named:
        if any(
            shlex.join(words).startswith(it) and name.startswith(place) for it, place in NOT_A_COMMAND.items()
        ):
            continue
        try:
            check(words)
        except click.UsageError as error:
            wrong.append((name, shlex.join(words), error.format_message()))
    assert wrong == []


@pytest.mark.parametrize(
    "command",
    [
        "`sentryagent-idp serv`",
        "`sentryagent-idp keys rotat`",
        "`sentryagent-idp keys list|rotat`",
        "`sentryagent-idp keys revoke KID KID`",
        "`sentryagent-idp serve [--prot 3000]`",
        "`TOKEN=$(sentryagent-idp admin-token --scopes all)`",
        "`mock-idp serve --isuer URL`",
        "`sentryagent-actions issue-tokens`",
        "`sentryagent-actions issue-token --api URL`",
    ],
)
def test_a_command_that_does_not_exist_is_found(command):
    """The checks above detect a wrong word and a wrong option."""
    with pytest.raises(click.UsageError):
        [check(words) for words in manual.named_in_text(command)]
