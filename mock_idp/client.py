"""A client for the control API of a mock in a container, or started by `mock-idp serve`."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mock_idp.job import make_job
from mock_idp.request_log import RequestLog
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_idp.job import Job
    from mock_idp.request_log import LoggedRequest

_TIMEOUT_SECONDS = 10.0


class MockUnavailableError(Exception):
    """No mock answers at the given URL."""


class MockClient(RequestLog):
    """The methods of `mock_idp.server.MockIdp` for the mock at `url`; one issuer of several is `URL/its-path`.

    Every method raises MockUnavailableError if no mock answers there, and InvalidFieldError for a value that the mock
    does not accept.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def issuer(self) -> str:
        """The `iss` claim of the mock's tokens."""
        return str(self._call("GET", "/_mock/state")["issuer"])

    @property
    def now(self) -> int:
        """The mock's time in whole seconds since the epoch."""
        return int(self._call("GET", "/_mock/state")["clock"]["now"])

    def token(self, fields: Mapping[str, Any]) -> str:
        """Mint a token from JSON fields: `POST /_mock/token`."""
        return str(self._call("POST", "/_mock/token", dict(fields))["token"])

    def mint(
        self,
        *,
        job: Job | Mapping[str, Any] | None = None,
        audience: str | None = None,
        claims: Mapping[str, object] | None = None,
        header: Mapping[str, object] | None = None,
        fault: str = "",
        **options: Any,
    ) -> str:
        """Return the token that GitHub would issue for a job with these options, such as `environment="production"`.

        `claims` and `header` override single fields without any checks, and None removes a field. `fault` names an
        entry of the fault catalogue.
        """
        body = {"job": make_job(job, options).as_json(), "audience": audience, "header": header}
        response = self._call("POST", "/_mock/token", body | {"claims": claims, "fault": fault or None})
        return str(response["token"])

    def job(self, job: Job | Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Start a job with these options; return its `jobId`, `requestUrl`, `requestToken`, `variables` and `event`."""
        return self.start_job(make_job(job, options).as_json())

    def start_job(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Start a job from JSON fields: `POST /_mock/jobs`."""
        return self._call("POST", "/_mock/jobs", dict(fields))

    def end_job(self, job_id: str) -> None:
        """End a job, which expires its request token."""
        self._call("DELETE", f"/_mock/jobs/{job_id}")

    def plan_fault(self, endpoint: str, **how: Any) -> None:
        """Plan a fault for an endpoint; see `mock_idp.faults.plan.PlannedFault`."""
        self._call("POST", "/_mock/faults", {"endpoint": endpoint, **how})

    def clear_faults(self) -> None:
        """Remove all planned faults."""
        self._call("DELETE", "/_mock/faults")

    def rotate(self, *, publish: bool = True, keep_old: bool = True) -> str:
        """Sign with a new key from now on, and return its kid."""
        return str(self._call("POST", "/_mock/keys/rotate", {"publish": publish, "keepOld": keep_old})["kid"])

    def publish(self) -> str:
        """Add the signing key to the key set if a rotation left it out, and return its kid."""
        return str(self._call("POST", "/_mock/keys/publish")["kid"])

    def retire(self) -> list[str]:
        """Remove all keys except the signing key from the key set, and return the removed kids."""
        return list(self._call("POST", "/_mock/keys/retire")["retired"])

    def skew(self, seconds: float) -> None:
        """Set the mock's clock ahead of the machine's, or behind it if negative."""
        self._call("POST", "/_mock/clock", {"offset": seconds})

    def travel(self, epoch: float) -> None:
        """Set the mock's clock to `epoch` (seconds), from where it runs on."""
        self._call("POST", "/_mock/clock", {"travel": epoch})

    def freeze(self, epoch: float | None = None) -> None:
        """Stop the mock's clock at `epoch` (seconds), or where it is now."""
        self._call("POST", "/_mock/clock", {"freeze": self.now if epoch is None else epoch})

    def requests(self) -> list[LoggedRequest]:
        """Return the logged requests, oldest first; the log keeps the last 10,000."""
        return list(self._call("GET", "/_mock/requests")["data"])

    def request_counts(self) -> dict[str, int]:
        """Return the number of requests to each endpoint since the last `reset`."""
        return dict(self._call("GET", "/_mock/state")["requests"])

    def add_issuer(self, issuer: str) -> MockClient:
        """Add an issuer to the mock's port, or return an existing one: a path such as `/my-enterprise`, or a URL."""
        return MockClient(self._call("POST", "/_mock/issuers", {"issuer": issuer})["url"])

    def reset(self) -> None:
        """Return to real time, remove all faults and empty the log. Keys and jobs stay."""
        self._call("POST", "/_mock/reset")

    def restore(self) -> None:
        """Restore the state after the start: `reset`, the first keys, and every job ended."""
        self._call("POST", "/_mock/restore")

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        status, content = self._send(method, path, body)
        if status == http.client.BAD_REQUEST and "details" in content:
            raise InvalidFieldError(**content["details"])
        if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
            reason = content.get("message") or "is it this version of mock-idp?"
            message = f"{self.url} responded with {status} to {method} {path}; {reason}"
            raise MockUnavailableError(message)
        return content

    def _unavailable(self) -> MockUnavailableError:
        return MockUnavailableError(
            f"no mock-idp answers at {self.url}; start one with `mock-idp serve`, or name another with --url or "
            "MOCK_IDP_URL"
        )

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> MockUnavailableError:
        return MockUnavailableError(
            f"the certificate of {self.url} is not trusted ({error.verify_message}); set SSL_CERT_FILE to the "
            "authority's file that `mock-idp serve --tls` printed"
        )

    def _send(self, method: str, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Send one request, never through a proxy: the mock is on this machine or network."""
        try:
            parts = urlsplit(self.url)
            make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = make(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
            try:
                connection.request(method, parts.path + path, None if body is None else json.dumps(body))
                response = connection.getresponse()
                content = json.loads(response.read() or b"{}")
            finally:
                connection.close()
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unavailable() from error
        return response.status, content if isinstance(content, dict) else {}
