"""The command `mock-idp` and its subcommands."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from mock_idp.cli.attack import attack
from mock_idp.cli.env import env
from mock_idp.cli.run import run
from mock_idp.cli.serve import serve


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """GitHub's OIDC issuer and Actions runner on this machine."""


for _command in (serve, env, run, attack):
    cli.add_command(_command)


def main() -> NoReturn:
    """Entry point: an error is one line on stderr, wrong usage exits with 2."""
    try:
        sys.exit(cli.main(prog_name="mock-idp", standalone_mode=False) or 0)
    except click.ClickException as error:
        print(f"mock-idp: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
