"""`sentryagent-actions ACTION --api-url URL …`: each option is the action's input of that name."""

import argparse
import json
from collections.abc import Mapping, Sequence

_MANUALS = "https://github.com/sentryagent/toolkit/blob/main"
_CONNECTION = ("api-url", "audience", "timeout", "dry-run", "summary", "ca-certificate")
_TOKEN = ("resource", "scope", "expires-in", "revoke", "on-unavailable")
_AGENT = (
    "agent-name",
    "agent-description",
    "agent-type",
    "agent-version",
    "capabilities",
    "owner",
    "deployment-env",
    "update",
)
# The inputs of each action; a test compares them with its action.yml.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "issue-token": (*_CONNECTION, "agent-id", *_TOKEN),
    "register-agent": (*_CONNECTION, *_AGENT),
    "toolkit": (*_CONNECTION, "agent-id", *_AGENT, *_TOKEN),
    "revoke": (),
}
_ABOUT = {
    "issue-token": ("issue the access token of an agent", "issue-token/README.md"),
    "register-agent": ("register an agent where it does not exist yet", "register-agent/README.md"),
    "toolkit": ("register an agent and issue its token", "docs/one-step-action.md"),
    "revoke": ("revoke the tokens that earlier steps of this job have issued", "docs/without-docker.md"),
}
_BOOLEANS = frozenset({"dry-run", "summary", "revoke", "update"})


def inputs_of(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the action that a command line names, and the variables `INPUT_…` that stand for its options.

    Raises SystemExit, with usage or help on the screen.
    """
    options = vars(_parser().parse_args(arguments))
    action, variable = str(options.pop("action")), options.pop("inputs_from", None)
    given = _read_json(environ, variable) if variable else {}
    given |= {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return action, {f"INPUT_{name.upper()}": value for name, value in given.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sentryagent-actions", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, names in INPUTS.items():
        summary, manual = _ABOUT[action]
        epilog = f"Each option is the action's input of that name: {_MANUALS}/{manual}"
        sub = actions.add_parser(action, help=summary, description=summary, epilog=epilog, allow_abbrev=False)
        for name in names:
            if name in _BOOLEANS:
                sub.add_argument(f"--{name}", nargs="?", const="true", metavar="true|false")
            else:
                sub.add_argument(f"--{name}", metavar="VALUE")
        if names:
            sub.add_argument("--inputs-from", metavar="VARIABLE", help="a variable with all inputs as JSON")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # takes 10 ms

        parser.exit(message=f"sentryagent-actions, version {version('sentryagent-actions')}\n")


def _read_json(environ: Mapping[str, str], variable: str) -> dict[str, str]:
    """Return inputs as `toJSON(inputs)` gives them to a composite action."""
    try:
        inputs = json.loads(environ[variable])
    except (KeyError, ValueError) as error:
        raise SystemExit(f"sentryagent-actions: {variable} is not set to a JSON object") from error
    return {str(name): str(value) for name, value in dict(inputs).items()}
