"""No token or secret in any log, audit record or database file (B19)."""

import logging
import re
from pathlib import Path

import pytest
import structlog

from kit.tokens import token_of

JWT = re.compile(rb"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}")
SECRET = re.compile(rb"sk_live_[0-9a-f]{8}")
PRIVATE_KEY = re.compile(rb"BEGIN (ENCRYPTED )?PRIVATE KEY")


@pytest.fixture
def logs(capfd, caplog):
    """Everything logged or printed, as bytes."""
    caplog.set_level(logging.DEBUG)
    structlog.reset_defaults()

    def read():
        out, err = capfd.readouterr()
        return f"{out}{err}{caplog.text}".encode()

    return read


def _exchanges(provider, agent):
    """Yield the responses to exchanges with every outcome."""
    silent = provider.with_settings(EXPLAIN="off")
    token = provider.github_token()
    yield provider.exchange(token)
    yield provider.exchange(token)
    yield provider.exchange(agentId=agent)
    yield provider.exchange(agentId=agent, dryRun=True)
    for fault in (
        "bad-signature",
        "wrong-issuer",
        "wrong-audience",
        "expired",
        "duplicate-member",
        "alg-none",
        "oversize",
    ):
        yield provider.exchange(provider.github_token(fault=fault))
    for process in (provider, silent):
        yield process.exchange(provider.github_token(ref="refs/heads/dev"))
        yield process.exchange(scope="policies:write")
        yield process.exchange(provider.github_token(repository="octo-org/other"))


def _misplaced_tokens(provider, agent, secret):
    """Yield the responses to tokens sent as names, scopes, ids, paths, queries, headers and forms."""
    token, post = provider.github_token(), provider.http.post
    own = token_of(provider.admin)
    client = (agent, secret)
    for text in (token, own):
        yield post("/api/v1/oidc/token", json={text: text})
        yield post("/api/v1/oidc/token", json={"token": provider.github_token(), "scope": text})
        yield post("/api/v1/oidc/token", json={"token": "x", "agentId": text})
        yield post("/api/v1/oidc/token", data=text, content_type="application/json")
        yield post("/api/v1/oidc/token", data={text: text})
        yield post("/api/v1/oidc/token", data={"grant_type": text})
        yield post(
            "/api/v1/oidc/token", data=f"{text}=1&{text}=2", content_type="application/x-www-form-urlencoded"
        )
        yield provider.grant(client, scope=text)
        yield provider.grant(client, client_id=text)
        yield provider.grant(client, client_secret=text)
        yield post("/api/v1/token/revoke", data={"token": text}, headers={"Authorization": f"Basic {text}"})
        yield provider.get(f"/api/v1/agents/{text}")
        yield provider.get(f"/api/v1/audit?{text}={text}")
        yield provider.get(f"/api/v1/audit?agentId={text}")
        yield provider.http.get("/api/v1/agents", headers={"Authorization": f"Bearer {text}x"})
        yield provider.http.get("/api/v1/agents", headers={"X-Request-Id": text, "X-Forwarded-For": text})
        yield post("/api/v1/oidc/trust-policies", json={"repository": text}, headers=provider.admin)
        yield post("/api/v1/agents", json={"email": text}, headers=provider.admin)


def test_no_token_stays_anywhere(provider, logs):
    """After every outcome, and tokens in every wrong place, logs, database and audit have no token or secret."""
    agent = provider.agent()["agentId"]
    provider.policy(branch="main")
    provider.policy(branch="main", agentId=agent)
    _, secret = provider.client(agent)

    answers = [*_exchanges(provider, agent), *_misplaced_tokens(provider, agent, secret)]
    provider.grant((agent, secret))

    tokens = [answer for answer in answers if JWT.search(answer.data)]
    assert len(tokens) == 2  # the two successful exchanges and no refusal
    logged = logs()
    assert b"refused" in logged
    assert not JWT.search(logged)
    assert not SECRET.search(logged)
    stored = b"".join(
        it.read_bytes() for it in Path(provider.url.removeprefix("sqlite:///")).parent.glob("provider.db*")
    )
    assert b"token.issued" in stored
    assert not JWT.search(stored)
    assert not SECRET.search(stored)
    assert not JWT.search(str(provider.audit()).encode())
    assert not PRIVATE_KEY.search(logged)
