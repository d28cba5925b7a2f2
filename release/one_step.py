# noqa: INP001 - a script of the release, no package
"""Write the root action.yml and the tables of docs/one-step-action.md from the other two actions and their manuals."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MANUAL = ROOT / "docs" / "one-step-action.md"

HEAD = """\
# `make one-step` writes this file from issue-token/action.yml and register-agent/action.yml.
name: SentryAgent
description: Register an AI agent if it does not exist yet and issue its access token, with GitHub's OIDC and no stored secret
author: SentryAgent
branding:
  icon: shield
  color: blue
"""
RUNS = """\
runs:
  using: docker
  image: Dockerfile
  args:
    - toolkit
  post-entrypoint: /usr/local/bin/sentryagent-revoke
"""
INPUTS = {
    "agent-id": "    description: Id of an existing agent. Give this or agent-name\n    required: false\n",
    "agent-name": "    description: E-mail address that names the agent; it is registered if it does not exist yet. "
    "Give this or agent-id\n    required: false\n",
    "dry-run": "    description: Set to true to only check whether this run would be allowed; no agent is registered and no token issued\n"
    '    required: false\n    default: "false"\n',
}
INPUT_ROWS = {
    "agent-id": "empty | Id of an existing agent; nothing is registered",
    "agent-name": "empty | E-mail address that names the agent; it is registered if it does not exist yet",
    "dry-run": "`false` | `true`: only check whether this run would be allowed. With `agent-name` this checks the "
    "registration only: the agent's token needs the id that the registration returns",
}
OUTPUT_ROWS = {"agent-id": "no | Id of the agent; also set if its token is refused afterwards"}


def combined(issue_token: dict[str, str], register_agent: dict[str, str]) -> dict[str, str]:
    """Return both actions' entries by name: provider, agent, those of register-agent alone, the rest of issue-token."""
    first = {name: issue_token[name] for name in ("api-url", "agent-id") if name in issue_token}
    own = {name: entry for name, entry in register_agent.items() if name not in issue_token}
    return first | own | issue_token


def declared(action: str, heading: str, suffix: str = "") -> dict[str, str]:
    """Return the inputs or outputs of an action.yml, each with the lines below its name; `suffix` ends descriptions."""
    text = (ROOT / action / "action.yml").read_text("utf-8").split(f"\n{heading}:\n")[1].split("\n\n")[0]
    found = re.findall(r"^  ([a-z-]+):\n((?:    .*\n)+)", f"{text}\n", re.MULTILINE)
    return {name: re.sub("(description: .*)", rf"\1{suffix}", lines) for name, lines in found}


def rows(action: str, heading: str, prefix: str = "") -> dict[str, str]:
    """Return a table of an action's manual, each row by its name, with links that lead into that manual."""
    text = (ROOT / action / "README.md").read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", text, re.MULTILINE)
    return {name: prefix + cells.replace("](#", f"](../{action}/README.md#") for name, cells in found}


def metadata() -> str:
    """Return the text of action.yml."""
    agent = declared("register-agent", "inputs", ". Only with agent-name")
    inputs = combined(declared("issue-token", "inputs"), agent) | INPUTS
    outputs = combined(declared("issue-token", "outputs"), declared("register-agent", "outputs"))
    sections = (
        f"{heading}:\n" + "".join(f"  {name}:\n{lines}" for name, lines in entries.items())
        for heading, entries in (("inputs", inputs), ("outputs", outputs))
    )
    return "\n".join((HEAD, *sections, RUNS))


def manual() -> str:
    """Return the text of docs/one-step-action.md, with new rows in its two tables."""
    inputs = combined(rows("issue-token", "Inputs"), rows("register-agent", "Inputs")) | INPUT_ROWS
    # register-agent has no secret output, and no column for it.
    agent = rows("register-agent", "Outputs", prefix="no | ")
    outputs = combined(rows("issue-token", "Outputs"), agent) | OUTPUT_ROWS
    text = MANUAL.read_text("utf-8")
    for heading, entries in (("Inputs", inputs), ("Outputs", outputs)):
        table = rf"(?s)(\n## {heading}\n.*?\|---\|\n)(?:\|[^\n]*\n)*"
        before, head, after = re.split(table, text, maxsplit=1)
        text = before + head + "".join(f"| `{name}` | {cells} |\n" for name, cells in entries.items()) + after
    return text


if __name__ == "__main__":
    (ROOT / "action.yml").write_text(metadata(), "utf-8")
    MANUAL.write_text(manual(), "utf-8")
