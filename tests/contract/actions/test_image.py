"""The actions' Dockerfile: the requirements of GitHub's runner and of the classic builder, and the image's contents."""

import ast
import json
import re
import stat
import sys

from kit.processes import ROOT

PACKAGE = ROOT / "sentryagent_actions"
DISTRIBUTION_OF = {"httpx": "httpx", "actions_toolkit": "actions-toolkit"}


def instructions():
    """Return (name, rest) of every instruction, with continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    return [tuple(line.split(maxsplit=1)) for line in lines]


def requirements(name):
    """Return each requirement of a lock file with its version and hashes."""
    text = (ROOT / "requirements" / name).read_text()
    found = {
        re.split(r"[= ;]", block)[0]: block.strip()
        for block in re.split(r"(?m)^(?=\S)", text)
        if block.strip()
    }
    assert found
    return found


def test_container_stays_root_and_in_the_runners_folder():
    """There is no USER, who could not write outputs, no WORKDIR, which is mounted over, and no code below /github."""
    names = [name for name, _ in instructions()]
    assert set(names) <= {"FROM", "COPY", "RUN", "ENTRYPOINT"}
    assert "/github" not in " ".join(rest for _, rest in instructions())


def test_entry_point_is_isolated_and_no_shell():
    """A shell would drop inputs with hyphens, -I excludes the workspace's modules, and -u writes masks without delay."""
    (entry_point,) = [rest for name, rest in instructions() if name == "ENTRYPOINT"]
    assert json.loads(entry_point) == ["/usr/local/bin/python", "-I", "-u", "-m", "sentryagent_actions"]


def test_base_is_slim_python():
    """The base is the official slim image; the release resolves its digest."""
    assert [rest for name, rest in instructions() if name == "FROM"] == ["python:3.13-slim"]


def test_classic_builder_understands_it():
    """The Dockerfile uses no feature of BuildKit, because `act` and old engines build without it."""
    text = (ROOT / "Dockerfile").read_text()
    for feature in ("--mount", "--chmod", "--platform", "syntax=", "<<"):
        assert feature not in text


def test_post_step_starts_from_one_executable_file():
    """The runner runs `post-entrypoint` without arguments, so the file must be executable and name its interpreter."""
    script = PACKAGE / "sentryagent-revoke"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().splitlines()[0] == "#!/usr/local/bin/python -Iu"
    assert (
        "COPY",
        "sentryagent_actions/sentryagent-revoke /usr/local/bin/sentryagent-revoke",
    ) in instructions()


def test_context_is_an_allow_list_of_what_is_copied():
    """The build context contains only the files that the Dockerfile copies."""
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    copied = {rest.split()[0] for name, rest in instructions() if name == "COPY"}
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines[1:]} == copied


def test_image_has_the_versions_that_are_tested():
    """The image's requirements are the same as the tested ones, including versions and hashes."""
    image, run = requirements("action.txt"), requirements("run.txt")
    assert set(image) >= set(DISTRIBUTION_OF.values())
    for name, block in image.items():
        assert run[name] == block
        assert "--hash=sha256:" in block
    assert not {"requests", "pygithub", "cryptography"} & set(image)


def test_package_imports_nothing_that_the_image_lacks():
    """Every import is from the standard library, the package itself or a requirement of the image."""
    imported = set()
    for path in [*PACKAGE.glob("*.py"), PACKAGE / "sentryagent-revoke"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    assert "httpx" in imported
    assert "actions_toolkit.core" not in imported
    foreign = (
        {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"sentryagent_actions"}
    )
    assert {DISTRIBUTION_OF[name] for name in foreign} <= set(requirements("action.txt"))
