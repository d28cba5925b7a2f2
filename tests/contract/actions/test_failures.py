"""What a user reads on each failure: the table of tests/README.md is what the code says, row by row."""

import json
import re
import ssl

import httpx
import pytest

from kit.processes import ROOT
from sentryagent_actions import errors
from sentryagent_actions.errors import (
    MANUALS,
    ActionError,
    AgentExistsError,
    AgentNotActiveError,
    InternalError,
)
from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint, diagnose
from sentryagent_actions.idp import ExchangeRequest, IdentityProvider
from sentryagent_actions.inputs import IssueTokenInputs
from sentryagent_actions.network import Clock, Network, Reply, open_client
from sentryagent_actions.origin import Origin
from sentryagent_actions.refusal import read_refusal

URL = Origin.from_base_url("https://idp.example.com")
AGENT = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
WORDS = "(The provider's own sentence, which says what to do.)"
ACTIONS = {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request"}
FORK = {"pull_request": {"head": {"repo": None}, "base": {"repo": {"full_name": "octo-org/octo-repo"}}}}
EXPLANATION = {
    "claims": {"ref": "refs/heads/feature"},
    "nearestPolicies": [
        {
            "id": AGENT,
            "failed": [
                {"condition": "branch", "expected": "main", "actual": "feature", "hint": "Run it from main."}
            ],
        }
    ],
    "suggestedPolicy": {"repository": "octo-org/octo-repo", "branch": "feature"},
}


def caught(call):
    with pytest.raises(ActionError) as failure:
        call()
    return failure.value


def network(answer):
    def answered(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    ignore = [].append
    clock = Clock(lambda: 0.0, lambda: 0.0, lambda _: None, lambda: 0.5)
    client = open_client(transport=httpx.MockTransport(answered), ca_certificate="")
    # So little time that nothing is tried twice.
    return Network(client, clock, 0.1, ignore, ignore)


def of_provider(answer):
    """The error of an exchange whose HTTP call ends so."""
    provider = IdentityProvider(URL, network(answer), [].append)
    return caught(
        lambda: provider.exchange(lambda: "an-id-token", ExchangeRequest(agent_id=AGENT), [].append)
    )


def of_github(answer):
    """The error of a request for an ID token that ends so."""
    endpoint = RequestEndpoint("https://github.example/idtoken", "request-token")
    id_tokens = IdTokens(endpoint, network(answer), str(URL), [].append, [].append)
    return caught(id_tokens.fresh)


def refused(status, code, **details):
    """The error that a refusal of the provider becomes."""
    body = json.dumps({"code": code, "message": WORDS, "details": details}).encode()
    return read_refusal(Reply(status, {}, body), URL, 0.0)


def distrusted(place):
    error = httpx.ConnectError("tls")
    error.__cause__ = ssl.SSLCertVerificationError()
    error.__cause__.verify_message = "unable to get local issuer certificate"
    return place(error)


def input_error():
    return caught(lambda: IssueTokenInputs.from_environ({"INPUT_API-URL": "http://idp.example.com"}))


TAKEN = AgentExistsError(WORDS, agent_id="", http_status=409)
FAILURES = {
    "an input is wrong": input_error,
    "no permission `id-token: write`": lambda: diagnose(ACTIONS, {}),
    "a pull request from a fork": lambda: diagnose(ACTIONS, FORK),
    "a pull request of Dependabot": lambda: diagnose(ACTIONS | {"GITHUB_ACTOR": "dependabot[bot]"}, {}),
    "act, or another local runner": lambda: diagnose({"ACT": "true"}, {}),
    "GitHub Enterprise Server without OIDC": lambda: diagnose(
        ACTIONS | {"GITHUB_SERVER_URL": "https://ghes.example.com"}, {}
    ),
    "GitHub's endpoint is down": lambda: of_github(httpx.Response(503)),
    "GitHub's endpoint cannot be reached": lambda: of_github(httpx.ConnectError("Connection refused")),
    "GitHub's endpoint refuses the audience": lambda: of_github(httpx.Response(400)),
    "GitHub's endpoint refuses the job's credential": lambda: of_github(httpx.Response(401)),
    "GitHub's endpoint refuses the job": lambda: of_github(httpx.Response(403)),
    "another server answers for GitHub's endpoint": lambda: of_github(httpx.Response(200, text="<html>")),
    "a proxy does not allow GitHub's endpoint": lambda: of_github(httpx.ProxyError("403 Forbidden")),
    "GitHub's endpoint has a private certificate": lambda: distrusted(of_github),
    "the provider cannot be reached": lambda: of_provider(httpx.ConnectError("Connection refused")),
    "a gateway answers for the provider": lambda: of_provider(httpx.Response(502, text="<html>")),
    "a proxy refuses": lambda: of_provider(httpx.ProxyError("407 Proxy Authentication Required")),
    "the provider does not answer": lambda: of_provider(httpx.ReadTimeout("")),
    "the provider has a private certificate": lambda: distrusted(of_provider),
    "`api-url` redirects": lambda: of_provider(
        httpx.Response(301, headers={"location": "https://x.example"})
    ),
    "`api-url` is no provider": lambda: of_provider(httpx.Response(404, text="<html>")),
    "a fault of the action": lambda: InternalError(KeyError("secret")),
    **{
        f"the ID token is not accepted: {reason}": lambda reason=reason: refused(
            401, "INVALID_OIDC_TOKEN", reason=reason
        )
        for reason in errors.IdTokenRejectedError.remedy_by_reason
    },
    "no policy allows the branch": lambda: refused(403, "BRANCH_NOT_PERMITTED", **EXPLANATION),
    "no policy allows the run": lambda: refused(403, "TRUST_POLICY_VIOLATION"),
    "the repository is another one of that name": lambda: refused(403, "IDENTITY_CHANGED"),
    "more scope than the policy gives": lambda: refused(
        403, "SCOPE_NOT_PERMITTED", permitted=["agents:read"]
    ),
    "the provider refuses the value of an input": lambda: refused(
        400, "VALIDATION_ERROR", field="expiresIn", reason="must be at least 60"
    ),
    "the provider's own token is not accepted": lambda: refused(401, "UNAUTHORIZED"),
    "the token's scopes do not cover a call": lambda: refused(403, "FORBIDDEN"),
    "the provider does not know the address": lambda: refused(404, "NOT_FOUND"),
    "too many requests": lambda: refused(429, "RATE_LIMITED"),
    "the provider has no keys of GitHub": lambda: refused(503, "ISSUER_UNAVAILABLE"),
    "the provider has no database": lambda: refused(503, "SERVICE_UNAVAILABLE"),
    "a fault of the provider": lambda: refused(500, "INTERNAL_SERVER_ERROR"),
    "the agent's name is somebody else's": lambda: refused(409, "AGENT_ALREADY_EXISTS"),
    "the agent is suspended": lambda: AgentNotActiveError(AGENT, "suspended", TAKEN),
    "the agent was decommissioned": lambda: AgentNotActiveError(AGENT, "decommissioned", TAKEN),
    "the agent was decommissioned meanwhile": lambda: refused(409, "AGENT_DECOMMISSIONED"),
    "the agent is not there, or not to be seen": lambda: refused(404, "AGENT_NOT_FOUND"),
}


def row(failure, error):
    """One line of the table: what the annotation says before the link to the manual."""
    said = "<br>".join(error.advice().splitlines()[:-1]).replace("|", "\\|")
    return f"| {failure} | `{error.code}` | {'yes' if error.retryable else 'no'} | {said} |"


def test_the_table_is_what_the_code_says():
    """Each failure is in the table with its code, whether it is worth another run, and the words that are read."""
    text = (ROOT / "tests" / "README.md").read_text()
    section = re.search(
        r"^## What a user reads on each failure\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )[1]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert rows == [row(failure, error()) for failure, error in FAILURES.items()]


def test_every_kind_of_error_and_every_code_is_in_the_table():
    """No class of errors and no code of the manuals is without a row."""
    shown = [error() for error in FAILURES.values()]
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ActionError)
    }
    assert len(kinds) > 10
    # A base class has a row through those below it.
    assert {base for error in shown for base in type(error).__mro__} >= kinds
    assert {error.code for error in shown} == set().union(*MANUALS.values())


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_names_cause_and_remedy(failure):
    """A sentence on the cause, at least one more on what to do, and a link to the paragraph on that code."""
    error = FAILURES[failure]()
    *said, link = error.advice().splitlines()
    assert said[0].endswith((".", WORDS))
    assert len(said) > 1 or said == [WORDS] or ";" in said[0]
    assert link == f"Help: {error.help_url}"
    assert error.help_url.endswith(f"#{error.code.lower()}")
