"""The command `sentryagent-idp`, run in this process."""

from typing import Any

from click.testing import CliRunner

from sentryagent_idp.cli.main import main


def run(*arguments: str, **variables: str) -> Any:
    """Run a command with `SENTRYAGENT_<NAME>` variables."""
    environ = {f"SENTRYAGENT_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(main, arguments, env=environ, catch_exceptions=False)


def assert_fails(result: Any, cause: str) -> None:
    """Assert exit code 2, nothing on stdout and one line on stderr that contains the cause."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("sentryagent-idp: ")
    assert result.stderr.count("\n") == 1
    assert cause in result.stderr
