"""The settings: each variable of docs/configuration.md with its default and its invalid values."""

import re
from ipaddress import ip_network

import pytest

from kit.processes import ROOT, tracked_files
from sentryagent_idp.config import Settings, unknown_variables
from sentryagent_idp.errors import ConfigurationError

PREFIX = "SENTRYAGENT_"
GITHUB = "https://token.actions.githubusercontent.com"
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 3000,
    "workers": None,
    "log_level": "info",
    "database_url": "sqlite:///sentryagent.db",
    "public_url": "http://127.0.0.1:3000",
    "token_audience": "http://127.0.0.1:3000",
    "oidc_audience": "http://127.0.0.1:3000",
    "github_issuers": ("https://token.actions.githubusercontent.com",),
    "oidc_max_age": 600,
    "token_ttl": 3600,
    "signing_alg": "ES256",
    "key_encryption_key": None,
    "key_encryption_key_previous": None,
    "rate_limit": 600,
    "trusted_proxies": (),
    "explain": True,
    "audit_retention": None,
    "traces": False,
}


def settings(flags=None, **variables):
    return Settings.from_environ({f"{PREFIX}{name}": value for name, value in variables.items()}, flags)


def test_defaults():
    """Without variables the settings have their defaults, and there are no others."""
    assert settings().model_dump() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("PORT", "65535", 65535),
        ("WORKERS", "4", 4),
        ("LOG_LEVEL", "debug", "debug"),
        ("DATABASE_URL", "postgresql+psycopg://user:pw@db/name", "postgresql+psycopg://user:pw@db/name"),
        ("PUBLIC_URL", "https://idp.example.com", "https://idp.example.com"),
        ("PUBLIC_URL", "https://idp.example.com/", "https://idp.example.com"),
        ("PUBLIC_URL", "http://localhost:8080", "http://localhost:8080"),
        ("PUBLIC_URL", "http://[::1]:8080", "http://[::1]:8080"),
        ("TOKEN_AUDIENCE", "https://api.example.com", "https://api.example.com"),
        ("OIDC_AUDIENCE", "sentryagent", "sentryagent"),
        ("OIDC_AUDIENCE", "https://idp.github.company.com", "https://idp.github.company.com"),
        ("OIDC_MAX_AGE", "60", 60),
        ("TOKEN_TTL", "60", 60),
        ("SIGNING_ALG", "EdDSA", "EdDSA"),
        ("SIGNING_ALG", "RS256", "RS256"),
        ("RATE_LIMIT", "0", 0),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104", (ip_network("10.0.0.0/8"),)),
        ("EXPLAIN", "off", False),
        ("EXPLAIN", "on", True),
        ("AUDIT_RETENTION", "90", 90),
    ],
)
def test_each_variable_is_taken(name, text, value):
    """A valid value of each variable becomes the setting of that name."""
    assert getattr(settings(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("HOST", ["", " ", " 127.0.0.1"]),
        ("PORT", ["", "0", "65536", "-1", "http", "3_000", "3000.0", " 3000", "٣", "9" * 5000]),
        ("WORKERS", ["0", "-1", "auto", "257", "1.5"]),
        ("LOG_LEVEL", ["", "INFO", "trace"]),
        (
            "DATABASE_URL",
            [
                "",
                "mysql://x",
                "sqlite://x",
                "sqlite:///x.db\r",
                "sqlite:///x\0.db",
                "postgresql://db/name",
                "/var/lib/x.db",
            ],
        ),
        (
            "PUBLIC_URL",
            [
                "",
                "idp.example.com",
                "http://idp.example.com",
                "ftp://idp.example.com",
                "https://",
                "https://user@idp.example.com",
                "https://idp.example.com?x=1",
                "https://idp.example.com?",
                "https://idp.example.com#x",
                "https://idp.example.com:99999",
                "https://[",
                " https://idp.example.com",
                "https://idp.exa\nmple.com",
                "https://idp.example.com/\t",
                "https://ïdp.example.com",
                "https://token.actions.githubusercontent.com",
            ],
        ),
        ("TOKEN_AUDIENCE", ["", " x", "x\r", "x\udcff"]),
        (
            "OIDC_AUDIENCE",
            [
                "",
                "sts.amazonaws.com",
                "STS.amazonaws.com",
                "api://AzureADTokenExchange",
                "sigstore",
                "pypi",
                "https://github.com/octo-org",
                "HTTPS://GitHub.com/octo-org",
                "github.com/octo-org",
                "https://api.github.com",
                "//iam.googleapis.com/projects/1",
                "https://[",
                " https://idp.example.com",
            ],
        ),
        (
            "GITHUB_ISSUER",
            [
                "",
                "http://github.example.com",
                "token.actions.githubusercontent.com",
                ",",
                "https://a.example,",
                "https://a.example https://b.example",
                "https://a.example,https://a.example/",
            ],
        ),
        ("OIDC_MAX_AGE", ["", "0", "-1", "10m", "600s"]),
        ("TOKEN_TTL", ["", "0", "1h", "86401"]),
        ("SIGNING_ALG", ["", "HS256", "es256", "none"]),
        ("KEY_ENCRYPTION_KEY", ["", "short", "x" * 31, "x" * 32 + "\r", "\ufeff" + "x" * 32]),
        ("KEY_ENCRYPTION_KEY_PREVIOUS", ["", "short", "x" * 31, "x" * 32]),
        ("RATE_LIMIT", ["", "-1", "off", "1.5"]),
        ("TRUSTED_PROXIES", ["", "10.0.0.1/8", "proxy", "10.0.0.0/8,", "10.0.0.0/8 ::1", "fe80::1%eth0"]),
        ("EXPLAIN", ["", "true", "1", "On"]),
        ("AUDIT_RETENTION", ["", "0", "90d", "365001"]),
    ],
)
def test_wrong_values_name_their_variable(name, texts):
    """A wrong value gives one line that begins with the variable's name."""
    for text in texts:
        with pytest.raises(ConfigurationError) as caught:
            settings(**{name: text})
        message = str(caught.value)
        assert message.startswith(PREFIX + name), (text, message)
        assert "\n" not in message
        assert len(message) < 250


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("PORT", "70000", "it must be at most 65535"),
        ("WORKERS", "0", "it must be at least 1"),
        ("AUDIT_RETENTION", "0", "it must be at least 1"),
        ("SIGNING_ALG", "HS256", "it must be one of ES256, RS256, EdDSA"),
        ("LOG_LEVEL", "trace", "it must be one of debug, info, warning, error"),
        ("EXPLAIN", "yes", "it must be one of on, off"),
        ("OIDC_AUDIENCE", " https://idp.example.com", "remove the spaces around it"),
    ],
)
def test_wrong_values_say_what_to_write(name, text, reason):
    """The messages are our own, not those of the settings library."""
    with pytest.raises(ConfigurationError) as caught:
        settings(**{name: text})

    assert str(caught.value) == f"{PREFIX}{name}: {reason}"


@pytest.mark.parametrize(
    ("text", "issuers"),
    [
        ("https://ghes.example.com/_services/token", ("https://ghes.example.com/_services/token",)),
        ("http://127.0.0.1:3001", ("http://127.0.0.1:3001",)),
        ("https://ghes.example.com:8443/", ("https://ghes.example.com:8443",)),
        ("https://b.example, https://a.example", ("https://b.example", "https://a.example")),
    ],
)
def test_issuers(text, issuers):
    """One or more issuers, separated by commas; the first is the default for new policies."""
    assert settings(GITHUB_ISSUER=text).github_issuers == issuers


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://TOKEN.actions.githubusercontent.com", GITHUB),
        ("HTTPS://token.actions.githubusercontent.com", GITHUB),
        ("https://token.actions.githubusercontent.com:443", GITHUB),
        ("https://token.actions.githubusercontent.com/.well-known/openid-configuration", GITHUB),
        ("https://token.actions.githubusercontent.com/acme/.well-known/jwks", f"{GITHUB}/acme"),
        ("https://github.com", GITHUB),
        ("https://github.com/octo-org", GITHUB),
        ("https://a.example,https://B.example", "https://b.example"),
        ("http://localhost:80", "http://localhost"),
    ],
)
def test_issuer_in_another_spelling(text, right):
    """`iss` is compared exactly, so another spelling would refuse every token: the error has the right one."""
    with pytest.raises(ConfigurationError, match=f"^SENTRYAGENT_GITHUB_ISSUER: .*: {right}$"):
        settings(GITHUB_ISSUER=text)


@pytest.mark.parametrize("text", ["https://a.example,,https://b.example", "https://a.example,", ",", " "])
def test_an_empty_entry_of_the_issuers_is_refused(text):
    """The message names the comma, not the form of a URL."""
    with pytest.raises(ConfigurationError, match="an entry of the list is empty; remove its comma"):
        settings(GITHUB_ISSUER=text)


def test_no_issuer_is_ours():
    """Our own issuer must not be any of the GitHub issuers."""
    with pytest.raises(ConfigurationError, match=r"^SENTRYAGENT_PUBLIC_URL: it equals the GitHub issuer"):
        settings(PUBLIC_URL="https://b.example", GITHUB_ISSUER="https://a.example,https://b.example")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("OIDC_MAXAGE", ["OIDC_MAX_AGE"]),
        ("MAX_AGE", ["OIDC_MAX_AGE"]),
        ("TRUSTED_PROXY", ["TRUSTED_PROXIES"]),
        ("PROXIES", ["TRUSTED_PROXIES"]),
        ("KEY_ENCRYPTION_KEYS", ["KEY_ENCRYPTION_KEY"]),
        ("ENCRYPTION_KEY", ["KEY_ENCRYPTION_KEY"]),
        ("ENCRYPTION_KEY_FILE", ["KEY_ENCRYPTION_KEY_FILE"]),
        ("KEY_ENCRYPTION_KEY_FLIE", ["KEY_ENCRYPTION_KEY_FILE"]),
        ("DATABSE_ULR", ["DATABASE_URL"]),
        ("GITHUB_ISSUERS", ["GITHUB_ISSUER"]),
        ("ISSUER", ["GITHUB_ISSUER"]),
        ("AUDIENCE", ["OIDC_AUDIENCE", "TOKEN_AUDIENCE"]),
        ("PROT", ["PORT"]),
        ("HOSTS", ["HOST"]),
        ("Explain", ["EXPLAIN"]),
        ("PUBLIC_URI", ["PUBLIC_URL"]),
        ("RATE_LIMITS", ["RATE_LIMIT"]),
        ("AUDIT_RETENTIONS", ["AUDIT_RETENTION"]),
    ],
)
def test_misspelt_variable(name, right):
    """A misspelt setting may be one that protects, so it is an error that names the right variable."""
    with pytest.raises(ConfigurationError) as caught:
        settings(**{name: "5"})
    expected = " or ".join(f"SENTRYAGENT_{it}" for it in right)
    assert str(caught.value) == f"SENTRYAGENT_{name} is not a setting; use {expected}"


@pytest.mark.parametrize(
    "name", ["FOO", "TEST", "HOME", "COLOR", "PUBLIC_URL_FILE", "TOKENS", "LOG_FORMAT", "SERVER_PORT"]
)
def test_unknown_variable(name):
    """A variable that does not resemble a setting is only reported."""
    environ = {f"SENTRYAGENT_{name}": "x"}
    assert Settings.from_environ(environ) == settings()
    assert list(unknown_variables(environ)) == list(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "3000"),
        ("KEY_ENCRYPTION_KEY_PREVIOUS_FILE", "x"),
        ("API_URL", "x"),
        ("URL", "x"),
        ("CLIENT_SECRET", "x"),
        ("TEST_REQUIRE", "docker"),
        ("IDP_SERVICE_HOST", "10.0.0.1"),
        ("IDP_SERVICE_PORT_HTTP", "80"),
        ("IDP_PORT", "tcp://10.0.0.1:80"),
        ("IDP_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("IDP_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_are_known(name, value):
    """Settings, variables of the project's other programs and those of a Kubernetes Service are known."""
    assert list(unknown_variables({f"SENTRYAGENT_{name}": value, "HOME": "/"})) == []


def test_no_document_names_an_unknown_variable():
    """The project's documents name only known variables."""
    named = set()
    for file in tracked_files("*.md", "*.yml", "*.yaml", "Makefile", "*Dockerfile", "*.py", "*.conf"):
        if not file.startswith("tests/"):
            named |= set(
                re.findall(r"SENTRYAGENT_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_]|…)", (ROOT / file).read_text())
            )
    assert "SENTRYAGENT_API_URL" in named
    assert list(unknown_variables(dict.fromkeys(named, ""))) == []


SECRETS = {
    "DATABASE_URL": ("database_url", "postgresql+psycopg://user:pw@db/name"),
    "KEY_ENCRYPTION_KEY": ("passphrases", "k" * 32),
    "KEY_ENCRYPTION_KEY_PREVIOUS": ("passphrases", "l" * 32),
}


@pytest.mark.parametrize(
    ("begin", "end"), [("", ""), ("", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")], ids=["", "lf", "crlf", "bom"]
)
@pytest.mark.parametrize("name", SECRETS)
def test_secret_from_a_file(tmp_path, name, begin, end):
    """A secret can be read from a file, without its trailing line break and byte order mark."""
    setting, value = SECRETS[name]
    (tmp_path / "secret").write_bytes((begin + value + end).encode())
    more = {"KEY_ENCRYPTION_KEY": "m" * 32} if name.endswith("PREVIOUS") else {}

    found = getattr(settings(**{f"{name}_FILE": str(tmp_path / "secret")}, **more), setting)

    assert value == (found[-1] if isinstance(found, tuple) else found)


def test_every_secret_can_come_from_a_file():
    """The settings that are hidden from `repr` are those that can be read from a file."""
    hidden = {name for name, field in Settings.model_fields.items() if not field.repr}
    assert hidden == {name.lower() for name in SECRETS}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff" * 40, "cannot be read (it is not UTF-8 text)"),
        (b"x" * 70_000, "is too long to be a secret"),
        (b"short\n", "it must have at least 32 characters"),
        (b"x" * 32 + b"\nsecond line", "contains a non-printable character"),
        (("x" * 32).encode("utf-16-le"), "contains a non-printable character"),
    ],
)
def test_secret_that_cannot_be_used(tmp_path, content, cause):
    """The error names the variable of the file, not the secret."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        settings(KEY_ENCRYPTION_KEY_FILE=str(file))
    assert str(caught.value).startswith("SENTRYAGENT_KEY_ENCRYPTION_KEY_FILE")
    assert cause in str(caught.value)
    assert "short" not in str(caught.value)


def test_secret_given_twice(tmp_path):
    """A variable and its file variable must not both be set; a flag overrides both."""
    (tmp_path / "url").write_text("sqlite:///a.db")
    twice = {"DATABASE_URL": "sqlite:///b.db", "DATABASE_URL_FILE": str(tmp_path / "url")}
    with pytest.raises(ConfigurationError, match="SENTRYAGENT_DATABASE_URL_FILE are both set"):
        settings(**twice)
    flag = {"database_url": "sqlite:///c.db"}
    assert settings(flag, DATABASE_URL_FILE="/nonexistent").database_url == "sqlite:///c.db"
    with pytest.raises(ConfigurationError, match=r"^SENTRYAGENT_DATABASE_URL_FILE is empty"):
        settings(DATABASE_URL_FILE="")


@pytest.mark.parametrize(
    "url", ["https://h:0", "https://h:99999", "https://[::1", "https://", "idp.example.com"]
)
def test_what_is_not_a_url(url):
    """The reason is ours: those of Python's parser name no remedy."""
    with pytest.raises(
        ConfigurationError, match=r"PUBLIC_URL: it must be a URL such as https://idp.example.com"
    ):
        settings(PUBLIC_URL=url)


def test_public_url_follows_the_port():
    """Issuer and audiences default to the public URL, which defaults to the port."""
    by_port = settings(PORT="4000")
    by_url = settings(PORT="4000", PUBLIC_URL="https://idp.example.com/")

    assert {by_port.public_url, by_port.token_audience, by_port.oidc_audience} == {"http://127.0.0.1:4000"}
    assert {by_url.public_url, by_url.token_audience, by_url.oidc_audience} == {"https://idp.example.com"}


def test_a_flag_wins_over_its_variable():
    """A flag takes precedence over the variable, the variable over the default; an absent flag does not count."""
    found = settings({"port": "4001", "host": None, "workers": 2}, PORT="4000", HOST="0.0.0.0")

    assert (found.port, found.host, found.workers) == (4001, "0.0.0.0", 2)
    with pytest.raises(ConfigurationError, match=f"^{PREFIX}PORT"):
        settings({"port": "x"}, PORT="4000")


def test_our_issuer_is_not_githubs():
    """A provider with GitHub's issuer would accept its own tokens as identities."""
    with pytest.raises(ConfigurationError, match="equals the GitHub issuer"):
        settings(PUBLIC_URL="http://127.0.0.1:3001", GITHUB_ISSUER="http://127.0.0.1:3001/")


def test_secrets_have_no_repr():
    """Neither the encryption keys nor the database password are in the `repr`, and so in a log or a traceback."""
    found = settings(
        KEY_ENCRYPTION_KEY="k" * 32,
        KEY_ENCRYPTION_KEY_PREVIOUS="l" * 32,
        DATABASE_URL="postgresql+psycopg://user:hunter2@db/name",
    )

    assert found.passphrases == ("k" * 32, "l" * 32)
    assert "kkkk" not in repr(found)
    assert "llll" not in repr(found)
    assert "hunter2" not in repr(found)


def test_passphrases_are_the_current_and_the_previous_key():
    """Keys are encrypted with the first passphrase; without one they are stored unencrypted."""
    assert settings().passphrases == ()
    assert settings(KEY_ENCRYPTION_KEY="k" * 32).passphrases == ("k" * 32,)


@pytest.mark.parametrize(
    ("current", "reason"),
    [({}, "it requires SENTRYAGENT_KEY_ENCRYPTION_KEY"), ({"KEY_ENCRYPTION_KEY": "l" * 32}, "it equals")],
)
def test_a_previous_key_needs_another_current_one(current, reason):
    """A previous key without a current one, or equal to it, is a mistake."""
    with pytest.raises(ConfigurationError, match=f"^{PREFIX}KEY_ENCRYPTION_KEY_PREVIOUS: {reason}") as caught:
        settings(**current, KEY_ENCRYPTION_KEY_PREVIOUS="l" * 32)
    assert "llll" not in str(caught.value)


def test_a_refused_secret_is_not_repeated():
    """The error about a wrong secret does not contain its value."""
    for name, text in (("KEY_ENCRYPTION_KEY", "hunter2"), ("DATABASE_URL", "mysql://user:hunter2@db/name")):
        with pytest.raises(ConfigurationError) as caught:
            settings(**{name: text})
        assert "hunter2" not in str(caught.value)


def test_other_variables_do_not_matter():
    """Variables without our prefix are ignored."""
    assert Settings.from_environ({"PORT": "x", "SENTRYAGENT": "y", "HTTP_PROXY": "z"}) == settings()


def test_settings_are_frozen():
    """Settings are immutable."""
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1
