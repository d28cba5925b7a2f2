"""The token exchange (RFC 8693): a run sends its ID token and gets one of our access tokens.

Read `Exchange.run` from top to bottom: verify, decide, issue, commit. There are two paths. The first decides on a
policy snapshot, and a group commit checks that the snapshot is still current. The second does everything in one
transaction. In both, the used `jti` and the audit record are committed together before the token leaves. A refusal
uses up nothing, and it is always based on the current state of the database.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec

from sentryagent_idp.concurrency.group_commit import GroupCommit, PendingExchange
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot, SnapshotCache, read_snapshot
from sentryagent_idp.concurrency.request_greenlet import off_loop
from sentryagent_idp.domain import explanation, scopes
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome, RequestContext
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import (
    Allowed,
    Decision,
    DenialReason,
    Denied,
    ScopeRefused,
    TrustPolicy,
    effective_ttl,
    granted_scopes,
    is_use_due,
    permitted_services,
)
from sentryagent_idp.errors import (
    AgentNotTrusted,
    BranchNotPermitted,
    ExchangeRefused,
    IdentityChanged,
    InvalidOidcToken,
    ScopeNotPermitted,
    ServiceError,
    ServiceNotPermitted,
    TrustPolicyViolation,
)
from sentryagent_idp.ports import Clock, NewTokenId, Store, Transaction, VerifyIdToken
from sentryagent_idp.runtime.rate_limit import PerMinute
from sentryagent_idp.tokens import access_token
from sentryagent_idp.tokens.access_token import AccessTokenClaims
from sentryagent_idp.tokens.signing_key import SigningKey
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.key_ring import KeyRing
from sentryagent_idp.use_cases.refusals import RefusalAudit, RefusalCounter
from sentryagent_idp.use_cases.used_tokens import check_unused, use_up, used

_FEW_POLICIES = 20
"""With more policies than this, a decision is made off the event loop."""


class ExchangeRequest(msgspec.Struct, frozen=True):
    """A run's request for an access token; `expires_in` is in seconds.

    `resource` is the identifier of the service that the token is for (RFC 8707); it requires `agent_id`.
    """

    unverified_token: str
    agent_id: UUID | None = None
    resource: str | None = None
    scope: tuple[str, ...] | None = None
    expires_in: int | None = None
    dry_run: bool = False


class Exchanged(msgspec.Struct, frozen=True):
    """The result of an allowed exchange; `access_token` is `None` in a dry run."""

    policy_id: UUID
    scope: tuple[str, ...]
    issued_at: int
    expires_in: int
    access_token: str | None = None

    @property
    def expires_at(self) -> datetime:
        """When the token expires."""
        return datetime.fromtimestamp(self.issued_at + self.expires_in, UTC)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange use case with its dependencies; `token_ttl` is in seconds."""

    store: Store
    verify_id_token: VerifyIdToken
    github_issuers: tuple[str, ...]
    signing_keys: KeyRing
    snapshots: SnapshotCache
    group_commit: GroupCommit
    repository_limit: PerMinute
    refused_limit: PerMinute
    refusal_counter: RefusalCounter
    refusal_audit: RefusalAudit
    auditor: Auditor
    clock: Clock
    new_token_id: NewTokenId
    issuer: str
    token_audience: str
    token_ttl: int

    def run(self, request: ExchangeRequest, context: RequestContext) -> Exchanged:
        """Exchange an ID token for an access token; a dry run only makes the decision.

        Raises `InvalidOidcToken`, `IssuerUnavailable`, `RateLimited`, `IdentityChanged`, `BranchNotPermitted`,
        `TrustPolicyViolation`, `ServiceNotPermitted`, `ScopeNotPermitted`, `DatabaseUnavailable`.
        """
        identity = self._verify(request, context)
        # Not before verification: a forged token must not use up the rate limit of the repository that it names.
        self.repository_limit.check(f"{identity.issuer} {identity.repository_id}")
        try:
            if request.dry_run:
                return off_loop(partial(self._try, identity, request))
            return self._by_snapshot(identity, request, context) or off_loop(
                partial(self._in_one_transaction, identity, request, context)
            )
        except (InvalidOidcToken, ExchangeRefused) as refusal:
            off_loop(partial(self._audit_refusal, identity, request, refusal, context))
            raise

    def _verify(self, request: ExchangeRequest, context: RequestContext) -> WorkflowIdentity:
        try:
            claims = self.verify_id_token(request.unverified_token, now=int(self.clock().timestamp()))
        except InvalidOidcToken as refusal:
            if refusal.claims is None:
                # Counted, never audited in full: anybody can send such tokens without limit.
                self.refusal_counter.count(refusal.code, refusal.reason, context.address)
            else:
                self._refuse_verified(WorkflowIdentity.of_refused(refusal.claims), request, refusal, context)
            raise
        return WorkflowIdentity.from_claims(claims)

    def _refuse_verified(
        self,
        run: WorkflowIdentity,
        request: ExchangeRequest,
        refusal: InvalidOidcToken,
        context: RequestContext,
    ) -> None:
        """Audit the refusal of a genuine ID token, for example one for another audience.

        These refusals have their own rate limit per repository: an expired token found in a log must not use up the
        limit of the repository's exchanges. Raises `RateLimited`, `DatabaseUnavailable`.
        """
        self.refused_limit.check(f"{run.issuer} {run.repository_id}")
        off_loop(partial(self._audit_refusal, run, request, refusal, context))

    def _try(self, identity: WorkflowIdentity, request: ExchangeRequest) -> Exchanged:
        """Make the decision without using up the ID token, pinning the policy or issuing a token."""
        current = self._read(identity, request.agent_id)
        return self._result(current, self._decide(current, identity, request), request)

    def _by_snapshot(
        self, identity: WorkflowIdentity, request: ExchangeRequest, context: RequestContext
    ) -> Exchanged | None:
        """Exchange on the cached policy snapshot or, if that does not allow the run or is outdated, on a new one.

        Returns `None` if the policy must be pinned first, or the data changed again. Only a new snapshot can refuse.
        """
        cached = self.snapshots.get(identity, request.agent_id)
        decision = cached and self._decision(cached, identity, request)
        if cached is not None and isinstance(decision, Allowed):
            with suppress(ScopeNotPermitted):  # the snapshot may be outdated
                result = self._commit(cached, decision.policy, identity, request, context)
                if result:
                    return result
        current = off_loop(partial(self._read, identity, request.agent_id))
        result = self._commit(current, self._decide(current, identity, request), identity, request, context)
        if result:
            self.snapshots.put(current)
        return result

    def _read(self, identity: WorkflowIdentity, agent_id: UUID | None) -> PolicySnapshot:
        with self.store.read() as tx:
            check_unused(tx, identity)
            self.signing_keys.current(tx)
            return read_snapshot(tx, identity, agent_id, self.github_issuers)

    def _commit(
        self,
        snapshot: PolicySnapshot,
        policy: TrustPolicy,
        identity: WorkflowIdentity,
        request: ExchangeRequest,
        context: RequestContext,
    ) -> Exchanged | None:
        """Issue a token and commit; `None` if the policy is not pinned, or the commit finds the snapshot outdated."""
        keys = self.signing_keys.cached
        result = self._result(snapshot, policy, request)
        if keys is None or not _is_pinned(policy):
            return None
        result, record = self._issue(keys.active, identity, policy, request, result, context)
        pending = PendingExchange(snapshot, keys.version, policy, used(identity), record)
        return result if self.group_commit.commit(pending) else None

    def _in_one_transaction(
        self, identity: WorkflowIdentity, request: ExchangeRequest, context: RequestContext
    ) -> Exchanged:
        """Decide, pin the policy, issue and commit, all in one transaction."""
        with self.store.write() as tx:
            check_unused(tx, identity)
            snapshot = read_snapshot(tx, identity, request.agent_id, self.github_issuers)
            policy = self._decide(snapshot, identity, request)
            result = self._result(snapshot, policy, request)
            use_up(tx, identity)
            policy = self._pin(tx, identity, policy, context)
            if is_use_due(policy.last_used_at, self.clock()):
                tx.policies.mark_used([policy.id], self.clock())
            key = self.signing_keys.current(tx).active
            result, record = self._issue(key, identity, policy, request, result, context)
            tx.audit.append(record)
        self.snapshots.put(snapshot)
        return result

    def _decide(
        self, snapshot: PolicySnapshot, identity: WorkflowIdentity, request: ExchangeRequest
    ) -> TrustPolicy:
        """Return the policy that allows the run, or raise the refusal."""
        decision = self._decision(snapshot, identity, request)
        if isinstance(decision, Denied):
            raise off_loop(partial(_refusal, decision, identity, snapshot.agent_id, self.clock()))
        return decision.policy

    def _decision(
        self, snapshot: PolicySnapshot, identity: WorkflowIdentity, request: ExchangeRequest
    ) -> Decision:
        decide = partial(snapshot.decide, identity, self.clock(), request.resource)
        # Each policy may take a tenth of a millisecond, and a repository may have hundreds.
        return decide() if snapshot.size <= _FEW_POLICIES else off_loop(decide)

    def _result(self, snapshot: PolicySnapshot, policy: TrustPolicy, request: ExchangeRequest) -> Exchanged:
        scope = granted_scopes(policy, request.scope, request.resource)
        if isinstance(scope, ScopeRefused):
            raise ScopeNotPermitted(scope.requested, scope.permitted)
        return Exchanged(
            policy_id=policy.id,
            scope=scope,
            issued_at=int(self.clock().timestamp()),
            expires_in=effective_ttl(policy, request.expires_in, self._ceiling(snapshot, request.resource)),
        )

    def _ceiling(self, snapshot: PolicySnapshot, resource: str | None) -> int:
        """The maximum lifetime of tokens for the service, or for our own API."""
        limit = None if resource is None else snapshot.service_ttls.get(resource)
        return self.token_ttl if limit is None else min(limit, self.token_ttl)

    def _pin(
        self, tx: Transaction, identity: WorkflowIdentity, policy: TrustPolicy, context: RequestContext
    ) -> TrustPolicy:
        """Pin the repository's name to its ids at first use: a later owner of the name has other ids (A8)."""
        if _is_pinned(policy):
            return policy
        pinned = tx.policies.pin(
            issuer=identity.issuer,
            repository_key=identity.repository_key,
            repository_id=identity.repository_id,
            owner_id=identity.repository_owner_id,
            now=self.clock(),
        )
        for policy_id in pinned:
            self.auditor.success(
                tx,
                context,
                Action.POLICY_PINNED,
                identity.subject,
                policy_id=policy_id,
                repository=identity.repository,
                details={
                    "repositoryId": identity.repository_id,
                    "repositoryOwnerId": identity.repository_owner_id,
                },
            )
        current = tx.policies.get(policy.id)
        # If two repositories that held the name make their first exchange at once, the second finds the first's ids.
        if current is None or (current.repository_id, current.repository_owner_id) != (
            identity.repository_id,
            identity.repository_owner_id,
        ):
            raise IdentityChanged(IdentityChanged.brief)
        return current

    def _issue(
        self,
        key: SigningKey,
        identity: WorkflowIdentity,
        policy: TrustPolicy,
        request: ExchangeRequest,
        result: Exchanged,
        context: RequestContext,
    ) -> tuple[Exchanged, AuditRecord]:
        """Issue the token; returns the result with it, and the audit record that must be committed before it leaves."""
        subject = str(request.agent_id or identity.subject)
        claims = AccessTokenClaims(
            iss=self.issuer,
            sub=subject,
            aud=request.resource or self.token_audience,
            client_id=subject,
            scope=scopes.render(result.scope),
            iat=result.issued_at,
            exp=result.issued_at + result.expires_in,
            jti=self.new_token_id(),
            provenance=_provenance(identity, policy) | self._issuer_as("issuer", identity),
        )
        record = self.auditor.record(
            context,
            Action.TOKEN_ISSUED,
            Outcome.SUCCESS,
            subject,
            agent_id=request.agent_id,
            policy_id=policy.id,
            policy_version=policy.version,
            repository=identity.repository,
            details={
                **_audited(identity),
                **self._issuer_as("iss", identity),
                "audience": claims.aud,
                "issuedJti": claims.jti,
                "scope": claims.scope,
                "expiresIn": result.expires_in,
            },
        )
        return msgspec.structs.replace(result, access_token=access_token.issue(key, claims)), record

    def _issuer_as(self, name: str, identity: WorkflowIdentity) -> dict[str, str]:
        """The run's issuer, if several are configured: names and ids are unique only within one GitHub instance."""
        return {name: identity.issuer} if len(self.github_issuers) > 1 else {}

    def _audit_refusal(
        self,
        identity: WorkflowIdentity,
        request: ExchangeRequest,
        refusal: InvalidOidcToken | ExchangeRefused,
        context: RequestContext,
    ) -> None:
        details = {
            **_audited(identity),
            **self._issuer_as("iss", identity),
            "message": refusal.message,
            "dryRun": request.dry_run,
            **({} if request.resource is None else {"resource": request.resource}),
            **refusal.audit_details(),
        }
        self.refusal_audit.record(identity, request.agent_id, refusal, context, details)


def _is_pinned(policy: TrustPolicy) -> bool:
    return bool(policy.repository_id and policy.repository_owner_id)


def _refusal(
    denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None, now: datetime
) -> ServiceError:
    message = explanation.message(denied, identity, agent_id)
    match denied.reason:
        case DenialReason.REF_TYPE_MISSING:
            return InvalidOidcToken("missing_claim", message)
        case DenialReason.IDENTITY_CHANGED:
            refusal: ExchangeRefused = IdentityChanged(message)
        case DenialReason.SERVICE_NOT_PERMITTED:
            permitted = permitted_services(denied.evaluations, agent_id, now)
            refusal = ServiceNotPermitted(message, {"permitted": list(permitted)})
        case DenialReason.BRANCH_NOT_PERMITTED:
            refusal = BranchNotPermitted(message, explanation.explain(denied, identity, agent_id))
        case DenialReason.TRUST_POLICY_VIOLATION:
            violation = TrustPolicyViolation if denied.agent_is_active else AgentNotTrusted
            refusal = violation(message, explanation.explain(denied, identity, agent_id))
    refusal.reason = explanation.cause(denied, agent_id)
    refusal.trace = explanation.nearest_trace(denied, agent_id)
    return refusal


def _provenance(identity: WorkflowIdentity, policy: TrustPolicy) -> dict[str, str]:
    """Describe the run that a token is issued to, for the services that accept it."""
    claims = {
        "provider": identity.provider,
        "repository": identity.repository,
        "repository_id": identity.repository_id,
        "ref": identity.ref,
        "sha": identity.sha,
        "workflow_ref": identity.workflow_ref,
        "run_id": identity.run_id,
        "run_attempt": identity.run_attempt,
        "policy_id": str(policy.id),
    }
    return {name: value for name, value in claims.items() if value is not None}


def _audited(identity: WorkflowIdentity) -> dict[str, str]:
    """The claims to audit: all that the identity reads, without `repository`, which has its own column."""
    claims = identity.claims()
    del claims["repository"]
    return claims
