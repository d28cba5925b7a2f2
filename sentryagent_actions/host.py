"""The state of steps without Docker: they have no post step, so a later step must find the tokens to revoke.

The state file is in RUNNER_TEMP, which the runner empties for each job. Like GITHUB_STATE, it is written as soon as
the token is issued, so that the token of a cancelled step is revoked too.
"""

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sentryagent_actions import revoke
from sentryagent_actions.step import Step

_FOLDER = "sentryagent-actions"
_PAIR = re.compile(r"^([a-z_]+)<<(\S+)\n(.*?)\n\2$", re.MULTILINE | re.DOTALL)


def with_state(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the step's environment with GITHUB_STATE set to a new file, or unset if there is no RUNNER_TEMP."""
    own = {name: value for name, value in environ.items() if name != "GITHUB_STATE"}
    if not own.get("RUNNER_TEMP"):
        return own
    folder = Path(own["RUNNER_TEMP"], _FOLDER)
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{uuid.uuid4()}.state"
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return own | {"GITHUB_STATE": str(file)}


def revoke_all(step: Step) -> int:
    """Revoke the tokens that earlier steps of this job left to be revoked; always return 0, as the post step does."""
    states = [state for state in _taken(step.environ) if state]
    for state in states:
        environ = {**step.environ, **{f"STATE_{name}": value for name, value in state.items()}}
        revoke.run(replace(step, environ=environ, workflow=step.workflow.of(environ)))
    if not states:
        step.workflow.info("Nothing to revoke: no step of this job has issued a token.")
    return 0


def _taken(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the saved states of earlier steps, and delete each file."""
    temp = environ.get("RUNNER_TEMP")
    for file in sorted(Path(temp, _FOLDER).glob("*.state")) if temp else ():
        text = file.read_text("utf-8")
        file.unlink()
        yield {name: value for name, _, value in _PAIR.findall(text)}
