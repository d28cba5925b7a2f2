"""The issuers that policies belong to; a policy never matches a token of another issuer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.records import changes, policy_record
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.errors import AdminRefused, TrustPolicyAlreadyExists
from sentryagent_idp.ports import Clock, Store, Transaction
from sentryagent_idp.use_cases.audit import Auditor


def other_issuers(store: Store, configured: Collection[str]) -> Mapping[str, int]:
    """Count the policies of issuers that are not configured, by issuer; raises `DatabaseUnavailable`."""
    with store.read() as tx:
        counts = tx.policies.count_by_issuer()
    return {issuer: count for issuer, count in counts.items() if issuer not in configured}


@dataclass(frozen=True, slots=True)
class IssuerMove:
    """Moves policies to another issuer, for example when an enterprise enables its own issuer."""

    store: Store
    auditor: Auditor
    clock: Clock

    def run(self, actor: str, source: str, target: str, context: RequestContext) -> int:
        """Move all policies of `source` or none, with an audit record of each; returns their number.

        Agents that the repositories of `source` registered move with them. The ids that pin repositories are kept: on
        another GitHub instance the ids differ, and nothing matches until an admin corrects them. Raises `AdminRefused`
        if `target` has an equal policy, and `DatabaseUnavailable`.
        """
        with self.store.write() as tx:
            policies = tx.policies.of_issuer(source)
            tx.agents.move_issuer(source, target)
            for before in policies:
                after = replace(before, issuer=target, version=before.version + 1, updated_at=self.clock())
                _replace(tx, after)
                self.auditor.success(
                    tx,
                    context,
                    Action.POLICY_UPDATED,
                    actor,
                    **after.in_audit,
                    details={"changed": changes(policy_record(before), policy_record(after))},
                )
        return len(policies)


def _replace(tx: Transaction, policy: TrustPolicy) -> None:
    try:
        tx.policies.replace(policy)
    except TrustPolicyAlreadyExists as taken:
        raise AdminRefused(
            f"Nothing was moved: the policy {policy.id} of {policy.repository} is equal to "
            f"{taken.details.get('policyId')}, which already belongs to {policy.issuer}; delete one of the two."
        ) from taken
