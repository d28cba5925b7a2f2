"""The command `mock-idp` and its subcommands."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import click

from mock_idp.cli.act import act
from mock_idp.cli.attack import attack
from mock_idp.cli.env import env
from mock_idp.cli.exec import execute
from mock_idp.cli.run import run
from mock_idp.cli.serve import serve


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sentryagent-mock-idp")
def cli() -> None:
    """A mock of GitHub's OIDC issuer and Actions runner."""


for _command in (serve, execute, env, run, act, attack):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line; an error is one line on stderr, and wrong usage exits with 2."""
    for stream in (sys.stdout, sys.stderr):
        # Redirected output may have a code page that lacks characters of a branch name or of an action's log.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(cli.main(prog_name="mock-idp", standalone_mode=False) or 0)
    except click.ClickException as error:
        print(f"mock-idp: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
