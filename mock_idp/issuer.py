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
    from mock_idp.request_log import Entry

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
"""What a token is minted with next to its job."""


@dataclass(frozen=True)
class StartedJob:
    """A job in progress. The plan and job ids stand in its request URL; the request token is its secret."""

    job: Job
    plan_id: str
    job_id: str
    request_token: str = field(repr=False)

    @property
    def request_path(self) -> str:
        """Path and query of the request URL: a double slash and a query, as GitHub's has."""
        return f"{RUN_SERVICE_PATH}/{self.plan_id}/{self.job_id}?api-version={API_VERSION}"

    def describe(self, origin: str, issuer: str) -> dict[str, Any]:
        """The response of `POST /_mock/jobs` to a caller who reaches the mock at `origin`.

        Only a job with `id-token: write` has the two variables of the request.
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
    """Seconds since the epoch: the machine's, shifted, or frozen. Its verbs raise InvalidFieldError for no number."""

    def __init__(self, real: Callable[[], float] | None = None) -> None:
        # Looked up at each call: libraries such as freezegun put another function in its place.
        self._real = real or (lambda: time.time())  # noqa: PLW0108
        self._offset = 0.0
        self._frozen: float | None = None

    @property
    def offset(self) -> float:
        """How far this clock is ahead of the machine's, in seconds."""
        return self._offset if self._frozen is None else self._frozen - self._real()

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen is not None

    def now(self) -> int:
        """The mock's time in whole seconds since the epoch."""
        return int(self._real() + self._offset if self._frozen is None else self._frozen)

    def shift(self, seconds: float) -> None:
        """Run `seconds` ahead of the machine (behind it, where negative); ends a freeze."""
        require_number("offset", seconds)
        self._offset, self._frozen = seconds, None

    def freeze(self, epoch: float) -> None:
        """Stand still at `epoch` (seconds)."""
        require_number("freeze", epoch)
        self._frozen = epoch

    def travel(self, epoch: float) -> None:
        """Go on from `epoch` (seconds) as time passes; ends a freeze."""
        require_number("travel", epoch)
        self._offset, self._frozen = epoch - self._real(), None


class Issuer:
    """The OIDC issuer and run service of the mock. `url` is its `iss`; clock and keys are real ones unless given.

    `mount` is the path below which its server has it. `keep` takes each key ring that follows the first one.
    """

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        ring: KeyRing | None = None,
        mount: str = "",
        keep: Callable[[KeyRing], None] = lambda _ring: None,
    ) -> None:
        self.url = url
        self.clock = clock or Clock()
        self.ring = self._first_ring = ring or make_ring()
        self._mount = mount
        self._keep = keep
        self._lock = threading.Lock()
        self._jobs: dict[str, StartedJob] = {}
        self._ended: set[str] = set()
        self._faults = FaultPlan()
        self._log: deque[Entry] = deque(maxlen=_LOG_LENGTH)
        self._counts: Counter[str] = Counter()
        self._other_key: SigningKey | None = None

    def mint(self, job: Job, **options: Any) -> str:
        """A token for `job`; see `sign`."""
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
        """A token for `job`, and what it says. A given claim or header field overrides what job and fault say; `None` removes it.

        Raises InvalidFieldError for an unknown fault, a wrong type, and for what the GitHub of this issuer does not have.
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
        # Without a second key in the set, a stranger's takes its part: a forgery must never be a good token.
        idle = next((key for key in ring.published if key != ring.signing), None) or self.other_key()
        parts = urlsplit(self.url)
        foreign_url = f"{parts.scheme}://{parts.netloc}{self._mount}{FOREIGN_KEYS_PATH}"
        return Keys(ring.signing, idle, self.other_key, foreign_url)

    def start_job(self, job: Job) -> StartedJob:
        """Start a job: its request token is good until `end_job`.

        Raises InvalidFieldError for what the GitHub of this issuer does not have.
        """
        refuse_impossible(job, self.url)
        started = StartedJob(job, str(uuid.uuid4()), str(uuid.uuid4()), secrets.token_urlsafe(32))
        with self._lock:
            self._jobs[started.request_token] = started
        return started

    def end_job(self, job_id: str) -> bool:
        """End a job: its request token is expired from now on. False where there is no such job in progress."""
        with self._lock:
            tokens = [token for token, started in self._jobs.items() if started.job_id == job_id]
            for token in tokens:
                del self._jobs[token]
            self._ended.update(tokens)
            return bool(tokens)

    def job_of(self, request_token: str) -> StartedJob | None:
        """The job in progress that a request token belongs to."""
        with self._lock:
            return self._jobs.get(request_token)

    def is_ended(self, request_token: str) -> bool:
        """Whether the token belonged to a job that has ended."""
        with self._lock:
            return request_token in self._ended

    def plan_fault(self, fault: PlannedFault) -> None:
        """Let an endpoint fail; see `FaultPlan.add`."""
        with self._lock:
            self._faults.add(fault)

    def next_fault(self, endpoint: str) -> PlannedFault | None:
        """The fault for the request that has just come in; counts it."""
        with self._lock:
            return self._faults.next(endpoint)

    def pending_faults(self) -> list[tuple[PlannedFault, int | None]]:
        """The faults that are still to come and how often; None: until cleared."""
        with self._lock:
            return self._faults.pending()

    def clear_faults(self) -> None:
        """Behave again."""
        with self._lock:
            self._faults.clear()

    def rotate(self, *, publish: bool = True, keep_old: bool = True) -> SigningKey:
        """Sign with a new key from now on. Without `publish` the key set does not show it."""
        new = make_key()
        with self._lock:
            self._change(self.ring.rotated(new, publish=publish, keep_old=keep_old))
        return new

    def _change(self, ring: KeyRing) -> None:
        self.ring = ring
        self._keep(ring)

    def publish(self) -> SigningKey:
        """Show the signing key in the key set, where a rotation has left it out."""
        with self._lock:
            self._change(self.ring.showing_signing_key())
            return self.ring.signing

    def retire(self) -> list[str]:
        """Drop every key but the signing one from the key set, which ends an overlap; their kids."""
        with self._lock:
            retired = [key.kid for key in self.ring.published if key != self.ring.signing]
            self._change(self.ring.without_old_keys())
        return retired

    def other_key(self) -> SigningKey:
        """A key that is not this issuer's, for key sets that lie."""
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
        """Log a request; `status` is None where the connection was reset. No secret is ever logged: claims are none."""
        entry: Entry = {
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

    def requests(self) -> list[Entry]:
        """The logged requests, oldest first: the last 10,000."""
        with self._lock:
            return list(self._log)

    def request_counts(self) -> dict[str, int]:
        """How often each endpoint was asked since the log was emptied, also where the log has forgotten it."""
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        """Real time, no faults, an empty log. Keys and jobs stay."""
        self.clear_faults()
        self.clock.shift(0)
        with self._lock:
            self._log.clear()
            self._counts.clear()

    def restore(self) -> None:
        """As after the start: `reset`, the first keys, and every job ended."""
        self.reset()
        with self._lock:
            self._change(self._first_ring)
            self._ended.update(self._jobs)
            self._jobs.clear()

    def jobs(self) -> list[StartedJob]:
        """The jobs in progress."""
        with self._lock:
            return list(self._jobs.values())


def _overridden(fields: dict[str, Any], given: Mapping[str, object] | None) -> dict[str, Any]:
    merged = fields | dict(given or {})
    return {name: value for name, value in merged.items() if value is not None}
