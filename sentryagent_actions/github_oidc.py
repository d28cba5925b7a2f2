"""Asking the runner for an ID token, and finding out why there is none.

Source: reference of GitHub's OIDC for Actions, and `OidcClient` of actions/toolkit for the request.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote

from sentryagent_actions.errors import (
    ActionError,
    IdTokenEndpointDownError,
    IdTokenEndpointError,
    IdTokenPermissionError,
    TlsError,
)
from sentryagent_actions.network import (
    Call,
    CertificateError,
    Network,
    NetworkError,
    RefusedByProxyError,
    Reply,
    UnusableAnswerError,
)
from sentryagent_actions.origin import Origin
from sentryagent_actions.untrusted import MAX_TOKEN_LENGTH, shown

_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_HEADER_VALUE = re.compile(r"[!-~]+")
_JWT = re.compile(r"[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*")

_MAX_TIME = 253402300799  # the end of the year 9999, in epoch seconds

_GITHUB_DOWN = "See https://www.githubstatus.com, and run the job again later."
_NO_ID_TOKEN = "GitHub's ID-token endpoint answered without an ID token."
_OWN_VARIABLE = f"See whether {_URL} is the runner's own."
_GRANT = """\
Give the job this permission, and list the others that it needs:
permissions:
  id-token: write
  contents: read
In a called (reusable) workflow, the job that calls it needs the same:
jobs:
  call:
    permissions:
      id-token: write
      contents: read
    uses: ./.github/workflows/called.yml"""


@dataclass(frozen=True)
class RequestEndpoint:
    """Where this job asks for ID tokens, and the credential to ask with."""

    url: str
    token: str = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read what the runner set. Raises IdTokenPermissionError, which names the cause."""
        url, token = environ.get(_URL, ""), environ.get(_TOKEN, "")
        if not (url and token):
            raise diagnose(environ, read_event(environ))
        if not _HEADER_VALUE.fullmatch(token):
            raise IdTokenPermissionError(
                f"{_TOKEN} is not what GitHub's runner sets; remove your own variable of that name."
            )
        try:
            Origin.of(url)
        except ValueError as error:
            # The runner sets both variables last; where it does not, a step's `env:` can name any host.
            raise IdTokenPermissionError(
                f"{_URL} {error}. GitHub's runner sets this variable; remove your own."
            ) from error
        return cls(url, token)

    def url_for(self, audience: str) -> str:
        """Return the request's URL: GitHub's has a double slash and a query, and both must stay as they are."""
        separator = "&" if "?" in self.url else "?"
        return f"{self.url}{separator}audience={quote(audience, safe='')}"


class IdTokens:
    """A source of fresh ID tokens for one audience."""

    def __init__(
        self,
        endpoint: RequestEndpoint,
        network: Network,
        audience: str,
        mask: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self.audience = audience
        self._endpoint = endpoint
        self._network = network
        self._mask = mask
        self._log = log

    def fresh(self) -> str:
        """Ask once and return a new ID token, masked.

        Raises IdTokenEndpointDownError (another try may help), IdTokenEndpointError or TlsError.
        """
        call = Call("GET", self._endpoint.url_for(self.audience), bearer=self._endpoint.token)
        try:
            reply = self._network.send(call)
        except NetworkError as error:
            raise _network_error(error) from error
        token = self._token(reply)
        self._mask(token)
        expires_at = check_unverified(token, self.audience)
        late = self._network.clock.now() - expires_at
        if late >= 0:
            # Whose clock is wrong is the provider's to say: its refusal names the reason.
            self._log(f"By this runner's clock the ID token expired {late:.0f} s ago: a clock is wrong.")
        return token

    def _token(self, reply: Reply) -> str:
        if reply.is_retryable:
            raise IdTokenEndpointDownError(
                f"GitHub's ID-token endpoint answered {reply.status}.",
                remedy=_GITHUB_DOWN,
                http_status=reply.status,
                retry_after=reply.retry_after(self._network.clock.now()),
            )
        if not reply.is_success:
            raise _refusal(reply.status, self.audience)
        try:
            token = reply.json_object()["value"]
        except (ValueError, KeyError) as error:
            raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE) from error
        # Checked before it is masked: a "token" of one letter would blot out the log.
        if not isinstance(token, str) or not _JWT.fullmatch(token):
            raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE)
        if len(token) > MAX_TOKEN_LENGTH:
            raise IdTokenEndpointError(
                f"GitHub's ID-token endpoint gave an ID token of more than {MAX_TOKEN_LENGTH} characters.",
                remedy=_OWN_VARIABLE,
            )
        return token


def check_unverified(unverified_token: str, audience: str) -> float:
    """See that a JWT has an ID token's shape and is for `audience`, before it is sent; return its `exp`.

    The signature is the provider's business; this catches a wrong endpoint. Raises IdTokenEndpointError.
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
            f"GitHub's ID-token endpoint gave a token for another audience than {shown(audience)}.",
            remedy=_OWN_VARIABLE,
        )
    if type(expires_at) is not int or not 0 <= expires_at <= _MAX_TIME:
        raise IdTokenEndpointError(_NO_ID_TOKEN, remedy=_OWN_VARIABLE)
    return expires_at


def _network_error(error: NetworkError) -> ActionError:
    if isinstance(error, CertificateError):
        return TlsError("GitHub's ID-token endpoint", str(error))
    if isinstance(error, UnusableAnswerError):
        return IdTokenEndpointError(f"GitHub's ID-token endpoint gave {error}.", remedy=_OWN_VARIABLE)
    cause = f"GitHub's ID-token endpoint cannot be reached: {error}."
    if isinstance(error, RefusedByProxyError):
        return IdTokenEndpointError(cause, remedy="Have the proxy allow *.actions.githubusercontent.com.")
    return IdTokenEndpointDownError(cause, remedy=_GITHUB_DOWN)


def _refusal(status: int, audience: str) -> IdTokenEndpointError:
    causes = {
        400: (
            f"it issues none for the audience {shown(audience)}",
            "An audience must not contain github.com.",
        ),
        401: ("the job's own credential has expired or belongs to another job", "Start the run again."),
        403: ("this job may not have one", _GRANT),
    }
    cause, remedy = causes.get(status, ("it says no more", _OWN_VARIABLE))
    return IdTokenEndpointError(
        f"GitHub's ID-token endpoint refused an ID token ({status}): {cause}.",
        remedy=remedy,
        http_status=status,
    )


def diagnose(environ: Mapping[str, str], event: Mapping[str, object]) -> IdTokenPermissionError:
    """Say why the runner offers no ID token, from what it tells about the run and its event."""
    if environ.get("ACT") == "true" or environ.get("GITHUB_ACTIONS") != "true":
        return IdTokenPermissionError(
            "This runner has no ID tokens: act and other local runners know no OIDC.",
            remedy="Start `mock-idp serve` and pass the job's variables: act $(mock-idp env --format act)",
        )
    untrusted = _untrusted_pull_request(environ, event)
    if untrusted:
        cause, condition = untrusted
        return IdTokenPermissionError(
            f"GitHub gives no ID token to {cause}, whatever `permissions` says.",
            remedy=f"Skip the step for it:\n- uses: sentryagent/issue-token@v1\n  if: {condition}",
        )
    return IdTokenPermissionError(
        f"This job may not ask for an ID token.{_enterprise_server(environ)}", remedy=_GRANT
    )


def _untrusted_pull_request(
    environ: Mapping[str, str], event: Mapping[str, object]
) -> tuple[str, str] | None:
    name = environ.get("GITHUB_EVENT_NAME", "")
    # pull_request_target runs the base repository's workflow, and gets tokens.
    if not name.startswith("pull_request") or name == "pull_request_target":
        return None
    if environ.get("GITHUB_ACTOR") == "dependabot[bot]":
        return "a pull request of Dependabot", "github.actor != 'dependabot[bot]'"
    if _is_from_fork(event):
        return (
            "a pull request from a fork",
            f"github.event_name != '{name}' || github.event.pull_request.head.repo.full_name == github.repository",
        )
    return None


def _enterprise_server(environ: Mapping[str, str]) -> str:
    server = environ.get("GITHUB_SERVER_URL", "https://github.com")
    if server == "https://github.com" or server.endswith(".ghe.com"):
        return ""
    return (
        f" {shown(server, 80)} is GitHub Enterprise Server, which needs version 3.5 or later and OIDC set up."
    )


def _is_from_fork(event: Mapping[str, object]) -> bool:
    try:
        pull_request = event["pull_request"]
        head, base = pull_request["head"]["repo"], pull_request["base"]["repo"]  # type: ignore[index]  # JSON from outside
        # `head.repo` is null when the fork has been deleted.
        return head is None or bool(head["full_name"] != base["full_name"])
    except (LookupError, TypeError):
        return False


def read_event(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the payload of the event that started the run; empty where the runner left none."""
    try:
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
    except (KeyError, OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
