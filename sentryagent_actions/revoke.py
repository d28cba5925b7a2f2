"""The post step of issue-token and of the root action: revoke the token that the main step issued.

It reads only the saved state, never an input: GitHub evaluates `with:` again for a post step, after other steps have
changed the environment, and in nested composite actions with the wrong context (actions/runner#2030, #2009).
"""

import re

from sentryagent_actions.errors import ActionError, InternalError, InvalidVariableError
from sentryagent_actions.idp import IdentityProvider
from sentryagent_actions.inputs import Connection
from sentryagent_actions.origin import Origin
from sentryagent_actions.step import Step
from sentryagent_actions.workflow import Workflow

_MAX_SECONDS = 10  # even if `timeout` is longer: the job's work is done, and its minutes are billed


def run(step: Step) -> int:
    """Revoke the token in the step's state; always return 0, because the job's work is done and the token expires anyway."""
    workflow, token = step.workflow, step.workflow.state("access_token")
    expires_at = workflow.state("expires_at")
    if not token:
        workflow.info(_nothing_to_revoke(step))
        return 0
    workflow.mask(token)
    try:
        _revoke(step, token)
    except Exception as error:  # noqa: BLE001 - the job's work is done, so no error here may fail it
        cause = error if isinstance(error, ActionError) else InternalError(error)
        end = f" at {expires_at}" if expires_at else ""
        workflow.warning(
            "SentryAgent: token not revoked",
            f"{cause.headline} The token expires by itself{end}.",
        )
    else:
        workflow.info("The access token is revoked.")
    return 0


def _nothing_to_revoke(step: Step) -> str:
    if step.environ.get("ACT") == "true":
        return "Nothing to revoke: act does not pass state to a post step. A token that this step issued expires by itself."
    if step.workflow.state("revoke") == "false":
        return "Nothing to revoke: `revoke` is false. The token of this step expires by itself."
    return "Nothing to revoke: this step issued no token."


def _revoke(step: Step, token: str) -> None:
    connection = _connection(step.workflow)
    with step.network(connection) as network:
        IdentityProvider(connection.api_url, network, step.workflow.mask).revoke(token)


def _connection(workflow: Workflow) -> Connection:
    """Return the connection that the main step used. Raises InvalidVariableError if the state has no valid `api_url`."""
    try:
        return Connection(
            api_url=Origin.from_base_url(workflow.state("api_url")),
            audience="",
            timeout=_seconds(workflow.state("timeout")),
            ca_certificate=workflow.state("ca_certificate"),
        )
    except ValueError as error:
        raise InvalidVariableError(
            f"The variable STATE_api_url, which the main step saves, {str(error).partition('; ')[0]}."
        ) from error


def _seconds(timeout: str) -> int:
    return min(int(timeout), _MAX_SECONDS) if re.fullmatch("[1-9][0-9]{0,2}", timeout) else _MAX_SECONDS
