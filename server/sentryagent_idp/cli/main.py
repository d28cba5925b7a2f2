"""`sentryagent-idp`: serving, migrations, and the admin commands that need access to the database."""

import os
from pathlib import Path

import click

from sentryagent_idp.cli import admin, policies
from sentryagent_idp.cli.common import (
    OneLineGroup,
    admin_scopes,
    command_context,
    database_option,
    ended_by_sigterm,
    fail,
    one_line_errors,
    prepared,
    scope_option,
    table,
)
from sentryagent_idp.cli.doctor import doctor
from sentryagent_idp.config import Settings
from sentryagent_idp.domain.caller import ADMIN_CLI
from sentryagent_idp.domain.client import name_problem


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sentryagent-idp")
def main() -> None:
    """The SentryAgent identity provider. Every setting has a variable SENTRYAGENT_…; a flag overrides it."""


@main.command()
@click.option("--host", help="Address to listen on (SENTRYAGENT_HOST).  [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on (SENTRYAGENT_PORT).  [default: 3000]")
@database_option
@click.option(
    "--public-url",
    metavar="URL",
    help="URL of the provider, and issuer of its tokens (SENTRYAGENT_PUBLIC_URL).",
)
@click.option(
    "--workers", metavar="N", help="Worker processes (SENTRYAGENT_WORKERS).  [default: one per core]"
)
def serve(**flags: str | None) -> None:
    """Serve the API.

    Applies pending migrations first, and creates a signing key if the database has no key.
    """
    with one_line_errors():
        from sentryagent_idp import serve  # the other commands need no web server

        try:
            serve.serve(Settings.from_environ(os.environ, flags))
        except serve.UnusableAddress as error:
            fail(str(error))


@main.command()
@database_option
def migrate(database_url: str | None) -> None:
    """Bring the database schema up to date.

    Creates the SQLite file if it does not exist.
    """
    with one_line_errors():
        from sentryagent_idp.store import schema

        settings = Settings.from_environ(os.environ, {"database_url": database_url})
        applied = schema.migrate(settings.database_url)
    click.echo(f"applied {', '.join(applied)}" if applied else "nothing to do")


@main.command("copy-database")
@click.option("--from", "source", metavar="URL", required=True, help="The database to copy from.")
@click.option(
    "--to", "target", metavar="URL", help="An empty database to copy to (SENTRYAGENT_DATABASE_URL)."
)
def copy_database(source: str, target: str | None) -> None:
    """Copy all data to an empty database.

    For example from SQLite to PostgreSQL. Stop every replica first.
    """
    with one_line_errors():
        from sentryagent_idp.store import copying

        settings = Settings.from_environ(os.environ)
        if target is None and "database_url" not in settings.model_fields_set:
            fail("--to: name the database to copy into, or set SENTRYAGENT_DATABASE_URL")
        copied = copying.copy_database(source, target or settings.database_url)
    rows = [(name, str(count)) for name, count in copied.items()]
    click.echo(table(("table", "rows"), rows))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@database_option
def backup(file: Path, database_url: str | None) -> None:
    """Copy the SQLite database to a new file.

    The provider can keep running. FILE must not exist. The copy is checked.
    """
    with one_line_errors(), ended_by_sigterm():
        from sentryagent_idp.store import backup as copying

        settings = Settings.from_environ(os.environ, {"database_url": database_url})
        step = copying.backup(settings.database_url, file)
    click.echo(f"{file}: {file.stat().st_size} bytes, schema step {step}, checked")


@main.command("admin-token")
@click.option(
    "--for",
    "person",
    metavar="NAME",
    help="Who will use the token, recorded in the audit.  [default: your user name]",
)
@scope_option
@click.option(
    "--ttl", type=click.IntRange(1), metavar="SECONDS", help="Lifetime; at most SENTRYAGENT_TOKEN_TTL."
)
@database_option
def admin_token(person: str | None, scope: str | None, ttl: int | None, database_url: str | None) -> None:
    """Mint an admin access token.

    Works directly on the database. Prints only the token to stdout.
    """
    problem = person is not None and name_problem(person)
    if problem:
        fail(f"--for: {problem}")
    with prepared(database_url) as (settings, store):
        from sentryagent_idp.app import token_service, utc_now
        from sentryagent_idp.use_cases.key_ring import KeyRing

        tokens = token_service(settings, store, KeyRing(settings.passphrases), utc_now)
        lifetime = ttl or settings.token_ttl
        issued = tokens.issue_to_admin(ADMIN_CLI, admin_scopes(scope), lifetime, command_context(person))
    click.echo(issued["access_token"])


for command in (admin.keys, admin.clients, admin.audit, policies.policies, doctor):
    main.add_command(command)
