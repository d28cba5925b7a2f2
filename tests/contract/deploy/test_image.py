"""The provider's Dockerfile: what the classic builder asks of it."""

import re

from kit.processes import ROOT

FOLDER = ROOT / "deploy" / "server"


def _instructions():
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_classic_builder_understands_it():
    """Old engines build without BuildKit."""
    text = (FOLDER / "Dockerfile").read_text()
    for feature in ("--mount", "--chmod", "--platform", "syntax=", "<<"):
        assert feature not in text


def test_it_does_not_run_as_root():
    """The last user is a number, which a cluster can check, and not root's."""
    (user,) = [rest for name, rest in _instructions() if name == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:0", user)


def test_only_locked_wheels_are_installed():
    """Whatever comes from an index has a hash, and nothing is compiled."""
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
