"""The root action: register the agent if it does not exist yet, then issue its token."""

from collections.abc import Iterator
from contextlib import contextmanager

from sentryagent_actions.errors import ActionError
from sentryagent_actions.inputs import OneStepInputs, TokenRequest
from sentryagent_actions.issue_token import NOT_AUTHENTICATED, dry_run, issue
from sentryagent_actions.refused import PolicyRefusedError
from sentryagent_actions.register_agent import BOOTSTRAP, register
from sentryagent_actions.step import Session, Step, report_failure

_SCOPE_TO_FILL_IN = "SCOPE-OF-THE-SERVICE"
"""Placeholder when the step asks for all scopes: the provider refuses it and lists the service's scopes."""


def run(step: Step) -> int:
    """Run the action and return its exit code."""
    step.workflow.set_outputs(NOT_AUTHENTICATED)
    may_skip = False
    try:
        inputs = OneStepInputs.from_environ(step.environ)
        may_skip = inputs.token.skip_when_unavailable
        with step.session(inputs.connection) as session:
            _perform(session, inputs)
    except ActionError as error:
        return report_failure(step.workflow, error, skip=may_skip and error.retryable)
    return 0


def _perform(session: Session, inputs: OneStepInputs) -> None:
    if isinstance(inputs.agent, str):
        session.workflow.set_outputs({"agent-id": inputs.agent, "created": "false"})
        issue(session, inputs.agent, inputs.token)
    elif inputs.token.dry_run:
        session.workflow.info(
            "The dry run checks only the registration; the agent's own token needs the id that the registration returns."
        )
        with _one_policy(inputs.token):
            permission = dry_run(session, BOOTSTRAP)
        session.workflow.set_outputs({"created": "false", "scope": permission.scope})
    else:
        with _one_policy(inputs.token):
            agent = register(session, inputs.agent, update=inputs.update)
        issue(session, agent.agent_id, inputs.token)


@contextmanager
def _one_policy(wanted: TokenRequest) -> Iterator[None]:
    try:
        yield
    except PolicyRefusedError as refusal:
        # Without these fields, the admin's policy would allow the registration, and the next exchange would fail.
        refusal.suggest(trustRegistered=True)
        if wanted.resource:
            refusal.suggest_grant(wanted.resource, wanted.scope.split() or [_SCOPE_TO_FILL_IN])
        raise
