"""The backup and restore commands in docs/operations.md, run unchanged on a database in use."""

import os
import re
import shutil
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from kit.processes import BIN, ROOT, clean_environment, output_of
from kit.provider import prepare
from kit.records import audit_record
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.key_ring import KeyRing
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer

DOCUMENT = ROOT / "docs" / "operations.md"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def _commands(program):
    """The block of shell commands under "Backup and restore" that runs `program`."""
    section = DOCUMENT.read_text().partition("## Backup and restore\n")[2].partition("\n## ")[0]
    (block,) = [it for it in re.findall(r"```sh\n(.+?)```", section, re.DOTALL) if f"\n{program} " in it]
    return block


def _run(commands, folder, **variables):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environ = clean_environment() | variables | {"PATH": path}
    output_of("sh", "-eu", "-c", commands, cwd=folder, env=environ)


def _modes(folder, *names):
    """The permissions of files, by name."""
    return {name: (folder / name).stat().st_mode & 0o777 for name in names}


@pytest.fixture
def in_use():
    """Create a database with a used token, a signing key and sealed audit records, whose last write is only in the WAL."""

    def make(url):
        store = Database(prepare(url))
        with store.write() as tx:
            assert tx.used_tokens.claim(UsedToken("issuer", "used", NOW))
            tx.audit.append(audit_record(NOW))
        Sealer(store, lambda: NOW).run()
        return store

    return make


def _check(url):
    """Assert that the restored database has the current schema, the used token, the key and a valid audit chain."""
    assert schema.migrate(url) == []
    with Database(url) as store:
        with store.write() as tx:
            assert not tx.used_tokens.claim(UsedToken("issuer", "used", NOW))
            assert KeyRing(()).current(tx).active
        report = AuditChain(store).verify()
        assert (report["reason"], report["unsealed"]) == (None, 0)
        assert report["checked"] > 0


def test_sqlite(tmp_path, in_use):
    """A `backup` of an open database contains the writes in the WAL, and only its owner can read it."""
    with in_use(f"sqlite:///{tmp_path}/provider.db"):
        assert (tmp_path / "provider.db-wal").stat().st_size > 0
        _run(_commands("sentryagent-idp"), tmp_path)

    assert _modes(tmp_path, "backup.db", "restored.db") == {"backup.db": 0o600, "restored.db": 0o600}
    _check(f"sqlite:///{tmp_path}/restored.db")


@pytest.mark.postgres
@pytest.mark.skipif(shutil.which("pg_dump") is None, reason="no pg_dump on PATH")
def test_postgresql(tmp_path, in_use, postgres_cluster, postgres_url):
    """A `pg_dump` while the provider is connected can be restored into a new database."""
    name = f"restored_{uuid4().hex}"
    postgres_cluster.execute(f"CREATE DATABASE {name}")
    target = postgres_cluster.url(name)
    try:
        with in_use(postgres_url):
            urls = {"DATABASE": postgres_url, "NEW_DATABASE": target}
            plain = {key: url.replace("+psycopg", "") for key, url in urls.items()}
            _run(_commands("pg_dump"), tmp_path, **plain)
        assert _modes(tmp_path, "provider.dump") == {"provider.dump": 0o600}
        _check(target)
    finally:
        postgres_cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")
