"""The action register-agent: make sure that an agent of that name exists and belongs to this repository."""

import json
from contextlib import ExitStack
from dataclasses import dataclass

from sentryagent_actions.errors import ActionError
from sentryagent_actions.idp import AccessToken, AgentRecord, ExchangeRequest
from sentryagent_actions.inputs import INPUT_OF_FIELD, AgentProfile, RegisterAgentInputs
from sentryagent_actions.issue_token import claim_rows, dry_run, explained
from sentryagent_actions.refused import AgentExistsError, AgentNotActiveError, PolicyRefusedError
from sentryagent_actions.step import Session, Step, report_failure
from sentryagent_actions.untrusted import shown

BOOTSTRAP = ExchangeRequest(expires_in=300)


@dataclass(frozen=True)
class Registration:
    """An agent, whether this run created it, and the inputs that this run wrote to an existing agent."""

    agent: AgentRecord
    created: bool
    updated: tuple[str, ...] = ()


def run(step: Step) -> int:
    """Run the action and return its exit code."""
    try:
        inputs = RegisterAgentInputs.from_environ(step.environ)
        with step.session(inputs.connection) as session:
            if inputs.dry_run:
                dry_run(session, BOOTSTRAP)
                step.workflow.set_outputs({"created": "false"})
            else:
                register(session, inputs.profile, update=inputs.update)
    except PolicyRefusedError as refusal:
        if "trustRegistered" not in (refusal.explanation.suggested_policy or {}):
            # The repository has no policy yet. Without this field the agent would be registered, and the next step,
            # issue-token, would fail.
            refusal.suggest(trustRegistered=True)
        return report_failure(step.workflow, refusal)
    except ActionError as error:
        return report_failure(step.workflow, error)
    return 0


def register(session: Session, profile: AgentProfile, *, update: bool) -> AgentRecord:
    """Create or find the agent and set the outputs; with `update`, write the inputs to an agent that already exists.

    Raises ActionError.
    """
    with ExitStack() as afterwards:
        with explained(session):
            token = session.provider.exchange(
                session.id_tokens.fresh,
                BOOTSTRAP,
                lambda value: afterwards.callback(_revoke, session, value),
            )
        registration = _make_or_find(session, profile, token, update=update)
    agent_id = registration.agent.agent_id
    session.workflow.set_outputs(
        {"agent-id": agent_id, "created": "true" if registration.created else "false"}
    )
    _summarize(session, profile, registration, token)
    return registration.agent


def _make_or_find(
    session: Session, profile: AgentProfile, token: AccessToken, *, update: bool
) -> Registration:
    try:
        return Registration(session.provider.create_agent(token, profile.as_json()), created=True)
    except AgentExistsError as taken:
        # Created by an earlier run, a parallel job, or an earlier try of this POST whose response was lost.
        agent = _find(session, profile, token, taken)
        if agent.status != "active":
            raise AgentNotActiveError(agent.agent_id, agent.status, taken) from taken
        different = _different(profile, agent)
        if not different:
            return Registration(agent, created=False)
        if not update:
            _warn_of_differences(session, different, agent)
            return Registration(agent, created=False)
        changed = session.provider.change_agent(token, agent.agent_id, different)
        return Registration(changed, created=False, updated=tuple(INPUT_OF_FIELD[it] for it in different))


def _find(
    session: Session, profile: AgentProfile, token: AccessToken, taken: AgentExistsError
) -> AgentRecord:
    if taken.agent_id:
        return session.provider.agent(token, taken.agent_id)
    agent = session.provider.agent_named(token, profile.name)
    if agent is None:
        raise taken
    return agent


def _different(profile: AgentProfile, agent: AgentRecord) -> dict[str, object]:
    """Return the fields that the workflow sets and whose value at the provider differs."""
    stated = profile.as_json().items()
    return {name: value for name, value in stated if name != "email" and value != agent.fields.get(name)}


def _warn_of_differences(session: Session, different: dict[str, object], agent: AgentRecord) -> None:
    differences = [
        f"`{INPUT_OF_FIELD[name]}`: the workflow says {_quoted(wanted)}, the provider has {_quoted(agent.fields.get(name))}"
        for name, wanted in different.items()
    ]
    session.workflow.notice(
        "SentryAgent: the agent differs from these inputs",
        f"{'; '.join(differences)}. Nothing was changed: set `update: true` to write the inputs to the provider.",
    )


def _quoted(value: object) -> str:
    if value is None:
        return "none"
    return json.dumps(shown(value, 100), ensure_ascii=False) if isinstance(value, str) else shown(value, 100)


def _revoke(session: Session, token: str) -> None:
    try:
        session.provider.revoke(token)
    except ActionError as error:
        session.workflow.warning(
            "SentryAgent: bootstrap token not revoked",
            f"{error.headline} The token expires by itself within 5 minutes.",
        )


def _summarize(
    session: Session, profile: AgentProfile, registration: Registration, token: AccessToken
) -> None:
    agent_id, updated = registration.agent.agent_id, ", ".join(registration.updated)
    outcome = "registered" if registration.created else "updated" if updated else "found"
    rows = (
        ("Agent", agent_id),
        ("Name", profile.name),
        ("Created by this run", "yes" if registration.created else "no, it already existed"),
        ("Updated by this run", updated or "nothing"),
        ("Provider", str(session.provider.api_url)),
        ("Request id of the exchange", token.request_id),
        *claim_rows(session),
    )
    session.workflow.info(f"Agent {profile.name} {outcome}: {agent_id}{f' ({updated})' if updated else ''}.")
    session.workflow.summarize(f"SentryAgent: agent {outcome}", rows)
