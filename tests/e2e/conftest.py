"""Real processes on 127.0.0.1: one `mock-idp` as GitHub and one `sentryagent-idp` as the provider per test process.

Tests are isolated by repository and agent name, which are new for each test. After every test, all output of its
processes is searched for tokens.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from kit.processes import BIN, ROOT, Served, clean_environment, output_of, program, run, wait_until
from kit.tokens import JWT, kid_of


@pytest.fixture(scope="session")
def environment():
    """The environment variables of started programs."""
    return clean_environment()


@dataclass
class Transcript:
    """All output during one test, by source."""

    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, source: str, text: str) -> None:
        self.texts.append((source, text))

    def run(self, *command: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and add its output to the transcript."""
        done = run(*command, **options)
        self.add(f"stdout of {command[0]}", done.stdout)
        self.add(f"stderr of {command[0]}", done.stderr)
        return done

    def leaks(self) -> list[str]:
        """The place of each JWT in the output, without the JWT itself."""
        return [
            f"{source}, after {text[max(0, found.start() - 60) : found.start()]!r}"
            for source, text in self.texts
            for found in JWT.finditer(text)
        ]


@pytest.fixture(autouse=True)
def transcript(service_logs):
    """The test's transcript; a token in it fails the test."""
    before = {log: log.stat().st_size for log in service_logs}
    transcript = Transcript()
    yield transcript
    for log, size in before.items():
        transcript.add(log.name, log.read_bytes()[size:].decode())
    assert not transcript.leaks()


@dataclass(frozen=True)
class Github:
    """The mock of GitHub and its control API."""

    url: str
    log: Path

    def control(self, method: str, path: str, **body: Any) -> httpx.Response:
        answer = httpx.request(method, f"{self.url}/_mock/{path}", json=body, trust_env=False)
        return answer.raise_for_status()

    def plan_fault(self, endpoint: str, **fault: Any) -> None:
        self.control("POST", "faults", endpoint=endpoint, **fault)

    def id_token_requests(self, repository: str) -> list[dict[str, Any]]:
        """The ID-token requests of a repository's jobs, oldest first."""
        log = httpx.get(f"{self.url}/_mock/requests", trust_env=False).json()["data"]
        return [it for it in log if it["endpoint"] == "token" and it["repository"] == repository]


@dataclass(frozen=True)
class Provider:
    """The identity provider, with its admin's requests."""

    url: str
    log: Path
    admin: httpx.Client

    def policy(self, repository: str, **members: Any) -> dict[str, Any]:
        """Create a trust policy; without `agentId`, it allows the repository to register agents."""
        answer = self.admin.post("/oidc/trust-policies", json={"repository": repository, **members})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def agent(self, email: str, **members: Any) -> str:
        """Create an agent and return its id."""
        answer = self.admin.post("/agents", json={"email": email, **members})
        assert answer.status_code == 201, answer.text
        return answer.json()["agentId"]

    def agents_named(self, email: str) -> list[dict[str, Any]]:
        return self.admin.get("/agents", params={"email": email}).raise_for_status().json()["data"]

    def is_active(self, token: str) -> bool:
        """Whether introspection says that a token is active."""
        answer = self.admin.post("/token/introspect", data={"token": token}).raise_for_status()
        return answer.json()["active"]

    def verify(self, token: str, audience: str = "") -> dict[str, Any]:
        """The claims of one of our access tokens, verified as its service does: RFC 9068, with the published keys."""
        assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
        published = httpx.get(f"{self.url}/.well-known/jwks.json", trust_env=False).raise_for_status()
        key = jwt.PyJWKSet.from_dict(published.json())[kid_of(token)]
        return jwt.decode(token, key, algorithms=["ES256"], issuer=self.url, audience=audience or self.url)


@pytest.fixture(scope="session")
def services(tmp_path_factory):
    """The running mock of GitHub and the provider that trusts it."""
    folder = tmp_path_factory.mktemp("services")
    database = f"sqlite:///{folder / 'provider.db'}"
    with (
        start_github(folder / "mock-idp.log") as github,
        start_provider(folder / "sentryagent-idp.log", github.url, DATABASE_URL=database) as served,
        served.client("/api/v1", headers=served.admin) as admin,
    ):
        yield github, Provider(served.url, served.log, admin)


@contextlib.contextmanager
def start_github(log: Path) -> Iterator[Github]:
    with program(log, clean_environment(), "mock-idp", "serve", "--port", "0") as process:

        def address() -> re.Match[str] | None:
            return re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text())

        yield Github(wait_until(address, "mock-idp", process=process, log=log.read_text)[1], log)


def start_provider(log: Path, issuer: str, workers: int = 1, **settings: object) -> Served:
    """A provider that trusts an issuer; it runs during the body of a `with`."""
    environ = clean_environment(GITHUB_ISSUER=issuer, LOG_LEVEL="debug", **settings)
    return Served(log, environ, "--workers", workers)


@pytest.fixture(scope="session")
def provider_program():
    """The function that starts a separate provider for a test; see `start_provider`."""
    return start_provider


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
    """A new repository, without a trust policy."""
    return f"octo-org/repo-{uuid4().hex[:12]}"


@pytest.fixture
def agent_name():
    """A new agent name."""
    return f"bot-{uuid4().hex[:12]}@octo-org.example"


@pytest.fixture
def trusted_agent(provider, repository, agent_name):
    """The id of an agent as which the test's repository may act on the branch main."""
    agent_id = provider.agent(agent_name)
    provider.policy(repository, branch="main", agentId=agent_id)
    return agent_id


@dataclass(frozen=True)
class ActionRun:
    """The result of a step: what its author sees and what later steps receive."""

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
    """Run an action's folder (empty: the root action) in a job of the test's repository."""

    def run_action(action: str, inputs: Mapping[str, str], **job: str) -> ActionRun:
        report = tmp_path / f"{uuid4().hex}.json"
        options = {"url": github.url, "repository": repository, "json": report} | job
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        words += [f"--input={name}={value}" for name, value in ({"api-url": provider.url} | inputs).items()]
        done = transcript.run(BIN / "mock-idp", "run", ROOT / action, *words, env=environment)
        assert report.exists(), f"mock-idp run exited with {done.returncode}: {done.stderr}"
        result = json.loads(report.read_text())
        transcript.add("the summary", result["summary"])
        transcript.add("the annotations", json.dumps(result["annotations"]))
        return ActionRun(done.returncode, done.stdout, **result)

    return run_action


@pytest.fixture(scope="module")
def docker_engine():
    """A lock on the Docker engine, for one test module at a time on this machine.

    Before a build, act removes the image of that name with all its tags, so two runs on the same sources would remove
    each other's images.
    """
    with (Path(tempfile.gettempdir()) / f"sentryagent-docker-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def git(environment):
    """Run git in a folder, without this user's settings, and return its output."""
    identity = ("-c", "user.name=octocat", "-c", "user.email=octocat@octo-org.example")
    environ = environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    return lambda folder, *arguments: output_of("git", *identity, *arguments, cwd=folder, env=environ)


@pytest.fixture(scope="session")
def checkout(git, tmp_path_factory):
    """A new repository with this working tree's files, including uncommitted files but no ignored ones."""
    folder = tmp_path_factory.mktemp("checkout") / "toolkit"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        # git also lists a deleted file whose deletion is not committed yet.
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "A toolkit")
    return folder


@pytest.fixture(scope="session")
def install():
    """Emulate `make install` in a clone without the network: `.venv` has this environment's packages and the clone's code."""

    def install(clone: Path) -> None:
        environment = clone / ".venv"
        venv.create(environment, symlinks=True)
        [packages] = environment.glob("lib/python3.*/site-packages")
        (packages / "toolkit.pth").write_text(
            f"{clone}\n{clone / 'server'}\n{sysconfig.get_path('purelib')}\n"
        )
        for name in ("mock-idp", "sentryagent-idp", "flask"):
            [entry] = entry_points(group="console_scripts", name=name)
            script = environment / "bin" / name
            script.write_text(
                f"#!{environment}/bin/python\nfrom {entry.module} import {entry.attr}\n{entry.attr}()\n"
            )
            script.chmod(0o755)
        # `make` compares these files with the lock files to see whether the environment is up to date.
        for stamp in (".run", ".dev"):
            (environment / stamp).touch()

    return install


@pytest.fixture
def run_in_docker(run_action):
    """Run an action's folder with `--engine docker`, and remove the image afterwards."""
    tags = set()

    def run(action, inputs):
        result = run_action(action, inputs, engine="docker")
        tags.update(re.findall(r"Successfully tagged (\S+)", result.log))
        return result

    yield run
    output_of("docker", "rmi", *tags)
