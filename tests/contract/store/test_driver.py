"""Statements that bypass SQLAlchemy fail with the same errors as its own."""

import pytest
from sqlalchemy.exc import IntegrityError

from sentryagent_idp.errors import DatabaseUnavailable, ValidationFailed
from sentryagent_idp.store import driver
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.settings import SETTINGS


@pytest.fixture
def run(database):
    """Run a statement in its own transaction."""

    def run(statement, values=()):
        with database.write() as tx:
            return driver.run(tx.settings._connection, statement, values)

    return run


def test_rows_have_the_drivers_own_values(run):
    """Rows keep the driver's own values; a statement that returns no rows gives an empty result."""
    run("INSERT INTO facts (name, value) VALUES ('a', 'b')")
    assert list(run("SELECT name, value FROM facts")) == [("a", "b")]
    assert list(run("DELETE FROM facts")) == []


def test_a_broken_constraint_is_an_integrity_error(run):
    """The error names the constraint, never the values."""
    insert = "INSERT INTO facts (name, value) VALUES ('secret name', 'b')"
    run(insert)
    with pytest.raises(IntegrityError) as raised:
        run(insert)
    assert raised.value.hide_parameters
    assert raised.value.statement == insert
    assert "facts" in str(raised.value.orig)


@pytest.mark.postgres
def test_a_value_that_postgresql_cannot_hold_is_the_requests_fault(migrated_postgres_url):
    """A value that PostgreSQL cannot store is a `ValidationFailed`."""
    with (
        Database(migrated_postgres_url) as database,
        pytest.raises(ValidationFailed),
        database.write() as tx,
    ):
        driver.run(tx.settings._connection, "INSERT INTO facts (name, value) VALUES (%s, %s)", ("nul\0", "b"))


@pytest.mark.postgres
def test_a_connection_that_broke_is_not_used_again(migrated_postgres_url):
    """A broken connection makes the transaction fail, and the next one gets a new connection."""
    broken = []

    def end_the_connection(tx):
        broken.append(tx.settings._connection.connection.dbapi_connection)
        driver.run(tx.settings._connection, "SELECT pg_terminate_backend(pg_backend_pid())")

    with Database(migrated_postgres_url) as database:
        with pytest.raises(DatabaseUnavailable), database.write() as tx:
            end_the_connection(tx)
        with database.write() as tx:
            assert list(driver.run(tx.settings._connection, "SELECT 1")) == [(1,)]
            assert tx.settings._connection.connection.dbapi_connection is not broken[0]


def test_some_rows_are_new_and_the_others_are_left_as_they_are(database):
    """`InsertMany.new` returns the keys of the rows that it inserted; existing rows do not change."""
    insert = driver.InsertMany(SETTINGS, ("name", "value"))
    with database.write() as tx:
        connection = tx.settings._connection
        insert(connection, [("a", '"first"')])
        assert insert.new(connection, [(name, '"second"') for name in "abc"]) == {"b", "c"}
        assert {name: tx.settings.get(name) for name in "abc"} == {"a": "first", "b": "second", "c": "second"}
