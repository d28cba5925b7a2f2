"""The action issue-token: issue an access token for one agent, for the rest of the job."""

from collections.abc import Iterator
from contextlib import contextmanager

from sentryagent_actions.errors import ActionError
from sentryagent_actions.idp import AccessToken, ExchangeRequest, Permission
from sentryagent_actions.inputs import IssueTokenInputs, TokenRequest
from sentryagent_actions.refused import IdTokenRejectedError
from sentryagent_actions.step import Session, Step, report_failure

# Set first and overwritten once a token is issued, so that the workflow can read it however the step ends.
NOT_AUTHENTICATED = {"authenticated": "false"}
_NO_AGENT = (
    "Input `agent-id` is empty, so this dry run did not check a token. A dry run of register-agent registers nothing and returns "
    "no id: set `agent-id` to the id of an existing agent, or run without `dry-run`."
)


def run(step: Step) -> int:
    """Run the action and return its exit code."""
    step.workflow.set_outputs(NOT_AUTHENTICATED)
    may_skip = False
    try:
        inputs = IssueTokenInputs.from_environ(step.environ)
        may_skip = inputs.token.skip_when_unavailable
        if not inputs.agent_id:
            step.workflow.warning("SentryAgent: dry run without an agent", _NO_AGENT)
            return 0
        with step.session(inputs.connection) as session:
            issue(session, inputs.agent_id, inputs.token)
    except ActionError as error:
        return report_failure(step.workflow, error, skip=may_skip and error.retryable)
    return 0


def issue(session: Session, agent_id: str, wanted: TokenRequest) -> None:
    """Issue a token for an agent and set the outputs; in a dry run, only check. Raises ActionError."""
    request = ExchangeRequest(agent_id, wanted.resource, wanted.scope, wanted.expires_in)
    if wanted.dry_run:
        permission = dry_run(session, request)
        session.workflow.set_outputs({"scope": permission.scope})
        return
    leave = _leave_for_post_step if wanted.revoke else _leave_nothing_to_revoke
    with explained(session):
        token = session.provider.exchange(
            session.id_tokens.fresh, request, lambda value: leave(session, value)
        )
    if wanted.revoke:
        session.workflow.save_state({"expires_at": token.expires_at})
    session.workflow.set_outputs(
        {
            "access-token": token.value,
            "expires-at": token.expires_at,
            "expires-in": str(token.expires_in),
            "scope": token.scope,
            "authenticated": "true",
        }
    )
    _summarize(session, agent_id, wanted, token)


def dry_run(session: Session, request: ExchangeRequest) -> Permission:
    """Check and report whether the token would be issued, or the agent registered. Raises the refusal as ActionError."""
    with explained(session):
        permission = session.provider.try_exchange(session.id_tokens.fresh, request)
    rows = (
        ("Agent", request.agent_id or "none yet"),
        *service_rows(request.resource),
        ("Scope", permission.scope),
        ("Lifetime", f"{permission.expires_in} s"),
        ("Trust policy", permission.policy_id),
        ("Request id", permission.request_id),
        *claim_rows(session),
    )
    policy = f"Trust policy {permission.policy_id}"
    if request.agent_id:
        session.workflow.info(f"Dry run: allowed. {policy} would grant {permission.scope}.")
        session.workflow.summarize("SentryAgent: dry run, the token would be issued", rows)
    else:
        session.workflow.info(
            f"Dry run: allowed. {policy} would allow this repository to register agents; the agent's name and the other inputs "
            "are checked only at registration."
        )
        session.workflow.summarize("SentryAgent: dry run, this repository may register agents", rows)
    return permission


@contextmanager
def explained(session: Session) -> Iterator[None]:
    """Add the ID token's claims to the provider's refusal of that token."""
    try:
        yield
    except IdTokenRejectedError as refusal:
        given = bool(session.connection.audience)
        refusal.add_claims(session.id_tokens.claims, audience_given=given)
        raise


def claim_rows(session: Session) -> tuple[tuple[str, str], ...]:
    """Return the summary's rows with the claims of the run's ID token."""
    return tuple((f"Claim {name}", value) for name, value in session.id_tokens.claims.items())


def service_rows(resource: str) -> tuple[tuple[str, str], ...]:
    """Return the summary's row with the token's service, or no row if the token is for the provider itself."""
    return (("Service", resource),) if resource else ()


def _leave_for_post_step(session: Session, token: str) -> None:
    # Save everything that the revocation needs: GitHub evaluates `with:` again for the post step, after other steps
    # have changed the environment, and in a nested composite action with the wrong context.
    state = {
        "access_token": token,
        "api_url": str(session.connection.api_url),
        "ca_certificate": session.connection.ca_certificate,
        "timeout": str(session.connection.timeout),
    }
    if not session.workflow.save_state(state):
        session.workflow.info(
            "This runner does not keep state, so the token will not be revoked before it expires."
        )


def _leave_nothing_to_revoke(session: Session, _token: str) -> None:
    session.workflow.save_state({"revoke": "false"})


def _summarize(session: Session, agent_id: str, wanted: TokenRequest, token: AccessToken) -> None:
    rows = (
        ("Agent", agent_id),
        *service_rows(wanted.resource),
        ("Scope granted", token.scope),
        ("Scope requested", wanted.scope or "all scopes that the trust policy grants"),
        ("Valid until", f"{token.expires_at} ({token.expires_in} s)"),
        ("Revoked at the end of the job", "yes" if wanted.revoke else "no"),
        ("Provider", str(session.provider.api_url)),
        ("Request id", token.request_id),
        *claim_rows(session),
    )
    service = f" and service {wanted.resource}" if wanted.resource else ""
    session.workflow.info(
        f"Issued a token for agent {agent_id}{service} with scope {token.scope}, valid until {token.expires_at}."
    )
    session.workflow.summarize("SentryAgent: token issued", rows)
