"""A step of a workflow: what surrounds an action, and how its failure is told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from sentryagent_actions.errors import ActionError, InvalidInputError
from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint
from sentryagent_actions.idp import IdentityProvider
from sentryagent_actions.inputs import Connection
from sentryagent_actions.network import Clock, Network, open_client
from sentryagent_actions.workflow import Workflow

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_SHORTEST_MASK = 20  # a shorter one would blot out the log
_TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Session:
    """An action's two partners, how it reaches them, and the workflow that it reports to."""

    workflow: Workflow
    connection: Connection
    provider: IdentityProvider
    id_tokens: IdTokens


@dataclass(frozen=True)
class Step:
    """What an action gets from outside; `transport` replaces the network in tests."""

    environ: Mapping[str, str]
    workflow: Workflow
    clock: Clock
    transport: httpx.BaseTransport | None = None

    @contextmanager
    def network(self, connection: Connection) -> Iterator[Network]:
        """Open the network for one action. Raises InvalidInputError for a proxy that cannot be used."""
        self._tell_what_is_honoured()
        try:
            client = open_client(transport=self.transport, ca_certificate=connection.ca_certificate)
        except (ValueError, httpx.InvalidURL) as error:
            # The variable's value may hold a password: it is not shown.
            raise InvalidInputError(
                "HTTPS_PROXY", "(a variable of the runner) names no usable proxy"
            ) from error
        with client:
            yield Network(client, self.clock, connection.timeout, self.workflow.info, self.workflow.debug)

    @contextmanager
    def session(self, connection: Connection) -> Iterator[Session]:
        """Open the way to the provider and to GitHub's ID tokens. Raises ActionError."""
        self.workflow.check_outputs()
        endpoint = RequestEndpoint.from_environ(self.environ)
        # GitHub's runner masks it already; local runners, which get it as a plain variable, do not.
        if len(endpoint.token) >= _SHORTEST_MASK:
            self.workflow.mask(endpoint.token)
        with self.network(connection) as network:
            provider = IdentityProvider(connection.api_url, network, self.workflow.mask)
            audience = connection.audience or provider.audience()
            id_tokens = IdTokens(endpoint, network, audience, self.workflow.mask, self.workflow.info)
            yield Session(self.workflow, connection, provider, id_tokens)

    def _tell_what_is_honoured(self) -> None:
        # An earlier step can set these through GITHUB_ENV: whoever reads the log must see that they counted.
        for name in filter(self.environ.get, _PROXY_VARIABLES):
            self.workflow.info(f"{name} is set: its proxy is used.")
        for name in filter(self.environ.get, _TRUST_VARIABLES):
            found = Path(self.environ[name]).exists()
            outcome = (
                "its certificates are trusted" if found else "but names nothing that exists in this container"
            )
            self.workflow.info(f"{name} is set: {outcome}.")


def report_failure(workflow: Workflow, error: ActionError, *, skip: bool = False) -> int:
    """Tell a failure once: outputs, a summary and one annotation. Returns the exit code; with `skip`, 0."""
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
        ("Cause", str(error)),
        ("HTTP status", status),
        ("Request id", error.request_id),
    )
    workflow.summarize(
        "SentryAgent: skipped" if skip else "SentryAgent: failed",
        (*(row for row in rows if row[1]), *error.rows(), ("Help", error.help_url)),
        error.command(),
    )
    annotate = workflow.warning if skip else workflow.error
    annotate(f"SentryAgent: {error.code}", error.advice())
    return 0 if skip else 1
