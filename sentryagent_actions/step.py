"""A workflow step: the network and session that an action uses, and the report of its failure."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from sentryagent_actions.errors import ActionError, InvalidVariableError
from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint
from sentryagent_actions.idp import IdentityProvider
from sentryagent_actions.inputs import Connection
from sentryagent_actions.network import Clock, Network, open_client
from sentryagent_actions.proxies import UnusableProxyError
from sentryagent_actions.workflow import Workflow

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_SHORTEST_MASK = 20  # characters; masking a shorter one would blot out the log
_TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_NO_STORE = {
    "SSL_CERT_FILE": "does not name a file of PEM certificates (in a Docker action, paths are inside its container)",
    "SSL_CERT_DIR": "does not name a folder (in a Docker action, paths are inside its container)",
}


@dataclass(frozen=True)
class Session:
    """The provider and GitHub's ID tokens, the connection to them, and the workflow that the action reports to."""

    workflow: Workflow
    connection: Connection
    provider: IdentityProvider
    id_tokens: IdTokens


@dataclass(frozen=True)
class Step:
    """The environment, workflow and clock of an action; `transport` replaces the network in tests."""

    environ: Mapping[str, str]
    workflow: Workflow
    clock: Clock
    transport: httpx.BaseTransport | None = None

    @contextmanager
    def network(self, connection: Connection) -> Iterator[Network]:
        """Open the network for one action. Raises InvalidVariableError for an unusable proxy variable or SSLKEYLOGFILE."""
        self._log_variables_in_effect()
        try:
            client = open_client(
                transport=self.transport,
                ca_certificate=connection.ca_certificate,
                environ=self.environ,
                run=_run_of(self.environ),
            )
        except UnusableProxyError as error:
            raise InvalidVariableError(
                f"The variable {error.variable} is not a proxy URL that this action can use.",
                remedy="Write http://HOST:PORT, with user and password percent-encoded (SOCKS is not supported).",
            ) from error
        except OSError as error:
            # OpenSSL writes TLS keys to SSLKEYLOGFILE; no other variable can make the context fail.
            raise InvalidVariableError(
                f"The variable SSLKEYLOGFILE names a file that cannot be written ({error.strerror}).",
                remedy="Remove it: anyone who can read that file can decrypt every connection.",
            ) from error
        with client:
            yield Network(client, self.clock, connection.timeout, self.workflow.info, self.workflow.debug)

    @contextmanager
    def session(self, connection: Connection) -> Iterator[Session]:
        """Open a session with the provider and GitHub's ID-token endpoint. Raises ActionError."""
        self.workflow.check_outputs()
        endpoint = RequestEndpoint.from_environ(self.environ)
        # GitHub's runner already masks this token; local runners, which receive it as a plain variable, do not.
        if len(endpoint.token) >= _SHORTEST_MASK:
            self.workflow.mask(endpoint.token)
        with self.network(connection) as network:
            provider = IdentityProvider(connection.api_url, network, self.workflow.mask)
            audience = connection.audience or provider.audience()
            id_tokens = IdTokens(endpoint, network, audience, self.workflow.mask, self.workflow.info)
            yield Session(self.workflow, connection, provider, id_tokens)

    def _log_variables_in_effect(self) -> None:
        # An earlier step can set these through GITHUB_ENV, so the log must show that they took effect.
        for name in filter(self.environ.get, _PROXY_VARIABLES):
            self.workflow.info(
                f"{name} is set: its proxy is used, except for loopback and the hosts in NO_PROXY."
            )
        for name in filter(self.environ.get, _TRUST_VARIABLES):
            usable = _is_trust_store(name, self.environ[name])
            outcome = (
                "its certificates are trusted" if usable else f"it is ignored because it {_NO_STORE[name]}"
            )
            self.workflow.info(f"{name} is set: {outcome}.")


def _is_trust_store(variable: str, path: str) -> bool:
    try:
        if variable == "SSL_CERT_DIR":
            return any(map(os.path.isdir, path.split(os.pathsep)))
        # Not parsed here: OpenSSL loads it later, and a second load of a bundle would take 20 ms.
        return b"CERTIFICATE-----" in Path(path).read_bytes()
    except (OSError, ValueError):
        return False


def _run_of(environ: Mapping[str, str]) -> str:
    """Return the run and attempt for the User-Agent, so that a line in a gateway's log can be traced to the job."""
    names = {"run": "GITHUB_RUN_ID", "attempt": "GITHUB_RUN_ATTEMPT"}
    values = {word: environ.get(name, "") for word, name in names.items()}
    return "".join(
        f"; {word} {value}" for word, value in values.items() if re.fullmatch("[0-9]{1,20}", value)
    )


_SKIPPED = "The step passes without a token (`on-unavailable: skip`); the output `authenticated` is false."


def report_failure(workflow: Workflow, error: ActionError, *, skip: bool = False) -> int:
    """Report a failure as outputs, a summary and one annotation; return the exit code, which is 0 with `skip`."""
    status = str(error.http_status or "")
    workflow.set_outputs(
        {
            "error-code": error.code,
            "http-status": status,
            "retryable": "true" if error.retryable else "false",
            "request-id": error.request_id,
        }
    )
    rows = (
        ("Code", error.code),
        ("From", error.reported_by),
        ("Cause", str(error)),
        ("What to do", error.remedy),
        ("HTTP status", status),
        ("Request id", error.request_id),
        *error.rows(),
    )
    workflow.summarize(
        "SentryAgent: skipped, no token" if skip else "SentryAgent: failed",
        [row for row in rows if row[-1]],
        error.to_paste(),
        error.help_url,
    )
    if skip:
        workflow.warning(f"SentryAgent: {error.code}, skipped", error.advice(_SKIPPED))
        return 0
    workflow.error(f"SentryAgent: {error.code}", error.advice())
    return 1
