"""The errors of a step, one class for each remedy. The provider's refusals are in `refused`."""

from collections.abc import Mapping
from pathlib import Path

from sentryagent_actions.tls import TlsProblem

_HOME = "https://github.com/sentryagent/toolkit"
_DOCUMENTATION = f"{_HOME}/blob/main"
# The error codes that each manual explains; a test compares this table with the manuals.
MANUALS: Mapping[str, frozenset[str]] = {
    "issue-token": frozenset(
        {
            "INVALID_INPUT",
            "ID_TOKEN_UNAVAILABLE",
            "PROVIDER_UNREACHABLE",
            "PROVIDER_TIMEOUT",
            "TLS_ERROR",
            "INVALID_RESPONSE",
            "INTERNAL_ERROR",
            "INVALID_OIDC_TOKEN",
            "TRUST_POLICY_VIOLATION",
            "BRANCH_NOT_PERMITTED",
            "IDENTITY_CHANGED",
            "SCOPE_NOT_PERMITTED",
            "SERVICE_NOT_PERMITTED",
            "VALIDATION_ERROR",
            "UNAUTHORIZED",
            "FORBIDDEN",
            "NOT_FOUND",
            "RATE_LIMITED",
            "ISSUER_UNAVAILABLE",
            "SERVICE_UNAVAILABLE",
            "INTERNAL_SERVER_ERROR",
        }
    ),
    "register-agent": frozenset({"AGENT_ALREADY_EXISTS", "AGENT_DECOMMISSIONED", "AGENT_NOT_FOUND"}),
}


class ActionError(Exception):
    """The reason for a step's failure. `str()` is the cause, `remedy` the advice, `paste` a snippet to copy.

    `reported_by`: the system that reported the error. `retryable`: the same step may succeed later without any change.
    `retry_after`: the seconds that the server asked to wait, if any. `retry_once_after`: seconds before the single
    second try that such an error is worth, 0 for none. `max_tries`: the maximum number of tries.
    """

    code: str = ""
    reported_by: str = "this action"
    retryable: bool = False
    retry_once_after: float = 0.0
    max_tries: int = 1_000_000

    def __init__(
        self,
        cause: str,
        *,
        remedy: str = "",
        paste: str = "",
        http_status: int | None = None,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(cause)
        self.remedy = remedy
        self.paste = paste
        self.http_status = http_status
        self.retry_after = retry_after
        self.request_id = request_id
        self.tries = 1
        self.wait_was_too_long = False

    @property
    def help_url(self) -> str:
        """The URL of the manual's section on this code."""
        for manual, codes in MANUALS.items():
            if self.code in codes:
                return f"{_DOCUMENTATION}/{manual}/README.md#{self.code.lower()}"
        return f"{_DOCUMENTATION}/issue-token/README.md#troubleshooting"

    @property
    def headline(self) -> str:
        """The code, the system that reported the error, and the cause in one line."""
        return f"{self.code} from {self.reported_by}: {self}"

    def advice(self, *consequences: str) -> str:
        """Return the text of the annotation: the headline, `consequences`, the remedy, the snippet and the help URL."""
        parts = (self.headline, *consequences, self.remedy, self.paste, self._circumstances())
        return "\n".join(filter(None, (*parts, f"Help: {self.help_url}")))

    def _circumstances(self) -> str:
        tries = f"Gave up after {self.tries} tries." if self.tries > 1 else ""
        wait = f"It asks for a wait of {self.retry_after or 0:.0f} s, which is longer than `timeout` allows."
        request = f"Request id: {self.request_id}" if self.request_id else ""
        return " ".join(filter(None, (tries, wait if self.wait_was_too_long else "", request)))

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return further rows for the summary's table, after the code, cause and remedy."""
        return ()

    def to_paste(self) -> str:
        """Return the snippet that the summary offers to copy, of any length."""
        return self.paste


class InvalidInputError(ActionError):
    """An input of the step is missing or wrong: edit the workflow. `problem` is `cause; remedy`."""

    code = "INVALID_INPUT"

    def __init__(self, name: str, problem: str, *, paste: str = "") -> None:
        cause, _, remedy = problem.partition("; ")
        sentence = f"{remedy[:1].upper()}{remedy[1:]}." if remedy else ""
        super().__init__(f"Input `{name}` {cause}.", remedy=sentence, paste=paste)


class InvalidVariableError(ActionError):
    """An environment variable, set by the workflow or by the runner's administrator, has an unusable value."""

    code = "INVALID_INPUT"


class IdTokenPermissionError(ActionError):
    """The runner offers this job no ID tokens: grant the permission, or see why GitHub issues none."""

    code = "ID_TOKEN_UNAVAILABLE"


class IdTokenEndpointError(ActionError):
    """GitHub's ID-token endpoint refused the request, or its response is not an ID token for our audience."""

    code = "ID_TOKEN_UNAVAILABLE"
    reported_by = "GitHub"


class IdTokenProxyError(IdTokenEndpointError):
    """The proxy on the way to GitHub's ID-token endpoint refused the connection (4xx)."""

    reported_by = "the proxy"


class IdTokenEndpointDownError(IdTokenEndpointError):
    """GitHub's ID-token endpoint is overloaded: try again later."""

    retryable = True


class IdTokenEndpointUnreachableError(IdTokenEndpointDownError):
    """GitHub's ID-token endpoint cannot be reached: try again later, or fix the network."""

    reported_by = "this action"


class ProviderUnreachableError(ActionError):
    """The provider cannot be reached, or only a gateway in front of it responds: check address, network and proxy."""

    code = "PROVIDER_UNREACHABLE"
    retryable = True


class ProviderUnknownError(ProviderUnreachableError):
    """The provider's host name does not resolve: correct `api-url`. Unlike an outage, it is retried only briefly."""

    max_tries = 3

    def __init__(self, host: str) -> None:
        super().__init__(
            f"The host name {host} does not resolve.",
            remedy="Correct `api-url`. If the name is internal, this runner's DNS must resolve it.",
        )


class ProxyRefusedError(ActionError):
    """The proxy refused the connection to the provider (4xx), and would refuse another try as well."""

    code = "PROVIDER_UNREACHABLE"
    reported_by = "the proxy"


class ProviderTimeoutError(ActionError):
    """The provider accepts connections but does not respond in time: try again later, or raise `timeout`."""

    code = "PROVIDER_TIMEOUT"
    retryable = True


class TlsError(ActionError):
    """No trusted TLS connection could be made; each kind of failure has its own remedy."""

    code = "TLS_ERROR"

    def __init__(self, who: str, problem: TlsProblem, words: str, now: str) -> None:
        """Take the server (`who`), OpenSSL's message (`words`) and the time by this runner's clock (`now`)."""
        cause, remedy, paste = _TLS[problem]
        super().__init__(cause.format(who=who, words=words), remedy=remedy.format(now=now), paste=paste)


_TLS: Mapping[TlsProblem, tuple[str, str, str]] = {
    TlsProblem.UNTRUSTED: (
        "The certificate of {who} is not trusted: {words}.",
        "Set the input `ca-certificate` to the root certificate of your network:",
        "ca-certificate: ${{ vars.ROOT_CERTIFICATE }}",
    ),
    TlsProblem.EXPIRED: (
        "The certificate of {who} has expired.",
        "The operator of that server must renew it; this runner's clock says {now}.",
        "",
    ),
    TlsProblem.NOT_YET_VALID: (
        "The certificate of {who} is not valid yet.",
        "Correct this runner's clock, which says {now}.",
        "",
    ),
    TlsProblem.OTHER_NAME: (
        "The certificate of {who} is for other names: {words}.",
        "Use a name that is in the certificate.",
        "",
    ),
    TlsProblem.INVALID: (
        "The certificate of {who} is not acceptable: {words}.",
        "The operator of that server must replace it; `ca-certificate` does not help here.",
        "",
    ),
    TlsProblem.NO_TLS: (
        "{who} does not use TLS ({words}).",
        "Check the port: the server there uses plain HTTP or another protocol.",
        "",
    ),
    TlsProblem.CLIENT_CERTIFICATE: (
        "{who} requires a client certificate ({words}), which this action does not support.",
        "The operator of that server must accept this runner without a client certificate (mTLS).",
        "",
    ),
    TlsProblem.OLD_VERSION: (
        "{who} supports only outdated versions of TLS ({words}).",
        "The operator of that server must enable TLS 1.2 or 1.3.",
        "",
    ),
}


class InvalidResponseError(ActionError):
    """The response is not that of a SentryAgent provider: check `api-url`."""

    code = "INVALID_RESPONSE"

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return a row with the first words of the response, if they were recorded."""
        return (("Response", self.excerpt),) if self.excerpt else ()

    excerpt: str = ""


class InternalError(ActionError):
    """A bug in this action: report it. Shows the exception's type and location; its text could contain a credential."""

    code = "INTERNAL_ERROR"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"Bug in this action: {type(error).__name__} in {_place(error)}.",
            remedy=f"Please report it: {_HOME}/issues",
        )


def _place(error: BaseException) -> str:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return "an unknown place"
    return f"{Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno}"
