"""Reading the audit log (docs/audit.md)."""

import re

import pytest

from kit.processes import ROOT
from kit.provider import AUDIT, NOBODY
from kit.refusals import assert_invalid, assert_refused
from sentryagent_idp.domain.audit import Action
from sentryagent_idp.use_cases.sealing import Sealer

MEMBERS = {
    "eventId",
    "timestamp",
    "action",
    "outcome",
    "actor",
    "agentId",
    "policyId",
    "policyVersion",
    "repository",
    "requestId",
    "address",
    "details",
}


@pytest.fixture
def history(provider):
    """A policy, an exchange, a registration and a refusal, one minute apart."""
    provider.policy(branch="main")
    provider.clock.advance(60)
    headers = provider.bootstrap_headers()
    provider.clock.advance(60)
    provider.agent(headers=headers)
    provider.clock.advance(60)
    provider.http.post(
        "/api/v1/oidc/token",
        json={"token": provider.github_token(ref="refs/heads/dev")},
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )
    return provider.audit()[::-1]


def documented():
    """The fields of `details` by action, from the manual's table of actions."""
    section = (ROOT / "docs" / "audit.md").read_text().partition("## Actions\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `") and "." in line]
    return {
        action: set(re.findall(r"`(\w+)`", fields))
        for actions, _, fields in rows
        for action in re.findall(r"`([\w.]+)`", actions)
    }


def test_the_manual_lists_every_action():
    """The manual lists exactly the actions that exist, so that a reader can filter by them."""
    assert set(documented()) == set(Action)


def test_the_manual_lists_what_the_details_have(provider):
    """The manual lists every field of `details`, except the run's claims, which it describes separately."""
    policy = provider.policy(trustRegistered=True)
    agent = provider.agent(headers=provider.bootstrap_headers())["agentId"]
    provider.service("https://deploy.example.com", "deploy:production")
    provider.client(agent)
    provider.patch(f"/api/v1/agents/{agent}", json={"status": "suspended"})
    provider.replace_policy(policy, description="Registers bots")
    provider.delete(f"/api/v1/oidc/trust-policies/{policy['id']}")
    provider.delete(f"/api/v1/agents/{agent}")
    records = [it for it in provider.audit() if not it["action"].startswith("token.")]

    fields = documented()

    assert len({it["action"] for it in records}) >= 9
    unknown = {
        (it["action"], name) for it in records for name in it["details"] if name not in fields[it["action"]]
    }
    assert unknown - {(it["action"], "person") for it in records} == set()


def actions_of(records):
    """The records' actions in order, without those of signing keys, which have their own tests."""
    return [it["action"] for it in records if not it["action"].startswith("key.")]


def page(provider, query=""):
    return provider.get(f"{AUDIT}?{query}").json


def test_records_have_their_members(history):
    """Every record has the same fields, and each event its own id."""
    assert {frozenset(record) for record in history} == {frozenset(MEMBERS)}
    assert len({record["eventId"] for record in history}) == len(history)
    assert actions_of(history) == [
        "admin.token_issued",
        "policy.created",
        "policy.pinned",
        "token.issued",
        "agent.created",
        "token.refused",
    ]


def test_newest_first_in_pages(provider, history):
    """The list is paged and starts with the newest event."""
    ids = [it["eventId"] for it in history][::-1]

    pages = [page(provider, f"limit=4&page={number}&count=true") for number in (1, 2)]

    assert [it["eventId"] for one in pages for it in one["data"]] == ids
    assert {(one["total"], one["limit"]) for one in pages} == {(len(ids), 4)}
    assert [one["page"] for one in pages] == [1, 2]


@pytest.mark.parametrize("query", ["", "count=false"])
def test_no_total_unless_it_is_asked_for(provider, history, query):
    """The total is left out by default: counting a long audit log is slow, and few readers need it."""
    assert page(provider, query).keys() == {"data", "next", "page", "limit"}


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_the_cursor_walks_the_whole_audit(any_provider, order):
    """Following `next` gives each record once and in order; both orders give the same records."""
    for number in range(7):
        any_provider.agent(f"bot{number}@octo-org.example")
    Sealer(any_provider.store, any_provider.clock).run()
    newest_first = [it["eventId"] for it in any_provider.audit()]
    read, after = [], ""
    while after is not None:
        found = page(any_provider, f"limit=3&order={order}{after and '&after='}{after}")
        read += [it["eventId"] for it in found["data"]]
        after = found["next"]

    assert read == (newest_first if order == "newest" else newest_first[::-1])


@pytest.mark.parametrize(
    "name",
    [
        "eventId",
        "action",
        "outcome",
        "actor",
        "agentId",
        "policyId",
        "policyVersion",
        "repository",
        "requestId",
        "address",
    ],
)
def test_filters(provider, history, name):
    """Each field of a record can be filtered by its name."""
    for value in {record[name] for record in history} - {None}:
        found = provider.audit(**{name: value})
        assert {it["eventId"] for it in found} == {it["eventId"] for it in history if it[name] == value}


@pytest.mark.parametrize(
    ("peer", "stored", "spellings"),
    [
        ("192.0.2.7", "192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207"]),
        ("::ffff:192.0.2.7", "192.0.2.7", ["192.0.2.7", "::ffff:c000:0207"]),
        ("2001:DB8:0::1", "2001:db8::1", ["2001:db8::1", "2001:0DB8:0:0:0:0:0:1", "2001:db8::0:1"]),
    ],
)
def test_an_address_is_found_by_every_spelling(any_provider, peer, stored, spellings):
    """Records store one spelling of an address; the filter accepts every spelling."""
    any_provider.http.post(
        "/api/v1/oidc/token",
        json={"token": any_provider.github_token()},
        environ_base={"REMOTE_ADDR": peer},
    )

    for spelling in spellings:
        (record,) = any_provider.audit(address=spelling)
        assert record["address"] == stored
    assert any_provider.audit(address="192.0.2.8") == []


def test_a_counted_refusal_is_found_by_its_network(provider):
    """Refusals before the signature check are counted for the /64, so the /64 finds them."""
    provider.http.post(
        "/api/v1/oidc/token", json={"token": "x"}, environ_base={"REMOTE_ADDR": "2001:db8:1:2::7"}
    )
    provider.end_minute()

    (record,) = provider.audit(address="2001:DB8:1:2:0:0:0:0/64")
    assert record["address"] == "2001:db8:1:2::/64"


def test_filters_are_anded(provider, history):
    """Filters are combined with AND; the repository is compared case-insensitively."""
    assert len(provider.audit(repository="OCTO-ORG/hello-agent")) == len(
        [it for it in history if it["repository"]]
    )
    assert len(provider.audit(repository="octo-org/hello-agent", outcome="failure")) == 1
    assert provider.audit(action="token.issued", outcome="failure") == []


def test_time_filters(provider, history):
    """`from` is inclusive and `to` is exclusive, in any time zone."""

    def actions(**query):
        return actions_of(provider.audit(**query)[::-1])

    assert actions(**{"from": "2026-11-24T12:02:00Z"}) == ["agent.created", "token.refused"]
    assert actions(to="2026-11-24T12:01:00Z") == ["admin.token_issued", "policy.created"]
    assert actions(**{"from": "2026-11-24T14:02:00+02:00", "to": "2026-11-24T12:03:00Z"}) == ["agent.created"]


def test_after_gives_what_follows(provider, history):
    """`after` is the last event already seen; by default the list continues with older events."""
    ids = [it["eventId"] for it in history]

    assert [it["eventId"] for it in provider.audit(after=ids[2])] == ids[:2][::-1]
    assert [it["eventId"] for it in provider.audit(after=ids[2], order="oldest")] == ids[3:]
    assert provider.audit(after=ids[0]) == provider.audit(after=ids[-1], order="oldest") == []


def test_deep_pages_name_the_cursor(provider, history):
    """Pages go up to 100; a request beyond that is refused and pointed to `after`."""
    assert page(provider, "page=100")["data"] == []
    answer = provider.get(f"{AUDIT}?page=101")

    assert_invalid(answer, "page")
    assert "from 1 to 100; to read further, set `after`" in answer.json["message"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("eventId=x", "eventId"),
        ("agentId=1", "agentId"),
        ("policyId=", "policyId"),
        ("after=x", "after"),
        ("policyVersion=x", "policyVersion"),
        ("policyVersion=-1", "policyVersion"),
        ("policyVersion=9999999999", "policyVersion"),
        ("from=yesterday", "from"),
        ("to=2026-11-24", "to"),
        ("from=2026-11-24T12:00:00", "from"),
        ("from=0001-01-01T00:00:00%2B23:59", "from"),
        ("to=9999-12-31T23:59:59-23:59", "to"),
        ("metadata=x", "metadata"),
        ("order=up", "order"),
        ("order=", "order"),
        ("count=1", "count"),
        ("page=101", "page"),
        (f"after={NOBODY}", "after"),
        (f"after={NOBODY}&order=oldest", "after"),
    ],
)
def test_wrong_filters(still_provider, query, field):
    """An invalid filter is refused by name, never ignored."""
    assert_invalid(still_provider.get(f"{AUDIT}?{query}"), field)


@pytest.mark.parametrize("query", ["action=nothing", "outcome=maybe", f"eventId={NOBODY}", "actor="])
def test_filters_that_match_nothing(provider, history, query):
    """An unknown value gives an empty list."""
    assert page(provider, query)["data"] == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nobody_writes(provider, method):
    """No request can write to the audit log directly."""
    answer = provider.call(method, AUDIT, json={})

    assert_refused(answer, 405, "METHOD_NOT_ALLOWED", {})
