"""`sentryagent-idp`: serve, migrate, and what an admin does at the machine itself."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from server.config import ConfigurationError, Settings
from server.domain import scopes
from server.domain.audit import RequestContext
from server.domain.caller import ADMIN_CLI
from server.errors import DatabaseUnavailable
from server.ports import Store

Command = TypeVar("Command", bound=Callable[..., Any])

_ADMIN = ADMIN_CLI


def _database_option(command: Command) -> Command:
    text = "Where the data lies (SENTRYAGENT_DATABASE_URL)."
    return click.option("--database-url", metavar="URL", help=text)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sentryagent-toolkit")
def main() -> None:
    """The SentryAgent identity provider. Every setting is also a variable SENTRYAGENT_…; a flag wins."""


@main.command()
@click.option("--host", help="Address to listen on (SENTRYAGENT_HOST).  [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on (SENTRYAGENT_PORT).  [default: 3000]")
@_database_option
@click.option("--public-url", metavar="URL", help="Issuer of our tokens (SENTRYAGENT_PUBLIC_URL).")
@click.option("--workers", metavar="N", help="Worker processes (SENTRYAGENT_WORKERS).  [default: cores]")
def serve(**flags: str | None) -> None:
    """Serve the API; applies pending migrations first."""
    with _one_line_errors():
        from server import serving  # the other commands need no web server

        try:
            serving.serve(Settings.from_environ(os.environ, flags))
        except serving.UnusableAddress as error:
            _fail(str(error))


@main.command()
@_database_option
def migrate(database_url: str | None) -> None:
    """Bring the database's schema up to date, and make the database where there is none."""
    with _one_line_errors():
        from server.store import schema

        settings = Settings.from_environ(os.environ, {"database_url": database_url})
        applied = schema.migrate(settings.database_url)
    click.echo(f"applied {', '.join(applied)}" if applied else "nothing to do")


@main.command("admin-token")
@click.option("--scope", metavar='"…"', help="Scopes, separated by blanks.  [default: all]")
@click.option(
    "--ttl", type=click.IntRange(1), metavar="SECONDS", help="Lifetime; at most SENTRYAGENT_TOKEN_TTL."
)
@_database_option
def admin_token(scope: str | None, ttl: int | None, database_url: str | None) -> None:
    """Mint an admin access token straight from the database; the token alone goes to stdout."""
    with _one_line_errors(), _prepared(database_url) as (settings, store):
        from server.app import token_service, utc_now
        from server.key_ring import KeyRing

        wanted = _admin_scopes(scope)
        tokens = token_service(settings, store, KeyRing(settings.passphrase), utc_now)
        here = RequestContext(request_id=str(uuid.uuid4()), address=None)
        issued = tokens.issue_to_admin(_ADMIN, wanted, ttl or settings.token_ttl, here)
    click.echo(issued.access_token)


def _admin_scopes(scope: str | None) -> tuple[str, ...]:
    wanted = scopes.ALL_SCOPES if scope is None else scopes.parse(scope)
    unknown = [word for word in wanted if word not in scopes.ALL_SCOPES]
    if unknown or not wanted:
        _fail(f"--scope: unknown {' '.join(unknown) or 'scope'}; choose from {' '.join(scopes.ALL_SCOPES)}")
    return wanted


@contextmanager
def _prepared(database_url: str | None) -> Iterator[tuple[Settings, Store]]:
    """The settings and the database of a provider that was served before: nothing is created here."""
    from server.provider_facts import recall
    from server.store import schema
    from server.store.database import Database

    settings = Settings.from_environ(os.environ, {"database_url": database_url})
    if not schema.is_prepared(settings.database_url):
        _fail(
            "SENTRYAGENT_DATABASE_URL: the database is not prepared; run `sentryagent-idp serve` or `migrate` first"
        )
    with Database(settings.database_url) as store:
        # Under which URL the provider serves is its own fact: asking for it again would only invite tokens
        # with an issuer that it does not accept.
        known = recall(store)
        given = {name: None if _is_set(name) else value for name, value in known.items()}
        yield Settings.from_environ(os.environ, {"database_url": database_url, **given}), store


def _is_set(name: str) -> bool:
    return f"SENTRYAGENT_{name.upper()}" in os.environ


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What goes wrong is one line on stderr and exit code 2."""
    from server.store.schema import SchemaError
    from server.store.url import DatabaseUrlError
    from server.tokens.signing_keys import UnreadableKey

    try:
        yield
    except ConfigurationError as error:
        _fail(str(error))
    except DatabaseUrlError as error:
        _fail(f"SENTRYAGENT_DATABASE_URL: {error}")
    except UnreadableKey as error:
        _fail(f"SENTRYAGENT_KEY_ENCRYPTION_KEY: {error}")
    except SchemaError as error:
        _fail(str(error))
    except DatabaseUnavailable as error:
        _fail(f"SENTRYAGENT_DATABASE_URL: {error.message}")


def _fail(reason: str) -> None:
    """End the command: one line, exit code 2."""
    click.echo(f"sentryagent-idp: {' '.join(reason.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
