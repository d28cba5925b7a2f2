"""Real processes on 127.0.0.1: `mock-idp` as GitHub, `sentryagent-idp` as the provider, one pair for a test process.

Tests keep apart by repository and agent name, both made anew for each test. After every test, all that any process
printed meanwhile is searched for tokens.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 30
STOP_SECONDS = 15
JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}")


def clean_environment() -> dict[str, str]:
    """This process' environment without anybody's settings of a provider, a mock or a job."""
    settings = ("SENTRYAGENT_", "MOCK_IDP_", "ACTIONS_", "GITHUB_", "INPUT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


@pytest.fixture(scope="session")
def environment():
    """The environment in which programs are started."""
    return clean_environment()


@dataclass
class Transcript:
    """All that was printed during one test, by its source."""

    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, source: str, text: str) -> None:
        self.texts.append((source, text))

    def leaks(self) -> list[str]:
        """Where something in the shape of a JWT stands; not the thing itself."""
        return [
            f"{source}, after {text[max(0, found.start() - 60) : found.start()]!r}"
            for source, text in self.texts
            for found in JWT.finditer(text)
        ]


@pytest.fixture(autouse=True)
def transcript(service_logs):
    """The test's transcript; a token in it is an error of the test, whatever else it showed."""
    before = {log: log.stat().st_size for log in service_logs}
    transcript = Transcript()
    yield transcript
    for log, size in before.items():
        transcript.add(log.name, log.read_bytes()[size:].decode())
    assert not transcript.leaks()


@dataclass(frozen=True)
class Github:
    """The mock of GitHub, and its control API."""

    url: str
    log: Path

    def control(self, method: str, path: str, **body: Any) -> httpx.Response:
        answer = httpx.request(method, f"{self.url}/_mock/{path}", json=body, trust_env=False)
        return answer.raise_for_status()

    def plan_fault(self, endpoint: str, **fault: Any) -> None:
        self.control("POST", "faults", endpoint=endpoint, **fault)

    def id_token_requests(self, repository: str) -> list[dict[str, Any]]:
        """The ID tokens that jobs of a repository asked for, oldest first."""
        log = httpx.get(f"{self.url}/_mock/requests", trust_env=False).json()["data"]
        return [it for it in log if it["endpoint"] == "token" and it["repository"] == repository]


@dataclass(frozen=True)
class Provider:
    """The identity provider, and what its admin does."""

    url: str
    log: Path
    admin: httpx.Client

    def policy(self, repository: str, **members: Any) -> dict[str, Any]:
        """Create a trust policy; without `agentId` one that lets the repository register agents."""
        answer = self.admin.post("/oidc/trust-policies", json={"repository": repository, **members})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def agent(self, email: str, **members: Any) -> str:
        """Create an agent; gives its id."""
        answer = self.admin.post("/agents", json={"email": email, **members})
        assert answer.status_code == 201, answer.text
        return answer.json()["agentId"]

    def agents_named(self, email: str) -> list[dict[str, Any]]:
        return self.admin.get("/agents", params={"email": email}).raise_for_status().json()["data"]

    def is_active(self, token: str) -> bool:
        """What introspection says."""
        answer = self.admin.post("/token/introspect", data={"token": token}).raise_for_status()
        return answer.json()["active"]

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token of ours, as a service verifies it: RFC 9068 with the published keys."""
        assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
        published = httpx.get(f"{self.url}/.well-known/jwks.json", trust_env=False).raise_for_status()
        key = jwt.PyJWKSet.from_dict(published.json())[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key, algorithms=["ES256"], issuer=self.url, audience=self.url)


@contextlib.contextmanager
def program(log: Path, environ: Mapping[str, str], *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this environment that logs to a file and is stopped as an operator would."""
    with log.open("ab") as out:
        command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for(what: str, log: Path, process: subprocess.Popen[bytes], ask: Callable[[], Any]) -> Any:
    """The first true answer of `ask`, from a service that starts."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what} did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def services(tmp_path_factory):
    """The running pair: GitHub and the provider that trusts it."""
    folder = tmp_path_factory.mktemp("services")
    log = folder / "sentryagent-idp.log"
    settings = {"SENTRYAGENT_DATABASE_URL": f"sqlite:///{folder / 'provider.db'}"}
    with (
        start_github(folder / "mock-idp.log") as github,
        start_provider(log, settings, github.url) as (url, admin_token),
        httpx.Client(base_url=f"{url}/api/v1", headers=bearer(admin_token), trust_env=False) as admin,
    ):
        yield github, Provider(url, log, admin)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def start_github(log: Path) -> Iterator[Github]:
    with program(log, clean_environment(), "mock-idp", "serve", "--port", "0") as process:

        def address() -> re.Match[str] | None:
            return re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text())

        yield Github(wait_for("mock-idp", log, process, address)[1], log)


@contextlib.contextmanager
def start_provider(
    log: Path, settings: Mapping[str, str], issuer: str, workers: int = 1
) -> Iterator[tuple[str, str]]:
    """A running provider that trusts an issuer: its URL, and an admin's token."""
    environ = clean_environment() | {"SENTRYAGENT_GITHUB_ISSUER": issuer, "SENTRYAGENT_LOG_LEVEL": "debug"}
    environ |= settings
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = ("sentryagent-idp", "serve", "--port", port, "--workers", workers)
    with program(log, environ, *serve) as process:
        wait_for("sentryagent-idp", log, process, lambda: is_ready(url))
        yield url, mint_admin_token(environ)


@pytest.fixture(scope="session")
def provider_program():
    """What starts a provider of the test's own; see `start_provider`."""
    return start_provider


def mint_admin_token(environ: Mapping[str, str]) -> str:
    command = [BIN / "sentryagent-idp", "admin-token"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/ready", trust_env=False).is_success
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def service_logs(services):
    return tuple(service.log for service in services)


@pytest.fixture
def github(services):
    """The mock of GitHub without planned faults and with an empty log."""
    github, _ = services
    github.control("POST", "reset")
    yield github
    github.control("POST", "reset")


@pytest.fixture
def provider(services):
    return services[1]


@pytest.fixture
def repository():
    """A repository that no policy knows yet."""
    return f"octo-org/repo-{uuid4().hex[:12]}"


@pytest.fixture
def agent_name():
    """The name of an agent that does not exist yet."""
    return f"bot-{uuid4().hex[:12]}@octo-org.example"


@pytest.fixture
def trusted_agent(provider, repository, agent_name):
    """An agent that the test's repository may act as on the branch main; its id."""
    agent_id = provider.agent(agent_name)
    provider.policy(repository, branch="main", agentId=agent_id)
    return agent_id


@dataclass(frozen=True)
class ActionRun:
    """How a step ended: what its author sees, and what later steps get."""

    exit_code: int
    log: str
    outcome: str
    outputs: dict[str, str]
    summary: str
    annotations: list[dict[str, str]]
    state: dict[str, str]

    def only_annotation(self) -> dict[str, str]:
        assert len(self.annotations) == 1, self.annotations
        return self.annotations[0]

    def token(self) -> str:
        assert self.outcome == "success", self.log
        return self.outputs["access-token"]


@pytest.fixture
def run_action(environment, github, provider, repository, tmp_path, transcript):
    """Run an action's folder (the empty name is the root action) as a job of the test's repository."""

    def run(action: str, inputs: Mapping[str, str], **job: str) -> ActionRun:
        report = tmp_path / f"{uuid4().hex}.json"
        options = {"url": github.url, "repository": repository, "json": report} | job
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        words += [f"--input={name}={value}" for name, value in ({"api-url": provider.url} | inputs).items()]
        command = [BIN / "mock-idp", "run", ROOT / action, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert report.exists(), f"mock-idp run exited with {done.returncode}: {done.stderr}"
        result = json.loads(report.read_text())
        transcript.add("the runner's log", done.stdout)
        transcript.add("stderr of mock-idp run", done.stderr)
        transcript.add("the summary", result["summary"])
        transcript.add("the annotations", json.dumps(result["annotations"]))
        return ActionRun(done.returncode, done.stdout, **result)

    return run


@pytest.fixture(scope="module")
def docker_engine():
    """The Docker engine for one test module at a time, whoever else tests on this machine.

    Before it builds, act removes the image of that name with all its tags, so that two runs on the same sources take
    the images out of each other's hands.
    """
    with (Path(tempfile.gettempdir()) / f"sentryagent-docker-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def git(environment):
    """Run git in a folder and give what it says; the settings of this machine's user do not count."""
    identity = ("-c", "user.name=octocat", "-c", "user.email=octocat@octo-org.example")
    environ = environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def checkout(git, tmp_path_factory):
    """A fresh clone of this working tree, uncommitted files included, with nothing of this machine in it."""
    folder = tmp_path_factory.mktemp("checkout") / "toolkit"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        # A file that is deleted and not yet committed is listed as well.
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "A toolkit")
    return folder


@pytest.fixture
def run_in_docker(run_action):
    """Run an action's folder with `--engine docker`; removes the image that it built."""
    tags = set()

    def run(action, inputs):
        result = run_action(action, inputs, engine="docker")
        tags.update(re.findall(r"Successfully tagged (\S+)", result.log))
        return result

    yield run
    subprocess.run(["docker", "rmi", *tags], check=True, capture_output=True)
