"""The metadata of a Docker action: `action.yml`.

Source: GitHub's "Metadata syntax"; actions/runner, ActionManifestManager.cs and action_yaml.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from mock_idp.runner.errors import ActionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_PROPERTY: Final = re.compile(r"([A-Za-z_][\w-]*)\.([A-Za-z_][\w-]*)")
_STATUS_FUNCTIONS: Final = {"always()": (True, True), "success()": (True, False), "failure()": (False, True)}


@dataclass(frozen=True)
class Input:
    """A declared input. GitHub does not enforce `required`."""

    name: str
    default: str = ""
    deprecation: str = ""


@dataclass(frozen=True)
class Action:
    """What `runs.using: docker` needs. `dockerfile` is resolved; `args` is None where they are not declared."""

    name: str
    folder: Path
    dockerfile: Path
    inputs: tuple[Input, ...] = ()
    args: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: str = ""
    pre_entrypoint: str = ""
    post_entrypoint: str = ""
    pre_if: str = "always()"
    post_if: str = "always()"


def load_action(folder: Path) -> Action:
    """Read `action.yml`, else `action.yaml`. Raises ActionError."""
    file = next((path for name in ("action.yml", "action.yaml") if (path := folder / name).is_file()), None)
    if file is None:
        raise ActionError(f"Can't find 'action.yml' or 'action.yaml' under '{folder}'.")
    document = _read_document(file)
    runs = _mapping(document, "runs", file)
    if runs.get("using") != "docker":
        raise ActionError(f"{file}: `runs.using` must be docker; mock-idp runs no other kind of action.")
    conditions = {name: str(runs.get(name) or "always()") for name in ("pre-if", "post-if")}
    for name, condition in conditions.items():
        runs_after(condition, failed=False, where=f"{file}: `runs.{name}`")
    return Action(
        name=str(document.get("name") or folder.resolve().name),
        folder=folder,
        dockerfile=_dockerfile(folder, str(runs.get("image", "")), file),
        inputs=_inputs(document, file),
        args=_args(runs, file),
        env=tuple((name, str(value)) for name, value in _mapping(runs, "env", file).items()),
        entrypoint=str(runs.get("entrypoint", "")),
        pre_entrypoint=str(runs.get("pre-entrypoint", "")),
        post_entrypoint=str(runs.get("post-entrypoint", "")),
        pre_if=conditions["pre-if"],
        post_if=conditions["post-if"],
    )


def _read_document(file: Path) -> dict[str, Any]:
    try:
        # BaseLoader reads every scalar as text, as GitHub hands inputs on: `default: true` is the string "true".
        document = yaml.load(file.read_text("utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 (it builds text, lists, maps)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ActionError(f"{file} is not readable as YAML: {' '.join(str(error).split())}") from error
    return document if isinstance(document, dict) else {}


def _mapping(parent: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    value = parent.get(name) or {}
    if not isinstance(value, dict):
        raise ActionError(f"{file}: `{name}` must be a mapping.")
    return value


def _dockerfile(folder: Path, image: str, file: Path) -> Path:
    last = image.lower().rpartition("/")[2]
    if image.lower().startswith("docker://"):
        raise ActionError(
            f"{file}: `runs.image` is a published image; mock-idp runs actions from their Dockerfile."
        )
    if not (last.startswith("dockerfile.") or last.endswith("dockerfile")):
        raise ActionError(
            f"{file}: '{image}' should be either '[path]/Dockerfile' or 'docker://image[:tag]'."
        )
    dockerfile = (folder / image).resolve()
    if not dockerfile.is_file():
        raise ActionError(f"{file}: `runs.image` names {dockerfile}, which does not exist.")
    return dockerfile


def _inputs(document: Mapping[str, Any], file: Path) -> tuple[Input, ...]:
    declared = _mapping(document, "inputs", file)
    return tuple(
        Input(name, str(about.get("default", "")), str(about.get("deprecationMessage", "")))
        for name in declared
        for about in [_mapping(declared, name, file)]
    )


def _args(runs: Mapping[str, Any], file: Path) -> tuple[str, ...] | None:
    args = runs.get("args")
    if args is None:
        return None
    if not isinstance(args, list):
        raise ActionError(f"{file}: `runs.args` must be a list.")
    return tuple(str(item) for item in args)


def evaluate(text: str, contexts: Mapping[str, Mapping[str, str]], where: str) -> str:
    """Replace `${{ context.name }}` and `${{ 'text' }}`; names without case, an unknown property is empty.

    Raises ActionError for a context that is not available there, or an expression beyond these two.
    """

    def replace(match: re.Match[str]) -> str:
        expression = match[1].strip()
        if literal := re.fullmatch(r"'((?:[^']|'')*)'", expression):
            return literal[1].replace("''", "'")
        found = _PROPERTY.fullmatch(expression)
        if not found:
            raise ActionError(
                f"{where}: mock-idp cannot evaluate ${{{{ {expression} }}}}; use context.name or 'text'."
            )
        if found[1].lower() not in contexts:
            raise ActionError(
                f"{where}: Unrecognized named-value: '{found[1]}'; here are {', '.join(contexts)}."
            )
        values = {name.lower(): value for name, value in contexts[found[1].lower()].items()}
        return values.get(found[2].lower(), "")

    return _EXPRESSION.sub(replace, text)


def runs_after(condition: str, *, failed: bool, where: str) -> bool:
    """Whether `pre-if` or `post-if` lets its stage run. Raises ActionError for more than one status function."""
    expression = _EXPRESSION.sub(lambda match: match[1], condition).strip()
    if expression not in _STATUS_FUNCTIONS:
        raise ActionError(f"{where}: mock-idp knows {', '.join(_STATUS_FUNCTIONS)}, not {expression!r}.")
    return _STATUS_FUNCTIONS[expression][failed]
