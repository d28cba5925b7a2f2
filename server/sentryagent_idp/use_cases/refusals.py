"""Audit refusals that anybody can cause without limit: they are counted, so that a flood of them cannot fill the disk.

Requests without a valid token or secret are audited only as counts. For a run with a genuine ID token, the first
refusal of a kind in a minute is audited at once and in full, the others of that minute as a count.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any
from uuid import UUID

from sentryagent_idp.domain.audit import Action, Outcome, RequestContext, cut_to_size
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.errors import ExchangeRefused, InvalidOidcToken
from sentryagent_idp.ports import NewId, Store
from sentryagent_idp.runtime.addresses import allowance
from sentryagent_idp.use_cases.audit import Auditor

NOBODY = "unverified"
"""The actor of a request without an authenticated identity."""

_OTHERS = "others"
_MAX_KINDS = 100
"""Kinds counted separately: limits the records that strangers can add to the audit per minute, in each process."""
_MAX_OF_REPOSITORY = 5


@dataclass(frozen=True, slots=True)
class CredentialRefusal:
    """A kind of refusal for lack of a valid token or secret, which is only counted.

    It is given by code, reason, actor and the sender's address (for IPv6 its /64).
    """

    code: str
    reason: str
    address: str | None
    actor: str

    def bounds(self) -> Sequence["Bound"]:
        """One bound for all of them."""
        return [(None, _MAX_KINDS, CredentialRefusal(self.code, self.reason, _OTHERS, NOBODY))]

    def record(self) -> dict[str, Any]:
        """The fields of `AuditRecord` that describe this kind."""
        action = Action.TOKEN_REJECTED if self.code == InvalidOidcToken.code else Action.AUTH_FAILED
        return {"action": action, "actor": self.actor, "details": {"code": self.code, "reason": self.reason}}


@dataclass(frozen=True, slots=True)
class RunRefusal:
    """A kind of refusal of a verified run; `reason` never contains client input, the id identifies the repository.

    `repository` and `actor` are those of the first run of the kind.
    """

    code: str
    reason: str
    issuer: str
    repository_id: str
    agent_id: UUID | None
    repository: str | None = field(compare=False)
    actor: str = field(compare=False)
    address: None = None
    """Never set: runs of one repository come from many addresses."""

    def bounds(self) -> Sequence["Bound"]:
        """One bound for each code and reason, and one for each repository within it.

        So strangers, who all fail for the same few reasons, cannot crowd out other reasons, and a repository that keeps
        requesting new agents cannot hide other repositories.
        """
        rest = replace(self, agent_id=None, actor=_OTHERS)
        others = replace(rest, issuer=_OTHERS, repository_id=_OTHERS, repository=None)
        cause = (self.code, self.reason)
        return [
            (cause, _MAX_KINDS, others),
            ((*cause, self.issuer, self.repository_id), _MAX_OF_REPOSITORY, rest),
        ]

    def record(self) -> dict[str, Any]:
        """The fields of `AuditRecord` that describe this kind."""
        details = {"code": self.code, "reason": self.reason, "repository_id": self.repository_id}
        about = {"agent_id": self.agent_id, "repository": self.repository}
        return {"action": Action.TOKEN_REFUSED, "actor": self.actor, **about, "details": details}


Kind = CredentialRefusal | RunRefusal

Bound = tuple[Hashable, int, Kind]
"""The key of a bound, how many kinds are counted separately under it, and the kind that the rest is counted as."""


@dataclass(slots=True)
class RefusalCounter:
    """Counts the refusals of each kind since the last `drain`, in bounded memory, for one process."""

    _counts: Counter[Kind] = field(default_factory=Counter)
    _sizes: Counter[Hashable] = field(default_factory=Counter)
    _due: set[Kind] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def count(self, code: str, reason: str, address: str | None, actor: str = NOBODY) -> None:
        """Count one refusal; beyond a hundred kinds, new ones are counted by code and reason only."""
        kind = CredentialRefusal(code, reason, allowance(address), actor)
        with self._lock:
            self._counts[self._counted_as(kind)] += 1

    def is_first(self, kind: RunRefusal) -> bool:
        """Whether a refusal is the first of its kind, to be audited in full; if it is not, it is counted.

        Beyond a hundred kinds with the same code and reason, new ones are counted together.
        """
        with self._lock:
            counted_as = self._counted_as(kind)
            if counted_as is kind and kind in self._due:
                self._due.remove(kind)
                return True
            self._counts[counted_as] += 1
            return False

    def audit_next(self, kind: RunRefusal) -> None:
        """Treat the next refusal of the kind as the first, because the record of this one could not be written."""
        with self._lock:
            self._due.add(kind)

    def drain(self) -> dict[Kind, int]:
        """Return the counts by kind and start again: the next refusal of each kind is its first."""
        with self._lock:
            counts = {kind: count for kind, count in self._counts.items() if count}
            self._counts, self._sizes, self._due = Counter(), Counter(), set()
        return counts

    def put_back(self, counts: Mapping[Kind, int]) -> None:
        """Add drained counts that could not be written to those counted meanwhile."""
        with self._lock:
            for kind, count in counts.items():
                self._counts[self._counted_as(kind)] += count

    def _counted_as(self, kind: Kind) -> Kind:
        """The kind that a refusal is counted as: its own or, beyond a bound, the one for the rest."""
        if kind in self._counts:
            return kind
        bounds = kind.bounds()
        for shared, most, rest in bounds:
            if self._sizes[shared] >= most:
                return rest
        self._sizes.update(shared for shared, _, _ in bounds)
        self._counts[kind] = 0
        self._due.add(kind)
        return kind


@dataclass(frozen=True, slots=True)
class RefusalAudit:
    """Audits refusals of verified runs: the first of a kind in full, in its own transaction."""

    store: Store
    auditor: Auditor
    counter: RefusalCounter

    def record(
        self,
        identity: WorkflowIdentity,
        agent_id: UUID | None,
        refusal: InvalidOidcToken | ExchangeRefused,
        context: RequestContext,
        details: Mapping[str, Any],
    ) -> None:
        """Audit the first refusal of a kind with these details, or count it; if the write fails, the next is the first.

        Raises `DatabaseUnavailable`.
        """
        kind = RunRefusal(
            refusal.code,
            refusal.reason,
            identity.issuer,
            identity.repository_id,
            agent_id,
            identity.repository,
            identity.subject,
        )
        if not self.counter.is_first(kind):
            return
        record = kind.record()
        record["details"] = cut_to_size(record["details"] | details)
        try:
            with self.store.write() as tx:
                tx.audit.append(self.auditor.record(context, outcome=Outcome.FAILURE, **record))
        except Exception:
            self.counter.audit_next(kind)
            raise


@dataclass(frozen=True, slots=True)
class CountedRefusals:
    """Writes the counts to the audit, one record for each kind."""

    store: Store
    auditor: Auditor
    counter: RefusalCounter
    new_id: NewId

    def run(self) -> int:
        """Audit the counts since the last run; returns the number of records.

        Raises `DatabaseUnavailable`; the counts are then kept for the next run. If it is unknown whether the commit
        succeeded, they are written twice rather than not at all.
        """
        counts = self.counter.drain()
        if not counts:
            return 0
        try:
            with self.store.write() as tx:
                for kind, count in counts.items():
                    context = RequestContext(request_id=str(self.new_id()), address=kind.address)
                    record = kind.record()
                    record["details"]["count"] = count
                    tx.audit.append(self.auditor.record(context, outcome=Outcome.FAILURE, **record))
        except Exception:
            self.counter.put_back(counts)
            raise
        return len(counts)
