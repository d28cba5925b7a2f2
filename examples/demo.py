"""The main use case on this machine: a workflow without a stored secret acts as an agent at a service.

Starts the mock of GitHub, the identity provider and a deploy service (examples/verify) on free ports of 127.0.0.1,
creates a trust policy as an admin would, runs the two actions as GitHub's runner would, and calls the service, which
checks the scope of the issued tokens: it refuses the one without the scope and accepts the one with it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REPOSITORY = "octo-org/hello-agent"
AGENT = "release-bot@octo-org.example"
SERVICE = "https://deploy.example.com"
READ, DEPLOY = "deploy:read", "deploy:production"
SCOPES = [READ, DEPLOY]
START_SECONDS = 20


def main() -> None:
    """Run the demo; exits with a non-zero code if a step fails."""
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sentryagent-demo-")))

        say("1. GitHub, played by mock-idp: signs a short-lived OIDC token for each job")
        github = running.enter_context(mock_github())
        say(f"   listening on {github}")

        say("2. The identity provider: SQLite in a temporary folder, a signing key of its own")
        provider, environ = running.enter_context(identity_provider(folder, github))
        say(f"   ready on {provider}")

        say(f"3. The service {SERVICE}: the Flask example of docs/verify-tokens.md, unchanged")
        service = running.enter_context(deploy_service(folder, provider))
        say(f"   listening on {service}")
        flow(folder, Places(github, provider, service), environ)
    say("\nDone: nothing was stored in the repository, and nothing is left running.")


@dataclass(frozen=True)
class Places:
    """The URLs of the three programs."""

    github: str
    provider: str
    service: str


def flow(folder: Path, places: Places, environ: dict[str, str]) -> None:
    """Do what an admin and a workflow do."""
    started = time.monotonic()
    trust_repository(places.provider, environ)

    say("5. The workflow's first step: uses: sentryagent/register-agent@v1\n")
    inputs = {"agent-name": AGENT, "agent-description": "Cuts the releases"}
    agent_id = step("register-agent", inputs, places, folder)["agent-id"]

    say(f"6. The second step: uses: sentryagent/issue-token@v1, with the scope {READ} at {SERVICE}\n")
    issued = [token_for(READ, agent_id, places, folder)]
    say(f"   The third step calls the service, which requires {DEPLOY} to deploy")
    call_service(places.service, issued[0], httpx.codes.FORBIDDEN)

    say(f"7. The same steps with the scope {DEPLOY}\n")
    issued.append(token_for(DEPLOY, agent_id, places, folder))
    call_service(places.service, issued[1], httpx.codes.OK)

    say("8. The tokens are revoked (by default the action's post step does this when the job ends)")
    for token in issued:
        revoke(places.provider, token)
    say(f"\nThe flow took {time.monotonic() - started:.1f} s.")


def trust_repository(provider: str, environ: dict[str, str]) -> None:
    """Register the service and create the trust policy, as an admin does once."""
    say(f"4. An admin allows {REPOSITORY} to register agents on main, and to act as them at the service")
    token = command(["sentryagent-idp", "admin-token"], environ).stdout.strip()
    with httpx.Client(base_url=f"{provider}/api/v1", trust_env=False) as api:
        api.headers["Authorization"] = f"Bearer {token}"
        create(api, "/services", {"identifier": SERVICE, "scopes": [{"name": it} for it in SCOPES]})
        grants = [{"service": SERVICE, "scopes": SCOPES}]
        policy = {"repository": REPOSITORY, "branch": "main", "trustRegistered": True, "grants": grants}
        create(api, "/oidc/trust-policies", policy)


def token_for(scope: str, agent_id: str, places: Places, folder: Path) -> str:
    """Issue a token for the service without revoking it at the end of the step, which here is a job of its own."""
    inputs = {"agent-id": agent_id, "resource": SERVICE, "scope": scope, "revoke": "false"}
    return step("issue-token", inputs, places, folder)["access-token"]


def call_service(service: str, token: str, expected: int) -> None:
    """Call the service, as `curl -X POST …/deployments` does in a workflow."""
    authorization = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{service}/deployments", headers=authorization, trust_env=False)
    if answer.status_code != expected:
        sys.exit(f"demo: the service responded with {answer.status_code} instead of {expected}")
    said = answer.headers.get("WWW-Authenticate") or answer.text.strip()
    say(f"   POST {SERVICE}/deployments -> {answer.status_code}, {said}\n")


def revoke(provider: str, token: str) -> None:
    """Revoke a token, with itself as the credential."""
    answer = httpx.post(
        f"{provider}/api/v1/token/revoke",
        data={"token": token},
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )
    say(f"   POST /api/v1/token/revoke -> {answer.raise_for_status().status_code}")


def step(action: str, inputs: dict[str, str], places: Places, folder: Path) -> dict[str, str]:
    """Run one action, show its outputs as the runner would, and return them."""
    report = folder / f"{action}.json"
    given = {"api-url": places.provider} | inputs
    arguments = [argument for name, value in given.items() for argument in ("--input", f"{name}={value}")]
    options = ["--url", places.github, "--repository", REPOSITORY, "--ref", "refs/heads/main"]
    run = command(
        ["mock-idp", "run", str(ROOT / action), *arguments, *options, "--json", str(report)],
        clean_environment(),
        check=False,
    )
    print(indented(run.stdout), flush=True)
    if run.returncode:
        sys.exit(f"demo: the step {action} failed, see its log above\n{run.stderr}")
    outputs: dict[str, str] = json.loads(report.read_text())["outputs"]
    shown = json.dumps({name: masked(value) for name, value in outputs.items()}, indent=2)
    say("   outputs:\n" + textwrap.indent(shown, "   ") + "\n")
    return outputs


def create(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Create a resource, as an admin does with `curl -X POST …`."""
    answer = api.post(path, json=body)
    if answer.status_code != httpx.codes.CREATED:
        sys.exit(f"demo: the provider refused {path}: {answer.text}")
    say(f"   POST /api/v1{path} {json.dumps(body)} -> 201")


@contextlib.contextmanager
def mock_github() -> Iterator[str]:
    """Run GitHub's issuer and runner service on a free port, and yield its URL."""
    arguments = [BIN / "mock-idp", "serve", "--port", "0"]
    with process(arguments, clean_environment(), stdout=subprocess.PIPE) as mock:
        first_line = mock.stdout.readline() if mock.stdout else ""
        found = re.search(r"http://127\.0\.0\.1:\d+", first_line)
        if not found:
            sys.exit("demo: mock-idp did not start, see above")
        yield found.group()


@contextlib.contextmanager
def identity_provider(folder: Path, github: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Run the provider on a free port, trusting the mock; yield its URL and its environment."""
    port = free_port()
    environ = clean_environment() | {
        "SENTRYAGENT_DATABASE_URL": f"sqlite:///{folder / 'provider.db'}",
        "SENTRYAGENT_GITHUB_ISSUER": github,
        "SENTRYAGENT_LOG_LEVEL": "error",
    }
    arguments = [BIN / "sentryagent-idp", "serve", "--port", str(port), "--workers", "1"]
    with process(arguments, environ) as server:
        url = f"http://127.0.0.1:{port}"
        if not answers(f"{url}/ready", server, httpx.codes.OK):
            sys.exit("demo: the identity provider did not start, see above")
        yield url, environ


@contextlib.contextmanager
def deploy_service(folder: Path, provider: str) -> Iterator[str]:
    """Run the service on a free port, with its log in the folder, and yield its URL."""
    port = free_port()
    environ = clean_environment() | {"TOKEN_ISSUER": provider, "TOKEN_AUDIENCE": SERVICE}
    flask = [
        BIN / "flask",
        "--app",
        ROOT / "examples/verify/flask_service",
        "run",
        "--port",
        port,
    ]
    with (
        (folder / "service.log").open("w") as log,
        process(flask, environ, stdout=log, stderr=log) as service,
    ):
        url = f"http://127.0.0.1:{port}"
        if not answers(f"{url}/deployments", service, httpx.codes.UNAUTHORIZED):
            sys.exit(f"demo: the deploy service did not start\n{Path(log.name).read_text()}")
        yield url


@contextlib.contextmanager
def process(
    arguments: Sequence[Any], environ: dict[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the block and stop it with SIGTERM, as an operator would."""
    with subprocess.Popen([str(it) for it in arguments], env=environ, text=True, **options) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


def answers(url: str, program: subprocess.Popen[str], status: int) -> bool:
    """Send requests until the program returns this status; return False if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and program.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == status:
                return True
        time.sleep(0.05)
    return False


def command(
    arguments: list[str], environ: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python environment to its end."""
    done = subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]], env=environ, text=True, capture_output=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"demo: {arguments[0]} failed: {done.stderr}")
    return done


def clean_environment() -> dict[str, str]:
    """Return this process's environment without proxies and without settings that you may have for the programs."""
    own = ("SENTRYAGENT_", "MOCK_IDP_", "FLASK_")
    return {k: v for k, v in os.environ.items() if not k.startswith(own) and not k.lower().endswith("_proxy")}


def free_port() -> int:
    """Return a port on which nobody listens currently."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def masked(value: str) -> str:
    """Replace a JWT by `***`, as in a log."""
    return re.sub(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "***", value)


def indented(text: str) -> str:
    """Indent a log, to set it off from the demo's own output."""
    return "\n".join(f"   | {line}" for line in text.splitlines())


def say(text: str) -> None:
    """Print one line of the demo."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
