"""Requesting ID tokens from the runner, and diagnosing why there are none.

Sources: GitHub's OIDC reference for Actions and, for the request, `OidcClient` of actions/toolkit.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote

from sentryagent_actions.errors import (
    ActionError,
    IdTokenEndpointDownError,
    IdTokenEndpointError,
    IdTokenEndpointUnreachableError,
    IdTokenPermissionError,
    IdTokenProxyError,
    TlsError,
)
from sentryagent_actions.network import (
    Call,
    CertificateError,
    Network,
    NetworkError,
    RefusedByProxyError,
    Reply,
    UnreachableProxyError,
    UnusableResponseError,
)
from sentryagent_actions.origin import Origin
from sentryagent_actions.untrusted import MAX_TOKEN_LENGTH, shown

_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_HEADER_VALUE = re.compile(r"[!-~]+")
_JWT = re.compile(r"[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*")

_MAX_TIME = 253402300799  # the end of the year 9999, in epoch seconds

_TIMES = frozenset({"iat", "nbf", "exp"})
# The claims that identify the run and that a provider decides by; a token can have many other, long claims.
_SHOWN_CLAIMS = (
    "repository",
    "ref",
    "event_name",
    "environment",
    "workflow_ref",
    "job_workflow_ref",
    "actor",
    "aud",
    "iss",
    "iat",
    "nbf",
    "exp",
    "jti",
)
_NO_GITHUB = "See https://www.githubstatus.com, and run the job again later."
_NO_ID_TOKEN = "GitHub's ID-token endpoint responded without an ID token."
_OWN_VARIABLE = f"If you set {_URL} yourself, remove it: the value must come from the runner."
_PERMISSION = "permissions:\n  id-token: write\n  contents: read"
_GRANT = (
    "Add it to the job; a `permissions:` block removes every permission that it does not list, so keep those that the job needs. "
    "A job that calls a reusable workflow needs it too."
)
# Dependabot's runs on these events have a read-only token unless `permissions` grants more.
# Source: GitHub's "Troubleshooting Dependabot on GitHub Actions".
_OF_DEPENDABOT = frozenset({"push", "create", "deployment", "deployment_status"})


@dataclass(frozen=True)
class RequestEndpoint:
    """The URL from which this job requests ID tokens, and the credential for it."""

    url: str
    token: str = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables that the runner sets. Raises IdTokenPermissionError, which names the cause."""
        url, token = environ.get(_URL, ""), environ.get(_TOKEN, "")
        if not (url and token):
            raise diagnose(environ, read_event(environ))
        if not _HEADER_VALUE.fullmatch(token):
            raise IdTokenPermissionError(
                f"The value of {_TOKEN} does not come from GitHub's runner.",
                remedy="Remove your own variable of that name.",
            )
        try:
            Origin.of(url)
        except ValueError as error:
            # The runner sets both variables last; if it sets none, a step's `env:` could name any host.
            cause = str(error).partition("; ")[0]
            raise IdTokenPermissionError(f"The variable {_URL} {cause}.", remedy=_OWN_VARIABLE) from error
        return cls(url, token)

    def url_for(self, audience: str) -> str:
        """Return the request URL; GitHub's has a double slash and a query, which must both be preserved."""
        separator = "&" if "?" in self.url else "?"
        return f"{self.url}{separator}audience={quote(audience, safe='')}"


class IdTokens:
    """A source of new ID tokens for one audience; `claims` are those of the last well-formed token."""

    def __init__(
        self,
        endpoint: RequestEndpoint,
        network: Network,
        audience: str,
        mask: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self.audience = audience
        self.claims: Mapping[str, str] = {}
        self._endpoint = endpoint
        self._network = network
        self._mask = mask
        self._log = log

    def fresh(self) -> str:
        """Request a new ID token once, mask it and return it.

        Raises IdTokenEndpointDownError (another try may help), IdTokenEndpointError or TlsError.
        """
        call = Call("GET", self._endpoint.url_for(self.audience), bearer=self._endpoint.token)
        try:
            reply = self._network.send(call)
        except NetworkError as error:
            raise _network_error(error, self._network.clock.now()) from error
        token = self._token(reply)
        self._mask(token)
        claims = check_unverified(token, self.audience)
        self.claims = {name: _claim(name, claims[name]) for name in _SHOWN_CLAIMS if claims.get(name)}
        late = self._network.clock.now() - float(str(claims["exp"]))
        if late >= 0:
            # Only the provider can tell which clock is wrong: its refusal names the reason.
            self._log(
                f"This runner's clock is {late:.0f} s past the ID token's expiry; one of the clocks is wrong."
            )
        return token

    def _token(self, reply: Reply) -> str:
        if reply.is_retryable:
            raise IdTokenEndpointDownError(
                f"GitHub's ID-token endpoint responded with {reply.status}.",
                remedy=_NO_GITHUB,
                http_status=reply.status,
                retry_after=reply.retry_after(self._network.clock.now()),
            )
        if not reply.is_success:
            raise _refusal(reply.status, self.audience)
        try:
            token = reply.json_object()["value"]
        except (ValueError, KeyError) as error:
            raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE) from error
        # Checked before it is masked: masking a "token" of one letter would blot out the log.
        if not isinstance(token, str) or not _JWT.fullmatch(token):
            raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE)
        if len(token) > MAX_TOKEN_LENGTH:
            raise IdTokenEndpointError(
                f"GitHub's ID-token endpoint responded with an ID token of more than {MAX_TOKEN_LENGTH} characters.",
                remedy=_OWN_VARIABLE,
            )
        return token


def check_unverified(unverified_token: str, audience: str) -> dict[str, object]:
    """Return a JWT's claims after checking that it looks like an ID token for `audience`; called before it is sent.

    The provider verifies the signature; this check detects a wrong endpoint. Raises IdTokenEndpointError.
    """
    payload = unverified_token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        asked_for = claims["aud"] == audience
        Origin.of(claims["iss"])
        expires_at = claims["exp"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE) from error
    if not asked_for:
        raise IdTokenEndpointError(
            f"GitHub's ID-token endpoint responded with a token for an audience other than {shown(audience)}.",
            remedy=_OWN_VARIABLE,
        )
    if type(expires_at) is not int or not 0 <= expires_at <= _MAX_TIME:
        raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE)
    return dict(claims)


def _claim(name: str, value: object) -> str:
    if name in _TIMES and type(value) is int and 0 <= value <= _MAX_TIME:
        return utc(value)
    return shown(value)


def utc(seconds: float) -> str:
    """Return epoch seconds as a readable time, for example 2027-01-15T08:00:00Z."""
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _network_error(error: NetworkError, now: float) -> ActionError:
    if isinstance(error, CertificateError):
        return TlsError("GitHub's ID-token endpoint", error.problem, str(error), utc(now))
    if isinstance(error, UnusableResponseError):
        return IdTokenEndpointError(
            f"GitHub's ID-token endpoint responded with {error}.",
            remedy=_OWN_VARIABLE,
            http_status=error.status,
        )
    if isinstance(error, UnreachableProxyError):
        return IdTokenEndpointUnreachableError(
            f"The proxy in {error.variable}, used for GitHub's ID-token endpoint, cannot be reached: {error}.",
            remedy=f"Check {error.variable}.",
        )
    cause = f"GitHub's ID-token endpoint cannot be reached: {error}."
    if isinstance(error, RefusedByProxyError):
        return IdTokenProxyError(cause, remedy="Allow *.actions.githubusercontent.com in the proxy.")
    return IdTokenEndpointUnreachableError(cause, remedy=_NO_GITHUB)


def _refusal(status: int, audience: str) -> IdTokenEndpointError:
    refused = f"GitHub's ID-token endpoint refused to issue an ID token ({status})"
    cause, remedy, paste = {
        400: (
            f"{refused} for the audience {shown(audience)}.",
            "An audience must not contain github.com.",
            "",
        ),
        401: (
            f"{refused}: the job's own credential has expired or belongs to another job.",
            "Run the job again.",
            "",
        ),
        403: (f"{refused}: this job has no `id-token: write` permission.", _GRANT, _PERMISSION),
    }.get(status, (f"{refused} without giving a reason.", _OWN_VARIABLE, ""))
    return IdTokenEndpointError(cause, remedy=remedy, paste=paste, http_status=status)


def diagnose(environ: Mapping[str, str], event: Mapping[str, object]) -> IdTokenPermissionError:
    """Return the error that explains, from the run's variables and event, why the runner offers no ID token."""
    if environ.get("ACT") == "true" or environ.get("GITHUB_ACTIONS") != "true":
        return IdTokenPermissionError(
            "This runner cannot issue ID tokens: act and other local runners do not support OIDC.",
            remedy="Start `mock-idp serve`, and give act the variables of a job:",
            paste="act $(mock-idp env --format act)",
        )
    if _is_from_fork(environ, event):
        return _fork(environ, event)
    return IdTokenPermissionError(
        f"This job has no `id-token: write` permission, so GitHub does not issue it an ID token.{_circumstances(environ)}",
        remedy=_GRANT,
        paste=_PERMISSION,
    )


def _fork(environ: Mapping[str, str], event: Mapping[str, object]) -> IdTokenPermissionError:
    name = environ.get("GITHUB_EVENT_NAME", "")
    repository = event.get("repository")
    is_private = isinstance(repository, dict) and repository.get("private") is True
    exception = (
        " unless the repository's Actions settings send write tokens to them (private repositories only)"
    )
    return IdTokenPermissionError(
        f"GitHub does not issue ID tokens to pull requests from forks{exception if is_private else ''}.",
        remedy="Skip the step for them:",
        paste=f"if: github.event_name != '{name}' || github.event.pull_request.head.repo.full_name == github.repository",
    )


def _circumstances(environ: Mapping[str, str]) -> str:
    event = environ.get("GITHUB_EVENT_NAME", "")
    if environ.get("GITHUB_ACTOR") == "dependabot[bot]" and (
        event in _OF_DEPENDABOT or event.startswith("pull_request")
    ):
        return " A run that Dependabot starts has only the permissions that `permissions` lists."
    server = environ.get("GITHUB_SERVER_URL", "https://github.com")
    if server == "https://github.com" or server.endswith(".ghe.com"):
        return ""
    return f" {shown(server, 80)} is GitHub Enterprise Server, which also needs version 3.5 or later, with OIDC configured."


def _is_from_fork(environ: Mapping[str, str], event: Mapping[str, object]) -> bool:
    name = environ.get("GITHUB_EVENT_NAME", "")
    # pull_request_target runs the base repository's workflow, and gets tokens.
    if not name.startswith("pull_request") or name == "pull_request_target":
        return False
    try:
        pull_request = event["pull_request"]
        head, base = pull_request["head"]["repo"], pull_request["base"]["repo"]  # type: ignore[index]  # untrusted JSON
        # `head.repo` is null when the fork has been deleted.
        return head is None or bool(head["full_name"] != base["full_name"])
    except (LookupError, TypeError):
        return False


def read_event(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the payload of the event that started the run, or an empty one if the runner left none."""
    try:
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
    except (KeyError, OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
