"""GitHub's published keys, provided without HTTP."""

from collections.abc import Callable, Mapping
from typing import Any

from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable


class GithubKeys:
    """The keys that `published` currently returns; counts the look-ups, and can be made unreachable."""

    def __init__(self, published: Callable[[], Mapping[str, Any]]) -> None:
        self.published = published
        self.reachable = True
        self.asked = 0

    def find(self, kid: str) -> Any:
        self.asked += 1
        if not self.reachable:
            raise IssuerUnavailable("The signing keys cannot be fetched; try again in 30 s.", retry_after=30)
        if kid not in self.published():
            raise InvalidOidcToken("unknown_key", "The key is not published; send a token of the issuer.")
        return self.published()[kid]

    def status(self) -> dict[str, Any]:
        state, age = ("fresh", 1) if self.reachable else ("missing", None)
        return {"state": state, "ageSeconds": age, "lastError": None}


class OneKey:
    """One published key, returned for every `kid`."""

    def __init__(self, key: Any) -> None:
        self.find = lambda _kid: key
