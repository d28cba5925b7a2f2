"""The composition root: builds the Flask application from settings and dependencies."""

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

import structlog
from flask import Flask

from sentryagent_idp.api import (
    API,
    agents,
    audit,
    documentation,
    exchange,
    observation,
    operations,
    problems,
    responses,
    services,
    trust_policies,
    well_known,
)
from sentryagent_idp.api import tokens as token_views
from sentryagent_idp.api.client_addresses import ClientAddresses
from sentryagent_idp.api.use_cases import EXTENSION, UseCases
from sentryagent_idp.concurrency.group_commit import GroupCommit
from sentryagent_idp.concurrency.lean_flask import LeanFlask
from sentryagent_idp.concurrency.policy_snapshot import SnapshotCache
from sentryagent_idp.config import PREFIX, Settings
from sentryagent_idp.domain.service import OwnNames
from sentryagent_idp.github import id_token
from sentryagent_idp.github.id_token import IssuerKeys
from sentryagent_idp.ports import Clock, Store
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.runtime.metrics import Metrics
from sentryagent_idp.runtime.rate_limit import PerMinute, WrongSecretsPerMinute
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases.agents import Registration
from sentryagent_idp.use_cases.audit import Auditor, AuditReader
from sentryagent_idp.use_cases.authentication import Authentication, ClientAuthentication
from sentryagent_idp.use_cases.credentials import CredentialAdmin
from sentryagent_idp.use_cases.exchange import Exchange
from sentryagent_idp.use_cases.key_ring import KeyRing, PublishedKeys
from sentryagent_idp.use_cases.readiness import ObservableKeys, ReadinessCheck
from sentryagent_idp.use_cases.refusals import RefusalAudit, RefusalCounter
from sentryagent_idp.use_cases.sealing import AuditChain
from sentryagent_idp.use_cases.secret_hashing import SecretHashing
from sentryagent_idp.use_cases.services import ServiceAdmin, taken_name
from sentryagent_idp.use_cases.simulation import Simulation
from sentryagent_idp.use_cases.tokens import TokenService
from sentryagent_idp.use_cases.trust_policies import PolicyAdmin

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

utc_now = partial(datetime.now, UTC)
_new_token_id = partial(secrets.token_urlsafe, 16)
"""128 random bits (RFC 7519, 4.1.7: collisions must be negligible)."""

_ADDRESS_ALLOWANCE = 10
"""How many times higher the rate limit of an address is than that of a repository: runners share addresses."""


_TIMED = (("POST", f"{API}/oidc/token"),)
"""Routes whose durations an alert watches."""


class ObservableIssuerKeys(IssuerKeys, ObservableKeys, Protocol):
    """GitHub's keys, and how fresh they are."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The external dependencies of an application; tests pass their own."""

    store: Store
    issuer_keys: Mapping[str, ObservableIssuerKeys]
    """By issuer, in the order of the settings."""
    migrations_pending: Callable[[], bool]
    clock: Clock
    refusal_counter: RefusalCounter = field(default_factory=RefusalCounter)
    metrics: Metrics = field(default_factory=Metrics)
    tracer: "Tracer | None" = None


def create_app(settings: Settings, dependencies: Dependencies) -> Flask:
    """Build the application, without reading the environment or querying the database."""
    app = bare_app()
    dependencies.metrics.begin(version("sentryagent-idp"), problems.REFUSALS, _TIMED)
    app.extensions[EXTENSION] = _use_cases(settings, dependencies)
    if dependencies.tracer is not None:
        from sentryagent_idp import traces  # its libraries are an extra

        traces.install(app, dependencies.tracer)
    return app


def bare_app() -> Flask:
    """Build the application with its routes but without use cases, which is enough to describe the API."""
    app = LeanFlask("sentryagent", static_folder=None)
    # A redirect would repeat a POST, with its token, elsewhere; a wrong path is simply a 404.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.json = responses.Json(app)
    problems.register(app)
    observation.register(app)
    for blueprint in (exchange.bp, token_views.bp, trust_policies.bp, services.bp, agents.bp, audit.bp):
        app.register_blueprint(blueprint, url_prefix=API)
    for blueprint in (well_known.bp, operations.bp, documentation.bp):
        app.register_blueprint(blueprint)
    return app


def token_service(
    settings: Settings,
    store: Store,
    keys: KeyRing,
    clock: Clock,
    refusal_counter: RefusalCounter | None = None,
) -> TokenService:
    """Build the token service; the command line uses it without an application, and counts no refusals."""
    counter = refusal_counter or RefusalCounter()
    return TokenService(
        store=store,
        authentication=Authentication(
            store, keys, counter, settings.public_url, settings.token_audience, clock
        ),
        signing_keys=keys,
        auditor=Auditor(clock, uuid7),
        clock=clock,
        new_token_id=_new_token_id,
        issuer=settings.public_url,
        token_audience=settings.token_audience,
        token_ttl=settings.token_ttl,
    )


def _own_names(settings: Settings) -> OwnNames:
    audiences = (settings.token_audience, settings.oidc_audience)
    return OwnNames(settings.public_url, (*audiences, *settings.github_issuers))


def service_conflict(settings: Settings, store: Store) -> str | None:
    """Say which setting takes an existing service's name, and the remedy, or `None`. Raises `DatabaseUnavailable`."""
    url = settings.public_url
    by_setting = {
        "PUBLIC_URL": OwnNames(url, ()),
        "TOKEN_AUDIENCE": OwnNames(url, (settings.token_audience,)),
        "OIDC_AUDIENCE": OwnNames(url, (settings.oidc_audience,)),
        "GITHUB_ISSUER": OwnNames(url, settings.github_issuers),
    }
    found = taken_name(store, by_setting)
    if found is None:
        return None
    setting, identifier = found
    return (
        f"{PREFIX}{setting}: it conflicts with the identifier of the service {identifier}; "
        "choose another value, or delete the service while the previous value is set"
    )


def _leave_out(error: UnreadableKey) -> None:
    log.error("a signing key is ignored: it is not published, and its tokens are refused", reason=str(error))


def _use_cases(settings: Settings, dependencies: Dependencies) -> UseCases:
    store, clock, refusal_counter = dependencies.store, dependencies.clock, dependencies.refusal_counter
    keys = KeyRing(settings.passphrases, _leave_out)
    auditor = Auditor(clock, uuid7)
    hashing = SecretHashing()
    tokens = token_service(settings, store, keys, clock, refusal_counter)
    verify_id_token = partial(
        id_token.verify,
        issuers=dependencies.issuer_keys,
        audience=settings.oidc_audience,
        max_age_seconds=settings.oidc_max_age,
    )
    exchange = Exchange(
        store=store,
        verify_id_token=verify_id_token,
        github_issuers=settings.github_issuers,
        signing_keys=keys,
        snapshots=SnapshotCache(),
        group_commit=GroupCommit(store, clock, dependencies.metrics.transaction),
        repository_limit=PerMinute(settings.rate_limit, what="repository"),
        refused_limit=PerMinute(settings.rate_limit, what="repository"),
        refusal_counter=refusal_counter,
        refusal_audit=RefusalAudit(store, auditor, refusal_counter),
        auditor=auditor,
        clock=clock,
        new_token_id=_new_token_id,
        issuer=settings.public_url,
        token_audience=settings.token_audience,
        token_ttl=settings.token_ttl,
    )
    return UseCases(
        published_keys=PublishedKeys(store, keys),
        authentication=tokens.authentication,
        exchange=exchange,
        policies=PolicyAdmin(store, auditor, clock, uuid.uuid4, settings.github_issuers),
        services=ServiceAdmin(store, auditor, clock, uuid.uuid4, _own_names(settings)),
        simulation=Simulation(store, verify_id_token, clock, settings.github_issuers),
        registration=Registration(store, auditor, clock, uuid.uuid4),
        credentials=CredentialAdmin(store, auditor, clock, uuid.uuid4, hashing),
        clients=ClientAuthentication(store, clock, refusal_counter, hashing),
        tokens=tokens,
        audit=AuditReader(store),
        chain=AuditChain(store),
        address_limit=PerMinute(settings.rate_limit * _ADDRESS_ALLOWANCE, what="address"),
        wrong_secrets=WrongSecretsPerMinute(),
        oidc_audience=settings.oidc_audience,
        explain=settings.explain,
        client_addresses=ClientAddresses(settings.trusted_proxies, PerMinute(1, what="header")),
        metrics=dependencies.metrics,
        readiness=ReadinessCheck(store, keys, dependencies.issuer_keys, dependencies.migrations_pending),
    )
