"""Texts that a database may be unable to store get the same response on SQLite and on PostgreSQL."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.provider import AGENTS, AUDIT, INTROSPECT, POLICIES, REVOKE, SERVICES, TOKEN
from sentryagent_idp.domain.identity import TEXT_CLAIMS

pytestmark = pytest.mark.postgres

TEXTS = st.text(
    st.sampled_from("ab/:.\x00\x01\x7f\x85\ud800\udfff\u2028\ufeff\ufffe\uffff\U0010ffffü"),
    min_size=1,
    max_size=6,
)
RUN = {
    "repository": "octo-org/hello-agent",
    "repository_id": "1",
    "repository_owner_id": "2",
    "ref": "refs/heads/main",
    "event_name": "push",
}  # fmt: skip
SIMULATE = f"{POLICIES}/simulate"
AGENT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
EMAIL = {"email": "a@b.example"}
SERVICE = {"identifier": "urn:ex:a", "scopes": [{"name": "deploy"}]}
POLICY_TEXTS = (
    "repository",
    "issuer",
    "branch",
    "tag",
    "environment",
    "workflow",
    "calledWorkflow",
    "description",
)

FIELDS = [
    *((POLICIES, lambda text, name=name: {"repository": "octo-org/x", name: text}) for name in POLICY_TEXTS),
    (POLICIES, lambda text: {"repository": "octo-org/x", "properties": {text: [text]}}),
    (POLICIES, lambda text: {"repository": "octo-org/x", "actorIds": [text]}),
    (POLICIES, lambda text: {"repository": "octo-org/x", "agentId": AGENT, "grants": [{"service": text, "scopes": ["x"]}]}),
    *((AGENTS, lambda text, name=name: {**EMAIL, name: text}) for name in ("email", "description", "version", "owner")),
    (AGENTS, lambda text: {**EMAIL, "capabilities": [text]}),
    *((SERVICES, lambda text, name=name: {**SERVICE, name: text}) for name in ("identifier", "description")),
    (SERVICES, lambda text: {**SERVICE, "scopes": [{"name": text, "description": text}]}),
    (SIMULATE, lambda text: {"claims": RUN, "agentId": AGENT, "resource": text}),
    (SIMULATE, lambda text: {"token": text}),
    *((SIMULATE, lambda text, claim=claim: {"claims": {**RUN, claim: text}}) for claim in (*TEXT_CLAIMS, "iss", "repo_property_x")),
    (SIMULATE, lambda text: {"claims": {**RUN, f"repo_property_{text}": "x"}}),
]  # fmt: skip
LISTS = [
    *((POLICIES, name) for name in ("repository", "owner", "issuer", "repositoryId", "service", "search")),
    *((AGENTS, name) for name in ("owner", "email")),
    (SERVICES, "identifier"),
    *((AUDIT, name) for name in ("actor", "action", "repository", "requestId", "after")),
]
FORMS = [(TOKEN, "client_id"), (TOKEN, "client_secret"), (INTROSPECT, "token"), (REVOKE, "token")]

CLAIMS = (*TEXT_CLAIMS, "aud", "repo_property_x", "new")

several = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def outcome(answer):
    """The status, code and details, without the details of a conflict, whose ids differ."""
    body = answer.json or {}
    details = {} if answer.status_code == 409 else body.get("details") or {}
    return answer.status_code, body.get("code") or body.get("error"), details


def assert_alike(both, ask):
    """Both engines give the same response, which is not a 5xx and names a specific field."""
    sqlite, postgres = (outcome(ask(provider)) for provider in both)
    assert sqlite == postgres
    assert sqlite[0] < 500
    assert sqlite[2].get("field") != "request"


def post(row, text):
    path, body = row
    return lambda provider: provider.post(path, json=body(text))


def narrow(row, text):
    path, name = row
    query = {name: text.encode("utf-8", "surrogatepass")}
    return lambda provider: provider.get(path, query_string=query)


def submit(row, text):
    path, name = row
    form = {"grant_type": "client_credentials", "client_id": AGENT, "client_secret": "x", name: text}
    form = {key: value.encode("utf-8", "surrogatepass") for key, value in form.items()}
    return lambda provider: provider.http.post(path, data=form)


WAYS = [(post, FIELDS), (narrow, LISTS), (submit, FORMS)]


@pytest.mark.parametrize("text", ["\x00", "a\x00", "\ud800"])
@pytest.mark.parametrize(("ask", "rows"), WAYS)
def test_each_text(both_providers, ask, rows, text):
    """Text that PostgreSQL cannot store, in every text of bodies, filters and forms."""
    for row in rows:
        assert_alike(both_providers, ask(row, text))


@pytest.mark.parametrize(("ask", "rows"), WAYS)
def test_any_text(both_providers, ask, rows):
    """Text of troublesome characters, in every text of bodies, filters and forms."""

    @several
    @given(row=st.sampled_from(rows), text=TEXTS)
    def try_out(row, text):
        assert_alike(both_providers, ask(row, text))

    try_out()


@pytest.mark.parametrize("fault", ["", "expired"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_claim(both_providers, claim, fault):
    """Unstorable text in each claim of a signed token, valid or expired."""
    for text in ("a\x00", "\x01\u2028\ufffe\uffff\U0010ffff"):

        def token(provider, text=text):
            return provider.github_token(fault=fault, **{claim: text})

        assert_alike(both_providers, lambda provider: provider.exchange(token(provider)))
        assert_alike(
            both_providers, lambda provider: provider.post(SIMULATE, json={"token": token(provider)})
        )
