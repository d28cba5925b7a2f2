"""Callers, recognised by the token's subject."""

from uuid import UUID

import pytest

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.caller import Caller, CallerKind

AGENT = "5b0b1c1e-5d3f-4f0e-9d58-1f6b8f0b7a11"


@pytest.mark.parametrize(
    ("subject", "kind", "is_admin", "agent_id", "repository_id"),
    [
        ("admin-cli", CallerKind.ADMIN, True, None, None),
        (f"admin-{AGENT}", CallerKind.ADMIN, True, None, None),
        ("repo:acme/api", CallerKind.BOOTSTRAP, False, None, "101"),
        ("repo:admin-x/y", CallerKind.BOOTSTRAP, False, None, "101"),
        (AGENT, CallerKind.AGENT, False, UUID(AGENT), None),
    ],
)
def test_kinds_of_callers(subject, kind, is_admin, agent_id, repository_id):
    """The subject's prefix determines the kind of caller, and each kind has only its own identity."""
    caller = Caller(subject, ("agents:write",), "j", 0, 1, {"repository_id": "101"})
    assert (caller.kind, caller.is_admin, caller.agent_id, caller.repository_id) == (
        kind,
        is_admin,
        agent_id,
        repository_id,
    )


@pytest.mark.parametrize(
    ("subject", "client"),
    [("admin-cli", None), (f"admin-{AGENT}", f"admin-{AGENT}"), ("repo:acme/api", None), (AGENT, None)],
)
def test_admin_client_of_a_caller(subject, client):
    """Every administrator except the command line is a client, whose record decides whether its tokens are valid."""
    assert Caller(subject, (), "j", 0, 1).admin_client_id == client


def test_scopes_of_a_caller():
    """Write scopes include the read scope, and no other scope includes another."""
    caller = Caller("admin-cli", ("agents:write", "audit:read"), "j", 0, 1)
    every = ("agents:read", "agents:write", "tokens:read", "audit:read", "policies:read", "policies:write")
    held = [scope for scope in every if caller.holds(scope)]
    assert held == ["agents:read", "agents:write", "audit:read"]
    assert caller.repository_id is None


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        ("agents:read", {"agents:read"}),
        ("agents:write", {"agents:read", "agents:write"}),
        ("tokens:read", {"tokens:read"}),
        ("audit:read", {"audit:read"}),
        ("policies:read", {"policies:read"}),
        ("policies:write", {"policies:read", "policies:write"}),
    ],
)
def test_what_each_scope_allows(held, allowed):
    """A `…:write` scope includes its own `…:read`, and no other."""
    assert {scope for scope in scopes.ALL_SCOPES if scopes.satisfies([held], scope)} == allowed


def test_every_scope_that_writes_reads():
    """Every write scope, even a future one, includes its read scope."""
    writing = [scope for scope in scopes.ALL_SCOPES if scope.endswith(":write")]
    assert len(writing) >= 2
    assert all(scopes.satisfies([scope], scope.replace(":write", ":read")) for scope in writing)


def test_scope_lists():
    """A scope list keeps its order without duplicates, and is rendered with single spaces (RFC 6749, 3.3)."""
    assert scopes.parse(" b  a b ") == ("b", "a")
    assert scopes.parse("") == ()
    assert scopes.render(("b", "a")) == "b a"
