"""`sentryagent-idp keys`, `clients` and `audit`: the commands of an admin and their output."""

import json
import re
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from kit import cli, records
from kit.cli import assert_fails
from kit.processes import BIN, clean_environment
from kit.provider import NOW
from kit.records import keep, service
from sentryagent_idp.store import schema
from sentryagent_idp.store.audit import AuditTable
from sentryagent_idp.store.database import Database

PASSPHRASE = "a passphrase of more than thirty-two characters"
KID = r"[\w-]{43}"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
CLIENT = r"admin-[0-9a-f-]{36}"


@pytest.fixture
def run(database):
    """Runs a command on the test database; variables are given without their prefix."""
    url = f"sqlite:///{database}"
    return lambda *arguments, **variables: cli.run(*arguments, **{"DATABASE_URL": url} | variables)


EVERY_SCOPE = "agents:read agents:write tokens:read audit:read policies:read policies:write services:read services:write"


def cells(output):
    """The cells of a table by header, row by row."""
    header, *rows = [re.split(r"  +", line) for line in output.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_keys_list(run):
    """Keys are listed in aligned columns, without private keys."""
    run("keys", "rotate")
    done = run("keys", "list")

    rows = cells(done.stdout)
    assert {row["status"] for row in rows} == {"retired", "active", "next"}
    for row in rows:
        assert re.fullmatch(KID, row["kid"])
        assert row["alg"] == "ES256"
        assert re.fullmatch(MOMENT, row["created"])
        assert re.fullmatch(MOMENT if row["status"] == "retired" else "-", row["retired"])
    assert len({line.index("ES256") for line in done.stdout.splitlines()[1:]}) == 1
    assert "PRIVATE" not in done.stdout


def kids(run):
    return {row["status"]: row["kid"] for row in cells(run("keys", "list").stdout)}


def test_keys_rotate(run):
    """The output names the active key; a second rotation warns that verifiers may not have the key."""
    before = kids(run)

    first, second = run("keys", "rotate"), run("keys", "rotate")

    assert (first.exit_code, first.stdout) == (0, f"{before['next']} is now the active key\n")
    assert second.exit_code == 0
    assert re.search(
        r"published only recently; verifiers that cache the JWKS may not know it for another (299|300) s",
        second.stderr,
    )


def test_keys_rotate_if_older(run, database):
    """A timer may run it daily: it rotates only if the newest key is that old, and otherwise says so."""
    before = kids(run)
    early = run("keys", "rotate", "--if-older", "30")
    assert (early.exit_code, early.stdout) == (0, "nothing to do: the newest key is less than 30 days old\n")
    assert kids(run) == before

    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE signing_keys SET created_at = created_at - ?", (30 * 24 * 3600 * 1_000_000,)
        )
    connection.close()
    due, again = (run("keys", "rotate", "--if-older", "30") for _ in range(2))

    assert (due.exit_code, due.stdout) == (0, f"{before['next']} is now the active key\n")
    assert again.stdout == early.stdout
    daily = run("keys", "rotate", "--if-older", "1")
    assert daily.stdout == "nothing to do: the newest key is less than 1 day old\n"


def test_keys_list_as_json(run):
    """The JSON has the same data as the table, with `null` for empty cells."""
    run("keys", "rotate")
    rows, listed = cells(run("keys", "list").stdout), json.loads(run("keys", "list", "--json").stdout)

    names = {"kid": "kid", "alg": "alg", "status": "status", "createdAt": "created", "retiredAt": "retired"}
    assert [{names[name]: value or "-" for name, value in it.items()} for it in listed] == rows
    assert [it["retiredAt"] is None for it in listed] == [it["status"] != "retired" for it in listed]


def test_keys_revoke(run):
    """The output names the active key; the revoked key is no longer listed."""
    before = kids(run)

    done = run("keys", "revoke", before["active"])

    assert (done.exit_code, done.stdout) == (0, f"{before['next']} is now the active key\n")
    assert before["active"] not in kids(run).values()


@pytest.mark.parametrize("kid", ["-oRPHAN_0123456789", "-orphan_-h", "-h0123456789", "--orphan", "-"])
def test_a_kid_may_begin_with_a_hyphen(run, kid):
    """One in 64 thumbprints begins with a hyphen; neither it nor a letter of it is an option, such as `-h`."""
    done = run("keys", "revoke", kid)

    assert f"There is no signing key {kid};" in done.stderr


def test_clients_create(run):
    """The id and secret are printed as two lines or as JSON; the secret is never shown again."""
    lines = run("clients", "create", "CI bot", "--scope", "agents:read audit:read")
    as_json = run("clients", "create", "other", "--json")

    assert re.fullmatch(rf"client_id={CLIENT}\nclient_secret=sk_live_[0-9a-f]{{64}}\n", lines.stdout)
    shown = json.loads(as_json.stdout)
    assert set(shown) == {"client_id", "client_secret"}
    listed = run("clients", "list").stdout
    assert "sk_live" not in listed
    rows = cells(listed)
    assert [(row["name"], row["status"], row["scope"]) for row in rows] == [
        ("CI bot", "active", "agents:read audit:read"),
        (
            "other",
            "active",
            EVERY_SCOPE,
        ),
    ]
    assert rows[1]["client_id"] == shown["client_id"]


SERVICE = "https://deploy.example.com"


@pytest.fixture
def _service(database):
    """A service in the test database."""
    with Database(f"sqlite:///{database}") as store:
        keep(store, service(NOW, identifier=SERVICE))


@pytest.mark.usefixtures("_service")
def test_clients_create_for_a_service(run):
    """A service's client is created, rotated and revoked like any other, and has no scope."""
    lines = run("clients", "create", "verifier", "--service", SERVICE)
    as_json = run("clients", "create", "other", "--service", SERVICE, "--json")

    client = r"service-[0-9a-f-]{36}"
    assert re.fullmatch(rf"client_id={client}\nclient_secret=sk_live_[0-9a-f]{{64}}\n", lines.stdout)
    made = json.loads(as_json.stdout)["client_id"]
    rows = cells(run("clients", "list").stdout)
    assert [(row["name"], row["service"], row["scope"]) for row in rows] == [
        ("verifier", SERVICE, "-"),
        ("other", SERVICE, "-"),
    ]
    assert run("clients", "rotate", made).stdout.startswith(f"client_id={made}\n")
    assert run("clients", "revoke", made).stdout == f"revoked {made}\n"
    assert_fails(run("clients", "rotate", made), "is revoked, which is final")


@pytest.mark.usefixtures("_service")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--service", SERVICE + "/"], "--service: there is no service with this identifier"),
        (["--service", ""], "--service: there is no service with this identifier"),
        (["--service", SERVICE, "--scope", "agents:read"], "--scope: it cannot be used with --service"),
    ],
)
def test_no_client_for_such_a_service(run, arguments, reason):
    """An unusable service is refused in one line, and no client is created."""
    assert_fails(run("clients", "create", "x", *arguments), reason)
    assert cells(run("clients", "list").stdout) == []


def test_clients_list_as_json(run):
    """The JSON has a client's fields and expiry times, but neither secrets nor their hashes."""
    made = json.loads(
        run("clients", "create", "CI", "--scope", "agents:read", "--expires", "90", "--json").stdout
    )
    run("clients", "rotate", made["client_id"], "--keep-old", "3600")

    done = run("clients", "list", "--json")

    (client,) = json.loads(done.stdout)
    assert re.fullmatch(MOMENT, client["createdAt"])
    moments = [datetime.fromisoformat(client[it]) for it in ("createdAt", "expiresAt", "oldSecretUntil")]
    assert moments[1] - moments[0] == timedelta(days=90)
    assert timedelta(hours=1) <= moments[2] - moments[0] < timedelta(hours=1, minutes=5)
    assert {name: client[name] for name in client if not name.endswith(("At", "Until"))} == {
        "client_id": made["client_id"],
        "name": "CI",
        "status": "active",
        "service": None,
        "scope": "agents:read",
    }
    assert client["lastUsedAt"] is None
    assert "sk_live" not in done.stdout
    assert "argon2" not in done.stdout


def test_a_name_that_is_taken_is_told(run):
    """A second client with the same name is still created, as in earlier versions, but with a warning."""
    first, second = run("clients", "create", "CI"), run("clients", "create", "CI")

    assert (first.stderr, second.exit_code) == ("", 0)
    assert second.stdout.startswith("client_id=admin-")
    assert "another active client is also named CI" in second.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "rotate", "--if-older", "0"],
        ["keys", "rotate", "--if-older", "30d"],
        ["clients", "create", "x", "--expires", "0"],
        ["clients", "create", "x", "--expires", "3651"],
        ["clients", "rotate", "x", "--keep-old", "0"],
        ["clients", "rotate", "x", "--keep-old", "604801"],
    ],
)
def test_spans_have_bounds(run, arguments):
    """Days and seconds are whole numbers in a range; an old secret is kept for at most a week."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '{arguments[-2]}'" in done.stderr


def test_clients_rotate_and_revoke(run):
    """A client can be given a new secret and be revoked."""
    made = json.loads(run("clients", "create", "x", "--json").stdout)

    rotated = json.loads(run("clients", "rotate", made["client_id"], "--json").stdout)
    revoked = run("clients", "revoke", made["client_id"])

    assert rotated["client_id"] == made["client_id"]
    assert rotated["client_secret"] != made["client_secret"]
    assert (revoked.exit_code, revoked.stdout) == (0, f"revoked {made['client_id']}\n")
    assert [row["status"] for row in cells(run("clients", "list").stdout)] == ["revoked"]


def test_audit_export(run):
    """Records are exported with their seals, sealed first if necessary; `--from` and `--to` narrow the export."""
    run("clients", "create", "x")
    lines = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]

    assert [line["seal"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["record"]["action"] for line in lines] == ["key.created", "client.created"]
    assert run("audit", "export", "--to", "2020-01-01T00:00:00Z").stdout == ""
    assert run("audit", "export", "--from", "2020-01-01T00:00:00Z").stdout.count("\n") == 2


def exported(run, *arguments):
    return [json.loads(line) for line in run("audit", "export", *arguments).stdout.splitlines()]


def test_audit_export_after_a_seal(run):
    """A log shipper continues after its last seal; an unknown seal is refused, because records may be missing."""
    run("keys", "rotate")
    run("clients", "create", "ci")
    lines = exported(run)

    assert exported(run, "--after", "0") == lines
    assert exported(run, "--after", str(lines[1]["seal"])) == lines[2:]
    assert exported(run, "--after", str(lines[-1]["seal"])) == []
    assert_fails(run("audit", "export", "--after", "99"), "--after: there is no seal 99")


def test_audit_export_after_what_retention_removed(run, database):
    """An export can continue from the seal at which the chain now begins; an earlier one is refused."""
    run("keys", "rotate")
    lines = exported(run)
    with Database(f"sqlite:///{database}") as store, store.write() as tx:
        assert tx.seals.purge(datetime.now(UTC) + timedelta(days=1), limit=2) == 2

    assert exported(run, "--after", "2") == lines[2:]
    assert_fails(
        run("audit", "export", "--after", "1"),
        "--after: seal 1 is gone with its record; the chain begins after seal 2",
    )


def test_audit_export_follows(database):
    """With `--follow`, each new record is printed once, when it is sealed, until the command is stopped."""
    url = f"sqlite:///{database}"
    command = [BIN / "sentryagent-idp", "audit", "export", "--after", "0", "--follow"]
    environ = clean_environment(DATABASE_URL=url)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as follower:
        first = json.loads(follower.stdout.readline())
        for name in ("one", "two"):
            assert cli.run("clients", "create", name, DATABASE_URL=url).exit_code == 0
        later = [json.loads(follower.stdout.readline()) for _ in range(2)]
        follower.terminate()
        rest = follower.stdout.read()

    assert [line["seal"] for line in (first, *later)] == [1, 2, 3]
    assert [json.loads(it["record"]["details"])["name"] for it in later] == ["one", "two"]
    assert (follower.returncode, rest) == (143, "")


def test_audit_verify(run):
    """The whole chain, or the part after a known hash, is verified; the output has the count and the head."""
    run("keys", "rotate")
    lines = exported(run)
    count, last = len(lines), lines[-1]["hash"]

    whole = run("audit", "verify")
    part = run("audit", "verify", "--from-seal", "2", "--expect", lines[1]["hash"])

    assert (whole.exit_code, whole.stdout) == (
        0,
        f"verified {count} records, up to seal {count} with hash {last}\n",
    )
    assert (part.exit_code, part.stdout) == (
        0,
        f"verified {count - 2} records, up to seal {count} with hash {last}\n",
    )


def test_audit_verify_tells_what_waits(run, database):
    """Unsealed records are counted separately and are not an error."""
    exported(run)
    with Database(f"sqlite:///{database}") as store, store.write() as tx:
        AuditTable(tx.audit._connection).append(records.audit_record(datetime.now(UTC)))

    assert run("audit", "verify").stdout.endswith("\n1 record not sealed yet\n")


def test_audit_verify_of_a_broken_chain(run, database):
    """Exit code 1, and one line names the break and the event; a wrong expected hash is reported alike."""
    lines = exported(run)
    other = run("audit", "verify", "--from-seal", "1", "--expect", "f" * 64)
    event = lines[0]["record"]["event_id"]
    with Database(f"sqlite:///{database}") as store, store.write() as tx:
        tx.settings._connection.execute(text("UPDATE audit_log SET actor = 'x' WHERE sequence = 1"))
    changed = run("audit", "verify")

    broken = "sentryagent-idp: the audit's chain is broken: "
    assert (other.exit_code, other.stdout) == (1, "")
    assert other.stderr == f"{broken}seal 1 has a different hash\n"
    assert (changed.exit_code, changed.stdout) == (1, "")
    assert changed.stderr == f"{broken}seal 1 or its record was changed; event {event}\n"


REFUSED = [
    (["audit", "verify", "--from-seal", "1"], "--from-seal, --expect: use both"),
    (["audit", "verify", "--expect", "f" * 64], "--from-seal, --expect: use both"),
    (["audit", "verify", "--from-seal", "1", "--expect", "F" * 64], "--expect: it must be a hash of 64"),
    (
        ["audit", "export", "--follow", "--to", "2027-01-31T00:00:00Z"],
        "--follow: it cannot be used with --to",
    ),
    (["keys", "revoke", "nope"], "There is no signing key nope; `sentryagent-idp keys list` shows them."),
    (["clients", "create", " x"], "NAME: write 1 to 128 printable characters"),
    (["clients", "create", "x", "--scope", "root"], "--scope: unknown scope root; allowed: agents:read"),
    (["clients", "create", "x", "--scope", ""], "--scope: it is empty; allowed: agents:read"),
    (["clients", "rotate", "admin-x"], "There is no admin client admin-x; `sentryagent-idp clients list`"),
    (["clients", "revoke", "größe"], "There is no admin client größe"),
    (["clients", "revoke", "\udcff"], "There is no admin client"),
    (
        ["clients", "create", "x", "--service", "\udcff"],
        "--service: there is no service with this identifier",
    ),
    (
        ["policies", "move-issuer", "--from", "\udcff", "--to", "https://a.example"],
        "--from: it contains a non-printable character",
    ),
    (["audit", "export", "--from", "yesterday"], "--from: it must be a time with its time zone, such as"),
    (["audit", "export", "--to", "2027-01-31"], "--to: it must be a time with its time zone, such as"),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_refused(run, arguments, reason):
    """A command that cannot be carried out prints one line to stderr and exits with 2."""
    assert_fails(run(*arguments), f"sentryagent-idp: {reason}")


COMMANDS = [
    ["keys", "list"],
    ["keys", "rotate"],
    ["keys", "revoke", "x"],
    ["keys", "rewrap"],
    ["clients", "create", "x"],
    ["clients", "list"],
    ["clients", "rotate", "x"],
    ["clients", "revoke", "x"],
    ["audit", "export"],
    ["audit", "verify"],
]


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("is_there", [False, True])
def test_unprepared_database(tmp_path, run, arguments, is_there):
    """No command creates a database, or tables in an empty one."""
    path = tmp_path / "empty.db"
    if is_there:
        path.touch()

    done = run(*arguments, DATABASE_URL=f"sqlite:///{path}")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "sentryagent-idp: SENTRYAGENT_DATABASE_URL: the database is not prepared; "
        "run `sentryagent-idp serve` or `migrate` first\n"
    )
    assert (path.exists(), is_there and path.stat().st_size) == (is_there, 0)


def test_database_without_keys(tmp_path, run):
    """A database that was migrated but never served has no keys to rotate."""
    url = f"sqlite:///{tmp_path / 'migrated.db'}"
    schema.migrate(url)

    assert run("keys", "list", DATABASE_URL=url).stdout == "kid  alg  status  created  retired\n"
    done = run("keys", "rotate", DATABASE_URL=url)
    assert (done.exit_code, done.stderr) == (
        2,
        "sentryagent-idp: The provider has no signing key yet; `sentryagent-idp serve` creates it.\n",
    )


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({}, "set SENTRYAGENT_KEY_ENCRYPTION_KEY to its encryption key"),
        ({"KEY_ENCRYPTION_KEY": PASSPHRASE + "x"}, "check that SENTRYAGENT_KEY_ENCRYPTION_KEY is the one"),
    ],
)
@pytest.mark.parametrize("arguments", [["keys", "rotate"], ["admin-token"]])
def test_wrong_passphrase(run, variables, remedy, arguments):
    """If keys cannot be decrypted, one line names the variable; listing keys needs no passphrase."""
    run("keys", "rewrap", KEY_ENCRYPTION_KEY=PASSPHRASE)

    done = run(*arguments, **variables)

    assert_fails(done, remedy)
    assert run("keys", "list").exit_code == 0
    assert run("keys", "rotate", KEY_ENCRYPTION_KEY=PASSPHRASE).exit_code == 0


UNENCRYPTED = "stored unencrypted, but SENTRYAGENT_KEY_ENCRYPTION_KEY is set; if the key is yours, encrypt it with `sentryagent-idp keys rewrap`"


@pytest.mark.parametrize("command", ["list", "rotate", "revoke", "admin-token"])
def test_keys_in_clear_under_an_encryption_key(run, command):
    """Commands that use the keys refuse unencrypted keys and name `keys rewrap`, which keeps the keys the same."""
    before = kids(run)
    arguments = {"revoke": ["keys", "revoke", before["active"]], "admin-token": ["admin-token"]}
    arguments = arguments.get(command, ["keys", command])

    refused = run(*arguments, KEY_ENCRYPTION_KEY=PASSPHRASE)

    assert_fails(refused, UNENCRYPTED)
    assert kids(run) == before
    assert run("keys", "rewrap", KEY_ENCRYPTION_KEY=PASSPHRASE).exit_code == 0
    assert kids(run) == before
    assert run(*arguments, KEY_ENCRYPTION_KEY=PASSPHRASE).exit_code == 0


def test_keys_rewrap(run):
    """The output says how each key was stored before; running it again does nothing."""
    every = sorted(kids(run).values())
    old, new = {"KEY_ENCRYPTION_KEY": PASSPHRASE}, {"KEY_ENCRYPTION_KEY": PASSPHRASE[::-1]}
    nothing = "nothing to do: every key is stored under the current encryption key\n"

    first = run("keys", "rewrap", **old)
    again = run("keys", "rewrap", **old)
    changed = run("keys", "rewrap", **new, KEY_ENCRYPTION_KEY_PREVIOUS=PASSPHRASE)

    assert [it.exit_code for it in (first, again, changed)] == [0, 0, 0]
    assert sorted(first.stdout.splitlines()) == [
        f"encrypted {kid}; it was stored unencrypted" for kid in every
    ]
    assert again.stdout == nothing
    assert sorted(changed.stdout.splitlines()) == [
        f"encrypted {kid}; it was stored under the previous encryption key" for kid in every
    ]
    assert run("keys", "rewrap", **new).stdout == nothing
    assert run("keys", "rotate", **old).exit_code == 2
    actions = [json.loads(line)["record"]["action"] for line in run("audit", "export").stdout.splitlines()]
    assert actions.count("key.rewrapped") == 2


@pytest.mark.parametrize(
    ("arguments", "action"),
    [(["keys", "rotate"], "key.rotated"), (["clients", "create", "ci"], "client.created")],
)
def test_who_gives_a_command_is_in_the_audit(run, monkeypatch, arguments, action):
    """The audit record names the person who ran the command."""
    monkeypatch.setenv("SUDO_USER", "alice")

    run(*arguments)

    records = [json.loads(line)["record"] for line in run("audit", "export").stdout.splitlines()]
    (details,) = [json.loads(it["details"]) for it in records if it["action"] == action]
    assert details["person"] == "alice"


def test_keys_rewrap_without_an_encryption_key(run):
    """Without an encryption key, one line names the variable to set."""
    done = run("keys", "rewrap")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "sentryagent-idp: Set SENTRYAGENT_KEY_ENCRYPTION_KEY to the key to encrypt them with.\n"
    )
