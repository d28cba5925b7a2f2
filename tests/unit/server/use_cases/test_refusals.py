"""Counting refusals that anyone can cause, so that they cannot fill the disk."""

from dataclasses import replace
from uuid import UUID

from sentryagent_idp.use_cases.refusals import NOBODY, CredentialRefusal, RefusalCounter, RunRefusal

CODE = "INVALID_OIDC_TOKEN"
ISSUER = "https://token.actions.githubusercontent.com"
AGENT = UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
REFUSAL = RunRefusal("BRANCH_NOT_PERMITTED", "branch", ISSUER, "74", AGENT, "octo-org/hello-agent", "repo:x")


def test_count_by_kind():
    """Refusals are counted separately by code, reason, address and actor."""
    counter = RefusalCounter()
    for reason, address in [("expired", "192.0.2.1"), ("expired", "192.0.2.1"), ("malformed", None)]:
        counter.count(CODE, reason, address)
    counter.count("INVALID_CLIENT", "expired", "192.0.2.1", "admin-1")

    assert counter.drain() == {
        CredentialRefusal(CODE, "expired", "192.0.2.1", NOBODY): 2,
        CredentialRefusal(CODE, "malformed", "unknown", NOBODY): 1,
        CredentialRefusal("INVALID_CLIENT", "expired", "192.0.2.1", "admin-1"): 1,
    }


def test_drain_starts_again():
    """Drained counts are not counted again."""
    counter = RefusalCounter()
    counter.count(CODE, "expired", "192.0.2.1")
    counter.drain()

    assert counter.drain() == {}


def test_one_network_is_one_kind():
    """A /64 counts as one address, because its owner can use all of its addresses."""
    counter = RefusalCounter()
    for number in range(1500):
        counter.count(CODE, "malformed", f"2001:db8::{number:x}")

    assert counter.drain() == {CredentialRefusal(CODE, "malformed", "2001:db8::/64", NOBODY): 1500}


def test_bounded_memory():
    """Beyond a hundred kinds, new ones are counted together by code and reason; known ones stay separate."""
    counter = RefusalCounter()
    for number in range(1500):
        counter.count(CODE, "malformed", f"2001:db8:{number:x}::1")
    counter.count(CODE, "expired", "192.0.2.1")
    counter.count(CODE, "malformed", "2001:db8:0::7")

    counts = counter.drain()

    assert len(counts) == 102
    assert counts[CredentialRefusal(CODE, "malformed", "others", NOBODY)] == 1400
    assert counts[CredentialRefusal(CODE, "expired", "others", NOBODY)] == 1
    assert counts[CredentialRefusal(CODE, "malformed", "2001:db8::/64", NOBODY)] == 2


def test_the_first_of_a_kind_is_not_counted():
    """The first refusal of a kind is audited in full; the others are counted until the counter is drained."""
    counter = RefusalCounter()

    assert [counter.is_first(REFUSAL) for _ in range(3)] == [True, False, False]
    assert counter.drain() == {REFUSAL: 2}
    assert [counter.is_first(REFUSAL) for _ in range(2)] == [True, False]


def test_what_makes_a_kind():
    """A kind is code, reason, issuer, repository id and agent; the repository's name does not matter."""
    counter = RefusalCounter()
    counter.is_first(REFUSAL)

    others = [
        replace(REFUSAL, code="TRUST_POLICY_VIOLATION"),
        replace(REFUSAL, reason="tag"),
        replace(REFUSAL, issuer="https://ghes.example.com"),
        replace(REFUSAL, repository_id="75"),
        replace(REFUSAL, agent_id=None),
    ]
    assert [counter.is_first(it) for it in others] == [True] * 5
    assert not counter.is_first(replace(REFUSAL, repository="OCTO-org/renamed", actor="repo:y"))


def test_strangers_have_a_bound_of_their_own():
    """A hundred kinds per code and reason are kept apart and later ones counted together; other codes are unaffected."""
    counter = RefusalCounter()
    firsts = [
        counter.is_first(replace(REFUSAL, reason="no_policy", repository_id=str(number)))
        for number in range(600)
    ]
    for number in range(600):
        counter.count(CODE, "malformed", f"2001:db8:{number:x}::1")

    assert firsts == [True] * 100 + [False] * 500
    assert counter.is_first(REFUSAL)
    (count,) = [count for kind, count in counter.drain().items() if isinstance(kind, RunRefusal)]
    assert count == 500


def test_one_repository_hides_no_other():
    """Five agents of a repository are kept apart; later ones are counted together for this repository only."""
    counter = RefusalCounter()
    firsts = [counter.is_first(replace(REFUSAL, agent_id=UUID(int=number))) for number in range(300)]
    other = replace(REFUSAL, repository_id="75")

    assert firsts == [True] * 5 + [False] * 295
    assert counter.is_first(other)
    assert counter.drain() == {replace(REFUSAL, agent_id=None): 295}


def test_a_first_that_was_not_written_is_made_up_for():
    """If a first refusal was not written, the next one is audited in full, and the counts are kept."""
    counter = RefusalCounter()
    assert counter.is_first(REFUSAL)
    assert not counter.is_first(REFUSAL)
    counter.audit_next(REFUSAL)

    assert [counter.is_first(REFUSAL) for _ in range(2)] == [True, False]
    assert counter.drain() == {REFUSAL: 2}


def test_what_is_put_back_is_added():
    """Counts that could not be written are added to the new ones, within the same limit."""
    counter = RefusalCounter()
    for number in range(150):
        counter.count(CODE, "malformed", f"2001:db8:{number:x}::1")
    counter.is_first(REFUSAL)
    counter.is_first(REFUSAL)
    drained = counter.drain()
    for number in range(150):
        counter.count(CODE, "malformed", f"2001:db8:{number:x}::1")
    counter.put_back(drained)

    assert counter.is_first(REFUSAL)
    counts = counter.drain()
    assert len(counts) == 102
    assert sum(counts.values()) == 150 + 150 + 1
    assert counts[REFUSAL] == 1
