"""What the use cases require of the database, in protocols that `sentryagent_idp.store` fulfils.

A `Transaction` is one database transaction: all of it is committed when its block ends, none of it when it raises.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sentryagent_idp.domain.agent import Agent, AgentFilter, AgentStatus, Credential
from sentryagent_idp.domain.audit import AuditFilter, AuditPage, AuditRecord
from sentryagent_idp.domain.audit_chain import AuditTail, Row, Seal, SealedRecord
from sentryagent_idp.domain.client import AdminClient
from sentryagent_idp.domain.identity import SignedClaims
from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.service import Service, ServiceFilter
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.domain.trust_policy import PolicyFilter, TrustPolicy
from sentryagent_idp.domain.used_token import UsedToken

Clock = Callable[[], datetime]
"""The present, in UTC."""

NewId = Callable[[], UUID]

NewTokenId = Callable[[], str]
"""A fresh `jti` of at least 128 random bits (RFC 7519, 4.1.7)."""


class Policies(Protocol):
    """Trust policies, by id and by repository."""

    def get(self, policy_id: UUID) -> TrustPolicy | None:
        """The policy; inside a write transaction its row stays locked until the end."""

    def for_repository(self, issuer: str, repository_key: str) -> Sequence[TrustPolicy]:
        """All policies of a repository under one issuer, whatever their agent, oldest first; not locked."""

    def names_of(self, issuer: str, repository_id: str) -> Sequence[str]:
        """Names of repositories in the policies that are pinned to this id: at most three, each once."""

    def fingerprints(self, repository_keys: Collection[str]) -> Mapping[tuple[str, str], Hashable]:
        """A value for each of these repositories, by issuer and repository, that has policies; nothing is locked.

        There must be one repository at least. The value is another one as soon as a policy is added, changed, pinned
        or removed, the agent of one changes its status, or a service that one grants changes.
        """

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        """One page by `created_at`, then `id`."""

    def count_by_issuer(self) -> Mapping[str, int]:
        """How many policies each issuer has."""

    def of_issuer(self, issuer: str) -> Sequence[TrustPolicy]:
        """All policies of an issuer, oldest first; inside a write transaction their rows stay locked until the end."""

    def derived_from(self, policy_id: UUID) -> Sequence[TrustPolicy]:
        """The policies that were written for agents registered under this bootstrap policy, oldest first.

        Inside a write transaction their rows stay locked until the end: one that is detached at the same moment must
        not be changed or removed after that.
        """

    def granting(self, service: str) -> Sequence[TrustPolicy]:
        """The policies that grant a service, by its identifier, oldest first; disabled and derived ones too, not locked."""

    def add(self, policy: TrustPolicy) -> None:
        """Store a new policy; the services that it grants must exist (`Services.named`).

        Raises `TrustPolicyAlreadyExists`, which names the other, where one has the same issuer, agent, repository
        and conditions; the transaction stays usable.
        """

    def replace(self, policy: TrustPolicy) -> None:
        """Store the policy's new content under its id; raises as `add`."""

    def delete(self, policy_id: UUID) -> None:
        """Remove a policy and the policies derived from it."""

    def pin(
        self, *, issuer: str, repository_key: str, repository_id: str, owner_id: str, now: datetime
    ) -> Sequence[UUID]:
        """Write the ids into every policy of that repository that lacks one, and raise their `version`.

        Returns the ids of the changed policies. An id that is already there is never overwritten.
        """

    def mark_used(self, policy_ids: Collection[UUID], now: datetime) -> None:
        """Set `last_used_at`, at most once a minute; changes neither `version` nor `updated_at`."""


class Services(Protocol):
    """The services."""

    def get(self, service_id: UUID) -> Service | None:
        """The service; inside a write transaction its row stays locked until the end, also for `named`."""

    def named(self, identifiers: Collection[str]) -> Sequence[Service]:
        """Those of the services that exist; inside a write transaction they neither change nor go until its end.

        Several transactions may have that at the same time. One that also locks policies must ask for this first.
        """

    def identifiers(self) -> Sequence[str]:
        """The identifiers of all services."""

    def max_ttls(self, identifiers: Collection[str]) -> Mapping[str, int | None]:
        """The `max_ttl` of those of the services that exist, in seconds; never locked."""

    def page(self, wanted: ServiceFilter, *, page: int, limit: int) -> Page[Service]:
        """One page by `created_at`, then `service_id`."""

    def add(self, service: Service) -> None:
        """Store a new service; raises `ServiceAlreadyExists`, which names the other, where the identifier is taken."""

    def replace(self, service: Service) -> None:
        """Store the service's new content under its id."""

    def delete(self, service_id: UUID) -> None:
        """Remove a service that no policy grants."""


class Agents(Protocol):
    """The agents."""

    def get(self, agent_id: UUID) -> Agent | None:
        """The agent; inside a write transaction its row stays locked until the end."""

    def status(self, agent_id: UUID) -> AgentStatus | None:
        """The agent's status alone, never locked: exchanges of one agent must not queue for its row."""

    def by_email(self, email: str) -> Agent | None:
        """The agent with this address, compared without case, whatever its status."""

    def page(self, wanted: AgentFilter, *, page: int, limit: int) -> Page[Agent]:
        """One page by `created_at`, then `agent_id`."""

    def add(self, agent: Agent) -> None:
        """Store a new agent; raises `AgentAlreadyExists` where the address is taken."""

    def replace(self, agent: Agent) -> None:
        """Store the agent's new content under its id; raises as `add`."""

    def move_issuer(self, source: str, target: str) -> None:
        """Let repositories of `target` have the agents that those of `source` registered."""


class Credentials(Protocol):
    """The client secrets of agents."""

    def get(self, agent_id: UUID, credential_id: UUID) -> Credential | None:
        """The agent's credential with this id."""

    def of_agent(self, agent_id: UUID) -> Sequence[Credential]:
        """All of the agent's credentials, revoked ones too, oldest first."""

    def live(self, agent_id: UUID, now: datetime) -> Sequence[Credential]:
        """The agent's credentials whose secret is accepted at `now`, oldest first."""

    def add(self, credential: Credential) -> None:
        """Store a new credential."""

    def replace(self, credential: Credential) -> None:
        """Store the credential's new content under its id."""


class AdminClients(Protocol):
    """The programs that administer the provider, and those that introspect the tokens of a service."""

    def get(self, client_id: str) -> AdminClient | None:
        """The client; inside a write transaction its row stays locked until the end."""

    def all(self) -> Sequence[AdminClient]:
        """All clients, revoked ones too, oldest first."""

    def bound_to(self, service: str, now: datetime) -> int:
        """How many clients of the service, by its identifier, are active at `now`."""

    def named(self, name: str, now: datetime) -> int:
        """How many clients with this name are active at `now`."""

    def mark_used(self, client_id: str, now: datetime) -> None:
        """Record the use, unless another one was recorded within the last minute."""

    def add(self, client: AdminClient) -> None:
        """Store a new client."""

    def replace(self, client: AdminClient) -> None:
        """Store the client's new content under its id."""


class UsedTokens(Protocol):
    """The `jti`s of GitHub tokens that were exchanged: each is good once (federation-security B6)."""

    def contains(self, issuer: str, jti: str) -> bool:
        """Whether the token was exchanged already."""

    def claim(self, token: UsedToken) -> bool:
        """Use the token up; `False` where somebody, perhaps at the same moment, was first."""

    def claim_all(self, tokens: Sequence[UsedToken]) -> Sequence[bool]:
        """Use each token up, as `claim` does; of the same token twice, one is first."""

    def purge(self, now: datetime, *, limit: int) -> int:
        """Delete at most `limit` rows whose `keep_until` is past; returns how many went."""


class RevokedTokens(Protocol):
    """The `jti`s of our own access tokens that were revoked before their end."""

    def contains(self, jti: str) -> bool:
        """Whether the token was revoked."""

    def add(self, jti: str, *, keep_until: datetime) -> None:
        """Revoke the token; once more changes nothing."""

    def purge(self, now: datetime, *, limit: int) -> int:
        """Delete at most `limit` rows whose `keep_until` is past; returns how many went."""


class AuditLog(Protocol):
    """The audit, append-only."""

    def append(self, record: AuditRecord) -> None:
        """Write one record, in the transaction of what it records."""

    def append_all(self, records: Sequence[AuditRecord]) -> None:
        """Write several records, in their order."""

    def page(
        self, wanted: AuditFilter, *, page: int = 1, limit: int, is_counted: bool = False
    ) -> AuditPage | None:
        """One page; `None` if the audit has no event `after`.

        The oldest first are in an order in which nothing appears later before what was read: where transactions may
        commit late, that of the seals, and only what is sealed. The total of very many records is not counted.
        """


class AuditSeals(Protocol):
    """The audit's hash chain (`sentryagent_idp.domain.audit_chain`), next to the records."""

    @property
    def is_gapless(self) -> bool:
        """Whether this database never leaves a sequence number out, so that a missing one is a removed record."""

    def has_work(self) -> bool:
        """Whether a record waits for its seal; cheap."""

    def try_lock(self) -> bool:
        """Become the only one that seals until the transaction ends; `False` where another is."""

    def head(self) -> Seal | None:
        """The last seal."""

    def anchor(self) -> Seal | None:
        """The lowest seal: what the chain begins with. Its own record may be gone."""

    def unsealed(self, *, limit: int) -> Sequence[Row]:
        """The next records to seal: those that appeared late, then the others in their order."""

    def append(self, seals: Sequence[Seal], now: datetime) -> None:
        """Store the next seals, and which sequence numbers they leave open."""

    def close_gaps(self, before: datetime) -> None:
        """Wait no longer for numbers that were left open before: no transaction that took them can still be open."""

    def after(self, number: int, *, limit: int) -> Sequence[SealedRecord]:
        """The next seals with their records."""

    def get(self, number: int) -> Seal | None:
        """The seal with this number."""

    def before(self, moment: datetime) -> Seal | None:
        """A seal before those of all records from this moment on, as late as can be told; `None` if all may be."""

    def slipped_in(self, after: int, up_to: int) -> str | None:
        """The event id of a record between two numbers that was written where the chain had passed."""

    def tail(self) -> AuditTail:
        """What is not sealed yet."""

    def purge(self, before: datetime, *, limit: int) -> int:
        """Delete at most `limit` of the first sealed records, as far as they are older; returns how many went.

        The last of their seals stays as the new anchor.
        """


class SigningKeys(Protocol):
    """The keys of our own tokens."""

    def lock(self) -> None:
        """Wait until nobody else changes the keys, and keep it so until the transaction ends."""

    def all(self) -> Sequence[StoredKey]:
        """All keys, oldest first."""

    def add(self, key: StoredKey) -> None:
        """Store a new key."""

    def set_pem(self, kid: str, private_pem: bytes) -> None:
        """Store the same key in another form, such as encrypted."""

    def set_status(self, kid: str, status: KeyStatus, *, retired_at: datetime | None) -> None:
        """Let a key sign, or let it only verify."""

    def remove(self, kid: str) -> None:
        """Forget a key: it is published no more, and what it signed is refused."""

    def version(self) -> int:
        """A number that changes with every change of the keys: caches compare it."""


class PublishedSettings(Protocol):
    """Settings of the running provider that the command line must share, such as its issuer."""

    def get(self, name: str) -> Any:
        """The JSON value stored under `name`, or `None`."""

    def put(self, name: str, value: Any) -> None:
        """Store a JSON value under `name`."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One database transaction, by resource."""

    policies: Policies
    services: Services
    agents: Agents
    credentials: Credentials
    clients: AdminClients
    used_tokens: UsedTokens
    revoked_tokens: RevokedTokens
    audit: AuditLog
    seals: AuditSeals
    signing_keys: SigningKeys
    settings: PublishedSettings


class WriterBusy(Exception):
    """Another transaction writes at the moment; try again soon."""


class Store(Protocol):
    """The database. All transactions raise `DatabaseUnavailable` where it does not answer."""

    @property
    def is_local(self) -> bool:
        """Whether a transaction runs in this process, without a network, so that a short one takes a millisecond."""

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that only reads: the database refuses to write in it."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """A transaction that may write; on SQLite it holds the write lock from its beginning.

        If it need not be `durable`, its commit does not wait for the disk: after a power failure it may be undone, which
        is right only for what is then done again.
        """

    def write_at_once(self) -> AbstractContextManager[Transaction]:
        """As `write`, of a local database, and without waiting: raises `WriterBusy` if another transaction writes."""


class VerifyIdToken(Protocol):
    """The one way from what a caller sends to `SignedClaims`."""

    def __call__(self, unverified_token: str, *, now: int) -> SignedClaims:
        """The claims of a token that GitHub signed for this provider, at `now` (seconds since the epoch).

        Raises `InvalidOidcToken`, and `IssuerUnavailable` if there is no key to check with.
        """
