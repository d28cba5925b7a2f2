"""What a load is put on, and what came back."""

from collections.abc import Sequence
from dataclasses import dataclass

CONNECTIONS = 32
PATIENCE_SECONDS = 15
"""How long the last answers may take after the end of the load."""


class LoadFailed(Exception):
    """The load could not be brought to an end; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes: a port of 127.0.0.1; `member` is the JSON member in which an answer has its token.

    `spare_path` is a page that answers 200 without a token.
    """

    port: int
    member: str
    spare_path: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back.

    `in_time` answers had a token within `seconds`; `tokens` are all, also those that were under way at the end.
    `latencies` are in seconds, from the moment at which a request was due; empty where they are not known.
    """

    seconds: float
    in_time: int
    tokens: int
    refused: int
    first_refusal: str = ""
    latencies: Sequence[float] = ()

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.in_time / self.seconds
