"""Simulation of the exchange: the same rules, but nothing is used up, pinned, issued or counted."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from typing_extensions import TypedDict

from sentryagent_idp import errors
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot, read_snapshot
from sentryagent_idp.domain import explanation, scopes
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.records import IdText, TracedPolicy
from sentryagent_idp.domain.trust_policy import Allowed, DenialReason, ScopeRefused, granted_scopes
from sentryagent_idp.ports import Clock, Store, Transaction, VerifyIdToken
from sentryagent_idp.use_cases.used_tokens import check_unused

_CODES = {
    DenialReason.IDENTITY_CHANGED: errors.IdentityChanged.code,
    DenialReason.BRANCH_NOT_PERMITTED: errors.BranchNotPermitted.code,
    DenialReason.TRUST_POLICY_VIOLATION: errors.TrustPolicyViolation.code,
    DenialReason.SERVICE_NOT_PERMITTED: errors.ServiceNotPermitted.code,
    DenialReason.REF_TYPE_MISSING: errors.InvalidOidcToken.code,
}

_MOST_COMPARED = 10_000
"""Comparisons of a run with a policy in one request: each takes a tenth of a millisecond, and its trace 100 bytes."""


class Simulated(TypedDict):
    """The decision that the exchange would make."""

    allowed: bool
    code: str | None
    reason: str | None
    policyId: IdText | None
    scope: str | None
    trace: list[TracedPolicy]


@dataclass(frozen=True, slots=True)
class HypotheticalRun:
    """A hypothetical run, described by GitHub's claims, and its request; `service` is a service's identifier."""

    claims: Mapping[str, Any]
    agent_id: UUID | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Simulation:
    """Decides on hypothetical claims, or on a real ID token, for the authors of policies."""

    store: Store
    verify_id_token: VerifyIdToken
    clock: Clock
    github_issuers: tuple[str, ...]

    def simulate_runs(self, runs: Sequence[HypotheticalRun]) -> list[Simulated]:
        """Decide on hypothetical runs, each on its own; the claims are unverified and grant nothing.

        Without `iss`, a run is of the first configured issuer. The database is read once for all runs of the same
        repository and agent. Raises `ValidationFailed` if the runs have too many policies in total.
        """
        snapshots: dict[Hashable, PolicySnapshot] = {}
        left, decisions = _MOST_COMPARED, list[Simulated]()
        with self.store.read() as tx:
            for index, run in enumerate(runs):
                identity = self._identity(run.claims)
                if identity.issuer not in self.github_issuers:
                    decisions.append(_refused(errors.InvalidOidcToken.code, "wrong_issuer", []))
                    continue
                # The repository's id is part of the key, because a snapshot has the other names known for that id.
                key = (identity.issuer, identity.repository_key, identity.repository_id, run.agent_id)
                snapshot = snapshots[key] = snapshots.get(key) or self._read(tx, identity, run.agent_id)
                left -= snapshot.size
                if left < 0 and index:
                    raise errors.ValidationFailed(
                        f"runs.{index}",
                        "the repositories of these runs have too many policies in total; send fewer runs",
                    )
                decisions.append(self._decide(snapshot, identity, run.service))
        return decisions

    def _identity(self, claims: Mapping[str, Any]) -> WorkflowIdentity:
        issuer = claims.get("iss")
        return WorkflowIdentity.hypothetical(self.github_issuers[0] if issuer is None else issuer, claims)

    def _read(self, tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None) -> PolicySnapshot:
        return read_snapshot(tx, identity, agent_id, self.github_issuers)

    def simulate_token(
        self, unverified_token: str, agent_id: UUID | None, service: str | None = None
    ) -> Simulated:
        """Decide on an ID token without using it up; raises `IssuerUnavailable`."""
        try:
            claims = self.verify_id_token(unverified_token, now=int(self.clock().timestamp()))
            identity = WorkflowIdentity.from_claims(claims)
            with self.store.read() as tx:
                check_unused(tx, identity)
                return self._decide(self._read(tx, identity, agent_id), identity, service)
        except errors.InvalidOidcToken as refusal:
            return _refused(refusal.code, refusal.reason, [])

    def _decide(self, snapshot: PolicySnapshot, identity: WorkflowIdentity, service: str | None) -> Simulated:
        decision = snapshot.decide(identity, self.clock(), service)
        trace = explanation.trace(decision.evaluations)
        if isinstance(decision, Allowed):
            policy = decision.policy
            granted = granted_scopes(policy, None, service)
            if isinstance(granted, ScopeRefused):
                refusal = errors.ScopeNotPermitted(granted.requested, granted.permitted)
                return _refused(refusal.code, refusal.message, trace)
            scope = scopes.render(granted)
            return Simulated(
                allowed=True, code=None, reason=None, policyId=str(policy.id), scope=scope, trace=trace
            )
        reason = explanation.message(decision, identity, snapshot.agent_id)
        return _refused(_CODES[decision.reason], reason, trace)


def _refused(code: str, reason: str, trace: list[TracedPolicy]) -> Simulated:
    return Simulated(allowed=False, code=code, reason=reason, policyId=None, scope=None, trace=trace)
