"""The post step of issue-token and of the root action: revoke the token that the main step issued."""

from datetime import datetime

from sentryagent_actions.errors import ActionError, InternalError, InvalidInputError
from sentryagent_actions.idp import IdentityProvider
from sentryagent_actions.inputs import Connection, Inputs
from sentryagent_actions.origin import Origin
from sentryagent_actions.step import Step


def run(step: Step) -> int:
    """Revoke what the step's state holds. Always 0: the job's work is done, and the token expires anyway."""
    workflow, token, expires_at = (
        step.workflow,
        step.workflow.state("access_token"),
        step.workflow.state("expires_at"),
    )
    if not token:
        workflow.info(
            "Nothing to revoke: the step left no token (or this runner hands no state to a post step, as act)."
        )
        return 0
    workflow.mask(token)
    if _is_past(expires_at, step.clock.now()):
        workflow.info(f"Nothing to revoke: the token expired at {expires_at}.")
        return 0
    try:
        _revoke(step, token)
    except Exception as error:  # noqa: BLE001 - the job's work is done, whatever went wrong here
        cause = error if isinstance(error, ActionError) else InternalError(error)
        workflow.warning("SentryAgent: token not revoked", f"{cause} It expires by itself at {expires_at}.")
    else:
        workflow.info("The access token is revoked.")
    return 0


def _is_past(time: str, now: float) -> bool:
    try:
        return datetime.fromisoformat(time).timestamp() <= now
    except ValueError:
        return False


def _revoke(step: Step, token: str) -> None:
    issued_by = _issuer(step.workflow.state("api_url"))
    with step.network(Connection.from_inputs(Inputs(step.environ))) as network:
        IdentityProvider(issued_by, network, step.workflow.mask).revoke(token)


def _issuer(api_url: str) -> Origin:
    try:
        return Origin.from_base_url(api_url)
    except ValueError as error:
        raise InvalidInputError("STATE_api_url", f"(kept by the main step) {error}") from error
