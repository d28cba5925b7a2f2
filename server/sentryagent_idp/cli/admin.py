"""`sentryagent-idp keys`, `clients` and `audit`: admin commands that work directly on the database."""

import json
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import click

from sentryagent_idp.api.fields import parse_moment
from sentryagent_idp.cli.common import (
    admin_scopes,
    command_context,
    counted,
    database_option,
    ended_by_sigterm,
    fail,
    prepared,
    remark,
    scope_option,
    table,
)
from sentryagent_idp.domain.caller import ADMIN_CLI
from sentryagent_idp.domain.client import Client, name_problem
from sentryagent_idp.domain.records import timestamp
from sentryagent_idp.domain.scopes import render
from sentryagent_idp.domain.signing_key import StoredKey
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer
from sentryagent_idp.use_cases.signing_keys import KeyAdmin, is_encrypted

_FOLLOW_SECONDS = 1
_NOW = partial(datetime.now, UTC)

_MOST_DAYS = 3650
_LONGEST_OVERLAP_SECONDS = 7 * 24 * 3600
"""The time to deploy a new secret everywhere; a leaked secret must not stay valid for longer."""

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_days_option = partial(click.option, type=click.IntRange(1, _MOST_DAYS), metavar="DAYS")


@click.group()
def keys() -> None:
    """List, rotate and revoke signing keys.

    The next key is published, the active key signs, and retired keys still verify tokens.
    """


@keys.command("list")
@_json_option
@database_option
def list_keys(as_json: bool, database_url: str | None) -> None:
    """Show the keys, oldest first.

    Never shows a private key.
    """
    with _key_admin(database_url) as admin:
        stored = admin.all()
    _show_list(
        [
            {
                "kid": key.kid,
                "alg": key.alg,
                "status": key.status.value,
                "createdAt": _seconds(key.created_at),
                "retiredAt": _seconds(key.retired_at),
            }
            for key in stored
        ],
        ("kid", "alg", "status", "created", "retired"),
        as_json=as_json,
    )


@keys.command("rotate")
@_days_option("--if-older", "days", help="Rotate only if the last rotation was at least this many days ago.")
@database_option
def rotate_keys(days: int | None, database_url: str | None) -> None:
    """Make the next key the active one.

    The previously active key is retired, and a new next key is published.
    """
    with _key_admin(database_url) as admin:
        if days is None:
            _show_signing_key(admin, admin.rotate(ADMIN_CLI, command_context()))
            return
        signing = admin.rotate_if_older(ADMIN_CLI, timedelta(days=days), command_context())
        if signing is None:
            click.echo(f"nothing to do: the newest key is less than {counted(days, 'day')} old")
        else:
            _show_signing_key(admin, signing)


# A kid may begin with a hyphen, so no letter of it may be an option.
@keys.command("revoke", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid")
@database_option
def revoke_key(kid: str, database_url: str | None) -> None:
    """Revoke a key.

    It is removed from the JWKS, and its tokens are refused at once.
    """
    with _key_admin(database_url) as admin:
        _show_signing_key(admin, admin.revoke(ADMIN_CLI, kid, command_context()))


@keys.command("rewrap")
@database_option
def rewrap_keys(database_url: str | None) -> None:
    """Encrypt every private key again.

    Uses SENTRYAGENT_KEY_ENCRYPTION_KEY, also for keys that are stored unencrypted.
    """
    with _key_admin(database_url) as admin:
        before = admin.rewrap(ADMIN_CLI, command_context())
    for key in before:
        stored = "under the previous encryption key" if is_encrypted(key) else "unencrypted"
        click.echo(f"encrypted {key.kid}; it was stored {stored}")
    if not before:
        click.echo("nothing to do: every key is stored under the current encryption key")


@click.group()
def clients() -> None:
    """Create, list, rotate and revoke clients.

    Admin clients get admin tokens at POST /api/v1/token. Clients of services introspect tokens.
    """


@clients.command("create")
@click.argument("name")
@scope_option
@click.option(
    "--service", metavar="IDENTIFIER", help="Create a client that introspects the tokens of this service."
)
@_days_option("--expires", "days", help="Let the client and its tokens expire after this many days.")
@_json_option
@database_option
def create_client(
    name: str,
    scope: str | None,
    service: str | None,
    days: int | None,
    as_json: bool,
    database_url: str | None,
) -> None:
    """Create a client, and show its secret once.

    Creates an admin client, or with --service a client of that service.
    """
    problem = name_problem(name)
    if problem:
        fail(f"NAME: {problem}")
    if service is not None and scope is not None:
        fail(
            "--scope: it cannot be used with --service, because clients of services have no scopes; leave it out"
        )
    lifetime = None if days is None else timedelta(days=days)
    with _client_admin(database_url) as admin:
        if service is None:
            made = admin.create(ADMIN_CLI, name, admin_scopes(scope), command_context(), lifetime)
        else:
            made = admin.create_for_service(ADMIN_CLI, name, service, command_context(), lifetime)
        _show_secret(*made, as_json=as_json)
        if admin.is_named_twice(made[0]):
            remark(f"another active client is also named {name}; tell them apart by their client_id")


@clients.command("list")
@_json_option
@database_option
def list_clients(as_json: bool, database_url: str | None) -> None:
    """Show the clients, oldest first.

    Includes expired and revoked clients. Never shows a secret.
    """
    with _client_admin(database_url) as admin:
        stored = admin.all()
    _show_list(
        [_client_record(client, _NOW()) for client in stored],
        ("client_id", "name", "status", "created", "last used", "expires", "old secret", "service", "scope"),
        as_json=as_json,
    )


def _client_record(client: Client, now: datetime) -> dict[str, str | None]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "status": client.status(now).value,
        "createdAt": _seconds(client.created_at),
        "lastUsedAt": _seconds(client.last_used_at),
        "expiresAt": _seconds(client.expires_at),
        "oldSecretUntil": _seconds(client.old_secret_until) if len(client.secret_hashes(now)) > 1 else None,
        "service": client.service,
        "scope": render(client.scopes) or None,
    }


@clients.command("rotate")
@click.argument("client_id")
@click.option(
    "--keep-old",
    type=click.IntRange(1, _LONGEST_OVERLAP_SECONDS),
    metavar="SECONDS",
    help="Keep the old secret valid for this many seconds; at most 7 days.",
)
@_json_option
@database_option
def rotate_client(client_id: str, keep_old: int | None, as_json: bool, database_url: str | None) -> None:
    """Give a client a new secret, and show it once.

    The old secret is refused at once, or after --keep-old.
    """
    kept = None if keep_old is None else timedelta(seconds=keep_old)
    with _client_admin(database_url) as admin:
        _show_secret(*admin.rotate(ADMIN_CLI, client_id, command_context(), kept), as_json=as_json)


@clients.command("revoke")
@click.argument("client_id")
@database_option
def revoke_client(client_id: str, database_url: str | None) -> None:
    """Revoke a client.

    Its secrets and tokens are refused at once and permanently.
    """
    with _client_admin(database_url) as admin:
        admin.revoke(ADMIN_CLI, client_id, command_context())
    click.echo(f"revoked {client_id}")


@click.group()
def audit() -> None:
    """Export the audit, and check its hash chain."""


def _time(_context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_moment(text)
    except ValueError as error:
        fail(f"{parameter.opts[0]}: {error}")


_time_option = partial(click.option, metavar="TIME", callback=_time)


_seal_option = partial(click.option, type=click.IntRange(0), metavar="SEAL")


@audit.command("verify")
@_seal_option("--from-seal", "seal", help="Check only the records after this seal; requires --expect.")
@click.option("--expect", "expected", metavar="HASH", help="The hash that you kept for that seal.")
@database_option
def verify_audit(seal: int | None, expected: str | None, database_url: str | None) -> None:
    """Check every record against the hash chain.

    Exit code 1 if the chain is broken, or if the seal of --from-seal has a different hash.
    """
    if (seal is None) != (expected is None):
        fail("--from-seal, --expect: use both, the number of a seal and the hash that you kept for it")
    if expected is not None and not re.fullmatch("[0-9a-f]{64}", expected):
        fail("--expect: it must be a hash of 64 lowercase hexadecimal digits")
    with prepared(database_url) as (_, store):
        proof = AuditChain(store).verify_all(seal, expected)
    if not proof["valid"]:
        event = f"; event {proof['firstBroken']}" if proof["firstBroken"] else ""
        click.echo(f"sentryagent-idp: the audit's chain is broken: {proof['reason']}{event}", err=True)
        sys.exit(1)
    head = proof["head"]
    checked = counted(proof["checked"], "record")
    click.echo(f"verified {checked}, up to seal {head['seal']} with hash {head['hash']}")
    if proof["unsealed"]:
        click.echo(f"{counted(proof['unsealed'], 'record')} not sealed yet")


@audit.command("export")
@_time_option("--from", "start", help="Only records from this time on, such as 2027-01-31T00:00:00Z.")
@_time_option("--to", "end", help="Only records before this time.")
@_seal_option("--after", help="Only records after this seal (the last one that you have).")
@click.option("--follow", is_flag=True, help="Wait for new records, until Ctrl-C or SIGTERM.")
@database_option
def export_audit(
    start: datetime | None, end: datetime | None, after: int | None, follow: bool, database_url: str | None
) -> None:
    """Print the records as JSON lines.

    Each record has the seal that chains it to the previous record.
    """
    if follow and end is not None:
        fail("--follow: it cannot be used with --to; leave out one of them")
    with prepared(database_url) as (_, store), ended_by_sigterm():
        sealer, chain = Sealer(store, _NOW), AuditChain(store)
        while True:
            sealer.run()
            last = None if after is None else chain.seal_to_follow(after)
            for line in chain.sealed(start, end, last):
                click.echo(json.dumps(line))
                after = line["seal"]
            if not follow:
                return
            time.sleep(_FOLLOW_SECONDS)


@contextmanager
def _key_admin(database_url: str | None) -> Iterator[KeyAdmin]:
    with prepared(database_url) as (settings, store):
        yield KeyAdmin(store, Auditor(_NOW, uuid7), _NOW, settings.passphrases)


@contextmanager
def _client_admin(database_url: str | None) -> Iterator[ClientAdmin]:
    with prepared(database_url) as (_, store):
        yield ClientAdmin(store, Auditor(_NOW, uuid7), _NOW, uuid.uuid4)


def _show_signing_key(admin: KeyAdmin, signing: StoredKey) -> None:
    click.echo(f"{signing.kid} is now the active key")
    seconds = admin.unseen_for(signing)
    if seconds:
        remark(
            f"this key was published only recently; verifiers that cache the JWKS may not know it for another {seconds} s"
        )


def _show_secret(client: Client, secret: str, *, as_json: bool) -> None:
    credentials = {"client_id": client.client_id, "client_secret": secret}
    lines = "\n".join(f"{name}={value}" for name, value in credentials.items())
    click.echo(json.dumps(credentials) if as_json else lines)


def _show_list(records: Sequence[Mapping[str, str | None]], header: Sequence[str], *, as_json: bool) -> None:
    """Print the records as a JSON array, or as a table with `-` for missing values."""
    rows = [[value or "-" for value in record.values()] for record in records]
    click.echo(json.dumps(records) if as_json else table(header, rows))


def _seconds(time: datetime | None) -> str | None:
    return timestamp(time.replace(microsecond=0)) if time else None
