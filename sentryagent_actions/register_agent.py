"""register-agent: an agent of that name exists afterwards, and belongs to this repository."""

from contextlib import ExitStack
from dataclasses import dataclass

from sentryagent_actions.errors import ActionError, AgentExistsError, AgentNotActiveError
from sentryagent_actions.idp import AccessToken, AgentRecord, ExchangeRequest
from sentryagent_actions.inputs import INPUT_OF_FIELD, AgentProfile, RegisterAgentInputs
from sentryagent_actions.issue_token import dry_run
from sentryagent_actions.step import Session, Step, report_failure
from sentryagent_actions.untrusted import shown

BOOTSTRAP = ExchangeRequest(expires_in=300)


@dataclass(frozen=True)
class Registration:
    """An agent, and whether this run made it."""

    agent: AgentRecord
    created: bool


def run(step: Step) -> int:
    """Perform the action; return its exit code."""
    try:
        inputs = RegisterAgentInputs.from_environ(step.environ)
        with step.session(inputs.connection) as session:
            if inputs.dry_run:
                dry_run(session, BOOTSTRAP)
                step.workflow.set_outputs({"created": "false"})
            else:
                register(session, inputs.profile)
    except ActionError as error:
        return report_failure(step.workflow, error)
    return 0


def register(session: Session, profile: AgentProfile) -> AgentRecord:
    """Make the agent, or find it, and set the outputs. Raises ActionError."""
    with ExitStack() as afterwards:
        token = session.provider.exchange(
            session.id_tokens.fresh,
            BOOTSTRAP,
            lambda value: afterwards.callback(_revoke, session, value),
        )
        registration = _make_or_find(session, profile, token)
    agent_id = registration.agent.agent_id
    session.workflow.set_outputs(
        {"agent-id": agent_id, "created": "true" if registration.created else "false"}
    )
    _summarize(session, profile, registration, token)
    return registration.agent


def _make_or_find(session: Session, profile: AgentProfile, token: AccessToken) -> Registration:
    try:
        return Registration(session.provider.create_agent(token, profile.as_json()), created=True)
    except AgentExistsError as taken:
        # A re-run, a parallel job, or an earlier try of this POST whose answer was lost.
        agent = _find(session, profile, token, taken)
        if agent.status != "active":
            raise AgentNotActiveError(agent.agent_id, agent.status, taken) from taken
        _tell_differences(session, profile, agent)
        return Registration(agent, created=False)


def _find(
    session: Session, profile: AgentProfile, token: AccessToken, taken: AgentExistsError
) -> AgentRecord:
    if taken.agent_id:
        return session.provider.agent(token, taken.agent_id)
    agent = session.provider.agent_named(token, profile.name)
    if agent is None:
        raise taken
    return agent


def _tell_differences(session: Session, profile: AgentProfile, agent: AgentRecord) -> None:
    differences = [
        f"`{INPUT_OF_FIELD[name]}` is {shown(wanted, 100)} here and {shown(agent.members.get(name), 100)} there"
        for name, wanted in profile.as_json().items()
        if name != "email" and wanted != agent.members.get(name)
    ]
    if differences:
        session.workflow.notice(
            "SentryAgent: the agent differs from these inputs",
            f"Nothing was changed. {'; '.join(differences)}. "
            "Change the inputs, or PATCH the agent with its own token (scope agents:write) or as an admin.",
        )


def _revoke(session: Session, token: str) -> None:
    try:
        session.provider.revoke(token)
    except ActionError as error:
        session.workflow.warning("SentryAgent: bootstrap token not revoked", f"{error} It expires by itself.")


def _summarize(
    session: Session, profile: AgentProfile, registration: Registration, token: AccessToken
) -> None:
    agent_id, outcome = registration.agent.agent_id, "registered" if registration.created else "found"
    rows = (
        ("Agent", agent_id),
        ("Name", profile.name),
        ("Created by this run", "yes" if registration.created else "no, it was there already"),
        ("Provider", str(session.provider.api_url)),
        ("Audience of the ID token", session.id_tokens.audience),
        ("Request id of the exchange", token.request_id),
    )
    session.workflow.info(f"Agent {profile.name} {outcome}: {agent_id}.")
    session.workflow.summarize(f"SentryAgent: agent {outcome}", rows)
