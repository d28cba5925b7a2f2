"""issue-token: an access token for one agent, for the rest of the job."""

from sentryagent_actions.errors import ActionError
from sentryagent_actions.idp import AccessToken, ExchangeRequest, Permission
from sentryagent_actions.inputs import IssueTokenInputs, TokenRequest
from sentryagent_actions.step import Session, Step, report_failure

# Set before anything else, and overwritten by a token's outputs: the workflow reads it however the step ends.
NOT_AUTHENTICATED = {"authenticated": "false"}


def run(step: Step) -> int:
    """Perform the action; return its exit code."""
    step.workflow.set_outputs(NOT_AUTHENTICATED)
    may_skip = False
    try:
        inputs = IssueTokenInputs.from_environ(step.environ)
        may_skip = inputs.token.skip_when_unavailable
        with step.session(inputs.connection) as session:
            issue(session, inputs.agent_id, inputs.token)
    except ActionError as error:
        return report_failure(step.workflow, error, skip=may_skip and error.retryable)
    return 0


def issue(session: Session, agent_id: str, wanted: TokenRequest) -> None:
    """Issue a token for an agent and set the outputs, or only see whether it would be issued. Raises ActionError."""
    request = ExchangeRequest(agent_id=agent_id, scope=wanted.scope, expires_in=wanted.expires_in)
    if wanted.dry_run:
        permission = dry_run(session, request)
        session.workflow.set_outputs({"scope": permission.scope})
        return
    leave = _leave_for_post_step if wanted.revoke else _leave_nothing_to_revoke
    token = session.provider.exchange(session.id_tokens.fresh, request, lambda value: leave(session, value))
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
    """See and tell whether a token would be issued. Raises the refusal as ActionError."""
    permission = session.provider.try_exchange(session.id_tokens.fresh, request)
    rows = (
        ("Agent", request.agent_id or "none yet (registration)"),
        ("Scope", permission.scope),
        ("Lifetime", f"{permission.expires_in} s"),
        ("Trust policy", permission.policy_id),
        ("Request id", permission.request_id),
    )
    session.workflow.info(
        f"Dry run: trust policy {permission.policy_id} allows this run the scope {permission.scope}."
    )
    session.workflow.summarize("SentryAgent: dry run, the token would be issued", rows)
    return permission


def _leave_for_post_step(session: Session, token: str) -> None:
    # With all that the revocation needs: GitHub evaluates `with:` again for the post step, after other steps have
    # changed the environment, and in a nested composite action with the wrong context.
    state = {
        "access_token": token,
        "api_url": str(session.connection.api_url),
        "ca_certificate": session.connection.ca_certificate,
        "timeout": str(session.connection.timeout),
    }
    if not session.workflow.save_state(state):
        session.workflow.info("The runner keeps no state: nothing revokes the token before it expires.")


def _leave_nothing_to_revoke(session: Session, _token: str) -> None:
    session.workflow.save_state({"revoke": "false"})


def _summarize(session: Session, agent_id: str, wanted: TokenRequest, token: AccessToken) -> None:
    rows = (
        ("Agent", agent_id),
        ("Scope granted", token.scope),
        ("Scope asked for", wanted.scope or "what the trust policy gives"),
        ("Valid until", f"{token.expires_at} ({token.expires_in} s)"),
        ("Revoked at the end of the job", "yes" if wanted.revoke else "no"),
        ("Provider", str(session.provider.api_url)),
        ("Audience of the ID token", session.id_tokens.audience),
        ("Request id", token.request_id),
    )
    session.workflow.info(
        f"Issued a token for agent {agent_id} with scope {token.scope}, valid until {token.expires_at}."
    )
    session.workflow.summarize("SentryAgent: token issued", rows)
