"""Convert an action's inputs to `INPUT_*` variables and arguments."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mock_idp.runner.expressions import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_idp.runner.action import Action
    from mock_idp.runner.expressions import Contexts

_ALWAYS_VALID = ("entryPoint", "args")


def resolve_inputs(
    action: Action, given: Mapping[str, str], contexts: Contexts
) -> tuple[dict[str, str], list[str]]:
    """Return all inputs, declared ones first, and the warnings that the runner gives about them.

    Every declared input is included, empty if it has no default; undeclared inputs are passed on too. Names are
    case-insensitive. Raises ActionError for a default that cannot be evaluated.
    """
    by_name = {name.lower(): value for name, value in given.items()}
    values: dict[str, str] = {}
    warnings: list[str] = []
    for declared in action.inputs:
        value = by_name.pop(declared.name.lower(), None)
        if value is not None and declared.deprecation:
            warnings.append(
                f"Input '{declared.name}' has been deprecated with message: {declared.deprecation}"
            )
        where = f"default of input '{declared.name}'"
        values[declared.name] = evaluate(declared.default, contexts, where) if value is None else value
    rest = {name: value for name, value in given.items() if name.lower() in by_name}
    unexpected = [name for name in rest if name.lower() not in {valid.lower() for valid in _ALWAYS_VALID}]
    if unexpected:
        names = ", ".join(f"'{name}'" for name in unexpected)
        valid = ", ".join(f"'{name}'" for name in (*_ALWAYS_VALID, *values))
        warnings.append(f"Unexpected input(s) {names}, valid inputs are [{valid}]")
    return values | rest, warnings


def input_variables(inputs: Mapping[str, str]) -> dict[str, str]:
    """Return the `INPUT_*` variables: upper case, spaces as `_`; hyphens and dots stay: `INPUT_API-URL`."""
    return {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}


def entry_and_arguments(action: Action, inputs: Mapping[str, str]) -> tuple[str, list[str] | None]:
    """Return the main stage's entry point and the arguments of every stage; for None, the image decides.

    `runs` takes precedence over `with.entryPoint` and `with.args`; only `with.args` is split like a command line.
    """
    with_values = {name.lower(): value for name, value in inputs.items()}
    entrypoint = action.entrypoint or with_values.get("entrypoint", "")
    if action.args is not None:
        return entrypoint, [evaluate(item, {"inputs": inputs}, "runs.args") for item in action.args]
    return entrypoint, shlex.split(with_values["args"]) if with_values.get("args") else None
