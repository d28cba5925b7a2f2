"""Run one action folder as the only step of a job on this machine, as `mock-idp run` does."""

from __future__ import annotations

import base64
import contextlib
import re
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mock_idp.runner.action import load_action
from mock_idp.runner.docker_engine import DockerEngine
from mock_idp.runner.engine import Folders
from mock_idp.runner.masks import SecretMasker
from mock_idp.runner.process_engine import ProcessEngine
from mock_idp.runner.stage import StepContext, proxy_variables
from mock_idp.runner.step import ActionStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Engine
    from mock_idp.runner.step import StepOptions, StepResult

# Not by urlsplit, which raises for `http://[::1` and does not find a password with a `#` or a `/`.
_PASSWORD = re.compile(r"(?:[^:@/]+://)?[^:@/]*:(?P<password>.+)@")


@dataclass(frozen=True)
class RunOptions:
    """The options of the user of this machine: engine, network of a container, workspace, debug logging."""

    engine: str = "process"
    network: str = "host"
    workspace: Path | None = None
    debug: bool = False

    def engine_for(self, action: Action, environment: Mapping[str, str]) -> Engine:
        """Create the chosen engine. Raises ActionError if it cannot run this action."""
        if self.engine == "docker":
            return DockerEngine(action, environment, self.network)
        return ProcessEngine(action, environment)


@dataclass(frozen=True)
class Runner:
    """The runner on this machine: `environment` is this program's, `show` takes the masked log line by line."""

    environment: Mapping[str, str] = field(repr=False)
    show: Callable[[str], None]

    def run_action(
        self, folder: Path, job: Mapping[str, Any], options: RunOptions, step: Callable[[], StepOptions]
    ) -> StepResult:
        """Run the action in `folder` as the one step of `job` (the response of `POST /_mock/jobs`).

        `step` returns the settings of the workflow's author; it is called before the main stage and again before the
        post stage. Raises ActionError if the action cannot be run as it is.
        """
        action = load_action(folder)
        engine = options.engine_for(action, self.environment)
        with self._context(job, options) as context:
            contexts = expression_contexts(context, prepare(context))
            return ActionStep(action, engine, context, step, contexts).run()

    @contextlib.contextmanager
    def _context(self, job: Mapping[str, Any], options: RunOptions) -> Iterator[StepContext]:
        # A container may leave files owned by root, which other users cannot remove.
        with tempfile.TemporaryDirectory(prefix="mock-idp-", ignore_cleanup_errors=True) as root:
            work = Path(root).resolve()
            name = job["variables"]["GITHUB_REPOSITORY"].rpartition("/")[2]
            yield StepContext(
                variables=job["variables"],
                event=job["event"],
                folders=Folders(work, (options.workspace or work / name / name).resolve()),
                machine=self.environment,
                masker=SecretMasker(),
                show=self.show,
                debug=options.debug,
            )


def prepare(context: StepContext) -> str:
    """Create the runner's folders and files, mask the job's credentials, and return the `github.token`."""
    context.folders.create(context.event)
    token = f"ghs_{uuid.uuid4().hex}"
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    proxies = map(_PASSWORD.match, proxy_variables(context.machine).values())
    passwords = [found["password"] for found in proxies if found]
    request_token = context.variables.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    for secret in (token, basic, request_token, *passwords):
        context.masker.add(secret)
    return token


def expression_contexts(context: StepContext, token: str) -> dict[str, dict[str, Any]]:
    """Return the contexts `github` and `runner`."""
    variables = context.variables
    github: dict[str, Any] = {
        name[7:].lower(): value for name, value in variables.items() if name.startswith("GITHUB_")
    }
    github |= {"token": token, "workspace": str(context.folders.workspace), "event": context.event}
    runner = {name[7:].lower(): value for name, value in variables.items() if name.startswith("RUNNER_")}
    return {"github": github, "runner": runner | {"temp": str(context.folders.temp)}}
