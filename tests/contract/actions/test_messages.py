"""The messages that users read: the snapshot `messages.md` has every message and is reviewed as a text.

The refusals come from the real provider, for ID tokens of the mock. After a change, update the snapshot with
`SENTRYAGENT_UPDATE_MESSAGES=1 pytest tests/contract/actions/test_messages.py`, and read it.
"""

import base64
import io
import json
import os
import re
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from kit.clock import Clock as ServerClock
from kit.github import GithubKeys
from kit.provider import GITHUB, NOW, PROVIDER, Provider, prepare
from mock_idp.issuer import Issuer
from mock_idp.job import Job
from sentryagent_actions import errors, host, issue_token, one_step, refused, register_agent, revoke
from sentryagent_actions.errors import MANUALS, ActionError, InternalError
from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint, diagnose
from sentryagent_actions.idp import ExchangeRequest, IdentityProvider
from sentryagent_actions.network import Clock, Network, Reply, open_client
from sentryagent_actions.origin import Origin
from sentryagent_actions.refusal import read_refusal
from sentryagent_actions.route import ProxyConnectError
from sentryagent_actions.step import Step
from sentryagent_actions.workflow import RunnerFileUnavailableError, Workflow
from sentryagent_idp.store.database import Database

SNAPSHOT = Path(__file__).with_name("messages.md")
URL = Origin.from_base_url(PROVIDER)
INTERNAL = "https://idp.internal.example.com"
AGENT = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MOST_LINES = 12
SPEAKER = re.compile(
    r"[A-Z][A-Z0-9_]+ from (this action|GitHub|the proxy|https://idp\.(internal\.)?example\.com): ([A-Z`]|http).*[.)]"
)


def advice(error, *consequences):
    """An error's message, with its ids replaced by a fixed one."""
    return UUID.sub(AGENT, error.advice(*consequences))


def caught(call):
    with pytest.raises(ActionError) as failure:
        call()
    return failure.value


def clock():
    return Clock(lambda: 1_800_000_000.0, lambda: 0.0, lambda _: None, lambda: 0.5)


def network_of(answer):
    def answered(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = open_client(transport=httpx.MockTransport(answered), ca_certificate="")
    # The budget is too short for a second try.
    return Network(client, clock(), 0.1, [].append, [].append)


def of_provider(answer, url=URL):
    """The error of an exchange with this response or exception."""
    provider = IdentityProvider(url, network_of(answer), [].append)
    return caught(
        lambda: provider.exchange(lambda: "an-id-token", ExchangeRequest(agent_id=AGENT), [].append)
    )


def of_github(answer):
    """The error of a request for an ID token with this response or exception."""
    endpoint = RequestEndpoint("https://github.example/idtoken", "request-token")
    return caught(IdTokens(endpoint, network_of(answer), str(URL), [].append, [].append).fresh)


def because(cause, error=httpx.ConnectError):
    failure = error(str(cause))
    failure.__cause__ = cause
    return failure


def certificate(code, message):
    cause = ssl.SSLCertVerificationError(message)
    cause.verify_code, cause.verify_message = code, message
    return because(cause)


def handshake(reason):
    cause = ssl.SSLError(1, reason)
    cause.reason = reason
    return because(cause)


def no_proxy_there():
    error = ProxyConnectError("Name or service not known")
    error.variable = "HTTPS_PROXY"
    return error


def answer_of(status, code, message="", **details):
    """The error for a response that no test can provoke from the real provider."""
    body = json.dumps({"code": code, "message": message, "details": details}).encode()
    return read_refusal(Reply(status, {"x-request-id": AGENT}, body), URL, 0.0)


def step_of(action, environ, **inputs):
    """The annotations and log lines of an action that fails on its inputs or its network settings."""
    given = {f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()}
    stdout = io.StringIO()
    environ = given | environ
    action(Step(environ, Workflow(environ, stdout), clock()))
    return stdout.getvalue()


def input_error(tmp_path, action=issue_token.run, environ=None, **inputs):
    given = {"api_url": PROVIDER, "agent_id": AGENT, "agent_name": "bot@example.com"}
    if action is one_step.run:
        given = {"api_url": PROVIDER}
    stdout = step_of(action, {"GITHUB_OUTPUT": str(tmp_path / "output")} | (environ or {}), **given | inputs)
    [line] = [line for line in stdout.splitlines() if line.startswith("::error ")]
    return line.partition("::error ")[2].partition("::")[2].replace("%0A", "\n").replace("%25", "%")


ENDPOINT = {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x.example/", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"}
ON_GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push"}
PULL = ON_GITHUB | {"GITHUB_EVENT_NAME": "pull_request"}
FORK = {"pull_request": {"head": {"repo": None}, "base": {"repo": {"full_name": "octo-org/octo-repo"}}}}
KEY = trustme.CA().private_key_pem.bytes().decode()

INPUTS = {
    "`api-url` is empty, or comes from a variable that is not set": {"api_url": ""},
    "`api-url` is not https": {"api_url": "http://idp.example.com"},
    "`api-url` has no scheme": {"api_url": "idp.example.com"},
    "`api-url` has a path": {"api_url": "https://idp.example.com/idp"},
    "`api-url` has a query": {"api_url": "https://idp.example.com?x=1"},
    "`api-url` has a password": {"api_url": "https://user:pw@idp.example.com"},
    "`api-url` has a space": {"api_url": "https://idp example.com"},
    "`api-url` has no host": {"api_url": "https://-idp.example.com"},
    "`api-url` has a wrong port": {"api_url": "https://idp.example.com:99999"},
    "`api-url` is not a URL": {"api_url": "https://[::1"},
    "`agent-id` is a name": {"agent_id": "release-bot"},
    "`resource` is a name": {"resource": "deploy"},
    "`timeout` is a word": {"timeout": "soon"},
    "`expires-in` has a unit": {"expires_in": "1h"},
    "`revoke` is not a boolean": {"revoke": "yes"},
    "`on-unavailable` is another word": {"on_unavailable": "ignore"},
    "`audience` has two lines": {"audience": "a\nb"},
    "`ca-certificate` is a word": {"ca_certificate": "none"},
    "`ca-certificate` is the name of a file": {"ca_certificate": "/etc/ssl/certs/corp.pem"},
    "`ca-certificate` is a key": {"ca_certificate": KEY},
    "`ca-certificate` is in OpenSSL's own format": {"ca_certificate": "-----BEGIN TRUSTED CERTIFICATE-----"},
    "`ca-certificate` is broken": {
        "ca_certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    },
}
AGENT_INPUTS = {
    "`agent-name` is not an e-mail address": (register_agent.run, {"agent_name": "release-bot"}),
    "neither `agent-id` nor `agent-name` is given": (one_step.run, {}),
    "`agent-id` and a description are given": (one_step.run, {"agent_id": AGENT, "owner": "octo-org"}),
}
BEFORE_THE_EXCHANGE = {
    "no permission `id-token: write`": lambda: diagnose(ON_GITHUB, {}),
    "a pull request from a fork": lambda: diagnose(PULL, FORK),
    "a pull request from a fork of a private repository": lambda: diagnose(
        PULL, FORK | {"repository": {"private": True}}
    ),
    "a pull request of Dependabot without the permission": lambda: diagnose(
        PULL | {"GITHUB_ACTOR": "dependabot[bot]"}, {}
    ),
    "act, or another local runner": lambda: diagnose({"ACT": "true"}, {}),
    "GitHub Enterprise Server without OIDC": lambda: diagnose(
        ON_GITHUB | {"GITHUB_SERVER_URL": "https://ghes.example.com"}, {}
    ),
    "a variable of the runner was set by the workflow": lambda: caught(
        lambda: RequestEndpoint.from_environ(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://x.example", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"}
        )
    ),
    "GitHub's endpoint is down": lambda: of_github(httpx.Response(503)),
    "GitHub's endpoint cannot be reached": lambda: of_github(httpx.ConnectError("Connection refused")),
    "GitHub's endpoint refuses the audience": lambda: of_github(httpx.Response(400)),
    "GitHub's endpoint refuses the job's credential": lambda: of_github(httpx.Response(401)),
    "GitHub's endpoint refuses the job": lambda: of_github(httpx.Response(403)),
    "GitHub's endpoint does not exist": lambda: of_github(httpx.Response(404)),
    "another server answers for GitHub's endpoint": lambda: of_github(httpx.Response(200, text="<html>")),
    "GitHub's endpoint redirects": lambda: of_github(
        httpx.Response(302, headers={"location": "https://x.example"})
    ),
    "a proxy does not allow GitHub's endpoint": lambda: of_github(httpx.ProxyError("403 Forbidden")),
    "the proxy on the way to GitHub is down": lambda: of_github(no_proxy_there()),
    "GitHub's endpoint has a private certificate": lambda: of_github(
        certificate(20, "unable to get local issuer certificate")
    ),
}
NETWORK = {
    "the provider is to be on loopback, in a container": lambda: of_provider(
        httpx.ConnectError("Connection refused"), Origin.from_base_url("http://127.0.0.1:3000")
    ),
    "the provider cannot be reached": lambda: of_provider(httpx.ConnectError("Connection refused")),
    "the provider's name does not exist": lambda: of_provider(
        because(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    ),
    "the proxy cannot be reached": lambda: of_provider(no_proxy_there()),
    "the proxy refuses": lambda: of_provider(httpx.ProxyError("407 Proxy Authentication Required")),
    "the provider does not answer": lambda: of_provider(httpx.ReadTimeout("")),
    "a gateway cannot reach the provider": lambda: of_provider(httpx.Response(502, text="<html>")),
    "a gateway limits the rate": lambda: of_provider(httpx.Response(429, text="slow down")),
    "a gateway asks for more patience than there is": lambda: of_provider(
        httpx.Response(503, headers={"Retry-After": "3600"})
    ),
    "a firewall refuses": lambda: of_provider(httpx.Response(403, text="<h1>Blocked</h1>")),
    "`api-url` redirects": lambda: of_provider(
        httpx.Response(301, headers={"location": "https://x.example"})
    ),
    "`api-url` is not a provider": lambda: of_provider(httpx.Response(404, text="<html>")),
    "`api-url` is a page": lambda: of_provider(httpx.Response(200, text="<html>")),
    "the answer has no lifetime": lambda: of_provider(
        httpx.Response(200, json={"access_token": "a-token-of-this-test"})
    ),
    "TLS: a private certificate": lambda: of_provider(
        certificate(20, "unable to get local issuer certificate")
    ),
    "TLS: an expired certificate": lambda: of_provider(certificate(10, "certificate has expired")),
    "TLS: a certificate of the future": lambda: of_provider(certificate(9, "certificate is not yet valid")),
    "TLS: a certificate for other names": lambda: of_provider(
        certificate(62, "Hostname mismatch, certificate is not valid for 'idp.example.com'")
    ),
    "TLS: a certificate that breaks a rule": lambda: of_provider(
        certificate(92, "Missing Authority Key Identifier")
    ),
    "TLS: plain HTTP behind https://": lambda: of_provider(handshake("WRONG_VERSION_NUMBER")),
    "TLS: the server wants a client certificate": lambda: of_provider(
        handshake("TLSV13_ALERT_CERTIFICATE_REQUIRED")
    ),
    "TLS: an old server": lambda: of_provider(handshake("TLSV1_ALERT_PROTOCOL_VERSION")),
    "a bug of the action": lambda: InternalError(KeyError("secret")),
}
BRANCH = {"branch": "main"}
# Situation: a policy, and the job that it refuses.
POLICIES = {
    "another branch": (BRANCH, {"ref": "feature"}),
    "a branch in another case": (BRANCH, {"ref": "Main"}),
    "a branch that looks alike": ({"branch": "caf\u00e9"}, {"ref": "cafe\u0301"}),
    "a tag on a policy for a branch": (BRANCH, {"ref": "refs/tags/v1.0.0"}),
    "a merge queue on a policy for a branch": (BRANCH, {"event": "merge_group"}),
    "a pull request on a policy for a branch": (BRANCH, {"event": "pull_request"}),
    "a pull request from a covered branch": (
        {"branch": "rule/*", "events": ["pull_request", "push"]},
        {"event": "pull_request", "head_ref": "rule/lala2"},
    ),
    "a pull request on a policy for every branch": ({}, {"event": "pull_request"}),
    "an event that anyone can trigger, on a policy for a branch": (BRANCH, {"event": "workflow_run"}),
    "no environment where one is demanded": ({"environment": "production"}, {}),
    "another environment": ({"environment": "production"}, {"environment": "staging"}),
    "another workflow": ({"workflow": "deploy.yml"}, {}),
    "branch, workflow, environment and actor": (
        BRANCH | {"workflow": "deploy.yml", "environment": "production", "actorIds": ["1"]},
        {"ref": "dev"},
    ),
}


@pytest.fixture(scope="module")
def github():
    return Issuer(GITHUB)


@pytest.fixture
def provider(tmp_path, github):
    """A provider with a fixed clock."""
    url = prepare(f"sqlite:///{tmp_path / 'provider.db'}")
    keys = GithubKeys(lambda: {key.kid: key.private.public_key() for key in github.ring.published})
    with Database(url) as store:
        yield Provider(url, github, ServerClock(NOW), keys, store)


def refusal(provider, token, url=PROVIDER, /, **asked):
    """The action's error for the provider's response to an exchange."""
    answer = provider.exchange(token, **asked)
    reply = Reply(answer.status_code, dict(answer.headers) | {"x-request-id": AGENT}, answer.data)
    return read_refusal(reply, Origin.from_base_url(url), 0.0)


def policy_refusals(provider):
    """The refusals by the provider's policies, each with its situation."""
    agent_id = provider.agent()["agentId"]
    for number, (situation, (policy, job)) in enumerate(POLICIES.items()):
        repository = f"octo-org/repo-{number}"
        provider.policy(repository=repository, agentId=agent_id, **policy)
        run = Job(repository=repository, **job)
        yield situation, refusal(provider, provider.github_token(job=run), agentId=agent_id)
    lone = provider.github_token(job=Job(repository="octo-org/lone"))
    yield "a repository without a policy", refusal(provider, lone, agentId=agent_id)
    bootstrap = Job(repository="octo-org/bootstrap")
    provider.policy(repository=bootstrap.repository)
    token = provider.github_token(job=bootstrap)
    yield (
        "a policy for registering, and the run asks for an agent",
        refusal(provider, token, agentId=agent_id),
    )
    yield "an agent that does not exist", refusal(provider, token, agentId=AGENT)
    moved = provider.github_token(job=Job(repository="octo-org/repo-0", repository_id="99"))
    provider.exchange(provider.github_token(job=Job(repository="octo-org/repo-0")), agentId=agent_id)
    yield "a repository that was created again", refusal(provider, moved, agentId=agent_id)
    token = provider.github_token(job=Job(repository="octo-org/repo-0"))
    yield (
        "more scope than the policy grants",
        refusal(provider, token, agentId=agent_id, scope="agents:read agents:write"),
    )
    yield "a value that the provider refuses", refusal(provider, token, agentId=agent_id, expiresIn=0)
    silent = provider.with_settings(EXPLAIN="off")
    yield "a provider that does not explain", refusal(silent, lone, agentId=agent_id)


def token_refusals(provider):
    """The provider's refusals of ID tokens, each with its situation."""
    faults = ("wrong-issuer", "expired", "not-yet-valid", "bad-signature")
    for fault in faults:
        yield f"the ID token is not accepted: {fault}", refusal(provider, provider.github_token(fault=fault))
    provider.policy()
    token = provider.github_token()
    provider.exchange(token)
    yield "the ID token is not accepted: replayed", refusal(provider, token)
    for given in (False, True):
        error = refusal(provider, provider.github_token(aud=INTERNAL), INTERNAL)
        error.add_claims({}, audience_given=given)
        where = "in `audience`" if given else "by `api-url`"
        yield f"the ID token is not accepted: wrong_audience, {where}", error
    mute = answer_of(401, "INVALID_OIDC_TOKEN", "The issuer is another one.", reason="wrong_issuer")
    mute.add_claims({"iss": "https://token.actions.example.com"}, audience_given=False)
    yield "the ID token is not accepted: wrong_issuer, by an older provider", mute
    for reason in ("unknown_key", "too_old"):
        sentence = "The token's key is not published." if reason == "unknown_key" else "The token is too old."
        yield (
            f"the ID token is not accepted: {reason}",
            answer_of(401, "INVALID_OIDC_TOKEN", sentence, reason=reason),
        )


OTHERS = {
    "a service that the policy does not grant": lambda: answer_of(
        403,
        "SERVICE_NOT_PERMITTED",
        "The policy does not grant https://a.example.com.",
        permitted=["https://deploy.example.com"],
    ),
    "a service, and the policy grants none": lambda: answer_of(
        403, "SERVICE_NOT_PERMITTED", "The policy does not grant https://a.example.com.", permitted=[]
    ),
    "the provider's own token is not accepted": lambda: answer_of(
        401, "UNAUTHORIZED", "The access token is revoked."
    ),
    "the token's scopes do not cover a call": lambda: answer_of(
        403, "FORBIDDEN", "The token does not have the scope.", requiredScope="agents:write"
    ),
    "a call is forbidden": lambda: answer_of(403, "FORBIDDEN", "Only an admin may do this."),
    "the provider does not know the address": lambda: answer_of(
        404, "NOT_FOUND", "This path does not exist."
    ),
    "too many requests": lambda: answer_of(429, "RATE_LIMITED", "Too many requests."),
    "the provider has no keys of GitHub": lambda: answer_of(
        503, "ISSUER_UNAVAILABLE", "GitHub's keys cannot be fetched."
    ),
    "the provider has no database": lambda: answer_of(
        503, "SERVICE_UNAVAILABLE", "The database does not answer."
    ),
    "a bug of the provider": lambda: answer_of(500, "INTERNAL_SERVER_ERROR", "The provider has a defect."),
    "an unknown code": lambda: answer_of(409, "SOMETHING_NEW", "This is new."),
    "the agent's name belongs to another repository": lambda: answer_of(
        409, "AGENT_ALREADY_EXISTS", "Taken."
    ),
    "the agent is suspended": lambda: refused.AgentNotActiveError(
        AGENT, "suspended", answer_of(409, "AGENT_ALREADY_EXISTS", "Taken.")
    ),
    "the agent was decommissioned": lambda: refused.AgentNotActiveError(
        AGENT, "decommissioned", answer_of(409, "AGENT_ALREADY_EXISTS", "Taken.")
    ),
    "the agent was decommissioned meanwhile": lambda: answer_of(
        409, "AGENT_DECOMMISSIONED", "The agent was decommissioned."
    ),
    "the agent is not there, or not to be seen": lambda: answer_of(
        404, "AGENT_NOT_FOUND", "There is no agent with this id."
    ),
}


@pytest.fixture
def failures(provider, monkeypatch):
    """Every error, by situation."""
    monkeypatch.setattr("sentryagent_actions.idp._in_container", lambda: True)
    made = {name: error() for name, error in (BEFORE_THE_EXCHANGE | NETWORK | OTHERS).items()}
    return made | dict(policy_refusals(provider)) | dict(token_refusals(provider))


def claims_of(**claims):
    payload = base64.urlsafe_b64encode(json.dumps({"iss": GITHUB, "aud": PROVIDER} | claims).encode())
    return f"eyJhbGciOiJSUzI1NiJ9.{payload.decode().rstrip('=')}.c2lnbmF0dXJl"


ISSUED = {
    "access_token": "a-token-of-this-test",
    "expires_in": 3600,
    "expires_at": "2027-01-15T09:00:00Z",
    "scope": "agents:read",
}
ALLOWED = {"dryRun": True, "allowed": True, "scope": "agents:read", "expires_in": 3600, "policyId": AGENT}
RECORD = {"agentId": AGENT, "status": "active", "version": "1.0.0"}
TAKEN = httpx.Response(409, json={"code": "AGENT_ALREADY_EXISTS", "details": {"agentId": AGENT}})
BUSY = httpx.Response(503, json={"code": "SERVICE_UNAVAILABLE", "message": "The database does not answer."})
REGISTER = {"agent_name": "bot@example.com", "agent_version": "2.0.0"}
# Situation: an action, its inputs, its environment, and the responses by path.
RUNS = {
    "a token is issued": (issue_token.run, {}, {}, {}),
    "a token for a service is issued": (issue_token.run, {"resource": "https://deploy.example.com"}, {}, {}),
    "a token is issued at the second try": (
        issue_token.run,
        {},
        {},
        {"/oidc/token": [BUSY, httpx.Response(200, json=ISSUED)]},
    ),
    "the runner's clock is wrong": (
        issue_token.run,
        {},
        {},
        {"/": [httpx.Response(200, json={"value": claims_of(exp=1)})]},
    ),
    "a dry run": (
        issue_token.run,
        {"dry_run": "true"},
        {},
        {"/oidc/token": [httpx.Response(200, json=ALLOWED)]},
    ),
    "a dry run without an agent": (issue_token.run, {"dry_run": "true", "agent_id": ""}, {}, {}),
    "a dry run of a registration": (
        register_agent.run,
        REGISTER | {"dry_run": "true"},
        {},
        {"/oidc/token": [httpx.Response(200, json=ALLOWED)]},
    ),
    "an agent is registered": (register_agent.run, REGISTER, {}, {}),
    "an agent that differs is found": (register_agent.run, REGISTER, {}, {"/agents": [TAKEN]}),
    "an agent that differs is updated": (
        register_agent.run,
        REGISTER | {"update": "true"},
        {},
        {"/agents": [TAKEN]},
    ),
    "a bootstrap token cannot be revoked": (
        register_agent.run,
        REGISTER,
        {},
        {"/token/revoke": [httpx.Response(403, json={"error": "unauthorized_client"})]},
    ),
    "the environment counts": (
        issue_token.run,
        {},
        {"HTTPS_PROXY": "http://proxy", "SSL_CERT_FILE": "/none.pem", "SSL_CERT_DIR": "/none"},
        {},
    ),
    "a token is revoked": (revoke.run, {}, {"STATE_access_token": "t" * 20, "STATE_api_url": PROVIDER}, {}),
    "a token cannot be revoked": (
        revoke.run,
        {},
        {
            "STATE_access_token": "t" * 20,
            "STATE_api_url": PROVIDER,
            "STATE_expires_at": "2027-01-15T09:00:00Z",
        },
        {"/token/revoke": [httpx.Response(403, json={"error": "unauthorized_client"})]},
    ),
    "the state of the step is not its own": (revoke.run, {}, {"STATE_access_token": "t" * 20}, {}),
    "there is nothing to revoke": (revoke.run, {}, {}, {}),
    "there is nothing to revoke in act": (revoke.run, {}, {"ACT": "true"}, {}),
    "a token is to stay": (revoke.run, {}, {"STATE_revoke": "false"}, {}),
    "there is nothing to revoke without Docker": (host.revoke_all, {}, {}, {}),
    "the runner keeps no state": (issue_token.run, {}, {"GITHUB_STATE": ""}, {}),
}


def log_of(folder, action, inputs, environ, answers):
    """The visible log lines of a run, including annotations."""
    usual = {
        "/": [httpx.Response(200, json={"value": claims_of(exp=1_900_000_000)})],
        "/oidc/audience": [httpx.Response(200, json={"audience": PROVIDER})],
        "/oidc/token": [httpx.Response(200, json=ISSUED)],
        "/token/revoke": [httpx.Response(200, json={})],
        "/agents": [httpx.Response(201, json=RECORD)],
        f"/agents/{AGENT}": [httpx.Response(200, json=RECORD)],
    }
    left = {path: list(planned) for path, planned in (usual | answers).items()}

    def answered(request):
        planned = left[request.url.path.removeprefix("/api/v1")]
        return planned.pop(0) if len(planned) > 1 else planned[0]

    given = {f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()}
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STATE")}
    environ = files | ENDPOINT | {"INPUT_API-URL": PROVIDER, "INPUT_AGENT-ID": AGENT} | given | environ
    stdout = io.StringIO()
    assert action(Step(environ, Workflow(environ, stdout), clock(), httpx.MockTransport(answered))) == 0
    shown = [line for line in stdout.getvalue().splitlines() if not line.startswith("::add-mask::")]
    return "\n".join(line.replace("%3A", ":").replace("%0A", "\n").replace("%2C", ",") for line in shown)


@pytest.fixture
def lines(tmp_path):
    """The other log lines, by situation."""
    said = {f"in the log: {situation}": log_of(tmp_path, *run) for situation, run in RUNS.items()}
    for variable, file in (("GITHUB_OUTPUT", ""), ("GITHUB_OUTPUT", str(tmp_path))):
        with pytest.raises(RunnerFileUnavailableError) as failure:
            Workflow({variable: file}, io.StringIO()).set_outputs({"a": "b"})
        said[f"in the log: {variable} {'cannot be written' if file else 'is not set'}"] = str(failure.value)
    return said


@pytest.fixture
def messages(failures, tmp_path):
    """Every annotation, by situation."""
    inputs = {name: input_error(tmp_path, **given) for name, given in INPUTS.items()}
    inputs |= {name: input_error(tmp_path, action, **given) for name, (action, given) in AGENT_INPUTS.items()}
    socks = ENDPOINT | {"HTTPS_PROXY": "socks5://user:secret@proxy.example"}
    inputs["HTTPS_PROXY does not name a usable proxy"] = input_error(tmp_path, environ=socks)
    skipped = {
        f"{name}, and `on-unavailable` is `skip`": advice(failures[name], skipped_sentence())
        for name in ("the provider's name does not exist", "a gateway cannot reach the provider")
    }
    return inputs | {name: advice(error) for name, error in failures.items()} | skipped


def skipped_sentence():
    from sentryagent_actions.step import _SKIPPED

    return _SKIPPED


def test_the_snapshot_is_what_is_said(messages, lines):
    """The snapshot has exactly the messages that the actions show."""
    head = SNAPSHOT.read_text().partition("\n## ")[0] if SNAPSHOT.exists() else "# Messages\n"
    text = (
        head.rstrip()
        + "\n"
        + "".join(
            f"\n## {situation}\n\n```text\n{message}\n```\n"
            for situation, message in (messages | lines).items()
        )
    )
    if os.environ.get("SENTRYAGENT_UPDATE_MESSAGES"):
        SNAPSHOT.write_text(text)
    assert SNAPSHOT.read_text() == text


def test_every_kind_of_error_and_every_code_is_in_the_snapshot(failures):
    """The snapshot has a message of every error class and of every code in the manuals."""
    kinds = {
        kind
        for module in (errors, refused)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ActionError)
    }
    assert len(kinds) > 15
    of_inputs = {errors.InvalidInputError, errors.InvalidVariableError}
    # A subclass's error covers its base classes.
    assert {base for error in failures.values() for base in type(error).__mro__} >= kinds - of_inputs
    codes = set().union(*MANUALS.values())
    assert {error.code for error in failures.values()} == codes - {"INVALID_INPUT"} | {"SOMETHING_NEW"}


def test_each_message_is_short_and_says_who_speaks(messages):
    """A message has code, speaker and cause in its first line, then a remedy, a help link and at most twelve lines."""
    assert len(messages) > 90
    for situation, message in messages.items():
        assert message.count("\n") >= 2, situation
        first, remedy, *rest = message.splitlines()
        assert SPEAKER.fullmatch(first), situation
        assert rest[-1].startswith("Help: https://"), situation
        assert not remedy.startswith(("Help:", "Request id:")), situation
        assert len(rest) + 2 <= MOST_LINES, situation
        assert len(message) < 4096, situation


def test_commands_show_the_answer_of_a_server_that_refuses(messages):
    """Every command uses `curl --fail-with-body`, because `curl -f` would hide the server's explanation."""
    commands = [line for text in messages.values() for line in text.splitlines() if "curl " in line]
    assert len(commands) > 5
    assert all("curl --fail-with-body " in line for line in commands)
