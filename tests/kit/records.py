"""Valid agents, policies, services, credentials and audit records, of which a test changes the fields that it is about."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sentryagent_idp.domain.agent import Agent, AgentStatus, Credential
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.service import Service, ServiceScope
from sentryagent_idp.domain.trust_policy import TrustPolicy

GITHUB = "https://token.actions.githubusercontent.com"


def agent(now: datetime, **changes: Any) -> Agent:
    """An active agent with a unique e-mail address."""
    agent_id = uuid4()
    members = {
        "agent_id": agent_id,
        "email": f"{agent_id}@example.com",
        "description": None,
        "agent_type": "custom",
        "version": "1.0.0",
        "capabilities": ("ci:run",),
        "owner": "octo",
        "deployment_env": "production",
        "status": AgentStatus.ACTIVE,
        "registered_by": None,
    }
    return Agent(**{**members, "created_at": now, "updated_at": now, **changes})


def policy(now: datetime, **changes: Any) -> TrustPolicy:
    """A bootstrap policy of `Octo/Repo`; `changes` may name fields and conditions."""
    own = {name: changes.pop(name) for name in Conditions.__dataclass_fields__ if name in changes}
    members = {"id": uuid4(), "issuer": GITHUB, "repository": "Octo/Repo", "conditions": Conditions(**own)}
    return TrustPolicy(**{**members, "created_at": now, "updated_at": now, **changes})


def service(now: datetime, **changes: Any) -> Service:
    """A service with the scopes `read` and `deploy`."""
    members = {
        "service_id": uuid4(),
        "identifier": "https://deploy.example.com",
        "description": None,
        "scopes": (ServiceScope("read"), ServiceScope("deploy", "Deploy to production")),
        "max_ttl": None,
    }
    return Service(**{**members, "created_at": now, "updated_at": now, **changes})


def credential(now: datetime, agent_id: UUID, **changes: Any) -> Credential:
    """A valid credential of an agent."""
    members = {
        "credential_id": uuid4(),
        "agent_id": agent_id,
        "secret_hash": "$argon2id$…",
        "created_at": now,
    }
    return Credential(**{**members, "expires_at": None, "revoked_at": None, **changes})


def audit_record(now: datetime, **changes: Any) -> AuditRecord:
    """The audit record of an issued token."""
    members = {"event_id": uuid4(), "timestamp": now, "actor": "admin-cli", "request_id": str(uuid4())}
    action = {"action": Action.TOKEN_ISSUED, "outcome": Outcome.SUCCESS, "address": "192.0.2.7"}
    return AuditRecord(**{**members, **action, **changes})


def keep(store: Any, *things: Any) -> None:
    """Write these records to a database in one transaction."""
    with store.write() as tx:
        add = {
            Agent: tx.agents.add,
            Service: tx.services.add,
            TrustPolicy: tx.policies.add,
            AuditRecord: tx.audit.append,
        }
        for it in things:
            add[type(it)](it)
