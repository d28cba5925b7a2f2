"""What the commands of `sentryagent-idp` have in common: the database they work on, and how they fail."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from sentryagent_idp.config import ConfigurationError, Settings
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.errors import AdminRefused, DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.runtime.ids import uuid7

Command = TypeVar("Command", bound=Callable[..., Any])


def database_option(command: Command) -> Command:
    """Let a command take `--database-url`."""
    text = "Where the data lies (SENTRYAGENT_DATABASE_URL)."
    return click.option("--database-url", metavar="URL", help=text)(command)


def scope_option(command: Command) -> Command:
    """Let a command take `--scope`, whose text `admin_scopes` reads."""
    text = "Scopes, separated by blanks.  [default: all]"
    return click.option("--scope", metavar='"…"', help=text)(command)


def admin_scopes(scope: str | None) -> tuple[str, ...]:
    """The scopes that `--scope` names, all without it; ends the command where one is unknown."""
    wanted = scopes.ALL_SCOPES if scope is None else scopes.parse(scope)
    unknown = [word for word in wanted if word not in scopes.ALL_SCOPES]
    if unknown or not wanted:
        fail(f"--scope: unknown {' '.join(unknown) or 'scope'}; choose from {' '.join(scopes.ALL_SCOPES)}")
    return wanted


@contextmanager
def prepared(database_url: str | None) -> Iterator[tuple[Settings, Store]]:
    """The settings and the database of a provider that was served before: nothing is created here."""
    from sentryagent_idp.store import schema
    from sentryagent_idp.store.database import Database
    from sentryagent_idp.use_cases import published_settings

    settings = Settings.from_environ(os.environ, {"database_url": database_url})
    if not schema.is_prepared(settings.database_url):
        fail(
            "SENTRYAGENT_DATABASE_URL: the database is not prepared; run `sentryagent-idp serve` or `migrate` first"
        )
    with Database(settings.database_url) as store:
        # Under which URL the provider serves is its own fact: asking for it again would only invite tokens
        # with an issuer that it does not accept.
        known = published_settings.load(store)
        given = {name: None if _is_set(name) else value for name, value in known.items()}
        yield Settings.from_environ(os.environ, {"database_url": database_url, **given}), store


def _is_set(name: str) -> bool:
    return f"SENTRYAGENT_{name.upper()}" in os.environ


def here() -> RequestContext:
    """What the audit says of a command: an id of its own and no address."""
    return RequestContext(request_id=str(uuid7()), address=None)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What goes wrong is one line on stderr and exit code 2."""
    from sentryagent_idp.store.schema import SchemaError
    from sentryagent_idp.store.url import DatabaseUrlError
    from sentryagent_idp.tokens.signing_key import UnreadableKey

    try:
        yield
    except (ConfigurationError, SchemaError, UnreadableKey, AdminRefused) as error:
        fail(str(error))
    except DatabaseUrlError as error:
        fail(f"SENTRYAGENT_DATABASE_URL: {error}")
    except DatabaseUnavailable as error:
        fail(f"SENTRYAGENT_DATABASE_URL: {error.message}")


def fail(reason: str) -> NoReturn:
    """End the command: one line, exit code 2."""
    click.echo(f"sentryagent-idp: {' '.join(reason.split())}", err=True)
    sys.exit(2)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header, in columns as wide as their widest cell."""
    every = [header, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*every, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every)
    return "\n".join(line.rstrip() for line in lines)
