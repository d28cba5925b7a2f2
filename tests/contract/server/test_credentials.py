"""The client secrets of agents."""

import re
import secrets
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from argon2 import PasswordHasher

from kit.provider import NOBODY, made
from kit.refusals import assert_invalid, assert_refused
from sentryagent_idp.domain.agent import Credential
from sentryagent_idp.tokens import client_secret


@pytest.fixture
def agent(provider):
    return provider.agent()["agentId"]


def path(agent, credential="", action=""):
    return "/".join(filter(None, (f"/api/v1/agents/{agent}/credentials", credential, action)))


def generate(provider, agent, **body):
    return made(provider.post(path(agent), json=body))


def token_status(provider, agent, secret):
    """The token endpoint's status for this secret."""
    return provider.grant((agent, secret)).status_code


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"expiresAt": None}}])
def test_secret_is_shown_once(provider, agent, sent):
    """A new credential's secret is shown once and never again; the request needs no body."""
    answer = provider.post(path(agent), **sent)

    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    secret = answer.json["clientSecret"]
    assert re.fullmatch(r"sk_live_[0-9a-f]{64}", secret)
    record = {
        "credentialId": answer.json["credentialId"],
        "clientId": agent,
        "status": "active",
        "createdAt": "2026-11-24T12:00:00Z",
        "expiresAt": None,
        "revokedAt": None,
    }
    assert answer.json == {**record, "clientSecret": secret}
    assert UUID(record["credentialId"])
    listed = provider.get(path(agent))
    assert listed.json == {"data": [record], "total": 1, "page": 1, "limit": 20}


def test_secret_is_stored_as_a_hash(provider, agent):
    """The database files, with the audit log in them, do not contain the secret."""
    secret = generate(provider, agent)["clientSecret"][-64:].encode()

    files = Path(provider.url.removeprefix("sqlite:///")).parent.glob("provider.db*")
    assert not any(secret in file.read_bytes() for file in files)


def test_several_secrets_live_at_once(provider, agent):
    """Two secrets work at the same time, so that one can be replaced without an interruption."""
    secrets = [generate(provider, agent)["clientSecret"] for _ in range(2)]

    assert [token_status(provider, agent, secret) for secret in secrets] == [200, 200]


def test_rotation_ends_the_old_secret(provider, agent):
    """Rotating a credential keeps its id and replaces its secret; the old one is refused at once."""
    old = generate(provider, agent)

    answer = provider.post(path(agent, old["credentialId"], "rotate"))

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {**old, "clientSecret": answer.json["clientSecret"]}
    assert token_status(provider, agent, old["clientSecret"]) == 401
    assert token_status(provider, agent, answer.json["clientSecret"]) == 200


def test_revocation_ends_a_secret(provider, agent):
    """A revoked credential stays listed; it is not accepted and can be neither rotated nor revoked again."""
    credential = generate(provider, agent)
    one = path(agent, credential["credentialId"])

    assert provider.delete(one).status_code == 204

    assert token_status(provider, agent, credential["clientSecret"]) == 401
    (listed,) = provider.get(path(agent)).json["data"]
    assert (listed["status"], listed["revokedAt"]) == ("revoked", "2026-11-24T12:00:00Z")
    assert_refused(provider.delete(one), 404, "CREDENTIAL_NOT_FOUND", {})
    assert_refused(provider.post(f"{one}/rotate"), 404, "CREDENTIAL_NOT_FOUND", {})


def test_secret_expires(provider, agent):
    """`expiresAt` is exclusive."""
    secret = generate(provider, agent, expiresAt="2026-11-24T12:01:00Z")["clientSecret"]

    statuses = [token_status(provider, agent, secret)]
    provider.clock.advance(60)
    statuses.append(token_status(provider, agent, secret))

    assert statuses == [200, 401]


@pytest.mark.parametrize("expires_at", ["2026-11-24T12:00:00Z", "2020-01-01T00:00:00Z"])
def test_a_secret_that_has_expired_is_not_created(provider, agent, expires_at):
    """It would be listed as active and never be accepted."""
    answer = provider.post(path(agent), json={"expiresAt": expires_at})

    assert assert_invalid(answer, "expiresAt") == "it must be in the future"
    assert provider.get(path(agent)).json["total"] == 0


def test_five_may_live(provider, agent):
    """A sixth credential is refused; revoked and expired ones do not count, and each agent has its own five."""
    made = [generate(provider, agent) for _ in range(4)]
    generate(provider, agent, expiresAt="2026-11-24T12:01:00Z")

    def attempt():
        return provider.post(path(agent), json={})

    answer = assert_refused(attempt(), 409, "TOO_MANY_CREDENTIALS", {})
    assert "revoke one" in answer["message"]
    assert provider.get(path(agent)).json["total"] == 5
    assert len(provider.audit(action="credential.generated")) == 5
    rotated = provider.post(path(agent, made[0]["credentialId"], "rotate"))
    assert rotated.status_code == 200
    provider.clock.advance(60)
    assert attempt().status_code == 201
    assert_refused(attempt(), 409, "TOO_MANY_CREDENTIALS", {})
    provider.delete(path(agent, made[1]["credentialId"]))
    assert attempt().status_code == 201
    assert_refused(attempt(), 409, "TOO_MANY_CREDENTIALS", {})
    generate(provider, provider.agent("other@octo-org.example")["agentId"])


def test_a_secret_is_that_of_one_credential(provider, agent):
    """A secret works for its own agent only, and parts of two secrets do not combine."""
    first, second = (generate(provider, agent)["clientSecret"] for _ in range(2))
    other = provider.agent("other@octo-org.example")["agentId"]
    generate(provider, other)

    assert token_status(provider, agent, second[:40] + first[40:]) == 401
    assert token_status(provider, other, first) == 401
    assert token_status(provider, agent, first) == 200


@pytest.fixture
def earlier(provider, agent):
    """Adds a credential as earlier versions stored it, created in `seconds` from now; returns the secret."""

    def earlier(seconds=0, **members):
        secret = f"sk_live_{secrets.token_hex(32)}"
        stored = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1).hash(secret)
        created = provider.clock.now + timedelta(seconds=seconds)
        credential = Credential(uuid4(), UUID(agent), stored, created, None, None)
        with provider.store.write() as tx:
            tx.credentials.add(replace(credential, **members))
        return secret

    return earlier


def test_secrets_of_earlier_versions_are_good(provider, agent, earlier):
    """Hashes of earlier versions have no digest; the five newest live ones work alongside current ones."""
    revoked = earlier(revoked_at=provider.clock.now)
    expired = earlier(expires_at=provider.clock.now)
    old = [earlier(seconds) for seconds in range(7)]
    today = client_secret.generate()
    earlier(100, credential_id=UUID(int=1), secret_hash=client_secret.hash_secret(today))

    assert [token_status(provider, agent, it) for it in old] == [401] * 2 + [200] * 5
    assert [token_status(provider, agent, it) for it in (today, revoked, expired)] == [200, 401, 401]


def test_rotation_gives_a_secret_of_today(provider, agent, earlier):
    """Rotation replaces a secret of an earlier version with a current one."""
    old = earlier(credential_id=UUID(int=1))

    answer = provider.post(path(agent, str(UUID(int=1)), "rotate"))

    assert token_status(provider, agent, old) == 401
    assert token_status(provider, agent, answer.json["clientSecret"]) == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"expiresAt": "2027-01-01"}, "expiresAt"),
        ({"expiresAt": 1}, "expiresAt"),
        ({"x": 1}, "x"),
        ([], "body"),
    ],
)
def test_body_rules(provider, agent, body, field):
    """The expiry must be a time with a zone; no other field is allowed."""
    assert_invalid(provider.post(path(agent), json=body), field)


def test_body_of_another_type(provider, agent):
    """A body is optional, but a body of another media type is refused, not ignored."""
    answer = provider.post(path(agent), data=b"expiresAt=x")

    assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE", {})


@pytest.mark.parametrize("credential", [NOBODY, "x", "%00"])
@pytest.mark.parametrize(("method", "action"), [("POST", "rotate"), ("DELETE", "")])
def test_unknown_credential(provider, agent, credential, method, action):
    """A credential that is not this agent's, even if it is another agent's, is a 404 with its own code."""
    other = provider.agent("other@octo-org.example")["agentId"]
    strange = generate(provider, other)["credentialId"]

    for one in (credential, strange):
        answer = provider.call(method, path(agent, one, action))
        assert_refused(answer, 404, "CREDENTIAL_NOT_FOUND", {})


def test_unknown_agent(provider):
    """An unknown agent is a 404 with the agent's code."""
    for method, action in (("GET", ()), ("POST", ()), ("POST", (NOBODY, "rotate")), ("DELETE", (NOBODY,))):
        answer = provider.call(method, path(NOBODY, *action))
        assert_refused(answer, 404, "AGENT_NOT_FOUND", {})


def test_decommissioned_agent(provider, agent):
    """A decommissioned agent gets no new secret; its old ones can still be listed and revoked."""
    credential = generate(provider, agent)
    provider.delete(f"/api/v1/agents/{agent}")
    one = path(agent, credential["credentialId"])

    assert token_status(provider, agent, credential["clientSecret"]) == 401
    assert_refused(provider.post(path(agent), json={}), 409, "AGENT_DECOMMISSIONED", {})
    assert_refused(provider.post(f"{one}/rotate"), 409, "AGENT_DECOMMISSIONED", {})
    assert provider.get(path(agent)).json["total"] == 1
    assert provider.delete(one).status_code == 204


def test_suspension_pauses_secrets(provider, agent):
    """A suspended agent gets no token; once it is active again, the same secret works."""
    secret = generate(provider, agent)["clientSecret"]
    statuses = []
    for status in ("suspended", "active"):
        provider.patch(f"/api/v1/agents/{agent}", json={"status": status})
        statuses.append(token_status(provider, agent, secret))

    assert statuses == [401, 200]


def test_list_is_paged(provider, agent):
    """Credentials are listed oldest first, in pages."""
    ids = []
    for _ in range(3):
        ids.append(generate(provider, agent)["credentialId"])
        provider.clock.advance(1)

    pages = [provider.get(f"{path(agent)}?limit=2&page={page}").json for page in (1, 2)]

    assert [it["credentialId"] for page in pages for it in page["data"]] == ids
    assert [(page["total"], page["limit"]) for page in pages] == [(3, 2), (3, 2)]


def test_changes_are_audited(provider, agent):
    """Generating, rotating and revoking are recorded with the credential's id, never with the secret."""
    credential = generate(provider, agent)
    one = path(agent, credential["credentialId"])
    rotated = provider.post(f"{one}/rotate").json
    provider.delete(one)

    records = [it for it in provider.audit(agentId=agent) if it["action"].startswith("credential.")][::-1]

    assert [it["action"] for it in records] == [
        "credential.generated",
        "credential.rotated",
        "credential.revoked",
    ]
    assert {it["details"]["credentialId"] for it in records} == {credential["credentialId"]}
    text = str(provider.audit())
    assert credential["clientSecret"] not in text
    assert rotated["clientSecret"] not in text
