"""What makes a request wait leaves the event loop: one request must not stop all others of its worker."""

import asyncio
import json
import logging
import time
from contextlib import contextmanager

import pytest

from kit.provider import EXCHANGE, NOBODY
from kit.rsgi import Client, Scope
from sentryagent_idp.concurrency.loop import RsgiApplication
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot
from sentryagent_idp.concurrency.request_greenlet import off_loop
from sentryagent_idp.domain import explanation
from sentryagent_idp.serve import _ON_LOOP
from sentryagent_idp.store.database import Database

SLOW_SECONDS = 0.2
"""How long each thing takes that may take long: far longer than what is measured by accident on a busy machine."""


MANY_POLICIES = 30
"""Of one repository: a decision on so many may take milliseconds."""


class SlowDatabase(Database):
    """A database that is always busy, on a disk that takes its time."""

    @contextmanager
    def read(self):
        time.sleep(SLOW_SECONDS)
        with super().read() as tx:
            yield tx

    @contextmanager
    def write(self):
        time.sleep(SLOW_SECONDS)
        with super().write() as tx:
            yield tx

    @contextmanager
    def write_at_once(self):
        with super().write_at_once() as tx:
            yield tx
            time.sleep(SLOW_SECONDS)


@pytest.fixture
def provider(any_provider, monkeypatch):
    """A provider in which the database, GitHub, a decision on many policies and an explanation take long."""
    slowly = {"explain": explanation.explain, "nearest_trace": explanation.nearest_trace}
    for name, function in slowly.items():
        monkeypatch.setattr(
            explanation, name, lambda *given, of=function: time.sleep(SLOW_SECONDS) or of(*given)
        )
    decide = PolicySnapshot.decide

    def decide_slowly(snapshot, *run):
        time.sleep(SLOW_SECONDS * (len(snapshot.policies) >= MANY_POLICIES))
        return decide(snapshot, *run)

    monkeypatch.setattr(PolicySnapshot, "decide", decide_slowly)
    find = any_provider.keys.find

    def find_slowly(kid):
        if kid not in any_provider.keys.published():
            off_loop(lambda: time.sleep(SLOW_SECONDS))
        return find(kid)

    monkeypatch.setattr(any_provider.keys, "find", find_slowly)
    return any_provider


def requests(provider):
    """Each way that an exchange can take, with the status of its answer."""
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
    """The statuses of requests that come at the same moment, on a loop that reports what stops it."""
    loop = asyncio.get_running_loop()
    loop.set_debug(enabled=True)
    loop.slow_callback_duration = SLOW_SECONDS * 0.75
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
    """Whatever the answer is, the loop goes on while the database, GitHub or an explanation takes its time."""
    asked = requests(provider)
    provider.store.__class__ = SlowDatabase
    caplog.set_level(logging.WARNING, "asyncio")

    statuses = asyncio.run(answers(provider.app, [body for body, _ in asked.values()]))

    assert dict(zip(asked, statuses, strict=True)) == {name: status for name, (_, status) in asked.items()}
    assert [it.getMessage() for it in caplog.records if it.name == "asyncio"] == []
