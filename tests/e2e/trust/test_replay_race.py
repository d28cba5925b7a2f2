"""Concurrent exchanges of one GitHub token yield one access token, with either database and any number of workers."""

import contextlib
import sqlite3
from collections import Counter
from functools import partial

import pytest

from kit.threads import at_once
from kit.tokens import claims_of

RACERS = 100
ENGINES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
BREAK = {
    "sqlite": "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no space'); END",
    "postgres": (
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no space'; END $$; "
        "CREATE TRIGGER broken BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION broken()"
    ),
}
REPAIR = {"sqlite": "DROP TRIGGER broken", "postgres": "DROP TRIGGER broken ON audit_log"}


@pytest.fixture
def database_url(request, tmp_path):
    """The URL of a new database of the parametrised engine."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'race.db'}"


@pytest.mark.parametrize("database_url", ENGINES, indirect=True)
@pytest.mark.parametrize("workers", [1, 4])
def test_of_a_hundred_exchanges_of_one_token_one_succeeds(database_url, workers, serve, errors_in):
    """A stolen token raced against its job is exchanged once: one 200, 99 times 401 `replayed`, no 5xx (A18, B6)."""
    server = serve(workers=workers, database_url=database_url)
    token = server.token()

    answers = at_once(*[lambda: server.exchange(token)] * RACERS)

    outcomes = Counter(
        (answer.status_code, answer.json().get("details", {}).get("reason")) for answer in answers
    )
    assert outcomes == {(200, None): 1, (401, "replayed"): RACERS - 1}
    (issued,) = server.audit("token.issued")
    (winner,) = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    assert issued["details"]["issuedJti"] == claims_of(winner)["jti"]
    # Each worker records its first refusal at once and counts the others until the minute is over.
    assert 1 <= len(server.audit("token.refused")) <= workers
    assert not errors_in()


@pytest.mark.parametrize("database_url", ENGINES, indirect=True)
def test_different_tokens_at_once_all_succeed(database_url, serve, errors_in):
    """Concurrent exchanges of a hundred different tokens all succeed, each with its own access token."""
    server = serve(workers=4, database_url=database_url)
    tokens = [server.token() for _ in range(RACERS)]

    answers = at_once(*(partial(server.exchange, token) for token in tokens))

    assert Counter(answer.status_code for answer in answers) == {200: RACERS}
    assert len({answer.json()["access_token"] for answer in answers}) == RACERS
    assert not errors_in()


@pytest.mark.parametrize("database_url", ENGINES, indirect=True)
def test_no_token_leaves_without_its_audit_record(database_url, serve):
    """If the audit cannot be written, the exchange fails, and the GitHub token stays usable for later."""
    server = serve(database_url=database_url)
    token = server.token()
    execute(database_url, BREAK)

    refused = server.exchange(token)

    assert refused.status_code >= 500
    assert "access_token" not in refused.text
    execute(database_url, REPAIR)
    assert server.exchange(token).status_code == 200
    assert len(server.audit("token.issued")) == 1


def execute(database_url, statements):
    """Run the engine's statement directly in the database."""
    engine, _, address = database_url.partition(":")
    if engine == "sqlite":
        with contextlib.closing(sqlite3.connect(address.removeprefix("///"))) as connection:
            connection.execute(statements["sqlite"])
            return
    import psycopg

    with psycopg.connect(f"postgresql:{address}", autocommit=True) as connection:
        connection.execute(statements["postgres"])
