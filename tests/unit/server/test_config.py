"""The settings: every variable of the contract's table, its default, and what it may not be."""

from ipaddress import ip_network

import pytest

from sentryagent_idp.config import ConfigurationError, Settings

PREFIX = "SENTRYAGENT_"
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 3000,
    "workers": None,
    "log_level": "info",
    "database_url": "sqlite:///sentryagent.db",
    "public_url": "http://127.0.0.1:3000",
    "token_audience": "http://127.0.0.1:3000",
    "oidc_audience": "http://127.0.0.1:3000",
    "github_issuer": "https://token.actions.githubusercontent.com",
    "oidc_max_age": 600,
    "token_ttl": 3600,
    "signing_alg": "ES256",
    "key_encryption_key": None,
    "key_encryption_key_previous": None,
    "rate_limit": 600,
    "trusted_proxies": (),
    "explain": True,
    "audit_retention": None,
}


def settings(flags=None, **variables):
    return Settings.from_environ({f"{PREFIX}{name}": value for name, value in variables.items()}, flags)


def test_defaults():
    """Without any variable the settings are the contract's defaults, and there are no others."""
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
        (
            "GITHUB_ISSUER",
            "https://ghes.example.com/_services/token",
            "https://ghes.example.com/_services/token",
        ),
        ("GITHUB_ISSUER", "http://127.0.0.1:3001", "http://127.0.0.1:3001"),
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
    """A good value of each variable becomes the setting of its name."""
    assert getattr(settings(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("HOST", ["", " ", " 127.0.0.1"]),
        ("PORT", ["", "0", "65536", "-1", "http", "3_000", "3000.0", " 3000", "٣", "9" * 5000]),
        ("WORKERS", ["0", "-1", "auto", "257", "1.5"]),
        ("LOG_LEVEL", ["", "INFO", "trace"]),
        ("DATABASE_URL", ["", "mysql://x", "sqlite://x", "postgresql://db/name", "/var/lib/x.db"]),
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
        ("TOKEN_AUDIENCE", ["", " x"]),
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
        ("GITHUB_ISSUER", ["", "http://github.example.com", "token.actions.githubusercontent.com"]),
        ("OIDC_MAX_AGE", ["", "0", "-1", "10m", "600s"]),
        ("TOKEN_TTL", ["", "0", "1h", "86401"]),
        ("SIGNING_ALG", ["", "HS256", "es256", "none"]),
        ("KEY_ENCRYPTION_KEY", ["", "short", "x" * 31]),
        ("KEY_ENCRYPTION_KEY_PREVIOUS", ["", "short", "x" * 31, "x" * 32]),
        ("RATE_LIMIT", ["", "-1", "off", "1.5"]),
        ("TRUSTED_PROXIES", ["", "10.0.0.1/8", "proxy", "10.0.0.0/8,", "10.0.0.0/8 ::1", "fe80::1%eth0"]),
        ("EXPLAIN", ["", "true", "1", "On"]),
        ("AUDIT_RETENTION", ["", "0", "90d"]),
    ],
)
def test_wrong_values_name_their_variable(name, texts):
    """A wrong value is one line that begins with the variable's name."""
    for text in texts:
        with pytest.raises(ConfigurationError) as caught:
            settings(**{name: text})
        message = str(caught.value)
        assert message.startswith(PREFIX + name), (text, message)
        assert "\n" not in message
        assert len(message) < 250


def test_public_url_follows_the_port():
    """Issuer and audiences are derived from the port, unless something nearer is given."""
    by_port = settings(PORT="4000")
    by_url = settings(PORT="4000", PUBLIC_URL="https://idp.example.com/")

    assert {by_port.public_url, by_port.token_audience, by_port.oidc_audience} == {"http://127.0.0.1:4000"}
    assert {by_url.public_url, by_url.token_audience, by_url.oidc_audience} == {"https://idp.example.com"}


def test_a_flag_wins_over_its_variable():
    """The flag, then the variable, then the default; a flag that was not given does not count."""
    found = settings({"port": "4001", "host": None, "workers": 2}, PORT="4000", HOST="0.0.0.0")

    assert (found.port, found.host, found.workers) == (4001, "0.0.0.0", 2)
    with pytest.raises(ConfigurationError, match=f"^{PREFIX}PORT"):
        settings({"port": "x"}, PORT="4000")


def test_our_issuer_is_not_githubs():
    """A provider under the name of GitHub's issuer would accept its own tokens as identities."""
    with pytest.raises(ConfigurationError, match="equals the GitHub issuer"):
        settings(PUBLIC_URL="http://127.0.0.1:3001", GITHUB_ISSUER="http://127.0.0.1:3001/")


def test_secrets_have_no_repr():
    """Neither the encryption key nor the database's password shows in a log or a traceback."""
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
    """Keys are stored under the first; without any they are stored in clear."""
    assert settings().passphrases == ()
    assert settings(KEY_ENCRYPTION_KEY="k" * 32).passphrases == ("k" * 32,)


@pytest.mark.parametrize(
    ("current", "reason"),
    [({}, "set SENTRYAGENT_KEY_ENCRYPTION_KEY too"), ({"KEY_ENCRYPTION_KEY": "l" * 32}, "it equals")],
)
def test_a_previous_key_needs_another_current_one(current, reason):
    """Alone, or equal to the current one, the previous key only hides a mistake."""
    with pytest.raises(ConfigurationError, match=f"^{PREFIX}KEY_ENCRYPTION_KEY_PREVIOUS: {reason}") as caught:
        settings(**current, KEY_ENCRYPTION_KEY_PREVIOUS="l" * 32)
    assert "llll" not in str(caught.value)


def test_a_refused_secret_is_not_repeated():
    """The line about a wrong value does not hold the value of a secret."""
    for name, text in (("KEY_ENCRYPTION_KEY", "hunter2"), ("DATABASE_URL", "mysql://user:hunter2@db/name")):
        with pytest.raises(ConfigurationError) as caught:
            settings(**{name: text})
        assert "hunter2" not in str(caught.value)


def test_other_variables_do_not_matter():
    """What is not ours is not read."""
    assert Settings.from_environ({"PORT": "x", "SENTRYAGENT": "y", "HTTP_PROXY": "z"}) == settings()


def test_settings_are_frozen():
    """Configuration is read once, and stays."""
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1
