"""The rows of a provider's database after long use, inserted directly: through its API it would take minutes to days."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.workload import REPOSITORIES

_FAR = 4_070_908_800_000_000
"""The year 2099 in microseconds since the epoch, so that housekeeping does not delete the row."""
_NUMBERS = (
    "WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?)"
)


@dataclass(frozen=True, slots=True)
class Growth:
    """A number of `rows` of one kind; `remark` tells the report's readers how the load uses them."""

    rows: int
    of: str
    remark: str
    insert: Callable[[sqlite3.Connection, int], None]

    def __str__(self) -> str:
        return f"{self.rows:,} {self.of}"

    def fill(self, path: Path) -> None:
        """Insert the rows into a provider's SQLite file."""
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            self.insert(connection, self.rows)
            # Otherwise the write-ahead log would keep its length after the rows, and a log that need not grow is
            # faster.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _policies(connection: sqlite3.Connection, rows: int) -> None:
    """Copy a policy for other repositories, so that there are `rows` with the existing ones."""
    others = {
        "id": "printf('00000000-0000-4000-8000-%012x', number)",
        "repository": "'octo-org/other-' || number",
        "repository_key": "'octo-org/other-' || number",
        "conditions_key": "lower(hex(randomblob(32)))",
    }
    columns = [row[1] for row in connection.execute("PRAGMA table_info(oidc_trust_policies)")]
    connection.execute(
        f"{_NUMBERS} INSERT INTO oidc_trust_policies ({', '.join(columns)}) "  # noqa: S608 - names of our own table
        f"SELECT {', '.join(others.get(name, name) for name in columns)} "
        "FROM (SELECT * FROM oidc_trust_policies LIMIT 1), numbers",
        (rows - len(REPOSITORIES),),
    )


def _used_tokens(connection: sqlite3.Connection, rows: int) -> None:
    """Insert random digests in sorted order: ten million in random order would take many minutes."""
    connection.execute(
        f"{_NUMBERS} INSERT INTO used_tokens (token_digest, keep_until) "  # noqa: S608 - no value of anybody's
        "SELECT randomblob(32), ? FROM numbers ORDER BY 1",
        (rows, _FAR),
    )


POLICIES = Growth(
    100_000,
    "policies",
    f"instead of {len(REPOSITORIES)}; the load comes from the same {len(REPOSITORIES)} repositories",
    _policies,
)
USED_TOKENS = Growth(
    10_000_000, "used tokens", "that are still stored; each new token is looked up among them", _used_tokens
)
