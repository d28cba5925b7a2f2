"""The provider's Dockerfile: classic builder, no root, locked wheels."""

import re

from kit.processes import ROOT

FOLDER = ROOT / "deploy" / "server"


def _instructions():
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_classic_builder_understands_it():
    """The Dockerfile uses no feature of BuildKit, because old engines build without it."""
    text = (FOLDER / "Dockerfile").read_text()
    for feature in ("--mount", "--chmod", "--platform", "syntax=", "<<"):
        assert feature not in text


def test_it_does_not_run_as_root():
    """The user is given as a number other than root's, which Kubernetes can check."""
    (user,) = [rest for name, rest in _instructions() if name == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:0", user)


def test_only_locked_wheels_are_installed():
    """Packages from an index must have a locked hash and be wheels, so nothing is compiled."""
    installs = [
        part
        for name, rest in _instructions()
        if name == "RUN"
        for part in rest.split("&&")
        if re.search(r"\bpip\b.*\b(install|wheel)\b", part)
    ]
    assert len(installs) == 4
    for install in installs:
        assert "--no-index" in install or {"--require-hashes", "--only-binary"} <= set(install.split())
