"""What can go wrong in a step: one class for each remedy. What the provider refuses is in `refused`."""

from collections.abc import Mapping
from pathlib import Path

from sentryagent_actions.tls import TlsFault

_HOME = "https://github.com/sentryagent/toolkit"
_DOCUMENTATION = f"{_HOME}/blob/main"
# Which manual has a paragraph on which code; a test compares this with the manuals.
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
    """A step cannot do its work. `str()` is the cause, `remedy` what to do about it, `paste` the one thing to paste.

    `speaker`: who says so. `retryable`: the same step may succeed later without any change. `retry_after`: seconds,
    where the other side named them. `retry_once`: worth exactly one delayed second try. `most_tries`: after as many,
    another one is not worth the time.
    """

    code: str = ""
    speaker: str = "this action"
    retryable: bool = False
    retry_once: bool = False
    most_tries: int = 1_000_000

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
        """The manual's paragraph on this code."""
        for manual, codes in MANUALS.items():
            if self.code in codes:
                return f"{_DOCUMENTATION}/{manual}/README.md#{self.code.lower()}"
        return f"{_DOCUMENTATION}/issue-token/README.md#troubleshooting"

    @property
    def headline(self) -> str:
        """Code, speaker and cause in one line."""
        return f"{self.code} from {self.speaker}: {self}"

    def advice(self, *consequences: str) -> str:
        """Return what the annotation says: code, speaker and cause; `consequences`; the remedy; what to paste."""
        parts = (self.headline, *consequences, self.remedy, self.paste, self._circumstances())
        return "\n".join(filter(None, (*parts, f"Help: {self.help_url}")))

    def _circumstances(self) -> str:
        tries = f"Gave up after {self.tries} tries." if self.tries > 1 else ""
        wait = f"It asks to wait {self.retry_after or 0:.0f} s, which is more than `timeout` leaves."
        request = f"Request id: {self.request_id}" if self.request_id else ""
        return " ".join(filter(None, (tries, wait if self.wait_was_too_long else "", request)))

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return rows for the summary's table beyond code, cause and remedy."""
        return ()

    def to_paste(self) -> str:
        """Return what the summary offers to copy, however long it is."""
        return self.paste


class InvalidInputError(ActionError):
    """An input of the step is missing or wrong: edit the workflow. `problem` is `cause; remedy`."""

    code = "INVALID_INPUT"

    def __init__(self, name: str, problem: str, *, paste: str = "") -> None:
        cause, _, remedy = problem.partition("; ")
        sentence = f"{remedy[:1].upper()}{remedy[1:]}." if remedy else ""
        super().__init__(f"Input `{name}` {cause}.", remedy=sentence, paste=paste)


class InvalidVariableError(ActionError):
    """A variable of the runner has a value that cannot be used: the workflow, or the runner's administrator, set it."""

    code = "INVALID_INPUT"


class IdTokenPermissionError(ActionError):
    """The runner offers no ID tokens to this job: grant the permission, or know why there is none."""

    code = "ID_TOKEN_UNAVAILABLE"


class IdTokenEndpointError(ActionError):
    """GitHub's ID-token endpoint refused, or gave something that is not an ID token for us."""

    code = "ID_TOKEN_UNAVAILABLE"
    speaker = "GitHub"


class IdTokenProxyError(IdTokenEndpointError):
    """The proxy on the way to GitHub's ID-token endpoint refused the connection (4xx)."""

    speaker = "the proxy"


class IdTokenEndpointDownError(IdTokenEndpointError):
    """GitHub's ID-token endpoint is overloaded: wait."""

    retryable = True


class IdTokenEndpointUnreachableError(IdTokenEndpointDownError):
    """There is no way to GitHub's ID-token endpoint: wait, or mend the network."""

    speaker = "this action"


class ProviderUnreachableError(ActionError):
    """No connection to the provider, or only a gateway in front of it answers: check address, network, proxy."""

    code = "PROVIDER_UNREACHABLE"
    retryable = True


class ProviderUnknownError(ProviderUnreachableError):
    """The name of the provider does not exist: correct `api-url`. Told from an outage, and not tried for minutes."""

    most_tries = 3

    def __init__(self, host: str) -> None:
        super().__init__(
            f"There is no host named {host}: the name does not resolve.",
            remedy="Correct the name in `api-url`. If the name is internal, this runner's DNS must know it.",
        )


class ProxyRefusedError(ActionError):
    """The proxy on the way refused the connection (4xx): another try would be refused alike."""

    code = "PROVIDER_UNREACHABLE"
    speaker = "the proxy"


class ProviderTimeoutError(ActionError):
    """The provider takes connections and does not answer in time: wait, or raise `timeout`."""

    code = "PROVIDER_TIMEOUT"
    retryable = True


class TlsError(ActionError):
    """There is no TLS connection that can be trusted; each fault has its own remedy."""

    code = "TLS_ERROR"

    def __init__(self, who: str, fault: TlsFault, words: str, now: str) -> None:
        """`who` is at the other side, `words` are OpenSSL's, `now` is the time of this runner's clock."""
        cause, remedy, paste = _TLS[fault]
        super().__init__(cause.format(who=who, words=words), remedy=remedy.format(now=now), paste=paste)


_TLS: Mapping[TlsFault, tuple[str, str, str]] = {
    TlsFault.UNTRUSTED: (
        "The certificate of {who} is not trusted: {words}.",
        "Give the root certificate of your network as input `ca-certificate`:",
        "ca-certificate: ${{ vars.ROOT_CERTIFICATE }}",
    ),
    TlsFault.EXPIRED: (
        "The certificate of {who} has expired.",
        "The operator of that server must renew it; by this runner's clock it is {now}.",
        "",
    ),
    TlsFault.NOT_YET_VALID: (
        "The certificate of {who} is not valid yet.",
        "Set this runner's clock right; it says {now}.",
        "",
    ),
    TlsFault.OTHER_NAME: (
        "The certificate of {who} is for other names: {words}.",
        "Use a name that is in the certificate.",
        "",
    ),
    TlsFault.INVALID: (
        "The certificate of {who} is not acceptable: {words}.",
        "The operator of that server must replace it; `ca-certificate` does not help here.",
        "",
    ),
    TlsFault.NO_TLS: (
        "{who} does not answer in TLS ({words}).",
        "Check the port: what listens there speaks plain HTTP or another protocol.",
        "",
    ),
    TlsFault.CLIENT_CERTIFICATE: (
        "{who} asks for a client certificate ({words}), and this action has none.",
        "The operator of that server must accept this runner without a client certificate (mTLS).",
        "",
    ),
    TlsFault.OLD_VERSION: (
        "{who} offers no version of TLS that is still safe ({words}).",
        "The operator of that server must enable TLS 1.2 or 1.3.",
        "",
    ),
}


class InvalidResponseError(ActionError):
    """What answered is not a SentryAgent provider: check `api-url`."""

    code = "INVALID_RESPONSE"

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the first words of the answer, where they are kept."""
        return (("Answer", self.answer),) if self.answer else ()

    answer: str = ""


class InternalError(ActionError):
    """A bug of this action: report it. The exception's text could hold a credential, its place cannot."""

    code = "INTERNAL_ERROR"

    def __init__(self, fault: BaseException) -> None:
        super().__init__(
            f"Bug in this action: {type(fault).__name__} in {_place(fault)}.",
            remedy=f"Please report it: {_HOME}/issues",
        )


def _place(fault: BaseException) -> str:
    last = fault.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return "an unknown place"
    return f"{Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno}"
