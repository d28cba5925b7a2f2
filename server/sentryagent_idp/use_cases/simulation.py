"""What the exchange would say: the same rules, with nothing burnt, pinned, issued or counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from typing_extensions import TypedDict

from sentryagent_idp import errors
from sentryagent_idp.concurrency.policy_snapshot import read_snapshot
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


class Simulated(TypedDict):
    """What the exchange would decide."""

    allowed: bool
    code: str | None
    reason: str | None
    policyId: IdText | None
    scope: str | None
    trace: list[TracedPolicy]


@dataclass(frozen=True, slots=True)
class Simulation:
    """Decides on hypothetical claims, or on a token of GitHub's, for those who write policies."""

    store: Store
    verify_id_token: VerifyIdToken
    clock: Clock
    github_issuer: str

    def of_claims(
        self, claims: Mapping[str, Any], agent_id: UUID | None, service: str | None = None
    ) -> Simulated:
        """The decision on a run that might be; the claims are nobody's word and open no door here."""
        identity = WorkflowIdentity.hypothetical(self.github_issuer, claims)
        with self.store.read() as tx:
            return self._decide(tx, identity, agent_id, service)

    def of_token(self, unverified_token: str, agent_id: UUID | None, service: str | None = None) -> Simulated:
        """The decision on a token, which stays good; raises `IssuerUnavailable`."""
        try:
            claims = self.verify_id_token(unverified_token, now=int(self.clock().timestamp()))
            identity = WorkflowIdentity.from_claims(claims)
            with self.store.read() as tx:
                check_unused(tx, identity)
                return self._decide(tx, identity, agent_id, service)
        except errors.InvalidOidcToken as refusal:
            return _refused(refusal.code, refusal.reason, [])

    def _decide(
        self, tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None, service: str | None
    ) -> Simulated:
        decision = read_snapshot(tx, identity, agent_id).decide(identity, self.clock(), service)
        trace = explanation.trace(decision.evaluations)
        if isinstance(decision, Allowed):
            policy = decision.policy
            granted = granted_scopes(policy, None, service)
            if isinstance(granted, ScopeRefused):
                refusal = errors.ScopeNotPermitted(granted.asked, granted.permitted)
                return _refused(refusal.code, refusal.message, trace)
            scope = scopes.render(granted)
            return Simulated(
                allowed=True, code=None, reason=None, policyId=str(policy.id), scope=scope, trace=trace
            )
        reason = explanation.message(decision, identity, agent_id)
        return _refused(_CODES[decision.reason], reason, trace)


def _refused(code: str, reason: str, trace: list[TracedPolicy]) -> Simulated:
    return Simulated(allowed=False, code=code, reason=reason, policyId=None, scope=None, trace=trace)
