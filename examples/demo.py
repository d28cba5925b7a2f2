"""The main job on this machine: an agent registered and a token issued from a workflow, without a stored secret.

Starts the mock of GitHub and the identity provider on free ports of 127.0.0.1, creates a trust policy as an admin
would, runs the two actions as GitHub's runner would, and calls a protected endpoint with the issued token.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REPOSITORY = "octo-org/hello-agent"
AGENT = "release-bot@octo-org.example"
START_SECONDS = 20


def main() -> None:
    """Run the demo; ends with a non-zero exit code where a step fails."""
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sentryagent-demo-")))

        say("1. GitHub, played by mock-idp: signs a short-lived OIDC token for each job")
        github = running.enter_context(mock_github())
        say(f"   listening on {github}")

        say("2. The identity provider: SQLite in a temporary folder, a signing key of its own")
        provider, environ = running.enter_context(identity_provider(folder, github))
        say(f"   ready on {provider}")
        flow(folder, github, provider, environ)
    say("\nDone: nothing was stored in the repository, and nothing is left running.")


def flow(folder: Path, github: str, provider: str, environ: dict[str, str]) -> None:
    """What an admin and a workflow do."""
    started = time.monotonic()
    token = command(["sentryagent-idp", "admin-token"], environ).stdout.strip()
    with httpx.Client(base_url=f"{provider}/api/v1", trust_env=False) as api:
        api.headers["Authorization"] = f"Bearer {token}"

        say(f"3. An admin lets {REPOSITORY} register agents on main, and act as those that it registered")
        create_policy(api, {"repository": REPOSITORY, "branch": "main", "trustRegistered": True})

        say("4. The workflow's first step: uses: sentryagent/register-agent@v1\n")
        inputs = {"api-url": provider, "agent-name": AGENT, "agent-description": "Cuts the releases"}
        agent_id = step("register-agent", inputs, github, folder)["agent-id"]

        say("5. The second step: uses: sentryagent/issue-token@v1\n")
        inputs = {"api-url": provider, "agent-id": agent_id, "revoke": "false"}
        issued = step("issue-token", inputs, github, folder)

        say("6. The third step calls a protected endpoint with the token")
        api.headers["Authorization"] = f"Bearer {issued['access-token']}"
        answer = api.get(f"/agents/{agent_id}").raise_for_status().json()
        say(f"   GET /api/v1/agents/{agent_id} -> 200, {answer['email']} is {answer['status']}")

        say("7. The token is revoked (by default the action's post step does this)")
        api.post("/token/revoke", data={"token": issued["access-token"]}).raise_for_status()
        refused = api.get(f"/agents/{agent_id}")
        say(f"   the same call again -> {refused.status_code}, {refused.json()['message']}")
    say(f"\nThe flow took {time.monotonic() - started:.1f} s.")


def step(action: str, inputs: dict[str, str], github: str, folder: Path) -> dict[str, str]:
    """Run one action as the runner would; returns its outputs and shows them as the runner would."""
    report = folder / f"{action}.json"
    arguments = [argument for name, value in inputs.items() for argument in ("--input", f"{name}={value}")]
    options = ["--url", github, "--repository", REPOSITORY, "--ref", "refs/heads/main", "--json", str(report)]
    run = command(
        ["mock-idp", "run", str(ROOT / action), *arguments, *options], clean_environment(), check=False
    )
    print(indented(run.stdout), flush=True)
    if run.returncode:
        sys.exit(f"demo: the step {action} failed, see its log above\n{run.stderr}")
    outputs: dict[str, str] = json.loads(report.read_text())["outputs"]
    shown = json.dumps({name: masked(value) for name, value in outputs.items()}, indent=2)
    say("   outputs:\n" + textwrap.indent(shown, "   ") + "\n")
    return outputs


def create_policy(api: httpx.Client, policy: dict[str, Any]) -> None:
    """What `curl -X POST …/oidc/trust-policies` does for an admin."""
    answer = api.post("/oidc/trust-policies", json=policy)
    if answer.status_code != httpx.codes.CREATED:
        sys.exit(f"demo: the provider refused the policy: {answer.text}")
    say(f"   POST /api/v1/oidc/trust-policies {json.dumps(policy)} -> 201")


@contextlib.contextmanager
def mock_github() -> Iterator[str]:
    """GitHub's issuer and runner service on a free port; gives its URL."""
    arguments = [BIN / "mock-idp", "serve", "--port", "0"]
    with process(arguments, clean_environment(), stdout=subprocess.PIPE) as mock:
        first_line = mock.stdout.readline() if mock.stdout else ""
        found = re.search(r"http://127\.0\.0\.1:\d+", first_line)
        if not found:
            sys.exit("demo: mock-idp did not start, see above")
        yield found.group()


@contextlib.contextmanager
def identity_provider(folder: Path, github: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The provider on a free port, trusting the mock; gives its URL and its environment."""
    port = free_port()
    environ = clean_environment() | {
        "SENTRYAGENT_DATABASE_URL": f"sqlite:///{folder / 'provider.db'}",
        "SENTRYAGENT_GITHUB_ISSUER": github,
        "SENTRYAGENT_LOG_LEVEL": "error",
    }
    arguments = [BIN / "sentryagent-idp", "serve", "--port", str(port), "--workers", "1"]
    with process(arguments, environ) as server:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, server)
        yield url, environ


@contextlib.contextmanager
def process(
    arguments: Sequence[Any], environ: dict[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A program that is stopped at the end of the block, with SIGTERM as an operator would."""
    with subprocess.Popen([str(it) for it in arguments], env=environ, text=True, **options) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


def wait_until_ready(url: str, server: subprocess.Popen[str]) -> None:
    """Ask `/ready` until the provider says yes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready", trust_env=False).is_success:
                return
        time.sleep(0.05)
    sys.exit("demo: the identity provider did not get ready, see above")


def command(
    arguments: list[str], environ: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment to its end."""
    done = subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]], env=environ, text=True, capture_output=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"demo: {arguments[0]} failed: {done.stderr}")
    return done


def clean_environment() -> dict[str, str]:
    """This process' environment without settings of a provider or a mock that you may have at hand."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SENTRYAGENT_", "MOCK_IDP_"))}


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def masked(value: str) -> str:
    """Outputs as a log may show them: a JWT becomes `***`."""
    return re.sub(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "***", value)


def indented(text: str) -> str:
    """A log, set off from what the demo itself says."""
    return "\n".join(f"   | {line}" for line in text.splitlines())


def say(text: str) -> None:
    """One line of the story."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
