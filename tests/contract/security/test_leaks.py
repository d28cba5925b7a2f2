"""After successful and failed exchanges, a token is nowhere but in the response that issues it (B19)."""

import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from kit.tokens import JWT, bearer, token_of

SECRET_PART = 24
"""The number of consecutive characters of a signature that count as a leak."""


class Recorder:
    """Records all sent and received tokens, and all responses without their access tokens."""

    def __init__(self, target):
        self.target = target
        self.tokens = [token_of(target.admin)]
        self.texts = []

    def token(self, header=None, **claims):
        self.tokens.append(self.target.github_token(header, **claims))
        return self.tokens[-1]

    def keep(self, answer):
        body = answer.get_json(silent=True) or {}
        text = answer.text
        if isinstance(body, dict) and "access_token" in body:
            self.tokens.append(body["access_token"])
            text = text.replace(body["access_token"], "")
        self.texts.append(f"{answer.headers}{text}")
        return body


@pytest.fixture
def recorder(target):
    return Recorder(target)


def exchanges(recorder):
    """Provoke every outcome of the exchange in both forms, and the mistakes of clients with a token."""
    target, token, keep = recorder.target, recorder.token, recorder.keep
    agent = target.agent()
    target.policy(branch="main", environment="prod")
    target.policy(branch="main", agentId=agent)
    good = {"environment": "prod"}
    issued = keep(target.exchange(token(**good)))["access_token"]
    keep(target.exchange(token(), agentId=agent))
    keep(target.exchange_form(token(**good)))
    keep(target.exchange(token(**good), dryRun=True))
    replayed = token(**good)
    for _ in range(2):
        keep(target.exchange(replayed))
    for claims in (
        {"environment": "dev"},
        {"ref": "refs/heads/dev", **good},
        {"event_name": "pull_request_target", **good},
        {"repository": "evil/api"},
        {"repository_id": "999"},
        {"aud": "https://other.example"},
        {"exp": 1},
        {"jti": ...},
        {"iss": "https://evil.example"},
        {"repository": "acme/api\n"},
    ):
        keep(target.exchange(token(**claims)))
        keep(target.exchange_form(token(**claims)))
    for header in ({"typ": "at+jwt"}, {"alg": "none"}, {"kid": "nobody"}, {"jku": "https://evil.example"}):
        keep(target.exchange(token(header, **good)))
    keep(target.exchange(token(**good), scope="policies:write"))
    keep(target.exchange(token(**good), agentId="3f2504e0-4f89-41d3-9a0c-0305e82c3301"))
    keep(target.exchange(issued))
    misplaced(recorder, token(**good), issued)


def misplaced(recorder, token, issued):
    """Send a token in every place where a client may put it by mistake."""
    target, keep = recorder.target, recorder.keep
    post = target.http.post
    for body in (
        {token: "x"},
        {"token": [token]},
        {"token": token, "agentId": token},
        {"token": token, "provider": token},
        {"token": token, "scope": token},
        {"token": token, "expiresIn": token},
        {"token": token, "dryRun": token},
        {"token": token, "jwt": token},
        token,
    ):
        keep(post("/api/v1/oidc/token", json=body))
    keep(post("/api/v1/oidc/token", data=token, content_type="application/json"))
    keep(post("/api/v1/oidc/token", data={"grant_type": token, "subject_token": token, "resource": token}))
    keep(post("/api/v1/oidc/token", data={token: token}))
    keep(post("/api/v1/oidc/token", json={"token": token}, query_string={"token": token}))
    keep(post("/api/v1/oidc/token", json={"token": token}, query_string={token: "x"}))
    for kept in (token, issued):
        keep(target.http.get("/api/v1/agents", headers=bearer(kept)))
        keep(target.http.get("/api/v1/audit", headers=bearer(kept)))
        keep(target.get(f"/api/v1/agents/{kept}"))
        keep(target.get(f"/{kept}"))
        keep(target.get("/api/v1/agents", query_string={"owner": kept, kept: "x"}))
        keep(target.get("/api/v1/audit", query_string={"action": kept}))
        keep(post("/api/v1/token/introspect", data={"token": kept}, headers=target.admin))
        keep(target.grant((kept, kept)))
        keep(target.grant((None, None), {"Authorization": f"Basic {kept}"}))
        keep(post("/api/v1/oidc/trust-policies", json={"repository": kept}, headers=target.admin))
        keep(post("/api/v1/oidc/trust-policies/simulate", json={"token": kept}, headers=target.admin))
    keep(post("/api/v1/token/revoke", data={"token": issued}, headers=bearer(issued)))
    keep(post("/api/v1/token/revoke", data={"token": token}, headers=bearer(token)))
    keep(target.http.get("/api/v1/agents", headers=bearer(issued)))


def stored(file):
    """The database as texts: every row, and the bytes of its files."""
    with closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(row) for name in tables for row in database.execute(f'SELECT * FROM "{name}"')]
    octets = [it.read_bytes().decode("latin-1") for it in file.parent.glob(f"{file.name}*")]
    return [*rows, *octets]


def leaks(texts, tokens):
    """The texts that contain a JWT or part of a recorded token's signature."""
    signatures = {token.rpartition(".")[2][:SECRET_PART] for token in tokens} - {""}
    return [
        text[:200] for text in texts if JWT.search(text) or any(signature in text for signature in signatures)
    ]


def test_no_token_in_any_answer_log_metric_or_row(recorder):
    """Responses, log lines, metrics, audit records and the database's bytes contain no token and no signature."""
    target = recorder.target
    with capture_logs() as logged:
        exchanges(recorder)
    recorder.keep(target.http.get("/metrics"))
    recorder.keep(target.http.get("/ready"))
    recorder.keep(target.get("/api/v1/audit", query_string={"limit": 100}))
    lines = [str(line) for line in logged]

    assert len(recorder.texts) > 60
    assert any("TRUST_POLICY_VIOLATION" in line for line in lines), "the log was to be looked at"
    assert leaks(recorder.texts, recorder.tokens) == []
    assert leaks(lines, recorder.tokens) == []
    assert leaks(stored(target.file), recorder.tokens) == []


def test_the_sweep_finds_what_it_looks_for(target):
    """The search above does find a token that is stored, cut or reduced to its signature."""
    token = target.github_token()
    with closing(sqlite3.connect(target.file)) as database, database:
        database.execute("CREATE TABLE careless (text)")
        database.execute("INSERT INTO careless VALUES (?)", (token,))
    assert leaks(stored(target.file), [])
    assert leaks([f"refused {token[:-100]}"], [])
    assert leaks([token.rpartition(".")[2]], [token])
    assert not leaks(["eyJhbGciOi", "e30.e30"], [token])


def test_refusals_name_no_token(target):
    """Refused tokens are counted by reason and address, never by text from the sender."""
    target.exchange(target.github_token({"kid": "S3CR3T-kid"}))
    target.exchange(target.github_token(iss="https://S3CR3T.example"))
    assert "S3CR3T" not in str(target.refusal_counter.drain())
