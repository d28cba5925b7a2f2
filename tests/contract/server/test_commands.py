"""Starting `serve`, and the commands `migrate` and `admin-token` (docs/configuration.md)."""

import os
import pwd
import socket
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from kit.cli import assert_fails, run
from kit.processes import free_port
from kit.provider import AGENTS, NOW, POLICIES, REVOKE, made
from kit.records import keep, service
from kit.tokens import bearer, claims_of
from sentryagent_idp import serve
from sentryagent_idp.cli.main import main
from sentryagent_idp.config import Settings
from sentryagent_idp.runtime import variables
from sentryagent_idp.serve import prepare
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.published_settings import save


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, with none of our variables in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SENTRYAGENT_")]:
        monkeypatch.delenv(name)
    yield tmp_path
    structlog.reset_defaults()  # `serve` configures logging to the runner's own stderr


@pytest.mark.parametrize("command", ["serve", "migrate", "admin-token"])
@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"PORT": "x"}, "PORT"),
        ({"PUBLIC_URL": "http://idp.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://token.actions.githubusercontent.com"}, "PUBLIC_URL"),
        ({"OIDC_AUDIENCE": "sts.amazonaws.com"}, "OIDC_AUDIENCE"),
        ({"EXPLAIN": "maybe"}, "EXPLAIN"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///nowhere/x.db"}, "DATABASE_URL"),
        ({"KEY_ENCRYPTION_KEY": "short"}, "KEY_ENCRYPTION_KEY"),
    ],
)
def test_wrong_settings_end_a_command(folder, command, variables, name):
    """One line names the variable, the exit code is 2, and no file is created."""
    assert_fails(run(command, **{"PORT": str(free_port()), **variables}), f"SENTRYAGENT_{name}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--port", "0"], "PORT"),
        (["--host", ""], "HOST"),
        (["--host", "192.0.2.1"], "HOST"),
        (["--host", "no.such.host.invalid"], "HOST"),
        (["--host", "a..b"], "HOST"),
        (["--workers", "none"], "WORKERS"),
        (["--public-url", "idp"], "PUBLIC_URL"),
        (["--database-url", "x.db"], "DATABASE_URL"),
    ],
)
def test_wrong_flags_name_their_variable(folder, flags, name):
    """A flag overrides its variable, and an invalid flag is refused under the variable's name."""
    assert_fails(
        run("serve", *flags, PORT=str(free_port()), PUBLIC_URL="https://idp.example.com"),
        f"SENTRYAGENT_{name}",
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "migrate", "admin-token", "copy-database"])
@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        (
            {"TRUSTED_PROXY": "10.0.0.0/8"},
            "SENTRYAGENT_TRUSTED_PROXY is not a setting; use SENTRYAGENT_TRUSTED_PROXIES",
        ),
        (
            {"KEY_ENCRYPTION_KEY": "k" * 32, "KEY_ENCRYPTION_KEY_FILE": "key"},
            "are both set; unset one of them",
        ),
        (
            {"KEY_ENCRYPTION_KEY_FILE": "nowhere"},
            "SENTRYAGENT_KEY_ENCRYPTION_KEY_FILE: the file nowhere cannot be read",
        ),
        ({"GITHUB_ISSUER": "https://github.com"}, "SENTRYAGENT_GITHUB_ISSUER: write the issuer"),
    ],
)
def test_variables_that_cannot_count(folder, command, variables, cause):
    """A misspelt variable, or a secret set twice or unreadable: one line, exit code 2, no file."""
    more = ("--from", "sqlite:///x.db", "--to", "sqlite:///y.db") if command == "copy-database" else ()
    assert_fails(run(command, *more, **variables), cause)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("https_proxy", "http://u:p#x@host:3128"),
        ("HTTP_PROXY", "ftp://host"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_DIR", "/nonexistent"),
        ("SSLKEYLOGFILE", "/nonexistent/x"),
    ],
)
def test_environment_of_libraries(folder, monkeypatch, variable, value):
    """A variable that would break a library in the workers ends `serve` before it listens; one line names it."""
    monkeypatch.setenv(variable, value)
    assert_fails(run("serve", PORT=str(free_port())), f"{variable}: ")
    assert list(folder.iterdir()) == []


def test_unknown_variable_is_a_warning(folder):
    """An unknown variable is logged at startup by its name, without its value."""
    environ = {"SENTRYAGENT_COLOUR": "s3cret", "SENTRYAGENT_AGENT_ID": "x", "SENTRYAGENT_PORT": "1"}
    with capture_logs() as logged:
        serve._warn_of_unknown_variables(environ)
    assert [(it["log_level"], it["variable"]) for it in logged] == [("warning", "SENTRYAGENT_COLOUR")]
    assert "s3cret" not in str(logged)


def test_the_file_of_a_secret_is_read_once(folder, monkeypatch):
    """A secret's file may be a pipe such as a shell's `<(…)`, so it is read only once."""
    run("migrate")
    (folder / "key").write_text("k" * 32)
    read, reading = [], variables.secret
    monkeypatch.setattr(variables, "secret", lambda path: read.append(path) or reading(path))

    listed = run("keys", "list", KEY_ENCRYPTION_KEY_FILE="key")

    assert (listed.exit_code, listed.stderr, read) == (0, "", ["key"])


@pytest.mark.parametrize("by_flag", [True, False])
def test_copy_database_needs_a_target(folder, by_flag):
    """`copy-database` never writes to the default database; the target must be named."""
    (folder / "url").write_text("sqlite:///y.db\n")
    assert run("migrate", DATABASE_URL="sqlite:///x.db").exit_code == 0
    assert_fails(run("copy-database", "--from", "sqlite:///x.db"), "--to: name the database")
    target = ["--to", "sqlite:///y.db"] if by_flag else []
    variables = {} if by_flag else {"DATABASE_URL_FILE": "url"}
    assert run("copy-database", "--from", "sqlite:///x.db", *target, **variables).exit_code == 0
    assert {it.name for it in folder.iterdir()} == {"url", "x.db", "y.db"}


@pytest.mark.parametrize(
    ("address", "url"), [("::1", "http://[::1]:3000"), ("127.0.0.1", "http://127.0.0.1:3000")]
)
def test_the_log_names_an_address_that_can_be_pasted(address, url):
    """The logged URL is valid, also for IPv6."""
    assert serve._url(address, 3000) == url


@pytest.mark.parametrize("listening", [True, False])
def test_port_in_use(folder, listening):
    """A port in use is detected before the database is created."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        port = other.getsockname()[1]

        assert_fails(
            run("serve", "--port", str(port)), f"SENTRYAGENT_PORT: cannot listen on 127.0.0.1:{port}"
        )
    assert list(folder.iterdir()) == []


def test_migrate_makes_a_database_for_its_owner_alone(folder):
    """The file is readable only by its owner; a second `migrate` does nothing."""
    first = run("migrate")
    second = run("migrate")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "022" in first.stdout
    assert second.stdout == "nothing to do\n"
    assert (folder / "sentryagent.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, b"", b"this is no database, but a text of some length " * 50])
def test_admin_token_makes_no_database(folder, content):
    """On an unprepared database: one line, exit code 2, and nothing is created or changed."""
    file = folder / "sentryagent.db"
    if content is not None:
        file.write_bytes(content)

    assert_fails(run("admin-token"), "SENTRYAGENT_DATABASE_URL")

    assert (file.read_bytes() if file.exists() else None) == content
    assert {it.name for it in folder.iterdir()} <= {"sentryagent.db"}


def test_admin_token_on_a_database_without_key(folder):
    """A database that was migrated but never served has no signing key to mint with."""
    run("migrate")

    result = run("admin-token")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "sentryagent-idp serve" in result.stderr


def _mint(provider, *arguments, **variables):
    return run("admin-token", *arguments, "--database-url", provider.url, **variables)


def _claims(result):
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return claims_of(result.stdout.strip())


def _publish(store, settings):
    save(store, public_url=settings.public_url, token_audience=settings.token_audience)


@pytest.fixture
def served(provider, folder):
    """A provider whose settings `serve` has published."""
    _publish(provider.store, provider.settings)
    return provider


def test_admin_token_is_the_token_alone(served):
    """Without options the token has all scopes and the default lifetime; nothing else is printed."""
    claims = _claims(_mint(served))

    assert claims["scope"] == (
        "agents:read agents:write tokens:read audit:read policies:read policies:write services:read services:write"
    )
    assert claims["exp"] - claims["iat"] == 3600
    assert (claims["iss"], claims["aud"]) == ("https://idp.example.com", "https://idp.example.com")


def test_admin_token_is_for_the_provider_as_it_was_served(served):
    """Issuer and audience are those `serve` last used on this database; the command's PORT does not matter."""
    other = served.with_settings(PUBLIC_URL="http://127.0.0.1:4711", TOKEN_AUDIENCE="https://api.example.com")
    _publish(served.store, other.settings)

    claims = _claims(_mint(served, PORT="3000"))
    explicit = _claims(_mint(served, PUBLIC_URL="https://else.example.com"))

    assert (claims["iss"], claims["aud"]) == ("http://127.0.0.1:4711", "https://api.example.com")
    assert explicit["iss"] == "https://else.example.com"


def test_admin_token_is_good_at_the_api(served):
    """The API of a provider on the same database accepts the token, within its scopes."""
    served.clock.now = served.clock.now.fromtimestamp(_claims(_mint(served))["iat"], served.clock.now.tzinfo)
    narrow = _mint(served, "--scope", "audit:read policies:read").stdout.strip()

    def status(path):
        return served.http.get(path, headers=bearer(narrow)).status_code

    served.clock.advance(2)
    assert (status("/api/v1/audit"), status("/api/v1/oidc/trust-policies"), status("/api/v1/agents")) == (
        200,
        200,
        403,
    )


@pytest.mark.parametrize(
    ("ttl", "variables", "lifetime"), [("60", {}, 60), ("100000", {}, 3600), ("100", {"TOKEN_TTL": "50"}, 50)]
)
def test_admin_token_lives_no_longer_than_others(served, ttl, variables, lifetime):
    """`--ttl` can only shorten the lifetime."""
    claims = _claims(_mint(served, "--ttl", ttl, **variables))

    assert claims["exp"] - claims["iat"] == lifetime


@pytest.mark.parametrize(
    ("scope", "problem"),
    [
        ("", "it is empty"),
        ("everything", "unknown scope everything"),
        ("agents:read agents:delete", "unknown scope agents:delete"),
    ],
)
def test_admin_token_knows_its_scopes(served, scope, problem):
    """An unknown scope is refused."""
    assert_fails(_mint(served, "--scope", scope), f"--scope: {problem}; allowed: agents:read ")


@pytest.mark.parametrize("ttl", ["0", "-1", "1h"])
def test_admin_token_needs_a_lifetime(served, ttl):
    """The lifetime must be a positive number of seconds."""
    result = _mint(served, "--ttl", ttl)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--ttl" in result.stderr


def test_admin_token_is_audited(served):
    """The audit record names the command line as the actor and has no address."""
    claims = _claims(_mint(served))

    (record,) = [it for it in served.audit(action="admin.token_issued") if it["actor"] == claims["sub"]][:1]
    assert record["details"]["issuedJti"] == claims["jti"]
    assert record["address"] is None


SYSTEM_USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("arguments", "sudo_user", "person"),
    [
        (["--for", "alice@example.com"], "bob", "alice@example.com"),
        (["--for", "Ünal K."], "", "Ünal K."),
        ([], "bob", "bob"),
        ([], "", SYSTEM_USER),
        ([], "bob\nmallory", SYSTEM_USER),
    ],
)
def test_admin_token_names_its_person(served, monkeypatch, arguments, sudo_user, person):
    """The audit names the person in `--for`, else the one who ran `sudo`, else the system user."""
    monkeypatch.setenv("SUDO_USER", sudo_user)

    claims = _claims(_mint(served, *arguments))

    (record,) = served.audit(action="admin.token_issued", requestId=_newest(served)["requestId"])
    assert (record["details"]["issuedJti"], record["details"]["person"]) == (claims["jti"], person)


def _newest(served):
    return served.audit()[0]


@pytest.mark.parametrize("name", ["", " ", " alice", "a\nb", "\u202eecila", "n" * 129])
def test_admin_token_takes_no_odd_names(served, name):
    """A name that could mislead a reader of the audit is refused."""
    assert_fails(_mint(served, "--for", name), "--for: write 1 to 128 printable characters")


def test_what_is_done_with_an_admin_token_names_its_person(served):
    """Every record of a request with the token names the person; records of other tokens do not."""
    token = _mint(served, "--for", "alice").stdout.strip()
    served.clock.now = served.clock.now.fromtimestamp(claims_of(token)["iat"] + 2, served.clock.now.tzinfo)
    served.admin, other = bearer(token), served.admin_headers()
    seen = len(served.audit())

    agent_id = served.agent()["agentId"]
    policy = served.policy(agentId=agent_id, branch="main")
    served.replace_policy(policy, branch="dev")
    served.delete(f"{POLICIES}/{policy['id']}")
    credential = made(served.post(f"{AGENTS}/{agent_id}/credentials"))["credentialId"]
    served.post(f"{AGENTS}/{agent_id}/credentials/{credential}/rotate")
    served.delete(f"{AGENTS}/{agent_id}/credentials/{credential}")
    served.patch(f"{AGENTS}/{agent_id}", json={"status": "suspended"})
    served.delete(f"{AGENTS}/{agent_id}")
    served.http.post(REVOKE, data={"token": other["Authorization"].split()[1]}, headers=served.admin)
    served.http.post(REVOKE, data={"token": token}, headers=served.admin)
    served.admin = served.admin_headers()
    done = served.audit()[1 : -seen or None]
    served.agent("other@octo-org.example")

    assert {record["action"] for record in done} == {
        "agent.created",
        "policy.created",
        "policy.updated",
        "policy.deleted",
        "credential.generated",
        "credential.rotated",
        "credential.revoked",
        "agent.suspended",
        "agent.decommissioned",
        "token.revoked",
    }
    assert {record["details"].get("person") for record in done} == {"alice"}
    assert "person" not in served.audit()[0]["details"]


def test_wrong_encryption_key(folder):
    """If keys were encrypted with another key, one line names the variable."""
    key = {"KEY_ENCRYPTION_KEY": "k" * 32}
    url = f"sqlite:///{folder / 'x.db'}"
    prepare(
        Settings.from_environ({"SENTRYAGENT_DATABASE_URL": url, "SENTRYAGENT_KEY_ENCRYPTION_KEY": "k" * 32})
    )

    assert run("admin-token", DATABASE_URL=url, **key).exit_code == 0
    assert_fails(
        run("admin-token", DATABASE_URL=url, KEY_ENCRYPTION_KEY="l" * 32), "SENTRYAGENT_KEY_ENCRYPTION_KEY"
    )
    assert_fails(run("admin-token", DATABASE_URL=url), "SENTRYAGENT_KEY_ENCRYPTION_KEY")


def test_serve_with_keys_in_clear_under_an_encryption_key(folder):
    """Unencrypted keys are not trusted: one line names `keys rewrap`, and nothing changes."""
    url = f"sqlite:///{folder / 'x.db'}"
    prepare(Settings.from_environ({"SENTRYAGENT_DATABASE_URL": url}))
    before = (folder / "x.db").read_bytes()

    served = run("serve", DATABASE_URL=url, PORT=str(free_port()), KEY_ENCRYPTION_KEY="k" * 32)

    assert_fails(served, "`sentryagent-idp keys rewrap`")
    assert (folder / "x.db").read_bytes() == before


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PUBLIC_URL", "https://deploy.example.com"),
        ("PUBLIC_URL", "https://deploy.example.com/idp"),
        ("TOKEN_AUDIENCE", "https://deploy.example.com/api"),
        ("OIDC_AUDIENCE", "https://DEPLOY.example.com/api/"),
        ("GITHUB_ISSUER", "https://token.actions.githubusercontent.com,https://deploy.example.com/api"),
    ],
)
def test_serve_with_a_setting_that_takes_the_name_of_a_service(folder, variable, value):
    """That service would accept the provider's own tokens: one line names the setting, and nothing changes."""
    url = f"sqlite:///{folder / 'x.db'}"
    prepare(Settings.from_environ({"SENTRYAGENT_DATABASE_URL": url}))
    with Database(url) as store:
        keep(store, service(NOW, identifier="https://deploy.example.com/api"))
    before = (folder / "x.db").read_bytes()

    served = run("serve", DATABASE_URL=url, PORT=str(free_port()), **{variable: value})

    assert_fails(
        served,
        f"SENTRYAGENT_{variable}: it conflicts with the identifier of the service https://deploy.example.com/api",
    )
    assert (folder / "x.db").read_bytes() == before


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o604, True), (0o660, True)])
def test_serve_warns_of_a_database_that_others_can_read(folder, mode, warns):
    """The database has private keys and hashes of secrets."""
    settings = Settings.from_environ({"SENTRYAGENT_DATABASE_URL": f"sqlite:///{folder / 'x.db'}"})
    prepare(settings)
    (folder / "x.db").chmod(mode)

    with capture_logs() as logged:
        prepare(settings)

    found = [it for it in logged if "chmod 600" in it["event"]]
    assert [(it["log_level"], it["file"]) for it in found] == [("warning", str(folder / "x.db"))] * warns


# All but `backup`, which works on any schema, and `copy-database`, which names its databases by options.
EVERY_COMMAND = [
    ("serve",),
    ("migrate",),
    ("admin-token",),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "revoke", "x"),
    ("keys", "rewrap"),
    ("clients", "create", "x"),
    ("clients", "list"),
    ("clients", "rotate", "x"),
    ("clients", "revoke", "x"),
    ("audit", "export"),
    ("policies", "move-issuer", "--from", "https://a.example", "--to", "https://b.example"),
    ("doctor",),
    ("audit", "verify"),
]


def test_every_command_is_in_the_table():
    """Every new command must be tested on a newer database."""
    found = [
        (name, sub) if sub else (name,)
        for name, command in main.commands.items()
        for sub in getattr(command, "commands", [None])
    ]
    assert sorted({it[:2] for it in EVERY_COMMAND} | {("backup",), ("copy-database",)}) == sorted(found)


def test_lists_of_commands_show_whole_sentences():
    """Click truncates a summary that is too long for its line, so each one must fit."""
    groups = [(), *((name,) for name, command in main.commands.items() if hasattr(command, "commands"))]

    lists = {group: run(*group, "--help").stdout.partition("Commands:\n")[2] for group in groups}

    assert len(lists) == 5
    assert all(lists.values())
    assert not [line for shown in lists.values() for line in shown.splitlines() if not line.endswith(".")]
    assert "..." not in "".join(lists.values())


def test_database_of_a_newer_version(folder):
    """An older program does not change a newer database."""
    url = f"sqlite:///{folder / 'x.db'}"
    schema.migrate(url)
    with Database(url) as store, store.write() as tx:
        tx.settings._connection.exec_driver_sql("UPDATE alembic_version SET version_num = '999'")
    before = Path(folder / "x.db").read_bytes()

    for command in EVERY_COMMAND:
        assert_fails(run(*command, DATABASE_URL=url, PORT=str(free_port())), "The database is at step")
    copied = run("copy-database", "--from", url, DATABASE_URL=f"sqlite:///{folder / 'y.db'}")
    assert_fails(copied, "--from: The database is at step")
    assert not (folder / "y.db").exists()
    assert Path(folder / "x.db").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["keys", "rotate", "--if-older", "0"], "--if-older"),
        (["admin-token", "--ttl", "soon"], "--ttl"),
        (["clients", "rotate", "id", "--keep-old", "604801"], "--keep-old"),
        (["audit", "verify", "--from-seal", "-1"], "--from-seal"),
        (["backup"], "FILE"),
        (["serve", "--prt", "3000"], "--port"),
        (["key"], "key"),
        (["keys", "list", "now"], "now"),
    ],
)
def test_wrong_usage_is_one_line(words, cause):
    """A wrong value, a missing argument or an unknown command is one line on stderr."""
    assert_fails(run(*words), cause)


@pytest.mark.parametrize("words", [[], ["keys"]])
def test_a_group_without_a_command_shows_its_help(words):
    """The help lists the commands; the exit code is that of wrong usage."""
    result = run(*words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
