"""The options of `sentryagent-actions ACTION`: each one is the action's input of that name."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

from sentryagent_actions.inputs import BOOLEANS, NAMES

_MANUALS = "https://github.com/sentryagent/toolkit/blob/main"
INPUTS: Mapping[str, tuple[str, ...]] = {**NAMES, "revoke": ()}
_ABOUT = {
    "issue-token": ("issue the access token of an agent", "issue-token/README.md"),
    "register-agent": ("register an agent if it does not exist yet", "register-agent/README.md"),
    "toolkit": ("register an agent and issue its token", "docs/one-step-action.md"),
    "revoke": ("revoke the tokens issued by earlier steps of this job", "docs/without-docker.md"),
}


def inputs_of(action: str, arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the `INPUT_…` variables for the command-line options of an action.

    Raises SystemExit after printing the usage or help.
    """
    options = vars(_parser(action).parse_args(arguments))
    variable = options.pop("inputs_from", None)
    given = _read_json(environ, variable) if variable else {}
    given |= {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return {f"INPUT_{name.upper()}": value for name, value in given.items()}


def _parser(action: str) -> argparse.ArgumentParser:
    summary, manual = _ABOUT[action]
    parser = argparse.ArgumentParser(
        prog=f"sentryagent-actions {action}",
        description=summary,
        epilog=f"Each option sets the action's input of the same name; see {_MANUALS}/{manual}",
        allow_abbrev=False,
    )
    for name in INPUTS[action]:
        if name in BOOLEANS:
            parser.add_argument(f"--{name}", nargs="?", const="true", metavar="true|false")
        else:
            parser.add_argument(f"--{name}", metavar="VALUE")
    if INPUTS[action]:
        parser.add_argument(
            "--inputs-from",
            metavar="VARIABLE",
            help="an environment variable with all inputs as a JSON object",
        )
    return parser


def _read_json(environ: Mapping[str, str], variable: str) -> dict[str, str]:
    """Return the inputs in a variable that a composite action sets to `toJSON(inputs)`. Raises SystemExit."""
    try:
        inputs = dict(json.loads(environ[variable]))
    except (KeyError, TypeError, ValueError) as error:
        sys.stderr.write(
            f"sentryagent-actions: the variable {variable} must contain a JSON object with the inputs\n"
        )
        raise SystemExit(2) from error
    return {str(name): str(value) for name, value in inputs.items()}
