"""The table of agents."""

from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, Table, Text, UniqueConstraint, insert, or_, select, update
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain.agent import Agent, AgentFilter, AgentStatus, RegisteredBy
from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.text import ascii_lower
from sentryagent_idp.errors import AgentAlreadyExists
from sentryagent_idp.store.columns import METADATA, Id, Moment, Words, word_of
from sentryagent_idp.store.failures import unique
from sentryagent_idp.store.paging import equal, fetch_page

AGENTS = Table(
    "agents",
    METADATA,
    Column("agent_id", Id, primary_key=True),
    Column("email", Text, nullable=False),
    Column("email_key", Text, nullable=False),
    Column("description", Text),
    Column("agent_type", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("capabilities", Words, nullable=False),
    Column("owner", Text, nullable=False),
    Column("deployment_env", Text, nullable=False),
    Column("status", word_of(AgentStatus), nullable=False),
    Column("registered_by_provider", Text),
    Column("registered_by_repository", Text),
    Column("registered_by_repository_id", Text),
    Column("registered_by_issuer", Text),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    UniqueConstraint("email_key"),
    Index(None, "created_at", "agent_id"),
    Index(None, "owner"),
    Index(None, "registered_by_repository_id"),
)

_REGISTERED_BY = ("provider", "repository", "repository_id", "issuer")

_T = AGENTS.c


class AgentTable:
    """Agents in one transaction (`sentryagent_idp.ports.Agents`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._lock = lock

    def get(self, agent_id: UUID) -> Agent | None:
        by_id = select(AGENTS).where(_T.agent_id == agent_id)
        row = self._connection.execute(
            by_id.with_for_update(key_share=True) if self._lock else by_id
        ).one_or_none()
        return None if row is None else _agent(row)

    def status(self, agent_id: UUID) -> AgentStatus | None:
        return self._connection.scalar(select(_T.status).where(_T.agent_id == agent_id))

    def by_email(self, email: str) -> Agent | None:
        by_email = select(AGENTS).where(_T.email_key == ascii_lower(email))
        row = self._connection.execute(by_email).one_or_none()
        return None if row is None else _agent(row)

    def page(self, wanted: AgentFilter, *, page: int, limit: int) -> Page[Agent]:
        conditions = [*equal(AGENTS, asdict(replace(wanted, registered_by_issuer=None)), case_folded="email")]
        if wanted.registered_by_issuer is not None:
            issuer = _T.registered_by_issuer
            conditions.append(or_(issuer.is_(None), issuer == wanted.registered_by_issuer))
        order = (_T.created_at, _T.agent_id)
        total, rows = fetch_page(self._connection, AGENTS, conditions, order, page=page, limit=limit)
        return Page([_agent(row) for row in rows], total)

    def add(self, agent: Agent) -> None:
        with unique(self._connection, "email_key", _taken()):
            self._connection.execute(insert(AGENTS), _values(agent))

    def replace(self, agent: Agent) -> None:
        with unique(self._connection, "email_key", _taken()):
            self._connection.execute(
                update(AGENTS).where(_T.agent_id == agent.agent_id).values(_values(agent))
            )

    def move_issuer(self, source: str, target: str) -> None:
        is_of_source = _T.registered_by_issuer == source
        self._connection.execute(update(AGENTS).where(is_of_source).values(registered_by_issuer=target))


def _taken() -> AgentAlreadyExists:
    return AgentAlreadyExists("An agent has this e-mail address already; use that agent or another address.")


def _values(agent: Agent) -> dict[str, Any]:
    values = asdict(agent)
    registered_by = values.pop("registered_by") or dict.fromkeys(_REGISTERED_BY)
    registration = {f"registered_by_{name}": value for name, value in registered_by.items()}
    return values | registration | {"email_key": ascii_lower(agent.email)}


def _agent(row: Row[Any]) -> Agent:
    values = row._asdict()
    del values["email_key"]
    registration = {name: values.pop(f"registered_by_{name}") for name in _REGISTERED_BY}
    is_registered = registration["repository_id"] is not None
    return Agent(**values, registered_by=RegisteredBy(**registration) if is_registered else None)
