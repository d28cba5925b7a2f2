"""A cache of GitHub's public keys, whose refreshes no sender of tokens can make slow or frequent.

A background thread fetches the keys; requests read the cached set. No lock is held during a fetch. A fetch that exceeds
its time limit has failed, whatever its thread is still waiting for.
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
"""For name look-up, connections and both documents together. With the pause below, a new key is accepted within 35 s."""

MAX_FETCHES = 2
"""The most fetches whose threads have not ended. A name look-up that hangs cannot be stopped: one can hang while the next
fetch is tried, and while two hang, no third one is started, however long that takes."""

PAUSE_SECONDS = 30.0
"""The least time between the starts of two refreshes caused by unknown kids, whether or not the first succeeded (B4)."""

REFRESH_SECONDS = 600.0
"""How often the keys are refreshed: while the issuer responds, a withdrawn key is trusted no longer than this."""

MAX_AGE_SECONDS = 24 * 3600.0
"""How long cached keys are used if the issuer does not respond; after that, no token is accepted."""

MAX_WAITING = 2
"""The most requests that wait for a refresh while a set is cached; fewer than a process has threads, so that a flood of
unknown kids cannot block requests with a known kid."""

Keys = Mapping[str, RSAPublicKey]
"""Public keys by their ids."""

Schedule = Callable[[float, Callable[[], None]], None]
"""Runs a task in the background after a delay in seconds."""

_log = structlog.get_logger(__name__)


def in_daemon_thread(delay_seconds: float, task: Callable[[], None]) -> None:
    """Run a task in a daemon thread, which does not keep the process alive: the default `Schedule`."""
    timer = threading.Timer(delay_seconds, task)
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class _CachedKeys:
    keys: Keys
    as_of: float


@dataclass(slots=True)
class _Refresh:
    started_at: float
    waiting: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class GithubIssuerKeys:
    """The keys of one issuer (`sentryagent_idp.github.id_token.IssuerKeys`), safe to use from many threads.

    `monotonic` returns seconds of a clock that never jumps; `off_loop` runs a blocking wait outside of the event loop.
    Call `warm_up` once in each process.
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
        self._cached: _CachedKeys | None = None
        self._refresh: _Refresh | None = None
        self._requested_at = -math.inf
        self._last_error: str | None = None

    def find(self, kid: str) -> RSAPublicKey:
        """Return the key with this id; a known key is returned without waiting.

        Raises `IssuerUnavailable` or `InvalidOidcToken` (`unknown_key`), see `sentryagent_idp.github.id_token.IssuerKeys`.
        """
        cached = self._usable()
        if cached is None or kid not in cached.keys:
            self._request_refresh()
            cached = self._usable()
        if cached is None:
            raise self._unavailable()
        key = cached.keys.get(kid)
        if key is None:
            # The sender chooses the kid, so no message repeats it.
            raise InvalidOidcToken(
                "unknown_key",
                f"The token is signed with a key that {self._issuer} does not publish; send an ID token that it issued.",
            )
        return key

    def warm_up(self) -> None:
        """Start to fetch the keys and keep them fresh in the background; returns at once."""
        self._schedule(0, self._keep_fresh)

    def status(self) -> dict[str, str | int | None]:
        """Return, for /ready, `state` (fresh, stale or missing), `ageSeconds` of the keys, and `lastError` of a refresh."""
        cached = self._usable()
        if cached is None:
            return {"state": "missing", "ageSeconds": None, "lastError": self._last_error}
        age = int(self._monotonic() - cached.as_of)
        state = "fresh" if age <= REFRESH_SECONDS + PAUSE_SECONDS else "stale"
        return {"state": state, "ageSeconds": age, "lastError": self._last_error}

    def _usable(self) -> _CachedKeys | None:
        cached = self._cached
        return cached if cached is not None and self._monotonic() - cached.as_of <= MAX_AGE_SECONDS else None

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
            # The outcome of a refresh that another thread began is not known here, so check again soon.
            is_fresh = refresh is not None and self._last_error is None
            self._schedule(REFRESH_SECONDS if is_fresh else PAUSE_SECONDS, self._keep_fresh)

    def _request_refresh(self) -> None:
        """Wait for the current refresh, or start one and wait for it if `PAUSE_SECONDS` have passed."""
        now = self._monotonic()
        with self._lock:
            started = self._begin_refresh() if now - self._requested_at >= PAUSE_SECONDS else None
            if started is not None:
                self._requested_at = now
            refresh = started or self._refresh
            if refresh is None or (self._cached is not None and refresh.waiting >= MAX_WAITING):
                return
            refresh.waiting += 1
        if started is not None:
            self._schedule(0, partial(self._run, started))
        patience = max(0.0, refresh.started_at + self._fetch_seconds - now)
        self._off_loop(partial(refresh.done.wait, timeout=patience))

    def _begin_refresh(self) -> _Refresh | None:
        """Begin a refresh unless one is running; one whose thread died is given up. The caller holds the lock."""
        now = self._monotonic()
        if self._refresh is not None and now - self._refresh.started_at < PAUSE_SECONDS:
            return None
        self._refresh = _Refresh(started_at=now)
        return self._refresh

    def _run(self, refresh: _Refresh) -> None:
        """Fetch the keys and end the refresh; takes no longer than the time limit of a fetch."""
        fetched: _CachedKeys | None = None
        problem: str | None = "an internal error; see the log"
        try:
            fetched, problem = _CachedKeys(self._fetch(refresh), as_of=refresh.started_at), None
        except FetchFailed as error:
            problem = str(error)
            _log.warning("issuer_keys_not_refreshed", issuer=self._issuer, error=problem)
        finally:
            with self._lock:
                # A refresh that was given up must not replace the keys of a later one.
                if self._refresh is refresh:
                    self._refresh, self._last_error = None, problem
                    self._cached = fetched or self._cached
            refresh.done.set()

    def _fetch(self, refresh: _Refresh) -> Keys:
        """Fetch the keys in a new thread, which is abandoned when the time is over; raises `FetchFailed`."""
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
            except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
                outcome.set_exception(error)
            finally:
                self._fetches.release()

        if not self._fetches.acquire(blocking=False):
            raise FetchFailed(
                f"{MAX_FETCHES} earlier fetches are still hanging; check the DNS lookup of this machine"
            )
        try:
            threading.Thread(target=run, name="issuer-keys", daemon=True).start()
        except RuntimeError as error:
            self._fetches.release()
            raise FetchFailed("cannot start a thread for the fetch") from error
        return outcome


def _check_address(issuer: httpx.URL) -> None:
    if issuer.scheme == "https" or (issuer.scheme == "http" and is_loopback(issuer.host)):
        return
    raise ValueError(f"The issuer {issuer} must be an https address; http is for loopback only.")
