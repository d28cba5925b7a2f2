"""A workflow file, as far as one job of it can run on this machine: steps in a row, no conditions, no matrix.

Whatever is not known here is refused, never passed over. Source: GitHub's "Workflow syntax".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mock_idp.runner.action import read_yaml
from mock_idp.runner.errors import ActionError
from mock_idp.runner.script_step import SHELLS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What has no effect on one job here: when it starts, and on which machine.
_WITHOUT_EFFECT: Final = frozenset({"on", "run-name", "runs-on", "concurrency"})
DEFAULT_TIMEOUT_MINUTES: Final = "360"
_OF_THE_FILE: Final = frozenset({"name", "env", "permissions", "jobs"})
_OF_A_JOB: Final = frozenset({"name", "env", "permissions", "environment", "steps", "timeout-minutes"})
_OF_A_STEP: Final = frozenset({"id", "name", "uses", "with", "run", "shell", "env"})


@dataclass(frozen=True)
class StepSource:
    """A step as it is written; expressions are not evaluated. Either `uses` or `run` is not empty."""

    where: str
    id: str
    name: str
    uses: str
    inputs: Mapping[str, str]
    run: str
    shell: str
    env: Mapping[str, str]


@dataclass(frozen=True)
class JobSource:
    """One job of a workflow file.

    `may_request_id_token` follows from `permissions`; `input_defaults` are those of the event workflow_dispatch.
    """

    file: Path
    workflow_name: str
    env: Mapping[str, str]
    environment: str
    input_defaults: Mapping[str, str]
    may_request_id_token: bool
    timeout_minutes: float
    steps: tuple[StepSource, ...]


def read_job_source(file: Path, name: str = "") -> JobSource:
    """The job called `name`, or the only one. Raises ActionError for what mock-idp does not run."""
    document = _known(read_yaml(file), _OF_THE_FILE | _WITHOUT_EFFECT, str(file))
    jobs = _mapping(document, "jobs", str(file))
    if not jobs or (name and name not in jobs) or (not name and len(jobs) > 1):
        known = ", ".join(jobs) or "none"
        raise ActionError(f"{file}: choose a job with --job; the file has {known}.")
    name = name or next(iter(jobs))
    where = f"{file}: job {name}"
    job = _known(_mapping(jobs, name, where), _OF_A_JOB | _WITHOUT_EFFECT, where)
    permissions = job.get("permissions", document.get("permissions", {}))
    steps = job.get("steps")
    if not isinstance(steps, list) or not steps:
        raise ActionError(f"{where}: `steps` must be a list with at least one step.")
    return JobSource(
        file=file,
        workflow_name=_text(document.get("name", ""), f"{file}: `name`"),
        env=_texts(document, "env", str(file)) | _texts(job, "env", where),
        environment=_environment(job.get("environment", ""), where),
        input_defaults=_input_defaults(document, str(file)),
        may_request_id_token=_grants_id_token(permissions, where),
        timeout_minutes=_minutes(job.get("timeout-minutes", DEFAULT_TIMEOUT_MINUTES), where),
        steps=_distinct([_step(step, f"{where}, step {number}") for number, step in enumerate(steps, 1)]),
    )


def _step(step: object, where: str) -> StepSource:
    if not isinstance(step, dict):
        raise ActionError(f"{where} must be a mapping.")
    _known(step, _OF_A_STEP, where)
    if ("uses" in step) == ("run" in step):
        raise ActionError(f"{where} must have either `uses` or `run`.")
    for member, needs in (("with", "uses"), ("shell", "run")):
        if member in step and needs not in step:
            raise ActionError(f"{where}: `{member}` belongs to `{needs}`.")
    shell = _text(step.get("shell", ""), f"{where}: `shell`")
    if shell not in SHELLS:
        raise ActionError(f"{where}: `shell` must be bash; run the workflow with act for {shell!r}.")
    texts = {name: _text(step.get(name, ""), f"{where}: `{name}`") for name in ("id", "name", "uses", "run")}
    return StepSource(
        where, **texts, inputs=_texts(step, "with", where), shell=shell, env=_texts(step, "env", where)
    )


def _distinct(steps: list[StepSource]) -> tuple[StepSource, ...]:
    ids = [step.id.lower() for step in steps if step.id]
    for step in steps:
        if ids.count(step.id.lower()) > 1:
            raise ActionError(f"{step.where}: the id {step.id!r} is used by more than one step.")
    return tuple(steps)


def _known(members: Mapping[str, Any], known: frozenset[str], where: str) -> Mapping[str, Any]:
    for name in members:
        if name not in known:
            raise ActionError(
                f"{where}: mock-idp does not know `{name}`; take it out, or run the workflow with act. "
                f"Known are {', '.join(sorted(known))}."
            )
    return members


def _grants_id_token(permissions: object, where: str) -> bool:
    """`write-all` or `id-token: write`; any map sets what it does not list to none, and nothing is the default."""
    if isinstance(permissions, str):
        if permissions not in {"", "read-all", "write-all"}:
            raise ActionError(f"{where}: `permissions` must be read-all, write-all or a mapping.")
        return permissions == "write-all"
    value = permissions.get("id-token", "none") if isinstance(permissions, dict) else ""
    if value not in {"write", "none"}:
        raise ActionError(f"{where}: `permissions: id-token` must be write or none, as on GitHub.")
    return value == "write"


def _input_defaults(document: Mapping[str, Any], where: str) -> dict[str, str]:
    triggers = document.get("on")
    dispatch = triggers.get("workflow_dispatch") if isinstance(triggers, dict) else None
    inputs = _mapping(dispatch, "inputs", where) if isinstance(dispatch, dict) else {}
    return {
        name: _text(_mapping(inputs, name, where).get("default", ""), f"{where}: input {name}")
        for name in inputs
    }


def _minutes(value: object, where: str) -> float:
    try:
        minutes = float(_text(value, f"{where}: `timeout-minutes`"))
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise ActionError(f"{where}: `timeout-minutes` must be a number of minutes.")
    return minutes


def _environment(value: object, where: str) -> str:
    name = value.get("name", "") if isinstance(value, dict) else value
    text = _text(name, f"{where}: `environment`")
    if "${{" in text:
        raise ActionError(
            f"{where}: `environment` decides what the job is and cannot be an expression here; use --environment."
        )
    return text


def _mapping(parent: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = parent.get(name) or {}
    if not isinstance(value, dict):
        raise ActionError(f"{where}: `{name}` must be a mapping.")
    return value


def _texts(parent: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    return {
        key: _text(value, f"{where}: `{name}.{key}`") for key, value in _mapping(parent, name, where).items()
    }


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ActionError(f"{where} must be a text, a number or true or false.")
    return value
