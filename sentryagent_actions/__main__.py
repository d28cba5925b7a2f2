"""`python -I -u -m sentryagent_actions ACTION`, or `sentryagent-actions ACTION`: the only place that touches the process."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TextIO

from sentryagent_actions import issue_token, one_step, register_agent, revoke
from sentryagent_actions.errors import InternalError
from sentryagent_actions.network import Clock
from sentryagent_actions.step import Step, report_failure
from sentryagent_actions.workflow import RunnerFileUnavailableError, Workflow

_ACTIONS: Mapping[str, Callable[[Step], int]] = {
    "issue-token": issue_token.run,
    "register-agent": register_agent.run,
    "toolkit": one_step.run,
    "revoke": revoke.run,
}
_USAGE = f"usage: sentryagent-actions {'|'.join(_ACTIONS)}\n"
_CLOCK = Clock(time.time, time.monotonic, time.sleep, random.random)


def main(arguments: Sequence[str], environ: Mapping[str, str], stdout: TextIO) -> int:
    """Run the action that `arguments` names; return the exit code (2: no such action)."""
    if len(arguments) != 1 or arguments[0] not in _ACTIONS:
        stdout.write(_USAGE)
        return 2
    workflow = Workflow(environ, stdout)
    try:
        return _run(_ACTIONS[arguments[0]], Step(environ, workflow, _CLOCK))
    except RunnerFileUnavailableError as error:
        workflow.error("SentryAgent: no way to the runner", str(error))
        return 1
    except KeyboardInterrupt:
        workflow.info("Cancelled.")
        return 130


def _run(action: Callable[[Step], int], step: Step) -> int:
    try:
        return action(step)
    except RunnerFileUnavailableError:
        raise
    except Exception as fault:  # noqa: BLE001 - whatever it is, the workflow's next steps must be able to read it
        return report_failure(step.workflow, InternalError(fault))


def start(arguments: Sequence[str]) -> NoReturn:
    """Be the process: run the action with the real environment, clock and stdout, and exit."""
    # As Ctrl-C: what is cancelled still keeps or revokes its token. Without a handler, the first process of a
    # container never sees the signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A character that the runner's locale lacks must not end the step; a mask must be out before what it masks, without
    # -u as well.
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # a text stream of the process
    sys.exit(main(arguments, os.environ, sys.stdout))


def command() -> NoReturn:
    """The command `sentryagent-actions`: as `start`, and answers `--version` and `--help`."""
    if sys.argv[1:] == ["--version"]:
        from importlib.metadata import version  # takes 10 ms, and the image has no metadata

        sys.stdout.write(f"sentryagent-actions, version {version('sentryagent-actions')}\n")
    elif sys.argv[1:] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
    else:
        start(sys.argv[1:])
    sys.exit()


if __name__ == "__main__":
    start(sys.argv[1:])
