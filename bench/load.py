"""The target of a load, and its outcome."""

from collections.abc import Sequence
from dataclasses import dataclass

CONNECTIONS = 32
PATIENCE_SECONDS = 15
"""How long the last responses may take after the end of the load."""


class LoadFailed(Exception):
    """The load could not be completed; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target of the load: a port of 127.0.0.1; `token_field` is the JSON field of a response that has the token.

    `spare_path` is a page that returns 200 without a token.
    """

    port: int
    token_field: str
    spare_path: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a load.

    `in_time` responses had a token within `seconds`; `tokens` are all, including those of the requests in flight at the
    end. `latencies` are in seconds since a request was due; empty if they are unknown.
    """

    seconds: float
    in_time: int
    tokens: int
    refused: int
    first_refusal: str = ""
    latencies: Sequence[float] = ()

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.in_time / self.seconds
