"""The parts that the commands of `sentryagent-idp` share: options, access to the database, and errors."""

import os
import pwd
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from sentryagent_idp.config import PREFIX, Settings
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.client import name_problem
from sentryagent_idp.errors import AdminRefused, ConfigurationError, DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases import published_settings


class OneLineGroup(click.Group):
    """A group of commands whose usage errors are one line on stderr with exit code 2, like all other errors."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command line and exit."""
        try:
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            fail(error.format_message())
        except click.Abort:
            sys.exit(130)


database_option = click.option(
    "--database-url", metavar="URL", help="Database URL (SENTRYAGENT_DATABASE_URL)."
)
scope_option = click.option("--scope", metavar='"…"', help="Scopes, separated by spaces.  [default: all]")


def admin_scopes(scope: str | None) -> tuple[str, ...]:
    """Return the scopes that `--scope` names, or all without it; ends the command if a scope is unknown."""
    wanted = scopes.ALL_SCOPES if scope is None else scopes.parse(scope)
    unknown = [word for word in wanted if word not in scopes.ALL_SCOPES]
    if unknown or not wanted:
        problem = f"unknown scope {' '.join(unknown)}" if unknown else "it is empty"
        fail(f"--scope: {problem}; allowed: {' '.join(scopes.ALL_SCOPES)}")
    return wanted


@contextmanager
def prepared(database_url: str | None) -> Iterator[tuple[Settings, Store]]:
    """Yield the settings and the database of a provider that was set up before; nothing is created here.

    Errors end the command as in `one_line_errors`.
    """
    with one_line_errors():
        from sentryagent_idp.store import schema
        from sentryagent_idp.store.database import Database

        flags = {"database_url": database_url}
        settings = Settings.from_environ(os.environ, flags)
        if not schema.is_prepared(settings.database_url):
            fail(
                "SENTRYAGENT_DATABASE_URL: the database is not prepared; "
                "run `sentryagent-idp serve` or `migrate` first"
            )
        with Database(settings.database_url) as store:
            # The provider has stored its public URL: an admin who had to repeat it could make tokens with an issuer
            # that it does not accept.
            published = published_settings.load(store)
            unset = {
                name: value for name, value in published.items() if PREFIX + name.upper() not in os.environ
            }
            # Copied instead of read again: the file of a secret may be a pipe.
            yield settings.model_copy(update=unset), store


def command_context(person: str | None = None) -> RequestContext:
    """The audit's context of a command: a new id, no address, and the system's user if no other person is named."""
    return RequestContext(request_id=str(uuid7()), address=None, person=person or _user())


def _user() -> str:
    """The operating system's user, under sudo the user who called it; `uid` and a number for a user without a name."""
    caller = os.environ.get("SUDO_USER", "")
    if not name_problem(caller):
        return caller
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an expected error into one line on stderr and exit code 2."""
    from sentryagent_idp.store.schema import SchemaError
    from sentryagent_idp.store.url import DatabaseUrlError

    try:
        yield
    except (ConfigurationError, SchemaError, UnreadableKey, AdminRefused) as error:
        fail(str(error))
    except DatabaseUrlError as error:
        fail(f"SENTRYAGENT_DATABASE_URL: {error}")
    except DatabaseUnavailable as error:
        fail(f"SENTRYAGENT_DATABASE_URL: {error.message}")


def remark(text: str) -> None:
    """Print a remark for the admin on stderr; the command continues."""
    click.echo(f"sentryagent-idp: {text}", err=True)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exception, so that it can clean up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(reason: str) -> NoReturn:
    """End the command with one line on stderr and exit code 2."""
    remark(" ".join(reason.split()))
    sys.exit(2)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, in the singular for 1; without `plural` the noun takes an `s`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows under a header, in columns as wide as their widest cell."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(text.rstrip() for text in texts)
