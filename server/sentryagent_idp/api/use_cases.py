"""The use cases that the blueprints call, one set per application."""

from dataclasses import dataclass
from typing import cast

from flask import current_app

from sentryagent_idp.api.client_addresses import ClientAddresses
from sentryagent_idp.runtime.metrics import Metrics
from sentryagent_idp.runtime.rate_limit import PerMinute, WrongSecretsPerMinute
from sentryagent_idp.use_cases.agents import Registration
from sentryagent_idp.use_cases.audit import AuditReader
from sentryagent_idp.use_cases.authentication import Authentication, ClientAuthentication
from sentryagent_idp.use_cases.credentials import CredentialAdmin
from sentryagent_idp.use_cases.exchange import Exchange
from sentryagent_idp.use_cases.key_ring import PublishedKeys
from sentryagent_idp.use_cases.readiness import ReadinessCheck
from sentryagent_idp.use_cases.sealing import AuditChain
from sentryagent_idp.use_cases.services import ServiceAdmin
from sentryagent_idp.use_cases.simulation import Simulation
from sentryagent_idp.use_cases.tokens import TokenService
from sentryagent_idp.use_cases.trust_policies import PolicyAdmin

EXTENSION = "sentryagent"


@dataclass(frozen=True, slots=True)
class UseCases:
    """The use cases and other objects that the HTTP API needs; created by `sentryagent_idp.app`."""

    published_keys: PublishedKeys
    authentication: Authentication
    exchange: Exchange
    policies: PolicyAdmin
    services: ServiceAdmin
    simulation: Simulation
    registration: Registration
    credentials: CredentialAdmin
    clients: ClientAuthentication
    tokens: TokenService
    audit: AuditReader
    chain: AuditChain
    address_limit: PerMinute
    wrong_secrets: WrongSecretsPerMinute
    oidc_audience: str
    explain: bool
    client_addresses: ClientAddresses
    metrics: Metrics
    readiness: ReadinessCheck


def use_cases() -> UseCases:
    """The use cases of the application that handles this request."""
    return cast("UseCases", current_app.extensions[EXTENSION])
