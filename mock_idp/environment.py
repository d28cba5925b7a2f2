"""The variables and the event payload that the runner gives to a job. Pure.

Source: actions/runner, GitHubContext.cs (the `GITHUB_*` allow-list) and RunnerContext.cs; GitHub's page "Variables
reference". Paths and files belong to one step and are set by the runner.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

from mock_idp.job import PULL_REQUEST_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.job import Job

REQUEST_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
REQUEST_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
JOB_PREFIXES: Final = ("ACTIONS_", "GITHUB_", "RUNNER_")
"""Prefixes of the variables that describe a job; those of another job that this machine may be running are removed."""

# The variables that nektos/act 0.2.89 takes from `--env`. It sets the others itself, after `--env`: commit, event,
# workflow and job names, and the actor, which has a flag.
ACT_TAKES: Final = (
    REQUEST_URL,
    REQUEST_TOKEN,
    "GITHUB_REPOSITORY",
    "GITHUB_REF",
    "GITHUB_REF_NAME",
    "GITHUB_REF_TYPE",
    "GITHUB_HEAD_REF",
    "GITHUB_BASE_REF",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_NUMBER",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_SERVER_URL",
    "GITHUB_API_URL",
    "GITHUB_GRAPHQL_URL",
    "GITHUB_ACTOR_ID",
    "GITHUB_REPOSITORY_ID",
    "GITHUB_REPOSITORY_OWNER_ID",
    "GITHUB_WORKFLOW_REF",
    "GITHUB_WORKFLOW_SHA",
    "GITHUB_TRIGGERING_ACTOR",
    "GITHUB_REF_PROTECTED",
    "RUNNER_NAME",
    "RUNNER_ENVIRONMENT",
)


def job_variables(job: Job, server: str) -> dict[str, str]:
    """Return the `GITHUB_*`, `RUNNER_*` and `CI` variables of a job on the GitHub server `server` (an origin)."""
    return _server_variables(server) | {
        "CI": "true",
        "GITHUB_ACTION": "__run",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTOR": job.actor,
        "GITHUB_ACTOR_ID": job.actor_id,
        "GITHUB_BASE_REF": job.base_ref,
        "GITHUB_EVENT_NAME": job.event,
        "GITHUB_HEAD_REF": job.head_ref,
        "GITHUB_JOB": job.job_id,
        "GITHUB_REF": job.ref,
        "GITHUB_REF_NAME": job.ref_name,
        "GITHUB_REF_PROTECTED": str(job.ref_protected).lower(),
        "GITHUB_REF_TYPE": job.ref_type,
        "GITHUB_REPOSITORY": job.repository,
        "GITHUB_REPOSITORY_ID": job.repository_id,
        "GITHUB_REPOSITORY_OWNER": job.owner,
        "GITHUB_REPOSITORY_OWNER_ID": job.repository_owner_id,
        "GITHUB_RETENTION_DAYS": "90",
        "GITHUB_RUN_ATTEMPT": job.run_attempt,
        "GITHUB_RUN_ID": job.run_id,
        "GITHUB_RUN_NUMBER": job.run_number,
        "GITHUB_SHA": job.sha,
        "GITHUB_TRIGGERING_ACTOR": job.actor,
        "GITHUB_WORKFLOW": job.workflow_name,
        "GITHUB_WORKFLOW_REF": job.workflow_ref,
        "GITHUB_WORKFLOW_SHA": job.sha,
        "RUNNER_ARCH": "X64",
        "RUNNER_ENVIRONMENT": job.runner_environment,
        "RUNNER_NAME": "mock-idp",
        "RUNNER_OS": "Linux",
    }


def _server_variables(server: str) -> dict[str, str]:
    """Return a server's URLs: github.com and GHE.com have a separate host for their API, GHES has a path."""
    host = server.removeprefix("https://")
    on_ghes = host != "github.com" and not host.endswith(".ghe.com")
    api, graphql = f"https://api.{host}", f"https://api.{host}/graphql"
    if on_ghes:
        api, graphql = f"{server}/api/v3", f"{server}/api/graphql"
    return {"GITHUB_SERVER_URL": server, "GITHUB_API_URL": api, "GITHUB_GRAPHQL_URL": graphql}


def event_payload(job: Job) -> dict[str, Any]:
    """Return the content of `GITHUB_EVENT_PATH`: the part of the webhook payload that actions read."""
    payload: dict[str, Any] = {
        "repository": _repository(job, job.repository, fork=False),
        "sender": {"login": job.actor, "id": int(job.actor_id)},
    }
    if job.event in PULL_REQUEST_EVENTS:
        return payload | {"number": int(job.pull_request), "pull_request": _pull_request(job)}
    return payload | {"ref": job.ref} | ({"after": job.sha} if job.event == "push" else {})


def _repository(job: Job, full_name: str, *, fork: bool) -> dict[str, Any]:
    owner, _, name = full_name.partition("/")
    return {
        "id": int(job.repository_id) + int(fork),
        "name": name,
        "full_name": full_name,
        "private": job.visibility != "public",
        "visibility": job.visibility,
        "fork": fork,
        "owner": {"login": owner, "id": int(job.actor_id if fork else job.repository_owner_id)},
    }


def _pull_request(job: Job) -> dict[str, Any]:
    fork = job.id_token == "fork"
    head = f"{job.actor}/{job.name}" if fork else job.repository
    return {
        "number": int(job.pull_request),
        "head": {"ref": job.head_ref, "sha": job.sha, "repo": _repository(job, head, fork=fork)},
        "base": {"ref": job.base_ref, "repo": _repository(job, job.repository, fork=False)},
    }


def _shell(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _dotenv(variables: Mapping[str, str]) -> str:
    # Without quotes: `docker run --env-file` would make them part of the value.
    return "\n".join(f"{name}={value}" for name, value in variables.items())


def _act(variables: Mapping[str, str]) -> str:
    # Also without quotes: a shell splits `$(mock-idp env --format act)` into words, but does not read quotes in it.
    return " ".join(f"--env {name}={variables[name]}" for name in ACT_TAKES if name in variables)


def _json(variables: Mapping[str, str]) -> str:
    return json.dumps(dict(variables), indent=2)


FORMATS: Final[Mapping[str, Callable[[Mapping[str, str]], str]]] = {
    "sh": _shell,
    "dotenv": _dotenv,
    "act": _act,
    "json": _json,
}
