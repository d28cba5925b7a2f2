"""issue-token: tokens for a service, and the reports of a run."""

import socket

import httpx
import pytest

EXCHANGE = "POST /oidc/token"
SERVICE = "https://deploy.example.com"


def issue(world, **inputs):
    return world.run("issue-token", **{"agent_id": world.agent_id} | inputs)


def test_token_for_a_service(world):
    """`resource` is sent, and is in the log and the summary."""
    world.script.on(EXCHANGE, world.token("deploy:production"))
    outcome = issue(world, resource=SERVICE, scope="deploy:production")
    assert world.script.made(EXCHANGE)[0].body["resource"] == SERVICE
    assert f"Issued a token for agent {world.agent_id} and service {SERVICE} with scope" in outcome.stdout
    assert f"<td>Service</td><td>{SERVICE}</td>" in outcome.summary


def test_dry_run_for_a_service(world):
    """A dry run also sends `resource`."""
    world.script.on(EXCHANGE, world.permission("deploy:production"))
    outcome = issue(world, resource=SERVICE, dry_run="true")
    body = world.script.made(EXCHANGE)[0].body
    assert (body["resource"], body["dryRun"]) == (SERVICE, True)
    assert f"<td>Service</td><td>{SERVICE}</td>" in outcome.summary


def test_service_that_is_not_granted(world):
    """The refusal names the services that are permitted."""
    world.script.on(EXCHANGE, world.refusal(403, "SERVICE_NOT_PERMITTED", permitted=["urn:octo:a"]))
    outcome = issue(world, resource=SERVICE)
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (1, "SERVICE_NOT_PERMITTED")
    assert "Set the input `resource` to one of: urn:octo:a." in outcome.commands("error")[0]


CLAIMS = {"repository": "octo-org/octo-repo", "ref": "refs/heads/main", "iat": 1_800_000_000}


def test_claims_are_shown_with_a_rejected_id_token(world):
    """The action shows the claims itself, because the provider does not repeat those of an untrusted token."""
    world.script.on("ID-TOKEN", world.id_token(**CLAIMS))
    world.script.on(EXCHANGE, world.refusal(401, "INVALID_OIDC_TOKEN", reason="wrong_issuer"))
    outcome = issue(world)
    rows = ["Claim iss</td><td>" + world.issuer, "Claim repository</td><td>octo-org/octo-repo"]
    assert [row in outcome.summary for row in rows] == [True, True]
    assert outcome.summary.index(rows[0]) < outcome.summary.index(rows[1])
    assert f"must add {world.issuer} to SENTRYAGENT_GITHUB_ISSUER" in outcome.commands("error")[0]
    assert "eyJ" not in outcome.visible + outcome.summary


@pytest.mark.parametrize(("inputs", "answer"), [({}, "token"), ({"dry_run": "true"}, "permission")])
def test_claims_are_shown_where_they_were_enough(world, inputs, answer):
    """The summary shows the claims of a token or a dry run, with readable times."""
    world.script.on("ID-TOKEN", world.id_token(**CLAIMS))
    world.script.on(EXCHANGE, getattr(world, answer)())
    summary = issue(world, **inputs).summary
    assert "<td>Claim ref</td><td>refs/heads/main</td>" in summary
    assert "<td>Claim iat</td><td>2027-01-15T08:00:00Z</td>" in summary


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (
            "",
            "Set `api-url` to https://idp.public.example. If the provider must be reached at https://idp.example.com, set this",
        ),
        ("https://other.example", "Set the input `audience` to the value that the provider expects:"),
    ],
)
def test_audience_that_followed_api_url_is_told_from_one_that_was_given(world, given, remedy):
    """The remedy depends on whether `audience` was given or derived from `api-url`."""
    refusal = world.refusal(
        401, "INVALID_OIDC_TOKEN", reason="wrong_audience", expectedAudience="https://idp.public.example"
    )
    world.script.on("ID-TOKEN", world.id_token(aud=given or world.api_url))
    world.script.on(EXCHANGE, refusal)
    outcome = issue(world, audience=given)
    assert remedy in outcome.commands("error")[0]
    assert "%0Aaudience: https://idp.public.example%0A" in outcome.commands("error")[0]


@pytest.mark.parametrize("written", ["false", "False", "FALSE"])
@pytest.mark.parametrize("agent_id", ["", None])
def test_summary_can_be_turned_off(world, written, agent_id):
    """The summary can be turned off, for example for a matrix of fifty jobs, even if an input is wrong."""
    if agent_id is None:
        world.script.on(EXCHANGE, world.token())
    outcome = issue(world, summary=written, **({} if agent_id is None else {"agent_id": agent_id}))
    assert outcome.summary == ""


def test_summary_has_a_head_and_links(world):
    """The table has a header row, and the error code links to its documentation."""
    world.script.on(EXCHANGE, world.refusal(403, "SCOPE_NOT_PERMITTED", permitted=["agents:read"]))
    summary = issue(world).summary
    assert "<tr><th>Field</th><th>Value</th></tr>" in summary
    assert "README.md#scope_not_permitted" in summary.partition("<a href=")[2]
    assert "Set the input <code>scope</code> to one or more of: agents:read." in summary


def test_answer_of_a_firewall_is_in_the_summary(world):
    """The summary shows the beginning of a response that is not the provider's, such as a firewall's."""
    world.script.on(
        EXCHANGE, world.answer(status=403, text="<h1>Blocked by corp-waf</h1> eyJhbGciOi.eyJzdWIi.c2ln")
    )
    summary = issue(world).summary
    assert "<td>Response</td><td>Blocked by corp-waf ***</td>" in summary


def test_run_is_in_the_user_agent(world):
    """The run id is in the user agent, so that a gateway's log leads to the job; anything but a number is left out."""
    world.environ |= {"GITHUB_RUN_ID": "123", "GITHUB_RUN_ATTEMPT": "2\r\nX: y"}
    world.script.on(EXCHANGE, world.token())
    issue(world)
    (agent,) = {request.user_agent for request in world.script.requests}
    assert agent == "sentryagent-actions (+https://github.com/sentryagent/toolkit; run 123)"


def test_step_that_skips_says_so(world):
    """One warning says what happened, that the step passes without a token, and that the host does not exist."""
    error = httpx.ConnectError("Name or service not known")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    world.script.on("GET /oidc/audience", *[world.answer(error=error)] * 3)
    outcome = issue(world, on_unavailable="skip")
    (warning,) = outcome.commands("warning")
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (0, "PROVIDER_UNREACHABLE")
    assert "The host name idp.example.com does not resolve." in warning
    assert "The step passes without a token (`on-unavailable: skip`)" in warning
    assert "title=SentryAgent%3A PROVIDER_UNREACHABLE%2C skipped" in warning
