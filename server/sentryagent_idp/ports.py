"""The database as the use cases see it: protocols that `sentryagent_idp.store` implements.

A `Transaction` is one database transaction: it commits when its block ends, and rolls back if the block raises.
A method that locks rows does so only in a write transaction, until that transaction ends.
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
from sentryagent_idp.domain.client import Client
from sentryagent_idp.domain.identity import SignedClaims
from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.service import Service, ServiceFilter
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.domain.trust_policy import PolicyFilter, TrustPolicy
from sentryagent_idp.domain.used_token import UsedToken

Clock = Callable[[], datetime]
"""Returns the current time in UTC."""

NewId = Callable[[], UUID]

NewTokenId = Callable[[], str]
"""Returns a new `jti` of at least 128 random bits (RFC 7519, 4.1.7)."""


class Policies(Protocol):
    """Trust policies, by id and by repository."""

    def get(self, policy_id: UUID) -> TrustPolicy | None:
        """Return the policy with this id, or `None`; locks its row."""

    def for_repository(self, issuer: str, repository_key: str) -> Sequence[TrustPolicy]:
        """Return all policies of a repository under one issuer, for any agent, oldest first; locks nothing."""

    def names_of(self, issuer: str, repository_id: str) -> Sequence[str]:
        """Return at most three distinct repository names from the policies that are pinned to this repository id."""

    def fingerprints(self, repository_keys: Collection[str]) -> Mapping[tuple[str, str], Hashable]:
        """Return a fingerprint of the policies of each repository that has any, by issuer and repository; locks nothing.

        A fingerprint changes when a policy is added, changed, pinned or deleted, when the status of a policy's agent
        changes, and when a service that a policy grants changes. `repository_keys` must not be empty.
        """

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        """Return one page of the matching policies, ordered by `created_at`, then `id`."""

    def count_by_issuer(self) -> Mapping[str, int]:
        """Return the number of policies of each issuer."""

    def of_issuer(self, issuer: str) -> Sequence[TrustPolicy]:
        """Return all policies of an issuer, oldest first; locks their rows."""

    def derived_from(self, policy_id: UUID) -> Sequence[TrustPolicy]:
        """Return the policies created for agents registered under this bootstrap policy, oldest first.

        Locks their rows, so that no policy is changed or deleted with its origin after another transaction detached it.
        """

    def granting(self, service: str) -> Sequence[TrustPolicy]:
        """Return all policies that grant this service (an identifier), oldest first; locks nothing."""

    def add(self, policy: TrustPolicy) -> None:
        """Store a new policy; the services that it grants must exist (`Services.named`).

        Raises `TrustPolicyAlreadyExists`, which names the existing policy, if one has the same issuer, agent,
        repository and conditions; the transaction stays usable.
        """

    def replace(self, policy: TrustPolicy) -> None:
        """Replace the stored policy that has the same id; raises the same error as `add`."""

    def delete(self, policy_id: UUID) -> None:
        """Delete a policy and the policies derived from it."""

    def pin(
        self, *, issuer: str, repository_key: str, repository_id: str, owner_id: str, now: datetime
    ) -> Sequence[UUID]:
        """Set the ids in every policy of the repository that lacks one, and increment its `version`.

        An id that is already set is never overwritten. Returns the ids of the changed policies.
        """

    def mark_used(self, policy_ids: Collection[UUID], now: datetime) -> None:
        """Set `last_used_at`, at most once a minute; leaves `version` and `updated_at` unchanged."""


class Services(Protocol):
    """Services, by id and by identifier."""

    def get(self, service_id: UUID) -> Service | None:
        """Return the service with this id, or `None`; locks its row, also for `named`."""

    def named(self, identifiers: Collection[str]) -> Sequence[Service]:
        """Return the services with these identifiers, as far as they exist; locks them against change and deletion.

        Several transactions can hold this lock at once. A transaction that also locks policies must call this first.
        """

    def identifiers(self) -> Sequence[str]:
        """Return the identifiers of all services, sorted."""

    def max_ttls(self, identifiers: Collection[str]) -> Mapping[str, int | None]:
        """Return the `max_ttl` in seconds of each service that exists, by identifier; locks nothing."""

    def page(self, wanted: ServiceFilter, *, page: int, limit: int) -> Page[Service]:
        """Return one page of the matching services, ordered by `created_at`, then `service_id`."""

    def add(self, service: Service) -> None:
        """Store a new service; raises `ServiceAlreadyExists`, naming the existing one, if the identifier is taken."""

    def replace(self, service: Service) -> None:
        """Replace the stored service that has the same id."""

    def delete(self, service_id: UUID) -> None:
        """Delete a service that no policy grants."""


class Agents(Protocol):
    """Agents, by id and by e-mail address."""

    def get(self, agent_id: UUID) -> Agent | None:
        """Return the agent with this id, or `None`; locks its row."""

    def status(self, agent_id: UUID) -> AgentStatus | None:
        """Return the agent's status; locks nothing, so that exchanges of one agent do not queue for its row."""

    def by_email(self, email: str) -> Agent | None:
        """Return the agent with this address, whatever its status; the case of ASCII letters is ignored."""

    def page(self, wanted: AgentFilter, *, page: int, limit: int) -> Page[Agent]:
        """Return one page of the matching agents, ordered by `created_at`, then `agent_id`."""

    def add(self, agent: Agent) -> None:
        """Store a new agent; raises `AgentAlreadyExists` if the address is taken."""

    def replace(self, agent: Agent) -> None:
        """Replace the stored agent that has the same id; raises the same error as `add`."""

    def move_issuer(self, source: str, target: str) -> None:
        """Make `target` the issuer of all registrations by repositories of the issuer `source`."""


class Credentials(Protocol):
    """The client secrets of agents."""

    def get(self, agent_id: UUID, credential_id: UUID) -> Credential | None:
        """Return the agent's credential with this id, or `None`."""

    def of_agent(self, agent_id: UUID) -> Sequence[Credential]:
        """Return all credentials of the agent, including revoked ones, oldest first."""

    def live(self, agent_id: UUID, now: datetime) -> Sequence[Credential]:
        """Return the agent's credentials that are neither revoked nor expired at `now`, oldest first."""

    def add(self, credential: Credential) -> None:
        """Store a new credential."""

    def replace(self, credential: Credential) -> None:
        """Replace the stored credential that has the same id."""


class Clients(Protocol):
    """Clients that administer the provider, and clients that introspect the tokens of a service."""

    def get(self, client_id: str) -> Client | None:
        """Return the client with this id, or `None`; locks its row."""

    def all(self) -> Sequence[Client]:
        """Return all clients, including revoked ones, oldest first."""

    def bound_to(self, service: str, now: datetime) -> int:
        """Return the number of clients of this service (an identifier) that are active at `now`."""

    def named(self, name: str, now: datetime) -> int:
        """Return the number of clients with this name that are active at `now`."""

    def mark_used(self, client_id: str, now: datetime) -> None:
        """Set `last_used_at`, at most once a minute."""

    def add(self, client: Client) -> None:
        """Store a new client."""

    def replace(self, client: Client) -> None:
        """Replace the stored client that has the same id."""


class UsedTokens(Protocol):
    """The `jti`s of exchanged GitHub tokens: each token can be exchanged once (B6)."""

    def contains(self, issuer: str, jti: str) -> bool:
        """Return whether the token was already exchanged."""

    def claim(self, token: UsedToken) -> bool:
        """Mark the token as used; returns `False` if it already was, even by a concurrent transaction."""

    def claim_all(self, tokens: Sequence[UsedToken]) -> Sequence[bool]:
        """Mark each token as used, like `claim`; if a token occurs twice, the second result is `False`."""

    def purge(self, now: datetime, *, limit: int) -> int:
        """Delete at most `limit` rows whose `keep_until` has passed; returns the number of deleted rows."""


class RevokedTokens(Protocol):
    """The `jti`s of our access tokens that were revoked before they expired."""

    def contains(self, jti: str) -> bool:
        """Return whether the token was revoked."""

    def add(self, jti: str, *, keep_until: datetime) -> None:
        """Revoke the token; revoking it again changes nothing."""

    def purge(self, now: datetime, *, limit: int) -> int:
        """Delete at most `limit` rows whose `keep_until` has passed; returns the number of deleted rows."""


class AuditLog(Protocol):
    """The append-only audit log."""

    def append(self, record: AuditRecord) -> None:
        """Append one record, in the same transaction as the change that it records."""

    def append_all(self, records: Sequence[AuditRecord]) -> None:
        """Append several records, in this order."""

    def page(
        self, wanted: AuditFilter, *, page: int = 1, limit: int, is_counted: bool = False
    ) -> AuditPage | None:
        """Return one page, or `None` if the log has no event with the id in `wanted.after`.

        Reading oldest first never misses a record that commits late: if transactions can commit out of order, only
        sealed records are returned, in the order of their seals. The total is left out if there are too many records
        to count.
        """


class AuditSeals(Protocol):
    """The audit log's hash chain (`sentryagent_idp.domain.audit_chain`), stored next to the records."""

    @property
    def is_gapless(self) -> bool:
        """Whether this database never skips a sequence number, so that a missing number means a removed record."""

    def has_work(self) -> bool:
        """Return whether any record waits for its seal; a cheap query."""

    def try_lock(self) -> bool:
        """Become the only sealer until the transaction ends; returns `False` if another sealer holds the lock."""

    def head(self) -> Seal | None:
        """Return the last seal, or `None` if there are no seals."""

    def anchor(self) -> Seal | None:
        """Return the lowest seal, at which the chain begins; retention may have deleted its record."""

    def unsealed(self, *, limit: int) -> Sequence[Row]:
        """Return the next records to seal: records that committed late, then the others, each by sequence number."""

    def append(self, seals: Sequence[Seal], now: datetime) -> None:
        """Store the next seals, and record the gaps in their sequence numbers as found at `now`."""

    def close_gaps(self, before: datetime) -> None:
        """Forget gaps found before this time; no transaction that took one of their numbers may still be open."""

    def after(self, number: int, *, limit: int) -> Sequence[SealedRecord]:
        """Return the next seals after this seal number, each with its record."""

    def get(self, number: int) -> Seal | None:
        """Return the seal with this number, or `None`."""

    def before(self, moment: datetime) -> Seal | None:
        """Return the latest seal known to precede all records from this time on, or `None` if no seal does."""

    def slipped_in(self, after: int, up_to: int) -> str | None:
        """Return the event id of a record that was inserted into the sealed part of the log, or `None`.

        Searches the sequence numbers above `after`, up to and including `up_to`.
        """

    def tail(self) -> AuditTail:
        """Return how many records are unsealed, and how many numbers after the last seal have no record."""

    def purge(self, before: datetime, *, limit: int) -> int:
        """Delete at most `limit` records from the beginning of the chain, stopping at the first that is not older.

        Their last seal stays as the new anchor. Returns the number of deleted records.
        """


class SigningKeys(Protocol):
    """The keys that sign our tokens."""

    def lock(self) -> None:
        """Wait for the exclusive right to change the keys, and hold it until the transaction ends."""

    def all(self) -> Sequence[StoredKey]:
        """Return all keys, oldest first."""

    def add(self, key: StoredKey) -> None:
        """Store a new key."""

    def set_pem(self, kid: str, private_pem: bytes) -> None:
        """Replace the stored form of a key, for example with an encrypted one."""

    def set_status(self, kid: str, status: KeyStatus, *, retired_at: datetime | None) -> None:
        """Set a key's status, and the time at which it was retired."""

    def remove(self, kid: str) -> None:
        """Delete a key: it is no longer published, and tokens that it signed are refused."""

    def version(self) -> int:
        """Return a number that changes with every change to the keys, for caches to compare."""


class PublishedSettings(Protocol):
    """Settings that the running provider shares with the command line, such as its issuer."""

    def get(self, name: str) -> Any:
        """Return the JSON value stored under `name`, or `None`."""

    def put(self, name: str, value: Any) -> None:
        """Store a JSON value under `name`."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One database transaction, with an attribute for each resource."""

    policies: Policies
    services: Services
    agents: Agents
    credentials: Credentials
    clients: Clients
    used_tokens: UsedTokens
    revoked_tokens: RevokedTokens
    audit: AuditLog
    seals: AuditSeals
    signing_keys: SigningKeys
    settings: PublishedSettings


class WriterBusy(Exception):
    """Another transaction is writing; try again soon."""


class Store(Protocol):
    """The database. Every transaction raises `DatabaseUnavailable` if the database does not respond."""

    @property
    def is_local(self) -> bool:
        """Whether transactions run in this process, without a network, so that a short one takes about a millisecond."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a read-only transaction: the database refuses any write in it."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction that can write; on SQLite it holds the write lock from its beginning.

        Without `durable`, the commit does not wait for the disk, and a power failure can undo it: use this only for work
        that will then be repeated.
        """

    def write_at_once(self) -> AbstractContextManager[Transaction]:
        """Like `write`, but never waits; for local databases. Raises `WriterBusy` if another transaction is writing."""


class VerifyIdToken(Protocol):
    """Verifies the GitHub ID token that a caller sends."""

    def __call__(self, unverified_token: str, *, now: int) -> SignedClaims:
        """Return the claims of a token that GitHub signed for this provider, valid at `now` (seconds since the epoch).

        Raises `InvalidOidcToken`, or `IssuerUnavailable` if there is no key to verify the token with.
        """
