"""The subset of GitHub Actions expressions that the metadata of an action needs: no functions, no operators.

Source: GitHub's "Evaluate expressions in workflows and actions"; actions/runner, Expressions/ (names are
case-insensitive, a missing property is empty).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mock_idp.runner.errors import ActionError

Contexts = Mapping[str, Mapping[str, Any]]

_EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_PROPERTY: Final = re.compile(r"([A-Za-z_][\w-]*)((?:\.[A-Za-z_][\w-]*)+)")
# The statuses after which a stage runs, for each condition.
_STATUS_FUNCTIONS: Final[Mapping[str, frozenset[str]]] = {
    "always()": frozenset({"success", "failure", "cancelled"}),
    "success()": frozenset({"success"}),
    "failure()": frozenset({"failure"}),
    "cancelled()": frozenset({"cancelled"}),
}


def evaluate(text: str, contexts: Contexts, where: str) -> str:
    """Replace `${{ context.name }}` and `${{ 'text' }}`; names are case-insensitive, an unknown property is empty.

    Raises ActionError for a context that is not available, or any other expression; `where` is for its message.
    """
    return _EXPRESSION.sub(lambda match: _value(match[1].strip(), contexts, where), text)


def _value(expression: str, contexts: Contexts, where: str) -> str:
    if literal := re.fullmatch(r"'((?:[^']|'')*)'", expression):
        return literal[1].replace("''", "'")
    found = _PROPERTY.fullmatch(expression)
    if not found:
        raise ActionError(
            f"{where}: mock-idp cannot evaluate ${{{{ {expression} }}}}, only context.name and 'text'; "
            "for functions and operators run the action with act."
        )
    if found[1].lower() not in contexts:
        raise ActionError(
            f"{where}: Unrecognized named-value: '{found[1]}'; available here: {', '.join(contexts)}."
        )
    value: Any = contexts[found[1].lower()]
    for name in found[2][1:].split("."):
        value = _property(value, name)
    # GitHub's own text for a value that is not a scalar.
    return "Object" if isinstance(value, Mapping) else str(value)


def _property(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        return ""
    return next((item for key, item in value.items() if key.lower() == name.lower()), "")


def runs_after(condition: str, status: str, where: str) -> bool:
    """Whether `pre-if` or `post-if` lets its stage run after `success`, `failure` or `cancelled`.

    Raises ActionError for a condition other than a single status function.
    """
    expression = _EXPRESSION.sub(lambda match: match[1], condition).strip()
    if expression not in _STATUS_FUNCTIONS:
        raise ActionError(f"{where}: mock-idp supports {', '.join(_STATUS_FUNCTIONS)}, not {expression!r}.")
    return status in _STATUS_FUNCTIONS[expression]
