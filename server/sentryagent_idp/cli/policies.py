"""`sentryagent-idp policies`: changes of all trust policies at once, directly on the database."""

from datetime import UTC, datetime
from functools import partial

import click

from sentryagent_idp.cli.common import command_context, counted, database_option, fail, prepared, remark
from sentryagent_idp.config import issuers
from sentryagent_idp.domain.caller import ADMIN_CLI
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.issuers import IssuerMove

_NOW = partial(datetime.now, UTC)


@click.group()
def policies() -> None:
    """Change all trust policies at once.

    To change a single policy, use the HTTP API.
    """


def _issuer(_context: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        found = issuers(text)
    except ValueError as error:
        fail(f"{parameter.opts[0]}: {error}")
    if len(found) > 1:
        fail(f"{parameter.opts[0]}: name a single issuer")
    return found[0]


@policies.command("move-issuer")
@click.option(
    "--from", "source", metavar="ISSUER", required=True, help="The issuer that the policies belong to."
)
@click.option("--to", "target", metavar="ISSUER", required=True, callback=_issuer, help="Their new issuer.")
@database_option
def move_issuer(source: str, target: str, database_url: str | None) -> None:
    """Move all policies of an issuer to another issuer.

    For example to the issuer of an enterprise. Writes an audit record for each policy.
    """
    if not source.isprintable():
        fail("--from: it contains a non-printable character; write it as `sentryagent-idp doctor` shows it")
    if source == target:
        fail("--to: it must differ from --from")
    with prepared(database_url) as (settings, store):
        move = IssuerMove(store, Auditor(_NOW, uuid7), _NOW)
        moved = move.run(ADMIN_CLI, source, target, command_context())
    click.echo(
        f"moved {counted(moved, 'policy', 'policies')} to {target}"
        if moved
        else f"nothing to do: {source} has no policies"
    )
    if moved and target not in settings.github_issuers:
        remark(
            "SENTRYAGENT_GITHUB_ISSUER does not list the new issuer here; the policies match nothing until the "
            "provider's does"
        )
