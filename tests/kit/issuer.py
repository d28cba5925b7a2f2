"""A running provider that issues an agent's tokens for services, and whose signing key can sign forged tokens."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.processes import Served
from kit.tokens import bearer

SCOPES = ("deploy:read", "deploy:production", "other")
"""The scopes of every service in these tests."""


class Issuer:
    """A source of one agent's tokens for services; `id_token` returns GitHub's token for a repository and an audience."""

    def __init__(self, served: Served, database: Path, id_token: Callable[[str, str], str]) -> None:
        self.url = served.url
        self._served, self._database, self._id_token = served, database, id_token
        self._repositories: dict[str, str] = {}

    def token(self, service: str, *scopes: str) -> str:
        """The agent's token for a service, exchanged as a job does."""
        id_token = self._id_token(self._repository_of(service), self.url)
        wanted = {"agentId": self.agent, "resource": service, "scope": " ".join(scopes)}
        return self._post("oidc/token", token=id_token, **wanted)["access_token"]

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A signed token of the agent; `claims` and `header` override the usual ones, and `...` removes one."""
        now = int(time.time())
        usual = {"iss": self.url, "sub": self.agent, "client_id": self.agent, "iat": now, "nbf": now}
        usual |= {"exp": now + 300, "jti": str(uuid4()), "scope": ""} | claims
        head = {"typ": "at+jwt", "kid": self._signing[0]} | header
        kept = {name: value for name, value in usual.items() if value is not ...}
        return jwt.encode(kept, self.key, "ES256", {k: None if v is ... else v for k, v in head.items()})

    def revoke(self, token: str) -> None:
        """Revoke a token, as the action does at the end of a job."""
        with self._served.client("/api/v1", headers=bearer(token)) as job:
            job.post("/token/revoke", data={"token": token}).raise_for_status()

    def client_of(self, service: str) -> tuple[str, str]:
        """The id and secret of a new client of a service."""
        self._repository_of(service)
        made = json.loads(self._served.command("clients", "create", "x", "--service", service, "--json"))
        return made["client_id"], made["client_secret"]

    @cached_property
    def agent(self) -> str:
        """The agent's id."""
        return self._post("agents", email="deployer@octo-org.example")["agentId"]

    @property
    def key(self) -> Any:
        """The provider's signing key."""
        return self._signing[1]

    @cached_property
    def _signing(self) -> tuple[str, Any]:
        with closing(sqlite3.connect(self._database)) as database:
            select = "SELECT kid, private_pem FROM signing_keys WHERE status = 'active'"
            ((kid, pem),) = database.execute(select)
        return kid, load_pem_private_key(pem, None)

    def _repository_of(self, service: str) -> str:
        """The repository that may request tokens for a service; both are created on first use."""
        if service not in self._repositories:
            repository = self._repositories[service] = f"octo-org/{uuid4().hex}"
            self._post("services", identifier=service, scopes=[{"name": scope} for scope in SCOPES])
            grants = [{"service": service, "scopes": list(SCOPES)}]
            self._post("oidc/trust-policies", repository=repository, agentId=self.agent, grants=grants)
        return self._repositories[service]

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        with self._served.client("/api/v1", headers=self._served.admin) as admin:
            answer = admin.post(f"/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()
