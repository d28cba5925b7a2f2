"""A server under measurement, ready for load."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.disturbance import Disturbance
from bench.growth import Growth
from bench.load import Target
from bench.workload import TokenKind
from mock_idp.server import MockIdp


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the servers of a run share: a folder for their data, and the issuer of the tokens."""

    folder: Path
    github: MockIdp

    @property
    def issuer(self) -> str:
        """The `iss` of the tokens."""
        return self.github.issuer

    @property
    def issuer_key_pem(self) -> str:
        """The public key of the tokens."""
        return self.github.state.ring.signing.public_pem().decode()

    @property
    def issuer_jwk(self) -> dict[str, object]:
        """The same key, as in the issuer's JWKS."""
        return self.github.state.ring.signing.jwk()


@dataclass(frozen=True, slots=True)
class Subject:
    """A running server: how to send requests to it, and how to read its own records.

    `issued` counts the tokens that its database has, `size` is the size of its database in bytes, `check` returns a
    problem of its records or an empty string; each is None if the server has no such thing. `disturbances` must not
    change its latencies.
    """

    target: Target
    kind: TokenKind
    request: Callable[[str], bytes]
    roots: Sequence[int]
    version: str
    issued: Callable[[], int] | None = None
    size: Callable[[], int] | None = None
    check: Callable[[], str] | None = None
    disturbances: Sequence[Disturbance] = ()


@dataclass(frozen=True, slots=True)
class Entrant:
    """A server that can be started; `keeps` is on disk when it returns a token, `growth` was there before the start."""

    name: str
    keeps: str
    start: Callable[[Surroundings], AbstractContextManager[Subject]]
    is_ours: bool = False
    growth: Growth | None = None


def post(port: int, path: str, body: str, content_type: str = "application/json") -> bytes:
    """Return a prepared request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")


Running = Iterator[Subject]
"""The return type of the generator behind an entrant's context manager."""
