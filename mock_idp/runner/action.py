"""The metadata of a Docker action: `action.yml`.

Source: GitHub's "Metadata syntax"; actions/runner, ActionManifestManager.cs and action_yaml.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from mock_idp.runner.errors import ActionError
from mock_idp.runner.expressions import runs_after

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


_PUBLISHED: Final = "docker://"


@dataclass(frozen=True)
class Input:
    """A declared input. GitHub does not enforce `required`."""

    name: str
    default: str = ""
    deprecation: str = ""


@dataclass(frozen=True)
class Action:
    """The metadata of an action with `runs.using: docker`. `args` is None if they are not declared.

    Either `dockerfile`, a resolved path, or `image`, the name of a published image without `docker://`, is set.
    """

    name: str
    folder: Path
    dockerfile: Path | None
    inputs: tuple[Input, ...] = ()
    args: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: str = ""
    pre_entrypoint: str = ""
    post_entrypoint: str = ""
    pre_if: str = "always()"
    post_if: str = "always()"
    image: str = ""


def load_action(folder: Path) -> Action:
    """Read `action.yml`, else `action.yaml`; a folder with only a Dockerfile is an action too. Raises ActionError."""
    file = next((path for name in ("action.yml", "action.yaml") if (path := folder / name).is_file()), None)
    if file is None:
        return _implicit_action(folder)
    document = read_yaml(file)
    runs = _mapping(document, "runs", file)
    if runs.get("using") != "docker":
        raise ActionError(f"{file}: `runs.using` must be docker; mock-idp runs only Docker actions.")
    conditions = {name: str(runs.get(name) or "always()") for name in ("pre-if", "post-if")}
    for name, condition in conditions.items():
        runs_after(condition, "success", f"{file}: `runs.{name}`")
    image = str(runs.get("image", ""))
    return Action(
        name=str(document.get("name") or folder.resolve().name),
        folder=folder,
        dockerfile=None if image.lower().startswith(_PUBLISHED) else _dockerfile(folder, image, file),
        image=image[len(_PUBLISHED) :] if image.lower().startswith(_PUBLISHED) else "",
        inputs=_inputs(document, file),
        args=_args(runs, file),
        env=tuple((name, str(value)) for name, value in _mapping(runs, "env", file).items()),
        entrypoint=str(runs.get("entrypoint", "")),
        pre_entrypoint=str(runs.get("pre-entrypoint", "")),
        post_entrypoint=str(runs.get("post-entrypoint", "")),
        pre_if=conditions["pre-if"],
        post_if=conditions["post-if"],
    )


def _implicit_action(folder: Path) -> Action:
    dockerfile = next(
        (path for name in ("Dockerfile", "dockerfile") if (path := folder / name).is_file()), None
    )
    if dockerfile is None:
        raise ActionError(f"Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under '{folder}'.")
    return Action(name=folder.resolve().name, folder=folder, dockerfile=dockerfile.resolve())


def read_yaml(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, every scalar as text. Raises ActionError if it is not valid YAML."""
    try:
        # BaseLoader reads every scalar as text, as GitHub passes inputs on: `default: true` is the string "true".
        document = yaml.load(file.read_text("utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 (it builds text, lists, maps)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ActionError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    return document if isinstance(document, dict) else {}


def _mapping(parent: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    value = parent.get(name) or {}
    if not isinstance(value, dict):
        raise ActionError(f"{file}: `{name}` must be a mapping.")
    return value


def _dockerfile(folder: Path, image: str, file: Path) -> Path:
    last = image.lower().rpartition("/")[2]
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
