"""The provider's settings, read once from environment variables and command-line flags into a frozen object."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sentryagent_idp.errors import ConfigurationError, choice_reason, field_reason
from sentryagent_idp.runtime import variables
from sentryagent_idp.runtime.addresses import Network, is_loopback, network

PREFIX = "SENTRYAGENT_"

_VARIABLES_OF_OTHERS = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("ADMIN_TOKEN", "AGENT_ID", "AGENT_NAME", "API_URL"),
        *("CLIENT_ID", "CLIENT_SECRET", "TOKEN", "URL"),
        *("FAULT_LOAD", "INPUTS", "PROPERTY_EXAMPLES", "SOAK_SECONDS", "TEST_REQUIRE", "UPDATE_MESSAGES"),
    )
)
"""The variables of the project's other programs, recipes and tests."""

_AUDIENCES_OF_OTHERS = frozenset(
    {
        "sts.amazonaws.com",
        "sts.amazonaws.com.cn",
        "api://azureadtokenexchange",
        "api://azureadtokenexchangechina",
        "api://azureadtokenexchangeusgov",
        "sigstore",
        "pypi",
        "testpypi",
        "crates.io",
        "octo-sts.dev",
    }
)
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
_NOT_AN_ISSUER = frozenset({"github.com", "www.github.com", "api.github.com"})
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_HOSTS_OF_OTHERS = (".github.com", ".iam.googleapis.com")
"""GitHub's default audience is `https://github.com/OWNER`; Google's are paths under its IAM host."""


def _web_url(text: str) -> str:
    """Check an https URL, or http on loopback, and return it without a `/` at the end: issuers are compared exactly."""
    if not text.isascii() or any(char.isspace() or not char.isprintable() for char in text):
        raise ValueError("it must be ASCII, without spaces")
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in {"https", "http"} and parts.port != 0 else None
    except ValueError:  # an invalid port or IPv6 address
        host = None
    if not host:
        raise ValueError("it must be a URL such as https://idp.example.com")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("use https; http is accepted for loopback addresses only")
    if {"?", "#"} & set(url) or parts.username is not None:
        raise ValueError("remove its user, query and fragment")
    return url


def _issuer(text: str) -> str:
    """Check that an issuer is spelt as in its tokens, because `iss` is compared exactly."""
    url = _web_url(text)
    parts = urlsplit(url)
    netloc = parts.netloc.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])
    exact = f"{parts.scheme}://{netloc}{parts.path.partition('/.well-known')[0].rstrip('/')}"
    if parts.hostname in _NOT_AN_ISSUER:
        exact = GITHUB_ISSUER
    if url != exact:
        raise ValueError(f"write the issuer exactly as in its tokens: {exact}")
    return url


def issuers(text: str) -> tuple[str, ...]:
    """Parse a list of issuers, the first of which is the default for new policies; raises `ValueError` with advice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("an entry of the list is empty; remove its comma")
    found = tuple(map(_issuer, parts))
    if len(set(found)) < len(found):
        raise ValueError("duplicate issuer; list each once")
    return found


def _unpadded(text: str) -> str:
    if text != text.strip():
        raise ValueError("remove the spaces around it")
    return text


def _digits(text: str) -> str:
    # pydantic also reads 3_000, 3000.0 and " 3000" as numbers, but the default public URL has the port as written.
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError("it must be a whole number")
    return text


def _unshared(audience: str) -> str:
    """Refuse an audience that another service trusts: a token meant for that service could be replayed here (A3)."""
    lowered = audience.lower()
    host = urlsplit(lowered).hostname or lowered.partition("/")[0]
    if lowered in _AUDIENCES_OF_OTHERS or f".{host}".endswith(_HOSTS_OF_OTHERS):
        raise ValueError("this audience belongs to another service; use the provider's own URL")
    return audience


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{error}; use networks such as 10.0.0.0/8, separated by commas") from error


def _switch(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError(choice_reason(("on", "off")))
    return text == "on"


def _encryption_key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError("it must have at least 32 characters; generate it with `openssl rand -hex 32`")
    return secret


def _database_url(url: str) -> str:
    if not url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValueError("use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
    return url


WebUrl = Annotated[str, AfterValidator(_web_url)]
Unpadded = Annotated[str, AfterValidator(_unpadded)]
Number = Annotated[int, BeforeValidator(_digits)]
EncryptionKey = Annotated[SecretStr, AfterValidator(_encryption_key)]


class Settings(BaseModel):
    """The settings, as docs/configuration.md lists them; times are in seconds, `audit_retention` in days.

    A setting with `repr=False` is a secret, which may be in a file that `SENTRYAGENT_…_FILE` names.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    host: Unpadded = Field("127.0.0.1", min_length=1)
    port: Number = Field(3000, ge=1, le=65535)
    workers: Number | None = Field(None, ge=1, le=256)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        "sqlite:///sentryagent.db", repr=False
    )
    public_url: WebUrl = ""
    token_audience: Unpadded = Field("", validate_default=False)
    oidc_audience: Annotated[Unpadded, AfterValidator(_unshared)] = ""
    github_issuers: Annotated[tuple[str, ...], BeforeValidator(issuers)] = Field(
        (GITHUB_ISSUER,), alias="github_issuer"
    )
    oidc_max_age: Number = Field(600, ge=1)
    token_ttl: Number = Field(3600, ge=1, le=86_400)
    signing_alg: Literal["ES256", "RS256", "EdDSA"] = "ES256"
    key_encryption_key: EncryptionKey | None = Field(None, repr=False)
    key_encryption_key_previous: EncryptionKey | None = Field(None, repr=False)
    rate_limit: Number = Field(600, ge=0)
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    explain: Annotated[bool, BeforeValidator(_switch)] = True
    audit_retention: Number | None = Field(None, ge=1, le=365_000)
    traces: Annotated[bool, BeforeValidator(_switch)] = False

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Derive the public URL from the port, and both audiences from the public URL."""
        filled = {"public_url": f"http://127.0.0.1:{values.get('port', 3000)}", **values}
        url = str(filled["public_url"]).rstrip("/")
        return {"token_audience": url, "oidc_audience": url, **filled}

    @model_validator(mode="after")
    def _issuers_differ(self) -> Self:
        """Refuse GitHub's issuer as our own: our tokens must never be accepted as GitHub's (B15)."""
        if self.public_url in self.github_issuers:
            raise ValueError("it equals the GitHub issuer; use the provider's own URL")
        return self

    @field_validator("key_encryption_key_previous")
    @classmethod
    def _has_a_successor(cls, previous: SecretStr, info: ValidationInfo) -> SecretStr:
        """Refuse a previous key without a current key, or equal to it: it would only hide a mistake."""
        current = info.data.get("key_encryption_key")
        if current is None:
            raise ValueError("it requires SENTRYAGENT_KEY_ENCRYPTION_KEY; set both")
        if previous == current:
            raise ValueError("it equals SENTRYAGENT_KEY_ENCRYPTION_KEY; set the other key, or unset it")
        return previous

    @property
    def passphrases(self) -> tuple[str, ...]:
        """The secrets that decrypt private keys; the first one encrypts them, and without any they are unencrypted."""
        given = (self.key_encryption_key, self.key_encryption_key_previous)
        return tuple(secret.get_secret_value() for secret in given if secret is not None)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Self:
        """Read the settings of this process; a flag that is not `None` overrides its variable.

        Raises `ConfigurationError` for the first wrong value.
        """
        _refuse_misspelt(environ)
        given = {name: str(value) for name, value in (flags or {}).items() if value is not None}
        sources = dict(_sources(environ)) | {name: _VARIABLES[name] for name in given}
        given = {
            name: _text(environ, source) for name, source in sources.items() if name not in given
        } | given
        empty = next((name for name, value in given.items() if not value), None)
        if empty:
            raise ConfigurationError(f"{sources[empty]} is empty; set a value, or unset it")
        # The carriage return of a Windows file would become part of a key, or of a database's name in a URL.
        unseen = next((name for name, value in given.items() if not value.isprintable()), None)
        if unseen:
            raise ConfigurationError(
                f"{sources[unseen]} contains a non-printable character, for example a line break; remove it"
            )
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # A setting that was not given is derived from the public URL.
            name = next((field for field in given if field in first["loc"]), "public_url")
            variable = sources.get(name, _VARIABLES[name])
            raise ConfigurationError(f"{variable}: {field_reason(first)}") from error


_VARIABLES = {
    field.alias or name: PREFIX + (field.alias or name).upper()
    for name, field in Settings.model_fields.items()
}
_SECRETS = frozenset(name for name, field in Settings.model_fields.items() if not field.repr)
_NAMES = (*_VARIABLES.values(), *(_VARIABLES[name] + variables.FILE for name in sorted(_SECRETS)))


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the `SENTRYAGENT_…` variables that no program of this project reads."""
    return variables.unknown(environ, PREFIX, _VARIABLES_OF_OTHERS.union(_NAMES))


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for a misspelt setting, which may be a protective one such as the trusted proxies."""
    for name in unknown_variables(environ):
        meant = variables.closest(name, PREFIX, _NAMES)
        if meant:
            raise ConfigurationError(f"{name} is not a setting; use {' or '.join(meant)}")


def _sources(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each setting in the environment, with the variable that has its value or names its file."""
    for name, variable in _VARIABLES.items():
        candidates = (variable, variable + variables.FILE) if name in _SECRETS else (variable,)
        found = [it for it in candidates if it in environ]
        if len(found) > 1:
            raise ConfigurationError(f"{' and '.join(found)} are both set; unset one of them")
        yield from ((name, it) for it in found)


def _text(environ: Mapping[str, str], variable: str) -> str:
    value = environ[variable]
    if not value or not variable.endswith(variables.FILE):
        return value
    try:
        return variables.secret(value)
    except variables.UnreadableSecret as error:
        raise ConfigurationError(f"{variable}: {error}") from error
