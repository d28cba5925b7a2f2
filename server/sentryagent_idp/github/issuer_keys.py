"""GitHub's public keys: fetched, held and refreshed, so that nobody who sends tokens can make us wait or ask too often.

A thread of ours fetches; requests read what is held. No lock is held while the network is waited for. A fetch that is
not over in time has failed, whatever its thread still waits for.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable
from sentryagent_idp.github.issuer_documents import Fetch, FetchFailed
from sentryagent_idp.runtime.addresses import is_loopback

FETCH_SECONDS = 5.0
"""For name look-up, connections and both documents together. With the pause below, a published key is taken in 35 s."""

MAX_FETCHES = 2
"""Fetches whose thread has not ended. A name look-up that hangs cannot be stopped: one may hang while the next is tried,
and while two hang no third is begun, however long that takes."""

PAUSE_SECONDS = 30.0
"""From the start of one refresh to the next that an unknown kid may cause, whatever came of the first (B4)."""

REFRESH_SECONDS = 600.0
"""A withdrawn key is trusted no longer than this while the issuer answers."""

MAX_AGE_SECONDS = 24 * 3600.0
"""Without an answer of the issuer, held keys serve this long; then nothing is trusted any more."""

MAX_WAITING = 2
"""Requests that wait for one refresh while a set is held, fewer than a process has threads: a flood of unknown kids
must not keep those with a known one waiting (R-JWKS-1)."""

Keys = Mapping[str, RSAPublicKey]
"""Public keys by their ids."""

Schedule = Callable[[float, Callable[[], None]], None]
"""Run a task in the background, after so many seconds."""

_log = structlog.get_logger(__name__)


def in_daemon_thread(delay_seconds: float, task: Callable[[], None]) -> None:
    """The usual `Schedule`: a thread that does not keep the process from ending."""
    timer = threading.Timer(delay_seconds, task)
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class _Held:
    keys: Keys
    as_of: float


@dataclass(slots=True)
class _Refresh:
    started_at: float
    waiting: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class GithubIssuerKeys:
    """The keys of one issuer (`sentryagent_idp.github.id_token.IssuerKeys`), safe to use from many threads.

    `monotonic` gives seconds of a clock that never jumps; `off_loop` calls what makes a request wait. Call `warm_up` once in each process.
    Raises `ValueError` for an issuer that is neither https nor on loopback.
    """

    def __init__(
        self,
        issuer: str,
        client: httpx.Client,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        schedule: Schedule = in_daemon_thread,
        off_loop: Callable[[Callable[[], object]], object] = lambda wait: wait(),
        fetch_seconds: float = FETCH_SECONDS,
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._monotonic = monotonic
        self._schedule = schedule
        self._off_loop = off_loop
        self._fetch_seconds = fetch_seconds
        self._fetches = threading.BoundedSemaphore(MAX_FETCHES)
        _check_address(httpx.URL(issuer))
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._refresh: _Refresh | None = None
        self._requested_at = -math.inf
        self._last_error: str | None = None

    def find(self, kid: str) -> RSAPublicKey:
        """The key with this id; for a known one without waiting for anything.

        Raises `IssuerUnavailable` or `InvalidOidcToken` (`unknown_key`), see `sentryagent_idp.github.id_token.IssuerKeys`.
        """
        held = self._usable()
        if held is None or kid not in held.keys:
            self._request_refresh()
            held = self._usable()
        if held is None:
            raise self._unavailable()
        key = held.keys.get(kid)
        if key is None:
            # The kid is the sender's text and is repeated nowhere (R-JWKS-5).
            raise InvalidOidcToken(
                "unknown_key",
                f"The token is signed with a key that {self._issuer} does not publish; send an ID token that it issued.",
            )
        return key

    def warm_up(self) -> None:
        """Fetch the keys in the background, and keep them fresh from now on; returns at once."""
        self._schedule(0, self._keep_fresh)

    def status(self) -> dict[str, str | int | None]:
        """For /ready: `state` (fresh, stale or missing), `ageSeconds` of the held keys, `lastError` of a refresh."""
        held = self._usable()
        if held is None:
            return {"state": "missing", "ageSeconds": None, "lastError": self._last_error}
        age = int(self._monotonic() - held.as_of)
        state = "fresh" if age <= REFRESH_SECONDS + PAUSE_SECONDS else "stale"
        return {"state": state, "ageSeconds": age, "lastError": self._last_error}

    def _usable(self) -> _Held | None:
        held = self._held
        return held if held is not None and self._monotonic() - held.as_of <= MAX_AGE_SECONDS else None

    def _unavailable(self) -> IssuerUnavailable:
        wait = math.ceil(max(1.0, self._requested_at + PAUSE_SECONDS - self._monotonic()))
        return IssuerUnavailable(
            f"The signing keys of {self._issuer} cannot be fetched at the moment; try again in {wait} s.",
            retry_after=wait,
        )

    def _keep_fresh(self) -> None:
        with self._lock:
            refresh = self._begin_refresh()
        try:
            if refresh is not None:
                self._run(refresh)
        finally:
            # What comes of a refresh that somebody else began is not known here, so it is looked at again soon.
            is_fresh = refresh is not None and self._last_error is None
            self._schedule(REFRESH_SECONDS if is_fresh else PAUSE_SECONDS, self._keep_fresh)

    def _request_refresh(self) -> None:
        """Wait for the refresh that is going on, or for a new one where one is due again."""
        now = self._monotonic()
        with self._lock:
            started = self._begin_refresh() if now - self._requested_at >= PAUSE_SECONDS else None
            if started is not None:
                self._requested_at = now
            refresh = started or self._refresh
            if refresh is None or (self._held is not None and refresh.waiting >= MAX_WAITING):
                return
            refresh.waiting += 1
        if started is not None:
            self._schedule(0, partial(self._run, started))
        patience = max(0.0, refresh.started_at + self._fetch_seconds - now)
        self._off_loop(partial(refresh.done.wait, timeout=patience))

    def _begin_refresh(self) -> _Refresh | None:
        """A new refresh, unless one is going on; one whose thread died is given up. Needs the lock."""
        now = self._monotonic()
        if self._refresh is not None and now - self._refresh.started_at < PAUSE_SECONDS:
            return None
        self._refresh = _Refresh(started_at=now)
        return self._refresh

    def _run(self, refresh: _Refresh) -> None:
        """Fetch, and end the refresh; takes no longer than the fetch may."""
        held: _Held | None = None
        problem: str | None = "an error of the program; see the log"
        try:
            held, problem = _Held(self._fetch(refresh), as_of=refresh.started_at), None
        except FetchFailed as error:
            problem = str(error)
            _log.warning("issuer_keys_not_refreshed", issuer=self._issuer, error=problem)
        finally:
            with self._lock:
                # One that was given up must not replace what a later one brought.
                if self._refresh is refresh:
                    self._refresh, self._last_error = None, problem
                    self._held = held or self._held
            refresh.done.set()

    def _fetch(self, refresh: _Refresh) -> Keys:
        """What a thread of its own fetches, which is left to itself when the time is over; raises `FetchFailed`."""
        deadline = refresh.started_at + self._fetch_seconds
        fetch = Fetch(self._issuer, self._client, deadline=deadline, monotonic=self._monotonic)
        try:
            return self._start(fetch).result(max(0.0, deadline - self._monotonic()))
        except TimeoutError as error:
            raise FetchFailed(fetch.cut()) from error

    def _start(self, fetch: Fetch) -> Future[Keys]:
        outcome = Future[Keys]()

        def run() -> None:
            try:
                outcome.set_result(fetch.run())
            except BaseException as error:  # noqa: BLE001 - raised again, in the thread that waits
                outcome.set_exception(error)
            finally:
                self._fetches.release()

        if not self._fetches.acquire(blocking=False):
            raise FetchFailed(
                f"{MAX_FETCHES} earlier fetches still hang; check the name look-up (DNS) of this machine"
            )
        try:
            threading.Thread(target=run, name="issuer-keys", daemon=True).start()
        except RuntimeError as error:
            self._fetches.release()
            raise FetchFailed("this machine gives no thread for the fetch") from error
        return outcome


def _check_address(issuer: httpx.URL) -> None:
    if issuer.scheme == "https" or (issuer.scheme == "http" and is_loopback(issuer.host)):
        return
    raise ValueError(f"The issuer {issuer} must be an https address; http is for loopback only.")
