# noqa: INP001 - a script of the release, no package
"""Write the composite actions of issue-token/host and register-agent/host from the actions that run in Docker.

They have the same inputs and outputs, and run the same code from its distribution, at the version of this checkout.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACTIONS = ("issue-token", "register-agent")
REVOKE = "issue-token/host/revoke/action.yml"
# The difference without Docker: nothing runs after the job's steps.
DESCRIPTIONS = {
    "revoke": "Whether issue-token/host/revoke, in a later step that always runs, revokes the token"
}
RUNS = """\
runs:
  using: composite
  steps:
    - id: action
      shell: bash
      # Not the workspace: pipx would run what a checked-out `__pypackages__` has under this name.
      working-directory: ${{{{ runner.temp }}}}
      env:
        SENTRYAGENT_INPUTS: ${{{{ toJSON(inputs) }}}}
      run: pipx run --spec sentryagent-actions=={version} sentryagent-actions {action} --inputs-from SENTRYAGENT_INPUTS
"""
REVOKE_ACTION = """\
# `make one-step` writes this file.
name: SentryAgent revoke
description: Revoke the tokens that issue-token/host issued in this job; for a step that always runs
author: SentryAgent
branding:
  icon: unlock
  color: blue

runs:
  using: composite
  steps:
    - shell: bash
      # Not the workspace: pipx would run what a checked-out `__pypackages__` has under this name.
      working-directory: ${{{{ runner.temp }}}}
      run: pipx run --spec sentryagent-actions=={version} sentryagent-actions revoke
"""


def host(action: str, version: str) -> str:
    """Return the text of ACTION/host/action.yml."""
    source = (ROOT / action / "action.yml").read_text("utf-8").partition("\nruns:\n")[0]
    for name, description in DESCRIPTIONS.items():
        source = re.sub(rf"(\n  {name}:\n    description: ).*", rf"\g<1>{description}", source)
    head, outputs = source.split("\noutputs:\n")
    head = re.sub(r"^(name: .*)", r"\1 without Docker", head)
    head = re.sub(r"\n(description: .*)", r"\n\1; on macOS, Windows and Linux, with pipx", head, count=1)
    with_values = re.sub(
        r"^  ([a-z-]+):\n(    description: .*\n)",
        r"  \1:\n\2    value: ${{ steps.action.outputs.\1 }}\n",
        f"{outputs}\n",
        flags=re.MULTILINE,
    )
    runs = RUNS.format(version=version, action=action)
    return (
        f"# `make one-step` writes this file from {action}/action.yml.\n{head}\noutputs:\n{with_values}{runs}"
    )


def main() -> None:
    """Write the three files."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    texts = {f"{action}/host/action.yml": host(action, version) for action in ACTIONS}
    texts[REVOKE] = REVOKE_ACTION.format(version=version)
    for name, text in texts.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
