"""Short ways to run one step, and the partners that go wrong."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest

from kit.http import serving


@pytest.fixture
def register(run_action, agent_name):
    """Register the test's agent; `inputs` with hyphens as underscores."""

    def register(**inputs: str):
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        return run_action("register-agent", {"agent-name": agent_name} | named)

    return register


@pytest.fixture
def nobody():
    """A URL at which connections are refused: the port is taken and nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


@dataclass
class Stranger:
    """An HTTP server that is no provider: answers by path, the last answer for ever, and remembers what it was asked."""

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    holds: dict[str, tuple[Event, Event]] = field(default_factory=dict)

    def answer(self, path: str, *answers: tuple[int, Any]) -> None:
        self.answers[path] = list(answers)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(body) for asked, body in self.requests if asked == path]

    @contextlib.contextmanager
    def held(self, path: str) -> Iterator[tuple[Event, Event]]:
        """Hold back the answers of a path: an event for "asked", and one that releases them, at the latest now."""
        asked, release = self.holds[path] = Event(), Event()
        try:
            yield asked, release
        finally:
            release.set()

    def take(self, path: str, _headers: Any, body: bytes) -> tuple[int, Any]:
        self.requests.append((path, body))
        if path in self.holds:
            asked, release = self.holds[path]
            asked.set()
            release.wait(30)
        planned = self.answers.get(path, [(404, {})])
        return planned.pop(0) if len(planned) > 1 else planned[0]


@pytest.fixture
def stranger():
    """A server that answers what the test says, and 404 to all else."""
    stranger = Stranger()
    with serving(stranger.take) as stranger.url:
        yield stranger
