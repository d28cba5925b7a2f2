"""The mock's state: keys, clock, jobs, planned faults and the request log. Thread-safe, no HTTP."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mock_idp.claims import id_token_claims, refuse_impossible, server_url
from mock_idp.environment import REQUEST_TOKEN, REQUEST_URL, event_payload, job_variables
from mock_idp.faults.jws import GOOD_TOKEN, Keys, Minted, encode_jws
from mock_idp.faults.plan import FaultPlan, PlannedFault
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.signing_keys import KeyRing, SigningKey, make_key, make_ring
from mock_idp.strict_fields import read_fields, require_known, require_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.job import Job
    from mock_idp.request_log import LoggedRequest

RUN_SERVICE_PATH: Final = "/232//idtoken"
API_VERSION: Final = "2.0"
FOREIGN_KEYS_PATH: Final = "/_mock/foreign-keys"
_LOG_LENGTH: Final = 10_000
TOKEN_FIELDS: Final = {
    "claims": "an object",
    "header": "an object",
    "fault": "a string",
    "audience": "a string",
}
"""The fields of a mint request in addition to its job."""


@dataclass(frozen=True)
class StartedJob:
    """A job in progress. Its request URL contains the plan and job ids; the request token is secret."""

    job: Job
    plan_id: str
    job_id: str
    request_token: str = field(repr=False)

    @property
    def request_path(self) -> str:
        """Path and query of the request URL, with a double slash and a query like GitHub's."""
        return f"{RUN_SERVICE_PATH}/{self.plan_id}/{self.job_id}?api-version={API_VERSION}"

    def describe(self, origin: str, issuer: str) -> dict[str, Any]:
        """Return the response of `POST /_mock/jobs` for a caller that reaches the mock at `origin`.

        Only a job with `id-token: write` has the two variables of the ID token request.
        """
        variables = job_variables(self.job, server_url(issuer))
        request_url = origin + self.request_path
        if self.job.may_request_id_token:
            variables |= {REQUEST_URL: request_url, REQUEST_TOKEN: self.request_token}
        return {
            "jobId": self.job_id,
            "issuer": issuer,
            "requestUrl": request_url,
            "requestToken": self.request_token,
            "variables": variables,
            "event": event_payload(self.job),
        }


class Clock:
    """A clock in seconds since the epoch: real, shifted or frozen. Setters raise InvalidFieldError for non-numbers."""

    def __init__(self, real: Callable[[], float] | None = None) -> None:
        # `time.time` is looked up at each call, because libraries such as freezegun replace it.
        self._real = real or (lambda: time.time())  # noqa: PLW0108
        self._offset = 0.0
        self._frozen: float | None = None

    @property
    def offset(self) -> float:
        """How far this clock is ahead of the machine's, in seconds."""
        return self._offset if self._frozen is None else self._frozen - self._real()

    @property
    def is_frozen(self) -> bool:
        """Whether the clock is stopped."""
        return self._frozen is not None

    def now(self) -> int:
        """Return the mock's time in whole seconds since the epoch."""
        return int(self._real() + self._offset if self._frozen is None else self._frozen)

    def shift(self, seconds: float) -> None:
        """Run `seconds` ahead of the machine's clock (behind it if negative), which ends a freeze."""
        require_number("offset", seconds)
        self._offset, self._frozen = seconds, None

    def freeze(self, epoch: float) -> None:
        """Stop at `epoch` (seconds)."""
        require_number("freeze", epoch)
        self._frozen = epoch

    def travel(self, epoch: float) -> None:
        """Run on from `epoch` (seconds), which ends a freeze."""
        require_number("travel", epoch)
        self._offset, self._frozen = epoch - self._real(), None


class Issuer:
    """The OIDC issuer and run service of the mock. `url` is its `iss`; by default the clock is real and the keys are new.

    `mount` is the path below which the server serves it. `save_ring` is called with the key ring after each change.
    """

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        ring: KeyRing | None = None,
        mount: str = "",
        save_ring: Callable[[KeyRing], None] = lambda _ring: None,
    ) -> None:
        self.url = url
        self.clock = clock or Clock()
        self.ring = self._first_ring = ring or make_ring()
        self._mount = mount
        self._save_ring = save_ring
        self._lock = threading.Lock()
        self._jobs: dict[str, StartedJob] = {}
        self._ended: set[str] = set()
        self._faults = FaultPlan()
        self._log: deque[LoggedRequest] = deque(maxlen=_LOG_LENGTH)
        self._counts: Counter[str] = Counter()
        self._other_key: SigningKey | None = None

    def mint(self, job: Job, **options: Any) -> str:
        """Return a token for `job`; see `sign`."""
        return self.sign(job, **options).token

    def sign(
        self,
        job: Job,
        *,
        audience: str | None = None,
        claims: Mapping[str, object] | None = None,
        header: Mapping[str, object] | None = None,
        fault: str = "",
    ) -> Minted:
        """Return a token for `job` together with its claims and kid.

        A given claim or header field overrides that of the job and the fault; None removes it. Raises InvalidFieldError
        for an unknown fault, a wrong type, or an option that this issuer's kind of GitHub does not have.
        """
        read_fields({"audience": audience, "claims": claims, "header": header, "fault": fault}, TOKEN_FIELDS)
        require_known("fault", fault or None, TOKEN_FAULTS)
        planned = TOKEN_FAULTS[fault] if fault else GOOD_TOKEN
        keys = self._keys()
        now, jti = self.clock.now(), str(uuid.uuid4())
        payload = planned.claims(id_token_claims(job, issuer=self.url, audience=audience, now=now, jti=jti))
        payload = _overridden(payload, claims)
        head = _overridden(planned.header(keys.signing.header(), keys), header)
        kid = head.get("kid")
        return Minted(
            encode_jws(payload, head, keys, planned), payload, kid if isinstance(kid, str) else None
        )

    def _keys(self) -> Keys:
        ring = self.ring
        # If the key set has no second key, use a foreign one: a forged token must never be valid.
        idle = next((key for key in ring.published if key != ring.signing), None) or self.other_key()
        parts = urlsplit(self.url)
        foreign_url = f"{parts.scheme}://{parts.netloc}{self._mount}{FOREIGN_KEYS_PATH}"
        return Keys(ring.signing, idle, self.other_key, foreign_url)

    def start_job(self, job: Job) -> StartedJob:
        """Start a job, whose request token is valid until `end_job`.

        Raises InvalidFieldError for an option that this issuer's kind of GitHub does not have.
        """
        refuse_impossible(job, self.url)
        started = StartedJob(job, str(uuid.uuid4()), str(uuid.uuid4()), secrets.token_urlsafe(32))
        with self._lock:
            self._jobs[started.request_token] = started
        return started

    def end_job(self, job_id: str) -> bool:
        """End a job, which expires its request token; return False if there is no such job in progress."""
        with self._lock:
            tokens = [token for token, started in self._jobs.items() if started.job_id == job_id]
            for token in tokens:
                del self._jobs[token]
            self._ended.update(tokens)
            return bool(tokens)

    def job_of(self, request_token: str) -> StartedJob | None:
        """Return the job in progress that a request token belongs to, or None."""
        with self._lock:
            return self._jobs.get(request_token)

    def is_ended(self, request_token: str) -> bool:
        """Whether the request token belonged to a job that has ended."""
        with self._lock:
            return request_token in self._ended

    def plan_fault(self, fault: PlannedFault) -> None:
        """Plan a fault for an endpoint; see `FaultPlan.add`."""
        with self._lock:
            self._faults.add(fault)

    def next_fault(self, endpoint: str) -> PlannedFault | None:
        """Return the fault for the request that has just arrived, and count it."""
        with self._lock:
            return self._faults.next(endpoint)

    def pending_faults(self) -> list[tuple[PlannedFault, int | None]]:
        """Return the faults still to come with their remaining counts; None means until cleared."""
        with self._lock:
            return self._faults.pending()

    def clear_faults(self) -> None:
        """Remove all planned faults."""
        with self._lock:
            self._faults.clear()

    def rotate(self, *, publish: bool = True, keep_old: bool = True) -> SigningKey:
        """Sign with a new key from now on; without `publish` the key set does not contain it."""
        new = make_key()
        with self._lock:
            self._set_ring(self.ring.rotated(new, publish=publish, keep_old=keep_old))
        return new

    def _set_ring(self, ring: KeyRing) -> None:
        self.ring = ring
        self._save_ring(ring)

    def publish(self) -> SigningKey:
        """Add the signing key to the key set if a rotation left it out."""
        with self._lock:
            self._set_ring(self.ring.showing_signing_key())
            return self.ring.signing

    def retire(self) -> list[str]:
        """Remove all keys except the signing key from the key set, which ends an overlap; return the removed kids."""
        with self._lock:
            retired = [key.kid for key in self.ring.published if key != self.ring.signing]
            self._set_ring(self.ring.without_old_keys())
        return retired

    def other_key(self) -> SigningKey:
        """Return a key that does not belong to this issuer, for forged tokens and false key sets."""
        with self._lock:
            self._other_key = self._other_key or make_key()
            return self._other_key

    def record(
        self,
        endpoint: str,
        method: str,
        status: int | None,
        repository: str = "",
        audience: str = "",
        minted: Minted | None = None,
    ) -> None:
        """Log a request, never a secret (claims are not secret); `status` is None if the connection was reset."""
        entry: LoggedRequest = {
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # noqa: UP017
            "endpoint": endpoint,
            "method": method,
            "status": status,
            "repository": repository or None,
            "audience": audience or None,
        }
        if minted:
            entry |= {"kid": minted.kid, "claims": minted.claims}
        with self._lock:
            self._log.append(entry)
            self._counts[endpoint] += 1

    def requests(self) -> list[LoggedRequest]:
        """Return the logged requests, oldest first; the log keeps the last 10,000."""
        with self._lock:
            return list(self._log)

    def request_counts(self) -> dict[str, int]:
        """Return the number of requests to each endpoint since the log was emptied, even if the log dropped them."""
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        """Return to real time, remove all faults and empty the log. Keys and jobs stay."""
        self.clear_faults()
        self.clock.shift(0)
        with self._lock:
            self._log.clear()
            self._counts.clear()

    def restore(self) -> None:
        """Restore the state after the start: `reset`, the first keys, and every job ended."""
        self.reset()
        with self._lock:
            self._set_ring(self._first_ring)
            self._ended.update(self._jobs)
            self._jobs.clear()

    def jobs(self) -> list[StartedJob]:
        """Return the jobs in progress."""
        with self._lock:
            return list(self._jobs.values())


def _overridden(fields: dict[str, Any], given: Mapping[str, object] | None) -> dict[str, Any]:
    merged = fields | dict(given or {})
    return {name: value for name, value in merged.items() if value is not None}
