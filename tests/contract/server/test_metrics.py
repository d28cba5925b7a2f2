"""`/metrics`: the names known from AgentIdP, correct counts and bounded labels."""

import re
from datetime import timedelta
from importlib import metadata

import pytest

from kit.processes import ROOT
from kit.provider import AGENTS, EXCHANGE, HERE, NOBODY, TOKEN, key_admin
from sentryagent_idp.runtime.metrics import Metrics
from sentryagent_idp.use_cases.signing_keys import active_key_age


@pytest.fixture
def scrape():
    """Reads a provider's samples by name and labels."""

    def read(provider):
        answer = provider.http.get("/metrics")
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    return read


def test_every_series_is_there_from_the_start(provider, scrape):
    """Every series starts at 0, because Prometheus' rate() misses the first increment of a new one."""
    samples = scrape(provider)

    for row in documented("Codes"):
        if row != "INVALID_OIDC_TOKEN":
            assert samples[f'agentidp_refusals_total{{code="{row}",reason=""}}'] == 0
    for row in documented("Reasons of `INVALID_OIDC_TOKEN`"):
        assert samples[f'agentidp_refusals_total{{code="INVALID_OIDC_TOKEN",reason="{row}"}}'] == 0
    for outcome in ("success", "failure", "dry_run"):
        assert samples[f'agentidp_tokens_issued_total{{outcome="{outcome}"}}'] == 0
    for outcome in ("success", "failure"):
        assert samples[f'agentidp_agents_registered_total{{outcome="{outcome}"}}'] == 0
    assert samples["agentidp_rate_limit_rejections_total"] == 0
    exchange = 'method="POST",path="/api/v1/oidc/token"'
    assert samples[f"agentidp_http_request_duration_seconds_count{{{exchange}}}"] == 0
    for operation in ("read", "write"):
        assert samples[f'agentidp_db_query_duration_seconds_count{{operation="{operation}"}}'] == 0


def documented(heading):
    """The first cells of a table in docs/errors.md, which test_errors.py compares with the code."""
    section = (ROOT / "docs" / "errors.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    assert len(found) > 10
    return found


def test_the_version_is_shown(provider, scrape):
    """The version is the one that `sentryagent-idp --version` prints."""
    version = metadata.version("sentryagent-idp")

    assert scrape(provider)[f'agentidp_build_info{{version="{version}"}}'] == 1


def test_the_state_of_the_audit(provider, scrape):
    """The chain counts as valid before the first check; after it, the gauges show its result."""
    assert scrape(provider)["agentidp_audit_chain_valid"] == 1
    provider.metrics.audit_chain(is_valid=False)
    provider.metrics.unsealed(7)

    samples = scrape(provider)

    assert (samples["agentidp_audit_unsealed_records"], samples["agentidp_audit_chain_valid"]) == (7, 0)


def test_readiness_and_the_age_of_the_signing_key(provider, scrape):
    """Alerts can use readiness, the number of policies that match nothing, and the signing key's age."""
    provider.metrics.readiness(is_ready=False, policies_of_other_issuers=3)
    provider.metrics.signing_key(86_400)

    samples = scrape(provider)

    assert (samples["agentidp_ready"], samples["agentidp_policies_of_other_issuers"]) == (0, 3)
    assert samples["agentidp_signing_key_age_seconds"] == 86_400


def test_the_signing_key_is_as_old_as_its_creation(provider):
    """The gauge shows the age of the active key, not of the next one; without a key it is absent."""
    provider.clock.advance(86_400)
    key_admin(provider.store, provider.clock).rotate("admin", HERE)
    provider.clock.advance(2 * 86_400)

    assert active_key_age(provider.store, provider.clock()) == timedelta(days=3).total_seconds()
    with provider.store.write() as tx:
        for key in tx.signing_keys.all():
            tx.signing_keys.remove(key.kid)
    assert active_key_age(provider.store, provider.clock()) is None


def test_transactions_are_timed_by_kind(provider, scrape):
    """Read and write transactions are timed separately."""
    provider.metrics.transaction("read", 0.003)
    provider.metrics.transaction("write", 0.2)

    samples = scrape(provider)

    name = "agentidp_db_query_duration_seconds_bucket"
    assert samples[f'{name}{{le="0.005",operation="read"}}'] == 1
    assert samples[f'{name}{{le="0.1",operation="write"}}'] == 0
    assert samples[f'{name}{{le="0.25",operation="write"}}'] == 1


def test_an_exchange_is_counted_by_its_outcome(provider, scrape):
    """Issued, refused and dry-run tokens are counted separately, including client credentials."""
    provider.policy(branch="main")
    provider.exchange()
    provider.exchange(provider.github_token(ref="refs/heads/dev"))
    provider.exchange(dryRun=True)
    provider.http.post("/api/v1/token", data={"grant_type": "client_credentials"})

    samples = scrape(provider)

    assert samples['agentidp_tokens_issued_total{outcome="success"}'] == 1
    assert samples['agentidp_tokens_issued_total{outcome="failure"}'] == 2
    assert samples['agentidp_tokens_issued_total{outcome="dry_run"}'] == 1
    assert samples['agentidp_refusals_total{code="BRANCH_NOT_PERMITTED",reason=""}'] == 1
    assert samples['agentidp_refusals_total{code="INVALID_CLIENT",reason=""}'] == 1


def test_the_reason_of_an_unacceptable_token_is_a_label(provider, scrape):
    """An operator can see a wrong clock or an unknown key without reading logs."""
    provider.exchange(provider.github_token(fault="expired"))
    provider.exchange("no token")

    samples = scrape(provider)

    assert samples['agentidp_refusals_total{code="INVALID_OIDC_TOKEN",reason="expired"}'] == 1
    assert samples['agentidp_refusals_total{code="INVALID_OIDC_TOKEN",reason="malformed"}'] == 1


def test_registrations_are_counted_by_outcome(provider, scrape):
    """Registering the same address twice is a success and a failure; reading agents is neither."""
    provider.agent("bot@octo-org.example")
    provider.post("/api/v1/agents", json={"email": "bot@octo-org.example"})
    provider.get("/api/v1/agents")

    samples = scrape(provider)

    assert samples['agentidp_agents_registered_total{outcome="success"}'] == 1
    assert samples['agentidp_agents_registered_total{outcome="failure"}'] == 1


@pytest.mark.parametrize("path", [EXCHANGE, TOKEN, AGENTS])
@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "GET", "PUT"])
def test_a_request_that_asks_for_nothing_is_no_outcome(provider, scrape, method, path):
    """Requests with other methods count as no outcome, or anyone could inflate the number of issued tokens."""
    provider.http.open(path, method=method)

    samples = scrape(provider)

    for name in ("agentidp_tokens_issued_total", "agentidp_agents_registered_total"):
        for outcome in ("success", "failure"):
            assert samples[f'{name}{{outcome="{outcome}"}}'] == 0


def test_requests_are_counted_by_route(provider, scrape):
    """Requests are counted and timed by method, route template and status."""
    provider.get(f"/api/v1/agents/{NOBODY}")
    provider.http.get("/health")

    samples = scrape(provider)

    route = 'method="GET",path="/api/v1/agents/<agent_id>"'
    assert samples[f'agentidp_http_requests_total{{{route},status_code="404"}}'] == 1
    assert samples[f"agentidp_http_request_duration_seconds_count{{{route}}}"] == 1
    assert samples['agentidp_http_requests_total{method="GET",path="/health",status_code="200"}'] == 1


def test_requests_over_the_limit_are_counted(provider, scrape):
    """429 responses have a counter of their own, for an alert."""
    process = provider.with_settings(RATE_LIMIT="1")
    process.policy()
    for _ in range(3):
        process.exchange()

    samples = scrape(process)

    assert samples["agentidp_rate_limit_rejections_total"] == 2
    assert samples['agentidp_refusals_total{code="RATE_LIMITED",reason=""}'] == 2


def test_no_client_can_make_a_label(provider, scrape):
    """Nothing a client sends in paths, methods, tokens or names adds a sample."""

    def send(word):
        provider.http.get(f"/{word}")
        provider.http.open("/health", method=word)
        provider.get(f"/api/v1/agents/{word}")
        provider.exchange(provider.github_token(repository=f"octo-org/{word}", repository_id="7"))
        provider.exchange(provider.github_token(header={"kid": word}))
        provider.exchange(agentId=word)

    send("first")
    before = scrape(provider).keys()
    for number in range(5):
        send(f"word{number}")
    after = scrape(provider).keys()

    assert {name for name in after - before if "/metrics" not in name} == set()
    assert not [name for name in after if "word" in name or "first" in name]


@pytest.mark.parametrize(("age", "shown"), [(12.5, 12.5), (None, float("inf"))])
def test_the_age_of_githubs_keys(provider, scrape, age, shown):
    """Without keys the age is infinite, so that the alert on old keys fires."""
    provider.metrics.issuer_keys(age)

    assert scrape(provider)["agentidp_issuer_keys_age_seconds"] == shown


def test_every_name_is_documented():
    """The metrics documented in docs/operations.md are exactly those on the page."""
    document = ROOT / "docs" / "operations.md"
    published = set(re.findall(rb"^# TYPE (\w+)", Metrics().page(), re.MULTILINE))
    documented = set(re.findall(r"^\| `(agentidp_\w+)", document.read_text(), re.MULTILINE))

    assert documented == {name.decode() for name in published if not name.endswith(b"_created")}
