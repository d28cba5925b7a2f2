"""Fixtures that run one step, and servers that misbehave."""

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
    """Run register-agent for the test's agent; `inputs` have underscores for hyphens."""

    def register(**inputs: str):
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        return run_action("register-agent", {"agent-name": agent_name} | named)

    return register


@pytest.fixture
def nobody():
    """A URL that refuses connections: the port is bound, but nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


@dataclass
class Stranger:
    """An HTTP server with planned responses per path, of which the last one repeats; it records its requests."""

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
        """Hold back a path's responses; yield an event that marks a request, and one that releases the responses."""
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
    """A server that sends the test's responses, and 404 for all other paths."""
    stranger = Stranger()
    with serving(stranger.take) as stranger.url:
        yield stranger
