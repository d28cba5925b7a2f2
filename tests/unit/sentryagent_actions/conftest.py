"""A scripted runner, ID-token endpoint and provider; time passes only as scripted."""

import base64
import io
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest

from sentryagent_actions import issue_token, one_step, register_agent, revoke
from sentryagent_actions.cancellation import Cancellation
from sentryagent_actions.network import Clock, Network, open_client
from sentryagent_actions.step import Step
from sentryagent_actions.workflow import Workflow

API_URL = "https://idp.example.com"
GITHUB_HOST = "run-actions-3.actions.example.com"
ISSUER = "https://token.actions.githubusercontent.com"
ID_TOKEN_URL = f"https://{GITHUB_HOST}/232//idtoken/plan/job?api-version=2.0"
AGENT_ID = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
ACCESS_TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"
START = 1_800_000_000.0
ACTIONS = {
    "issue-token": issue_token.run,
    "register-agent": register_agent.run,
    "toolkit": one_step.run,
    "revoke": revoke.run,
}


def make_jwt(claims, number=0):
    """Return an unsigned JWT whose `jti` is `number`."""
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "RS256", "typ": "JWT"}, {**claims, "jti": str(number)})
    )
    return f"{header}.{payload}.c2lnbmF0dXJl"


@dataclass
class FakeTime:
    """Time that passes only by sleeping and by delayed responses; random numbers are always one half."""

    seconds: float = 0.0
    sleeps: list = field(default_factory=list)
    cancellation: Cancellation = field(default_factory=Cancellation)

    def sleep(self, seconds):
        """Let time pass and record it."""
        self.sleeps.append(seconds)
        self.seconds += seconds

    def clock(self):
        """Return a clock for the action."""
        return Clock(
            lambda: START + self.seconds, lambda: self.seconds, self.sleep, lambda: 0.5, self.cancellation
        )


@dataclass
class Answer:
    """One scripted response: a status with JSON, text or headers, or an exception, possibly delayed."""

    status: int = 200
    json: object = None
    text: str | None = None
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    error: Exception | None = None


@dataclass
class Request:
    """A received request, split into the parts that tests check."""

    method: str
    path: str
    query: dict
    authorization: str
    body: object
    host: str
    raw_path: str
    user_agent: str


class Script(httpx.BaseTransport):
    """Responds to each endpoint from its own queue; unexpected calls and unused responses are failures."""

    def __init__(self, time):
        self.time = time
        self.queues = defaultdict(deque)
        self.requests = []
        self.minted = 0

    def on(self, call, *answers):
        """Queue responses for a call, for example `POST /oidc/token` or `ID-TOKEN`."""
        self.queues[call].extend(answers)

    def handle_request(self, request):
        """Respond from the queue, or with success to the two calls that every run makes."""
        seen = self._record(request)
        call = (
            "ID-TOKEN" if seen.host == GITHUB_HOST else f"{seen.method} {seen.path.removeprefix('/api/v1')}"
        )
        if self.queues[call]:
            return self._play(self.queues[call].popleft(), request)
        if call == "ID-TOKEN":
            return self._play(self._id_token(seen), request)
        if call == "GET /oidc/audience":
            return self._play(Answer(json={"audience": API_URL}), request)
        raise AssertionError(f"unexpected call: {call}")

    def verify(self):
        """Fail if a scripted response was not used."""
        left = {call: len(queue) for call, queue in self.queues.items() if queue}
        assert not left, f"calls that never came: {left}"

    def made(self, call):
        """Return the requests of this call."""
        return [
            seen for seen in self.requests if f"{seen.method} {seen.path.removeprefix('/api/v1')}" == call
        ]

    def calls(self):
        """Return the calls in order, without `GET /oidc/audience`."""
        names = [
            "ID-TOKEN" if seen.host == GITHUB_HOST else f"{seen.method} {seen.path.removeprefix('/api/v1')}"
            for seen in self.requests
        ]
        return [name for name in names if name != "GET /oidc/audience"]

    def _record(self, request):
        content = request.read()
        is_json = request.headers.get("content-type") == "application/json"
        seen = Request(
            method=request.method,
            path=request.url.path,
            query=parse_qs(request.url.query.decode()),
            authorization=request.headers.get("authorization", ""),
            body=json.loads(content) if is_json else parse_qs(content.decode()),
            host=request.url.host,
            raw_path=request.url.raw_path.decode(),
            user_agent=request.headers["user-agent"],
        )
        self.requests.append(seen)
        return seen

    def _id_token(self, seen):
        self.minted += 1
        claims = {
            "iss": ISSUER,
            "aud": seen.query["audience"][0],
            "exp": int(START + self.time.seconds) + 300,
        }
        token = make_jwt(claims, self.minted)
        return Answer(json={"count": len(token), "value": token})

    def _play(self, answer, request):
        allowed = request.extensions["timeout"]["read"]
        self.time.seconds += min(answer.delay, allowed)
        if answer.delay > allowed:
            raise httpx.ReadTimeout("timed out", request=request)
        if answer.error is not None:
            raise answer.error
        if answer.text is not None:
            return httpx.Response(answer.status, text=answer.text, headers=answer.headers)
        return httpx.Response(
            answer.status, json=answer.json, headers={"X-Request-Id": "req-1", **answer.headers}
        )


def read_pairs(path):
    """Parse a file of heredoc pairs as the runner does; the last value of a name counts."""
    pairs, lines = {}, iter(path.read_text().splitlines())
    for line in lines:
        name, _, delimiter = line.partition("<<")
        value = []
        for following in lines:
            if following == delimiter:
                break
            value.append(following)
        else:
            raise AssertionError(f"no end of {name}")
        pairs[name] = "\n".join(value)
    return pairs


@dataclass
class Outcome:
    """The result of a step: exit code, log and files."""

    exit_code: int
    stdout: str
    outputs: dict
    state: dict
    summary: str

    def commands(self, name):
        """Return the workflow commands with this name, in order."""
        return [line for line in self.stdout.splitlines() if line.startswith((f"::{name} ", f"::{name}::"))]

    @property
    def visible(self):
        """The log without its masking commands, and without masking."""
        return "\n".join(line for line in self.stdout.splitlines() if not line.startswith("::add-mask::"))


class World:
    """The environment of a step: variables, files, time and scripted responses."""

    api_url, agent_id, access_token, start, issuer = API_URL, AGENT_ID, ACCESS_TOKEN, START, ISSUER
    id_token_url, answer, make_jwt = ID_TOKEN_URL, Answer, staticmethod(make_jwt)

    def __init__(self, folder: Path):
        self.time = FakeTime()
        self.script = Script(self.time)
        self.transport = self.script
        self.files = {name: folder / name for name in ("output", "state", "step_summary")}
        for file in self.files.values():
            file.touch()
        self.environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_OUTPUT": str(self.files["output"]),
            "GITHUB_STATE": str(self.files["state"]),
            "GITHUB_STEP_SUMMARY": str(self.files["step_summary"]),
            "ACTIONS_ID_TOKEN_REQUEST_URL": ID_TOKEN_URL,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
            "INPUT_API-URL": API_URL,
        }

    def run(self, action, **inputs):
        """Run an action with inputs, whose names have underscores, and check that all scripted responses were used."""
        environ = self.environ | {
            f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()
        }
        stdout = io.StringIO()
        step = Step(environ, Workflow(environ, stdout), self.time.clock(), self.transport)
        exit_code = ACTIONS[action](step)
        self.script.verify()
        summary = self.files["step_summary"].read_text()
        return Outcome(exit_code, stdout.getvalue(), self.outputs(), self.state(), summary)

    def outputs(self):
        """Return the outputs."""
        return read_pairs(self.files["output"])

    def state(self):
        """Return the saved state."""
        return read_pairs(self.files["state"])

    def network(self, seconds=60.0, log=lambda message: None, debug=lambda message: None):
        """Return a network that uses the script."""
        client = open_client(transport=self.script, ca_certificate="")
        return Network(client, self.time.clock(), seconds, log, debug)

    def id_token(self, **claims):
        """A response with an ID token."""
        good = {"iss": ISSUER, "aud": API_URL, "exp": int(START) + 300}
        return Answer(json={"value": make_jwt(good | claims)})

    @staticmethod
    def token(scope="agents:read", **members):
        """A response with an access token."""
        body = {
            "access_token": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 3600,
            "expires_at": "2027-01-15T09:00:00Z",
            "scope": scope,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        return Answer(json=body | members)

    @staticmethod
    def permission(scope="agents:read"):
        """A response that allows a dry run."""
        body = {"dryRun": True, "allowed": True, "scope": scope, "expires_in": 300, "policyId": AGENT_ID}
        return Answer(json=body)

    @staticmethod
    def agent(status="active", **members):
        """Return an agent's record."""
        record = {"agentId": AGENT_ID, "email": "bot@example.com", "status": status, "version": "1.0.0"}
        return record | {"agentType": "custom", "capabilities": ["ci:run"], "owner": "octo-org"} | members

    @staticmethod
    def refusal(status_code, code, /, *, headers=None, **details):
        """A response in the provider's error format."""
        body = {"code": code, "message": "No.", "details": details, "requestId": "req-1"}
        return Answer(status=status_code, json=body, headers=headers or {})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
