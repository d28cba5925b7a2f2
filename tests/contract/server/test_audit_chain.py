"""`GET /audit/verify` over a real history, and independent verification of an export."""

import json
import re
import sqlite3
import sys
from contextlib import closing

import pytest
from sqlalchemy import text

from kit.processes import ROOT, Served, clean_environment, run, wait_until
from kit.provider import good
from sentryagent_idp.use_cases.housekeeping import Housekeeping
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer

MANUAL = ROOT / "docs" / "audit.md"


@pytest.fixture
def seal(provider):
    """Seals all unsealed records."""
    return Sealer(provider.store, provider.clock).run


def verify(provider):
    return good(provider.get("/api/v1/audit/verify"))


def sql(provider, statement, **parameters):
    with provider.store.write() as tx:
        tx.settings._connection.execute(text(statement), parameters)


@pytest.fixture
def busy(provider, seal):
    """A provider with a sealed history: a policy, a registration and a refusal."""
    provider.policy()
    provider.agent(headers=provider.bootstrap_headers())
    provider.exchange(provider.github_token(), agentId="3f2504e0-4f89-41d3-9a0c-0305e82c3301")
    seal()
    return provider


def test_sound_chain(busy):
    """Every record is confirmed, and none is left unsealed."""
    total = busy.get("/api/v1/audit?count=true").json["total"]
    last = list(AuditChain(busy.store).sealed(None, None))[-1]

    assert verify(busy) == {
        "valid": True,
        "checked": total,
        "checkedUpTo": total,
        "firstBroken": None,
        "head": {"seal": total, "hash": last["hash"]},
        "reason": None,
        "unsealed": 0,
        "missing": 0,
    }


def test_what_happens_is_sealed_with_its_record(busy):
    """On SQLite a record is sealed when it is written."""
    before = verify(busy)["checked"]
    busy.agent("other@octo-org.example")

    after = verify(busy)

    assert (after["valid"], after["checked"], after["unsealed"]) == (True, before + 1, 0)


def test_changed_record_is_named(busy):
    """The reported event id finds the changed record in `GET /audit`."""
    sql(busy, "UPDATE audit_log SET actor = 'nobody' WHERE action = 'agent.created'")

    answer = verify(busy)

    assert answer["valid"] is False
    (record,) = busy.audit(eventId=answer["firstBroken"])
    assert record["action"] == "agent.created"
    assert answer["reason"].endswith("or its record was changed")


def test_removed_record_is_named(busy):
    """A removed record leaves its seal, which still names it."""
    (record,) = busy.audit(action="agent.created")
    sql(busy, "DELETE FROM audit_log WHERE event_id = :it", it=record["eventId"])

    answer = verify(busy)

    assert (answer["valid"], answer["firstBroken"]) == (False, record["eventId"])


def head(provider):
    """Return the seal number and hash of the head, and whether the chain is sound."""
    report = verify(provider)
    return report["head"]["seal"], report["head"]["hash"], report["valid"]


def test_who_keeps_the_head_finds_a_cut_end(busy, seal):
    """Truncating records and seals leaves a sound chain, but its head no longer matches the one kept before."""
    number, kept, _ = head(busy)
    lines = list(AuditChain(busy.store).sealed(None, None))
    cut = number - 2
    sql(busy, "DELETE FROM audit_log WHERE sequence > :it", it=cut)
    sql(busy, "DELETE FROM audit_seals WHERE seal > :it", it=cut)
    sql(busy, "UPDATE sqlite_sequence SET seq = :it WHERE name = 'audit_log'", it=cut)

    assert head(busy) == (cut, lines[cut - 1]["hash"], True)
    busy.clock.advance(1)
    for name in ("one", "two"):
        busy.agent(f"{name}@octo-org.example")
    seal()
    again, changed, is_valid = head(busy)
    assert (again, is_valid) == (number, True)
    assert changed != kept


def test_head_of_a_broken_chain(busy):
    """The head is the last seal before the break, or the start of the chain if the first seal is broken."""
    lines = list(AuditChain(busy.store).sealed(None, None))
    sql(busy, "UPDATE audit_log SET actor = 'nobody' WHERE sequence = 3")
    assert head(busy) == (2, lines[1]["hash"], False)
    sql(busy, "UPDATE audit_log SET actor = 'nobody' WHERE sequence = 1")
    assert head(busy) == (0, "0" * 64, False)


def test_head_of_an_empty_chain(provider):
    """Before the first seal, the head is the hash that the first record will follow."""
    assert head(provider) == (0, "0" * 64, True)


def test_verification_needs_its_scope_and_takes_no_parameters(provider):
    """Verification needs the scope for reading the audit log; unknown parameters are refused."""
    path = "/api/v1/audit/verify"

    assert provider.http.get(path, headers=provider.admin_headers("agents:read")).status_code == 403
    assert provider.http.get(path).status_code == 401
    assert provider.get(f"{path}?from=x").status_code == 400


def test_one_check_at_a_time(busy):
    """Verifying a long chain is slow: a second check in the same process gets a 429 and can be retried."""
    chain = busy.app.extensions["sentryagent"].chain
    with chain._checking:
        answer = busy.get("/api/v1/audit/verify")
        assert (answer.status_code, answer.json["code"]) == (429, "RATE_LIMITED")
        assert answer.headers["Retry-After"] == "5"

    assert verify(busy)["valid"] is True


def test_retention_leaves_a_sound_chain(busy, seal):
    """Sealed records past the retention period are deleted, and the chain is verified from there."""
    busy.clock.advance(2 * 86_400)
    busy.admin = busy.admin_headers()
    keeper = Housekeeping(busy.store, busy.clock, audit_retention_days=1)
    seal()
    before = head(busy)

    assert keeper.run() > 1

    assert head(busy) == before
    assert [it["action"] for it in busy.audit()] == ["admin.token_issued"]
    assert (verify(busy)["valid"], verify(busy)["checked"]) == (True, 1)


@pytest.fixture
def program():
    """The verification program from the manual."""
    (code,) = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 20
    return code


@pytest.fixture
def check(tmp_path, program):
    """Runs the manual's program on an export, as the manual says."""

    def check(lines):
        export = tmp_path / "audit.jsonl"
        export.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return run(sys.executable, "-c", program, export)

    return check


def test_anybody_verifies_an_export(busy, check):
    """The manual's program uses none of our code and confirms a whole export as well as a part of one."""
    lines = list(AuditChain(busy.store).sealed(None, None))

    whole, part = check(lines), check(lines[2:4])

    assert (whole.returncode, whole.stdout) == (
        0,
        f"verified {len(lines)} records, up to seal {len(lines)}\n",
    )
    assert (part.returncode, part.stdout) == (0, "verified 2 records, up to seal 4\n")


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: lines[2]["record"].update(actor="nobody"),
        lambda lines: lines[2].update(hash="0" * 64),
        lambda lines: lines[2].update(previous="0" * 64),
        lambda lines: lines.pop(2),
        lambda lines: lines.insert(2, lines.pop(3)),
    ],
)
def test_anybody_finds_what_was_changed(busy, check, tamper):
    """The manual's program fails at the first line that does not follow the one before."""
    lines = list(AuditChain(busy.store).sealed(None, None))
    tamper(lines)

    done = check(lines)

    assert done.returncode == 1
    assert re.fullmatch(r"broken at seal [34]\n", done.stderr)


def test_a_served_provider_seals_by_itself(tmp_path):
    """A running provider seals records that a command wrote to its database."""
    database = f"sqlite:///{tmp_path / 'served.db'}"
    environ = clean_environment(DATABASE_URL=database, GITHUB_ISSUER="http://127.0.0.1:9")
    with Served(tmp_path / "log", environ, "--workers", "1") as served, served.client("/api/v1") as http:

        def sealed():
            report = http.get("/audit/verify", headers=served.admin).json()
            return report if report["unsealed"] == 0 else None

        report = wait_until(sealed, "the seal")
        assert report["valid"] is True
        assert report["checked"] == 2


def test_a_served_provider_shows_the_state_of_its_audit(tmp_path):
    """A change made directly in the database shows up in the metrics and the log without a request."""
    path = tmp_path / "served.db"
    environ = clean_environment(DATABASE_URL=f"sqlite:///{path}", GITHUB_ISSUER="http://127.0.0.1:9")
    with Served(tmp_path / "log", environ, "--workers", "1") as served, served.client() as http:

        def shows(sample):
            return sample in http.get("/metrics").text.splitlines()

        wait_until(lambda: served.command("audit", "verify").startswith("verified 1 record,"), "the seal")
        assert shows("agentidp_audit_chain_valid 1.0")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE audit_log SET actor = 'mallory' WHERE sequence = 1")
        wait_until(lambda: shows("agentidp_audit_chain_valid 0.0"), "the check")
        wait_until(lambda: "the audit's chain is broken" in served.log.read_text(), "the error in the log")
