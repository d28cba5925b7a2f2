"""`sentryagent-idp doctor`: one line for each check, exit code 1 if one fails."""

import sqlite3
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import psycopg
import pytest
import structlog

from kit import records
from kit.cli import assert_fails, run
from sentryagent_idp.cli import doctor
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.housekeeping import Housekeeping
from sentryagent_idp.use_cases.sealing import Sealer

SETTINGS = "settings: all variables are known and valid"
DATABASE = "database: its schema is up to date, and it can be read and written"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Remove this machine's proxy variables, and reset logging afterwards."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield
    structlog.reset_defaults()


def lines(result):
    """The state and text of each check, by its subject."""
    found = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    return {text.partition(":")[0]: (state, text) for state, text in found}


def examine(url, mock_idp, **variables):
    settings = {"DATABASE_URL": url, "GITHUB_ISSUER": mock_idp.issuer, "KEY_ENCRYPTION_KEY": "k" * 32}
    return run(
        "doctor", **{name: value for name, value in (settings | variables).items() if value is not None}
    )


def test_all_is_well(empty_url, mock_idp):
    """Each subject has a line, and the exit code is 0."""
    result = examine(empty_url, mock_idp)

    assert (result.exit_code, result.stderr) == (0, "")
    found = lines(result)
    assert list(found) == [
        "settings",
        "database",
        "encryption",
        "policies",
        "services",
        "issuer",
        "clock",
    ]
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["settings"][1] == SETTINGS
    assert found["database"][1] == DATABASE
    assert mock_idp.issuer in found["issuer"][1]


@pytest.mark.parametrize(("protocol", "state"), [("http/protobuf", "ok"), ("grpc", "fail")])
def test_traces(empty_url, mock_idp, monkeypatch, protocol, state):
    """Traces are checked only if enabled, because an invalid OpenTelemetry variable keeps `serve` from starting."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    assert "traces" not in lines(examine(empty_url, mock_idp))

    result = examine(empty_url, mock_idp, TRACES="on")

    assert lines(result)["traces"][0] == state
    assert result.exit_code == (state == "fail")


def test_keys_in_clear_are_a_warning(provider, mock_idp):
    """Without an encryption key, unencrypted keys are a warning and the exit code is 0."""
    result = examine(provider.url, mock_idp, KEY_ENCRYPTION_KEY=None)
    assert result.exit_code == 0
    assert lines(result)["encryption"][0] == "warn"


def test_keys_that_cannot_be_read(provider, mock_idp):
    """With an encryption key, unencrypted keys are not trusted and the check fails."""
    result = examine(provider.url, mock_idp)
    state, text = lines(result)["encryption"]
    assert (result.exit_code, state) == (1, "fail")
    assert "keys rewrap" in text


def test_policies_of_other_issuers(provider, mock_idp):
    """Policies of other issuers match nothing, so the check fails."""
    provider.policy()
    result = examine(provider.url, mock_idp, KEY_ENCRYPTION_KEY=None)
    state, text = lines(result)["policies"]
    assert (result.exit_code, state) == (1, "fail")
    assert "1 of https://token.actions.githubusercontent.com" in text


def test_setting_that_takes_the_name_of_a_service(provider, mock_idp):
    """The check names both the setting and the service."""
    provider.service("https://deploy.example.com", "deploy")
    variables = {"KEY_ENCRYPTION_KEY": None, "PUBLIC_URL": "https://idp.example.com"}
    good = examine(provider.url, mock_idp, **variables)
    taken = examine(provider.url, mock_idp, **variables, TOKEN_AUDIENCE="https://deploy.example.com")
    assert lines(good)["services"] == ("ok", "services: none uses an identifier of the provider itself")
    state, text = lines(taken)["services"]
    assert (taken.exit_code, state) == (1, "fail")
    assert (
        "SENTRYAGENT_TOKEN_AUDIENCE: it conflicts with the identifier of the service https://deploy" in text
    )


def test_database_that_is_not_prepared(tmp_path, mock_idp):
    """No database is created, and the issuer is checked anyway."""
    result = examine(f"sqlite:///{tmp_path / 'x.db'}", mock_idp)
    found = lines(result)
    assert (result.exit_code, found["database"][0], found["issuer"][0]) == (1, "fail", "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///nowhere/x.db", "postgresql+psycopg://127.0.0.1:1/x"])
def test_database_that_does_not_answer(url, mock_idp):
    """An unreachable database is a check that fails, not a crash."""
    result = examine(url, mock_idp)
    assert (result.exit_code, lines(result)["database"][0]) == (1, "fail")


@pytest.fixture
def clerk(postgres_cluster, postgres_url):
    """The URL of a user with all privileges but UPDATE and DELETE on the audit, except those that sealing needs."""
    schema.migrate(postgres_url)
    postgres_cluster.execute("CREATE ROLE clerk LOGIN")
    _grant(postgres_url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk")
    _grant(postgres_url, "REVOKE UPDATE, DELETE ON audit_log, audit_seals FROM clerk")
    _grant(postgres_url, "REVOKE UPDATE ON audit_gaps FROM clerk")
    yield str(httpx.URL(postgres_url).copy_with(username="clerk"))
    _grant(postgres_url, "DROP OWNED BY clerk")
    postgres_cluster.execute("DROP ROLE clerk")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("revoked", "lacks"),
    [
        ("INSERT, DELETE ON agents", "INSERT on agents, DELETE on agents"),
        ("DELETE ON audit_gaps", "DELETE on audit_gaps"),
    ],
)
def test_privileges_that_the_user_lacks(clerk, postgres_url, mock_idp, revoked, lacks):
    """Each missing privilege is named; UPDATE and DELETE on the records and their seals are not required."""
    assert lines(examine(clerk, mock_idp))["database"] == ("ok", DATABASE)
    _grant(postgres_url, f"REVOKE {revoked} FROM clerk")
    result = examine(clerk, mock_idp)
    text = f"database: its user lacks {lacks}; grant it"
    assert (result.exit_code, lines(result)["database"]) == (1, ("fail", text))


@pytest.mark.postgres
def test_a_retention_needs_the_privilege_to_delete_records(clerk, postgres_url, mock_idp):
    """Without it, records would be kept for good, and only the log would say so."""
    text = lines(examine(clerk, mock_idp, AUDIT_RETENTION="90"))["database"][1]
    assert text == "database: its user lacks DELETE on audit_log, DELETE on audit_seals; grant it"
    _grant(postgres_url, "GRANT DELETE ON audit_log, audit_seals TO clerk")
    assert lines(examine(clerk, mock_idp, AUDIT_RETENTION="90"))["database"] == ("ok", DATABASE)
    with Database(clerk) as store:
        _write_and_seal(store)
        later = datetime.now(UTC) + timedelta(days=100)
        assert Housekeeping(store, lambda: later, 90).run() == 1


@pytest.mark.postgres
def test_the_privileges_that_doctor_asks_for_are_enough(clerk):
    """The audit is written and sealed, and expired rows of other tables are deleted."""
    with Database(clerk) as store:
        _write_and_seal(store)
        Housekeeping(store, lambda: datetime.now(UTC), None).run()


def _write_and_seal(store):
    now = datetime.now(UTC)
    with store.write() as tx:
        tx.audit.append(records.audit_record(now))
    assert Sealer(store, lambda: now).run() == 1


def _grant(url, statement):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"PORTS": "1"}, "SENTRYAGENT_PORTS is not a setting"),
        ({"PORT": "x"}, "SENTRYAGENT_PORT: it must be a whole number"),
        ({"DATABASE_URL": "mysql://x"}, "SENTRYAGENT_DATABASE_URL: use"),
    ],
)
def test_wrong_settings_are_the_first_check(provider, mock_idp, variables, cause):
    """With invalid settings nothing else can be checked."""
    result = examine(**{"url": provider.url, "mock_idp": mock_idp, **variables})
    assert result.exit_code == 1
    assert list(lines(result)) == ["settings"]
    assert cause in result.stdout


def test_unknown_variable_is_a_warning(provider, mock_idp):
    """An unknown variable is a warning, as at startup."""
    result = examine(provider.url, mock_idp, KEY_ENCRYPTION_KEY=None, COLOUR="x")
    assert (result.exit_code, lines(result)["settings"][0]) == (0, "warn")
    assert "SENTRYAGENT_COLOUR" in result.stdout


def test_environment_of_libraries(provider, mock_idp, monkeypatch):
    """An unsupported proxy is a check that fails."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    result = examine(provider.url, mock_idp, KEY_ENCRYPTION_KEY=None)
    assert (result.exit_code, lines(result)["network"][0]) == (1, "fail")
    assert "ALL_PROXY: SOCKS is not supported" in result.stdout


def test_issuer_through_the_proxy(provider, mock_idp, monkeypatch):
    """Each issuer has a line and is reached the provider's way; an unreachable proxy is named as the cause."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    both = f"{mock_idp.issuer},https://ghes.example.com"
    result = examine(provider.url, mock_idp, KEY_ENCRYPTION_KEY=None, GITHUB_ISSUER=both)
    issuers = [line for line in result.stdout.splitlines() if " issuer: " in line]
    assert result.exit_code == 1
    assert issuers[0].startswith(f"ok    issuer: the keys of {mock_idp.issuer} can be fetched")
    assert issuers[1].startswith(
        "fail  issuer: the keys of https://ghes.example.com cannot be fetched through the proxy"
    )
    assert "127.0.0.1:1" in issuers[1]


@pytest.mark.parametrize(
    ("seconds", "age", "state", "words"),
    [
        (0, None, "ok", "s of GitHub's"),
        (29, None, "ok", "s of GitHub's"),
        (100, None, "fail", "behind GitHub's"),
        (-100, None, "fail", "ahead of GitHub's"),
        (-100, "100", "ok", "s of GitHub's"),
    ],
)
def test_clock(seconds, age, state, words):
    """The response's Date, corrected by its Age, is compared with this machine's clock."""
    sent = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    answer = httpx.Response(200, headers={"Date": sent, **({"Age": age} if age else {})})
    check = doctor._clock(list(doctor._ahead(answer)))
    assert (check.state, check.subject) == (state, "clock")
    assert words in check.text


@pytest.mark.parametrize(
    "headers", [{}, {"Date": "yesterday"}, {"Date": "Tue, 24 Nov 2026 12:00:00 GMT", "Age": "x"}]
)
def test_clock_that_nobody_tells(headers):
    """Without a usable Date or Age the check is a warning."""
    assert doctor._clock(list(doctor._ahead(httpx.Response(200, headers=headers)))).state == "warn"


def test_database_of_a_newer_version_ends_it(tmp_path, mock_idp):
    """A newer database ends this command like any other: exit code 2 and one line."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    schema.migrate(url)
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '999'")
    database.close()
    assert_fails(examine(url, mock_idp), "The database is at step")
