"""Blocking work leaves the event loop, so that one request never stalls the others of its worker."""

import asyncio
import json
import logging
from contextlib import contextmanager, suppress

import pytest

from kit.provider import EXCHANGE, NOBODY
from kit.rsgi import Client, Scope
from sentryagent_idp.concurrency.loop import RsgiApplication
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot
from sentryagent_idp.domain import explanation
from sentryagent_idp.serve import _ON_LOOP
from sentryagent_idp.store.database import Database

FAR_TOO_LONG_SECONDS = 5
"""No callback may hold the loop this long; a shared machine can stall for some seconds by itself."""
MANY_POLICIES = 30
"""So many policies of one repository that a decision may take milliseconds."""


stopped = []
"""The blocking calls that were made on the event loop."""


def may_take_long(what):
    """Record a blocking call if it runs on the event loop."""
    with suppress(RuntimeError):
        stopped.append((what, asyncio.get_running_loop()))


class SlowDatabase(Database):
    """A database whose reads, writes and commits may block."""

    @contextmanager
    def read(self):
        may_take_long("read")
        with super().read() as tx:
            yield tx

    @contextmanager
    def write(self, **options):
        may_take_long("write")
        with super().write(**options) as tx:
            yield tx

    @contextmanager
    def write_at_once(self):
        with super().write_at_once() as tx:
            yield tx
            may_take_long("commit")


@pytest.fixture
def provider(any_provider, monkeypatch):
    """A provider in which the database, a decision on many policies and an explanation may block."""
    slowly = {"explain": explanation.explain, "nearest_trace": explanation.nearest_trace}
    for name, function in slowly.items():
        monkeypatch.setattr(
            explanation, name, lambda *given, of=function: may_take_long("explanation") or of(*given)
        )
    decide = PolicySnapshot.decide

    def decide_slowly(snapshot, *run):
        if len(snapshot.policies) >= MANY_POLICIES:
            may_take_long("decision")
        return decide(snapshot, *run)

    monkeypatch.setattr(PolicySnapshot, "decide", decide_slowly)
    return any_provider


def requests(provider):
    """A request for each path through the exchange, with the expected status."""
    agent_id, _ = provider.trusted_agent(branch="main")
    provider.policy()
    for number in range(MANY_POLICIES):
        provider.policy(repository="octo-org/many", branch=f"release/{number}")
    used = provider.github_token()
    assert provider.exchange(used, agentId=agent_id).status_code == 200
    other = {"repository_id": "99", "repository_owner_id": "99"}
    stale = provider.github_token(exp=1)

    def ask(token=None, **body):
        return json.dumps({"token": token or provider.github_token(), **body}).encode()

    return {
        "held": (ask(agentId=agent_id), 200),
        "held at the same moment": (ask(agentId=agent_id), 200),
        "read first": (ask(), 200),
        "pinned first": (
            ask(provider.github_token(repository="octo-org/many", ref="refs/heads/release/7", **other)),
            200,
        ),
        "tried": (ask(agentId=agent_id, dryRun=True), 200),
        "replayed": (ask(used, agentId=agent_id), 401),
        "expired": (ask(stale), 401),
        "malformed": (ask("x.y.z"), 401),
        "unknown key": (ask(provider.github_token(header={"kid": "unknown"})), 401),
        "refused": (ask(provider.github_token(ref="refs/heads/other"), agentId=agent_id), 403),
        "nobody's": (ask(agentId=NOBODY), 403),
        "another owner's": (ask(provider.github_token(**other), agentId=agent_id), 403),
        "scope": (ask(agentId=agent_id, scope="audit:read"), 403),
        "not JSON": (b"{", 400),
    }


async def answers(app, bodies):
    """Return the statuses of concurrent requests, on a loop that reports slow callbacks."""
    loop = asyncio.get_running_loop()
    loop.set_debug(enabled=True)
    loop.slow_callback_duration = FAR_TOO_LONG_SECONDS
    rsgi = RsgiApplication(app, 4, _ON_LOOP)
    rsgi.__rsgi_init__(loop)
    clients = [Client(body) for body in bodies]
    asked = [
        rsgi.__rsgi__(
            Scope(
                ("content-length", str(len(body))),
                ("content-type", "application/json"),
                path=EXCHANGE,
                query="",
            ),
            client,
        )
        for body, client in zip(bodies, clients, strict=True)
    ]
    await asyncio.wait_for(asyncio.gather(*asked), 60)
    return [client.answer[0] for client in clients]


def test_nothing_that_waits_stops_the_loop(provider, caplog):
    """No outcome blocks the loop: database, long decisions and explanations run elsewhere."""
    asked = requests(provider)
    provider.store.__class__ = SlowDatabase
    caplog.set_level(logging.WARNING, "asyncio")
    stopped.clear()

    statuses = asyncio.run(answers(provider.app, [body for body, _ in asked.values()]))

    assert dict(zip(asked, statuses, strict=True)) == {name: status for name, (_, status) in asked.items()}
    assert [what for what, _ in stopped] == []
    assert [it.getMessage() for it in caplog.records if it.name == "asyncio"] == []
