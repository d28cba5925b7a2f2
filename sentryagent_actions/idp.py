"""The identity provider's client, with one method for each call that an action makes."""

import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sentryagent_actions.errors import (
    ActionError,
    InvalidResponseError,
    ProviderTimeoutError,
    ProviderUnknownError,
    ProviderUnreachableError,
    ProxyRefusedError,
    TlsError,
)
from sentryagent_actions.github_oidc import utc
from sentryagent_actions.network import (
    Call,
    CancelledCallError,
    CertificateError,
    Network,
    NetworkError,
    RefusedByProxyError,
    Reply,
    TimedOutError,
    UnknownNameError,
    UnreachableProxyError,
    UnusableResponseError,
)
from sentryagent_actions.origin import Origin
from sentryagent_actions.refusal import excerpt, read_refusal, read_request_id
from sentryagent_actions.untrusted import MAX_TOKEN_LENGTH

# RFC 6750, section 2.1 (b64token). A "token" of a few characters would be masked in every line of the log.
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{20,}=*")
_SCOPE = re.compile(r"(?:[!#-\[\]-~]+(?: [!#-\[\]-~]+)*)?")  # RFC 6749, section 3.3
_MAX_SCOPE_LENGTH = 4096  # characters
_MAX_SECONDS = 999_999_999  # the same limit as for the input `expires-in`
_WORKSPACE = Path(
    "/github/workspace"
)  # GitHub's runner mounts this folder only into the containers of actions
_WITHOUT_DOCKER = "https://github.com/sentryagent/toolkit/blob/main/docs/without-docker.md"


@dataclass(frozen=True)
class AccessToken:
    """A token issued by the provider: `expires_in` in seconds, `expires_at` as ISO 8601."""

    value: str = field(repr=False)
    expires_in: int
    expires_at: str
    scope: str
    request_id: str


@dataclass(frozen=True)
class Permission:
    """The token that a dry run's request would get, and the trust policy that would issue it."""

    scope: str
    expires_in: int
    policy_id: str
    request_id: str


@dataclass(frozen=True)
class AgentRecord:
    """An agent as stored by the provider; `fields` is the whole record."""

    agent_id: str
    status: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class ExchangeRequest:
    """The token to request in exchange for an ID token; without `agent_id`, a bootstrap token.

    `resource` is the service that the token is for, or empty for the provider itself.
    """

    agent_id: str = ""
    resource: str = ""
    scope: str = ""
    expires_in: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return the request's fields, without the ID token."""
        fields: dict[str, object] = {
            "agentId": self.agent_id,
            "resource": self.resource,
            "scope": self.scope,
            "expiresIn": self.expires_in,
        }
        return {name: value for name, value in fields.items() if value}


class IdentityProvider:
    """The provider at one origin. Every method retries within the network's time budget and may raise ActionError."""

    def __init__(self, api_url: Origin, network: Network, mask: Callable[[str], None]) -> None:
        self.api_url = api_url
        self._network = network
        self._mask = mask

    def audience(self) -> str:
        """Return the audience that an ID token must have for this provider.

        An audience for another host is ignored: a hostile `api-url` could otherwise obtain a token that opens a
        cloud account.
        """
        try:
            audience = self._call("GET", "/oidc/audience").json_object().get("audience")
        except ActionError as error:
            if error.retryable or isinstance(error, TlsError):
                raise
            return str(self.api_url)
        except ValueError:
            return str(self.api_url)
        return audience if isinstance(audience, str) and self._is_own(audience) else str(self.api_url)

    def exchange(
        self, fresh_id_token: Callable[[], str], request: ExchangeRequest, issued: Callable[[str], object]
    ) -> AccessToken:
        """Exchange an ID token for an access token, and mask that; each try uses a new ID token.

        `issued` is called with the token before the rest of the response is read, so that the token can be revoked
        even if the rest is invalid.
        """
        try:
            reply = self._exchange(fresh_id_token, request.as_json())
        except CancelledCallError as cancelled:
            if cancelled.reply is not None:
                # The response can also be GitHub's, or a refusal.
                with suppress(InvalidResponseError):
                    self._issued_token(cancelled.reply, issued)
            raise
        body = self._object(reply)
        return AccessToken(
            value=self._issued_token(reply, issued),
            expires_in=self._seconds(body),
            expires_at=self._time(body),
            scope=self._text(body, "scope", _SCOPE, _MAX_SCOPE_LENGTH),
            request_id=read_request_id(reply),
        )

    def _issued_token(self, reply: Reply, issued: Callable[[str], object]) -> str:
        value = self._text(self._object(reply), "access_token", _BEARER_TOKEN, MAX_TOKEN_LENGTH)
        self._mask(value)
        issued(value)
        return value

    def try_exchange(self, fresh_id_token: Callable[[], str], request: ExchangeRequest) -> Permission:
        """Return the token that the exchange would give, without one being issued."""
        reply = self._exchange(fresh_id_token, {**request.as_json(), "dryRun": True})
        body = self._object(reply)
        if body.get("dryRun") is not True or body.get("allowed") is not True:
            raise self._invalid("is not a dry-run response; the provider may be too old to support dry runs")
        return Permission(
            scope=self._text(body, "scope", _SCOPE, _MAX_SCOPE_LENGTH),
            expires_in=self._seconds(body),
            policy_id=self._uuid(body, "policyId"),
            request_id=read_request_id(reply),
        )

    def create_agent(self, access_token: AccessToken, fields: Mapping[str, object]) -> AgentRecord:
        """Register an agent. Raises AgentExistsError if its name is taken."""
        return self._agent(
            self._object(self._call("POST", "/agents", bearer=access_token.value, json=fields))
        )

    def agent(self, access_token: AccessToken, agent_id: str) -> AgentRecord:
        """Return an agent by its id."""
        path = f"/agents/{quote(agent_id, safe='')}"
        return self._agent(self._object(self._call("GET", path, bearer=access_token.value)))

    def change_agent(
        self, access_token: AccessToken, agent_id: str, fields: Mapping[str, object]
    ) -> AgentRecord:
        """Change fields of an agent and return the changed record."""
        path = f"/agents/{quote(agent_id, safe='')}"
        return self._agent(self._object(self._call("PATCH", path, bearer=access_token.value, json=fields)))

    def agent_named(self, access_token: AccessToken, email: str) -> AgentRecord | None:
        """Return the agent of that name, or `None` if the token may see no such agent."""
        path = f"/agents?email={quote(email, safe='')}"
        data = self._object(self._call("GET", path, bearer=access_token.value)).get("data")
        for item in data if isinstance(data, list) else []:
            if isinstance(item, dict) and str(item.get("email")).lower() == email.lower():
                return self._agent(item)
        return None

    def revoke(self, token: str) -> None:
        """Revoke an access token (RFC 7009) with the token itself as the credential; a cancellation waits for this call."""
        with self._network.clock.cancellation.deferred():
            self._call("POST", "/token/revoke", bearer=token, form={"token": token})

    def _call(
        self,
        method: str,
        path: str,
        *,
        bearer: str = "",
        json: Mapping[str, object] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Reply:
        call = Call(method, self._url(path), bearer, json, form)
        return self._network.retry(lambda: self._once(call))

    def _exchange(self, fresh_id_token: Callable[[], str], fields: Mapping[str, object]) -> Reply:
        url = self._url("/oidc/token")
        # Each try requests a new ID token: the provider refuses one that was already sent as replayed.
        return self._network.retry(
            lambda: self._once(Call("POST", url, json={"token": fresh_id_token(), **fields}))
        )

    def _url(self, path: str) -> str:
        return f"{self.api_url}/api/v1{path}"

    def _once(self, call: Call) -> Reply:
        try:
            reply = self._network.send(call)
        except NetworkError as error:
            raise self._network_error(error) from error
        if not reply.is_success:
            raise read_refusal(reply, self.api_url, self._network.clock.now())
        return reply

    def _network_error(self, error: NetworkError) -> ActionError:
        url = str(self.api_url)
        if isinstance(error, CertificateError):
            return TlsError(url, error.problem, str(error), utc(self._network.clock.now()))
        if isinstance(error, UnusableResponseError):
            return InvalidResponseError(
                f"{url} responded with {error}.",
                remedy="Check that `api-url` is the address of the provider.",
                http_status=error.status,
            )
        if isinstance(error, RefusedByProxyError):
            return ProxyRefusedError(
                f"{url} cannot be reached: {error}.",
                remedy="Allow this address in the proxy, add a user and password to HTTPS_PROXY, or add the host to NO_PROXY.",
            )
        if isinstance(error, UnreachableProxyError):
            return ProviderUnreachableError(
                f"The proxy in {error.variable}, used for {url}, cannot be reached: {error}.",
                remedy=f"Check {error.variable}; add the host to NO_PROXY if it needs no proxy.",
            )
        if isinstance(error, TimedOutError):
            return ProviderTimeoutError(
                f"{url} did not respond in time: {error}.",
                remedy="Check whether the provider is overloaded, or raise `timeout`.",
            )
        return self._unreachable(error)

    def _unreachable(self, error: NetworkError) -> ProviderUnreachableError:
        if isinstance(error, UnknownNameError):
            return ProviderUnknownError(self.api_url.host)
        cause = f"{self.api_url} cannot be reached: {error}."
        if self.api_url.is_loopback and _in_container():
            return ProviderUnreachableError(
                cause,
                remedy=f"On GitHub's runners, {self.api_url.host} is this action's own container. To reach the runner itself, "
                f"use the action without Docker: {_WITHOUT_DOCKER}",
            )
        return ProviderUnreachableError(
            cause, remedy="Check `api-url`, and that this runner can connect to it (firewall, HTTPS_PROXY)."
        )

    def _is_own(self, audience: str) -> bool:
        try:
            origin = Origin.of(audience)
        except ValueError:
            return False
        return (origin.host, origin.port) == (self.api_url.host, self.api_url.port)

    def _invalid(self, problem: str) -> InvalidResponseError:
        return InvalidResponseError(
            f"The response from {self.api_url} {problem}.",
            remedy="Check that `api-url` is the address of the provider.",
            http_status=200,
        )

    def _object(self, reply: Reply) -> dict[str, object]:
        try:
            return reply.json_object()
        except ValueError as error:
            failure = self._invalid("is not a JSON object")
            failure.excerpt = excerpt(reply.body)
            raise failure from error

    def _text(
        self, body: Mapping[str, object], name: str, pattern: re.Pattern[str], longest: int = 100
    ) -> str:
        value = body.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._invalid(f"has no valid `{name}`")
        if len(value) > longest:
            raise self._invalid(f"has more than {longest} characters in `{name}`")
        return value

    def _uuid(self, body: Mapping[str, object], name: str) -> str:
        try:
            return str(uuid.UUID(str(body.get(name))))
        except ValueError as error:
            raise self._invalid(f"has no UUID in `{name}`") from error

    def _seconds(self, body: Mapping[str, object]) -> int:
        value = body.get("expires_in")
        if type(value) is not int or not 1 <= value <= _MAX_SECONDS:
            raise self._invalid("has no valid `expires_in`")
        return value

    def _time(self, body: Mapping[str, object]) -> str:
        try:
            time = datetime.fromisoformat(str(body.get("expires_at")))
            # Converted to UTC, a time in the year 1 or 9999 can leave the calendar: an OverflowError.
            utc = time.astimezone(UTC) if time.tzinfo else None
        except (ValueError, OverflowError) as error:
            raise self._invalid("has no ISO 8601 time in `expires_at`") from error
        if utc is None:
            raise self._invalid("has an `expires_at` without a time zone")
        return utc.isoformat().replace("+00:00", "Z")

    def _agent(self, record: dict[str, object]) -> AgentRecord:
        return AgentRecord(
            self._uuid(record, "agentId"), self._text(record, "status", re.compile("[a-z]{1,40}")), record
        )


def _in_container() -> bool:
    # Other containers, for example a developer's or a job's, do not have this folder.
    return _WORKSPACE.exists()
