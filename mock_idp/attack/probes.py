"""Attacks with more than one token: a replay, the leeway, missing keys, the number of key fetches, followed URLs."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mock_idp.attack.catalogue import ACCEPTED, FETCHED, FOLLOWED, NOT_SENT, REFUSED, REPLAY, Attack, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.attack.target import Target

# RFC 7519, sections 4.1.4 and 4.1.5: "usually no more than a few minutes".
_MOST_LEEWAY_SECONDS: Final = 300
_STEPS: Final = (1, 5, 10, 30, 60, 90, 120, 150, 180, 240, 300, 600, 900, 1800, 3600, 7200, 86400)
_LIFETIME_SECONDS: Final = 300
_TOKENS: Final = 10
# One fetch of the key set and one of the discovery document.
_MOST_FETCHES: Final = 2


def _replay(target: Target, attack: Attack) -> Result:
    token = target.mint()
    first = target.send(attack, token)
    if first.verdict != ACCEPTED:
        return replace(first, verdict=NOT_SENT, note="not accepted even once")
    return target.send(attack, token)


def _expired(now: int, seconds: int) -> dict[str, int]:
    expiry = now - seconds
    return {"iat": expiry - _LIFETIME_SECONDS, "nbf": expiry - 2 * _LIFETIME_SECONDS, "exp": expiry}


def _not_yet(now: int, seconds: int) -> dict[str, int]:
    return {"iat": now, "nbf": now + seconds, "exp": now + seconds + _LIFETIME_SECONDS}


def _issued_later(now: int, seconds: int) -> dict[str, int]:
    return {"iat": now + seconds, "nbf": now - _LIFETIME_SECONDS, "exp": now + seconds + _LIFETIME_SECONDS}


def _leeway(times: Callable[[int, int], dict[str, int]], target: Target, attack: Attack) -> Result:
    """Find the longest accepted and the shortest refused time of `_STEPS` by bisection: longer times are refused, too."""
    accepted, refused = 0, len(_STEPS)
    seconds = 0.0
    while accepted < refused:
        middle = (accepted + refused) // 2
        result = target.send(attack, target.mint(claims=times(target.mock.now, _STEPS[middle])))
        seconds += result.seconds
        if result.verdict == ACCEPTED:
            accepted = middle + 1
        elif result.verdict == REFUSED:
            refused = middle
        else:
            return result
    longest = _STEPS[accepted - 1] if accepted else 0
    ends = f"refuses {_STEPS[accepted]} s" if accepted < len(_STEPS) else "no limit found"
    verdict = ACCEPTED if longest >= _MOST_LEEWAY_SECONDS else REFUSED
    return Result(attack, verdict, 0, f"accepts {longest} s, {ends}", seconds, longest)


def _forged(target: Target, kid: str = "") -> str:
    """Return a token signed with a foreign key, under the given kid or, without one, the issuer's."""
    return target.mint(fault="foreign-key", header={"kid": kid} if kid else {})


def _without_keys(fault: Mapping[str, Any], target: Target, attack: Attack) -> Result:
    """Send a forged token while keys are unavailable; any response but an acceptance is right, even "unavailable"."""
    before = target.key_requests()
    endpoints = ("jwks",) if fault.get("fault") == "empty-keys" else ("jwks", "discovery")
    try:
        for endpoint in endpoints:
            target.mock.plan_fault(endpoint, **fault)
        result = target.send(attack, _forged(target, str(uuid.uuid4())))
    finally:
        target.mock.clear_faults()
    fetches = target.key_requests() - before
    note = (
        f"requested keys {fetches} times" if fetches else "did not request keys, so the failure had no effect"
    )
    return replace(result, verdict=ACCEPTED if result.verdict == ACCEPTED else REFUSED, note=note)


def _fetches(kid: Callable[[], str], target: Target, attack: Attack) -> Result:
    before, seconds = target.key_requests(), 0.0
    for _ in range(_TOKENS):
        result = target.send(attack, _forged(target, kid()))
        seconds += result.seconds
        if result.verdict == ACCEPTED:
            return result
    fetches = target.key_requests() - before
    verdict = FETCHED if fetches > _MOST_FETCHES else REFUSED
    return Result(attack, verdict, 0, f"{_TOKENS} tokens, {fetches} requests for keys", seconds, fetches)


def _followed(target: Target, attack: Attack) -> Result:
    """Send headers that a verifier might follow, and count the requests for the foreign key set in the mock's log."""
    before = target.foreign_key_requests()
    results = [target.send(attack, target.mint(fault=fault)) for fault in ("own-jku", "own-x5u")]
    fetches = target.foreign_key_requests() - before
    note = f"requests for the forged URL in the mock's log: {fetches}"
    seconds = sum(result.seconds for result in results)
    return Result(attack, FOLLOWED if fetches else REFUSED, 0, note, seconds)


PROBES: Final[Mapping[str, Callable[[Target, Attack], Result]]] = {
    REPLAY: _replay,
    "leeway-of-expiry": partial(_leeway, _expired),
    "leeway-of-not-before": partial(_leeway, _not_yet),
    "leeway-of-issued-at": partial(_leeway, _issued_later),
    "keys-answer-503": partial(_without_keys, {"status": 503}),
    "keys-reset": partial(_without_keys, {"fault": "reset"}),
    "keys-garbage": partial(_without_keys, {"fault": "garbage"}),
    "keys-empty": partial(_without_keys, {"fault": "empty-keys"}),
    "fetch-for-each-token": partial(_fetches, str),
    "fetch-for-each-unknown-kid": partial(_fetches, lambda: str(uuid.uuid4())),
    "own-url-followed": _followed,
}
