"""Used and revoked tokens, on both engines."""

from datetime import timedelta

import pytest

from kit.threads import at_once, writing
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.store.database import Database

ISSUER = "https://token.actions.githubusercontent.com"


def test_a_token_is_used_up_by_the_first_claim(database, now):
    """The first claim of a token wins, every later one fails; the same `jti` of another issuer is another token."""
    with database.write() as tx:
        assert not tx.used_tokens.contains(ISSUER, "a")
        assert tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
        assert not tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
    with database.write() as tx:
        assert not tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
        assert tx.used_tokens.claim(UsedToken("https://other.example", "a", now))
    with database.read() as tx:
        assert tx.used_tokens.contains(ISSUER, "a")
        assert not tx.used_tokens.contains(ISSUER, "A")


def test_of_claims_at_once_one_wins(database, other_database, now):
    """Of sixteen concurrent claims of one token on two replicas, one wins."""

    def claiming(replica):
        def claim():
            with replica.write() as tx:
                return tx.used_tokens.claim(UsedToken(ISSUER, "a", now))

        return claim

    outcomes = at_once(*[claiming(replica) for replica in (database, other_database) * 8])
    assert sorted(outcomes) == [False] * 15 + [True]


def test_several_are_claimed_together(database, now):
    """`claim_all` decides for each token by itself; of duplicates the first one wins."""
    with database.write() as tx:
        assert tx.used_tokens.claim(UsedToken(ISSUER, "used", now))
    names = ["a", "used", "b", "a", "used", "c"]
    with database.write() as tx:
        claimed = tx.used_tokens.claim_all([UsedToken(ISSUER, name, now) for name in names])

    assert claimed == [True, False, True, False, False, True]
    with database.read() as tx:
        assert all(tx.used_tokens.contains(ISSUER, name) for name in names)


@pytest.mark.parametrize("order", [1, -1])
def test_all_replicas_claim_in_one_order(database, statements, now, order):
    """Tokens are claimed in the order of their digests, so that two replicas never deadlock."""
    with database.write() as tx:
        tx.used_tokens.claim_all([UsedToken(ISSUER, str(number), now) for number in range(20)][::order])

    (values,) = (values for _, values in statements if values)
    # Unwrap the drivers' own types for bytes: memoryview, and psycopg's Binary.
    digests = [bytes(getattr(it, "obj", it)) for it in values if not isinstance(it, int)]
    assert len(digests) == 20
    assert digests == sorted(digests)


def test_a_claim_that_is_rolled_back_burns_nothing(database, now):
    """A token stays usable if its claim is rolled back."""

    def fail():
        with database.write() as tx:
            tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with database.write() as tx:
        assert tx.used_tokens.claim(UsedToken(ISSUER, "a", now))


@pytest.mark.parametrize("jti", ["", "x" * 100_000, "nul\0", "\ud800", "' OR '1'='1", "%", "ü"])
def test_any_jti_can_be_used_up(database, now, jti):
    """A `jti` may have any length and any characters, even those that PostgreSQL's text refuses."""
    with database.write() as tx:
        assert tx.used_tokens.claim(UsedToken(ISSUER, jti, now))
        assert tx.used_tokens.contains(ISSUER, jti)
        assert not tx.used_tokens.contains(ISSUER, f"{jti}_")


def test_a_token_is_kept_until_its_time_is_past(database, now):
    """A purge removes expired tokens, but not one that expires now (B7), oldest first and at most `limit`."""
    with database.write() as tx:
        for age in (-1, 0, 1, 2, 3):
            tx.used_tokens.claim(UsedToken(ISSUER, str(age), now - timedelta(microseconds=age)))
        assert tx.used_tokens.purge(now, limit=2) == 2
        assert [tx.used_tokens.contains(ISSUER, str(age)) for age in (-1, 0, 1, 2, 3)] == [
            True,
            True,
            True,
            False,
            False,
        ]
        assert tx.used_tokens.purge(now, limit=100) == 1
        assert tx.used_tokens.purge(now, limit=100) == 0
        assert tx.used_tokens.contains(ISSUER, "0")


def test_replicas_that_purge_at_once_take_each_row_once(database, other_database, now):
    """Concurrent purges neither fail nor count a row twice."""
    with database.write() as tx:
        for number in range(40):
            tx.used_tokens.claim(UsedToken(ISSUER, str(number), now))

    def purge(tx):
        return tx.used_tokens.purge(now + timedelta(seconds=1), limit=10)

    assert at_once(*[writing(it, purge) for it in (database, other_database) * 2]) == [10] * 4


@pytest.mark.postgres
def test_a_purge_does_not_wait_for_another(migrated_postgres_url, now):
    """On PostgreSQL, two concurrent purges take different rows."""
    with Database(migrated_postgres_url) as database:
        with database.write() as tx:
            for number in range(5):
                tx.used_tokens.claim(UsedToken(ISSUER, str(number), now))
        later = now + timedelta(seconds=1)
        with database.write() as first, database.write() as second:
            assert first.used_tokens.purge(later, limit=3) == 3
            assert second.used_tokens.purge(later, limit=3) == 2


def test_a_revoked_token_stays_revoked(database, other_database, now):
    """Revoking a token again changes nothing, and every replica sees the revocation at once."""
    with database.write() as tx:
        tx.revoked_tokens.add("a", keep_until=now)
        tx.revoked_tokens.add("a", keep_until=now - timedelta(days=1))
    with other_database.read() as tx:
        assert tx.revoked_tokens.contains("a")
        assert not tx.revoked_tokens.contains("b")
    with database.write() as tx:
        assert tx.revoked_tokens.purge(now, limit=10) == 0
        assert tx.revoked_tokens.purge(now + timedelta(microseconds=1), limit=10) == 1
        assert not tx.revoked_tokens.contains("a")
