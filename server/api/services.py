"""What the blueprints may call: the use cases of one application."""

from dataclasses import dataclass
from typing import Any, cast

from flask import current_app

from server.api.client_addresses import ClientAddresses
from server.metrics import Metrics
from server.ports import RateLimit, WrongSecretLimit
from server.use_cases.auditing import AuditReader
from server.use_cases.authentication import Authentication
from server.use_cases.clients import ClientAuthentication
from server.use_cases.credentials import CredentialAdmin
from server.use_cases.exchange import Exchange
from server.use_cases.key_ring import PublishedKeys
from server.use_cases.policy_admin import PolicyAdmin
from server.use_cases.readiness import Readiness
from server.use_cases.registration import Registration
from server.use_cases.sealing import AuditChain
from server.use_cases.simulation import Simulation
from server.use_cases.token_service import TokenService

_EXTENSION = "sentryagent"


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and the few settings that the HTTP face itself needs; made by `server.app`."""

    key_sets: PublishedKeys
    authentication: Authentication
    exchange: Exchange
    policies: PolicyAdmin
    simulation: Simulation
    registration: Registration
    credentials: CredentialAdmin
    clients: ClientAuthentication
    tokens: TokenService
    audit: AuditReader
    chain: AuditChain
    address_limit: RateLimit
    wrong_secrets: WrongSecretLimit
    issuer: str
    token_audience: str
    oidc_audience: str
    explain: bool
    client_addresses: ClientAddresses
    metrics: Metrics
    readiness: Readiness


def install(app: Any, services: Services) -> None:
    """Give the application its use cases."""
    app.extensions[_EXTENSION] = services


def services() -> Services:
    """The use cases of the application that handles this request."""
    return cast("Services", current_app.extensions[_EXTENSION])
