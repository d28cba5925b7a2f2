"""issue-token, one scenario per test."""

import base64

import httpx
import pytest

EXCHANGE = "POST /oidc/token"


def issue(world, **inputs):
    return world.run("issue-token", **{"agent_id": world.agent_id} | inputs)


def test_token_is_issued(world):
    """A successful run: requests, log, outputs, state and summary."""
    world.script.on(EXCHANGE, world.token())
    outcome = issue(world)
    audience, id_token_request, exchange = world.script.requests
    id_token = exchange.body["token"]
    assert [audience.path, id_token_request.query["audience"]] == ["/api/v1/oidc/audience", [world.api_url]]
    assert exchange.body == {"token": id_token, "agentId": world.agent_id}
    assert exchange.authorization == ""
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == [
        f"::add-mask::{id_token}",
        f"::add-mask::{base64.b64encode(id_token.encode()).decode().rstrip('=')}",
        f"::add-mask::{world.access_token}",
        f"::add-mask::{base64.b64encode(world.access_token.encode()).decode().rstrip('=')}",
        f"Issued a token for agent {world.agent_id} with scope agents:read, valid until 2027-01-15T09:00:00Z.",
    ]
    assert outcome.outputs == {
        "access-token": world.access_token,
        "expires-at": "2027-01-15T09:00:00Z",
        "expires-in": "3600",
        "scope": "agents:read",
        "authenticated": "true",
    }
    assert outcome.state == {
        "access_token": world.access_token,
        "api_url": world.api_url,
        "ca_certificate": "",
        "timeout": "60",
        "expires_at": "2027-01-15T09:00:00Z",
    }
    assert "<tr><td>Scope granted</td><td>agents:read</td></tr>" in outcome.summary
    assert "eyJ" not in outcome.summary


def test_inputs_reach_the_exchange(world):
    """Scope, lifetime and audience are sent; with an explicit audience the provider is not asked for one."""
    world.script.on(EXCHANGE, world.token("agents:read tokens:read"))
    outcome = issue(world, scope="agents:read  tokens:read", expires_in="900", audience="urn:idp")
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE]
    assert len(world.script.requests) == 2
    assert world.script.requests[0].query["audience"] == ["urn:idp"]
    body = world.script.requests[1].body
    assert (body["scope"], body["expiresIn"]) == ("agents:read tokens:read", 900)
    assert outcome.outputs["scope"] == "agents:read tokens:read"


def test_without_revoke_nothing_is_kept(world):
    """With `revoke: false` the token is not saved for the post step."""
    world.script.on(EXCHANGE, world.token())
    assert issue(world, revoke="false").state == {"revoke": "false"}


def test_runner_without_state_is_told(world):
    """If the runner keeps no state, the log says that nothing will revoke the token."""
    del world.environ["GITHUB_STATE"]
    world.script.on(EXCHANGE, world.token())
    outcome = issue(world)
    assert outcome.exit_code == 0
    assert (
        "This runner does not keep state, so the token will not be revoked before it expires."
        in outcome.stdout
    )


def test_dry_run_issues_nothing(world):
    """A dry run outputs the scope, but no token and no state."""
    world.script.on(EXCHANGE, world.permission())
    outcome = issue(world, dry_run="true")
    assert world.script.made(EXCHANGE)[0].body["dryRun"] is True
    assert outcome.exit_code == 0
    assert outcome.outputs == {"authenticated": "false", "scope": "agents:read"}
    assert outcome.state == {}


@pytest.mark.parametrize("agent_id", ["", " "])
def test_dry_run_after_one_of_register_agent_warns_and_passes(world, agent_id):
    """A dry run of register-agent gives no id, so the next dry run cannot check a token: it warns and sends nothing."""
    outcome = issue(world, agent_id=agent_id, dry_run="true")
    assert outcome.exit_code == 0
    assert len(outcome.commands("warning")) == 1
    assert "`agent-id` is empty, so this dry run did not check a token" in outcome.stdout
    assert outcome.outputs == {"authenticated": "false"}
    assert world.script.requests == []


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"agent_id": ""}, "agent-id"),
        ({"agent_id": "release-bot", "dry_run": "true"}, "agent-id"),
        ({"agent_id": "", "dry_run": "true", "expires_in": "1h"}, "expires-in"),
        ({"agent_id": "", "dry_run": "true", "api-url": "idp.example.com"}, "api-url"),
    ],
)
def test_other_wrong_inputs_of_a_dry_run_fail(world, inputs, named):
    """Only a dry run may have an empty `agent-id`; every other wrong input fails."""
    outcome = issue(world, **inputs)
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (1, "INVALID_INPUT")
    assert f"Input `{named}` " in outcome.stdout


def test_dry_run_of_a_provider_that_knows_none_fails(world):
    """A provider that responds to a dry run with a token does not support it."""
    world.script.on(EXCHANGE, world.token())
    outcome = issue(world, dry_run="true")
    assert outcome.outputs["error-code"] == "INVALID_RESPONSE"
    assert world.access_token not in outcome.visible


def test_each_try_has_a_fresh_id_token(world):
    """Each try sends a new ID token, because the provider would refuse a used one as replayed."""
    busy = world.refusal(503, "SERVICE_UNAVAILABLE")
    world.script.on(EXCHANGE, busy, world.answer(error=httpx.ReadError("reset")), world.token())
    outcome = issue(world)
    sent = [request.body["token"] for request in world.script.made(EXCHANGE)]
    assert outcome.exit_code == 0
    assert len(set(sent)) == 3
    assert all(f"::add-mask::{token}" in outcome.stdout.splitlines() for token in sent)


@pytest.mark.parametrize(
    "failure", [{"status": 503}, {"status": 429}, {"error": httpx.ConnectError("refused")}]
)
def test_id_token_request_is_tried_again(world, failure):
    """A busy or broken ID-token endpoint is retried."""
    world.script.on("ID-TOKEN", world.answer(**failure), world.id_token())
    world.script.on(EXCHANGE, world.token())
    assert issue(world).exit_code == 0


def test_retry_after_is_honoured(world):
    """The provider's `Retry-After` is respected."""
    world.script.on(
        EXCHANGE, world.refusal(429, "RATE_LIMITED", headers={"Retry-After": "20"}), world.token()
    )
    assert issue(world).exit_code == 0
    assert world.time.sleeps == [20.25]


@pytest.mark.parametrize(("reason", "seconds"), [("not_yet_valid", 1.5), ("unknown_key", 35.5)])
def test_what_passes_by_waiting_gets_one_more_try(world, reason, seconds):
    """The second try has a new ID token, because the first one may count as used; a second refusal is final."""
    early = world.refusal(401, "INVALID_OIDC_TOKEN", reason=reason)
    world.script.on(EXCHANGE, early, world.token())
    assert issue(world).exit_code == 0
    assert world.time.sleeps == [seconds]
    first, second = world.script.made(EXCHANGE)
    assert first.body["token"] != second.body["token"]
    world.script.on(EXCHANGE, early, early)
    outcome = issue(world)
    assert outcome.exit_code == 1
    assert outcome.outputs["error-code"] == "INVALID_OIDC_TOKEN"
    assert "Gave up after 2 tries." in outcome.stdout


def test_a_key_that_cannot_be_known_in_time_is_final_at_once(world):
    """If `timeout` is below 36 s, an unknown key is not tried again: a second try would come too early."""
    world.script.on(EXCHANGE, world.refusal(401, "INVALID_OIDC_TOKEN", reason="unknown_key"))
    assert issue(world, timeout="30").exit_code == 1
    assert world.time.sleeps == []


@pytest.mark.parametrize(
    ("answer", "code", "status", "retryable"),
    [
        (
            {"status": 403, "json": {"code": "TRUST_POLICY_VIOLATION", "message": "m"}},
            "TRUST_POLICY_VIOLATION",
            "403",
            "false",
        ),
        (
            {"status": 400, "json": {"code": "VALIDATION_ERROR", "message": "m"}},
            "VALIDATION_ERROR",
            "400",
            "false",
        ),
        (
            {"status": 401, "json": {"code": "INVALID_OIDC_TOKEN", "message": "m"}},
            "INVALID_OIDC_TOKEN",
            "401",
            "false",
        ),
        ({"status": 404, "text": "not found"}, "INVALID_RESPONSE", "404", "false"),
        ({"status": 301, "headers": {"location": "https://x.example"}}, "INVALID_RESPONSE", "301", "false"),
        ({"status": 200, "text": "<html>"}, "INVALID_RESPONSE", "200", "false"),
    ],
)
def test_refusal_is_final_and_told_once(world, answer, code, status, retryable):
    """A refusal is not retried: it gives one annotation, the four error outputs, exit code 1, and `authenticated`."""
    world.script.on(EXCHANGE, world.answer(**answer))
    outcome = issue(world, on_unavailable="skip")
    assert outcome.exit_code == 1
    assert len(outcome.commands("error")) == 1
    assert f"#{code.lower()}" in outcome.commands("error")[0]
    assert outcome.commands("warning") == []
    assert world.time.sleeps == []
    assert outcome.outputs == {
        "authenticated": "false",
        "error-code": code,
        "http-status": status,
        "retryable": retryable,
        "request-id": "req-1" if "json" in answer else "",
    }
    assert code in outcome.summary


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([{"error": httpx.ConnectError("refused")}] * 20, "PROVIDER_UNREACHABLE"),
        ([{"status": 502, "text": "bad gateway"}] * 20, "PROVIDER_UNREACHABLE"),
        ([{"delay": 16.0}] * 20, "PROVIDER_TIMEOUT"),
        (
            [{"status": 503, "json": {"code": "ISSUER_UNAVAILABLE", "message": "m"}}] * 20,
            "ISSUER_UNAVAILABLE",
        ),
        (
            [{"status": 429, "json": {"code": "RATE_LIMITED"}, "headers": {"Retry-After": "61"}}],
            "RATE_LIMITED",
        ),
    ],
)
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_unavailable_provider_fails_or_skips(world, answers, code, policy):
    """If the provider is down until `timeout`, the step fails, or with `skip` it passes with one warning."""
    world.script.on(EXCHANGE, *(world.answer(**answer) for answer in answers))
    world.script.verify = lambda: None
    outcome = issue(world, on_unavailable=policy)
    assert outcome.outputs["error-code"] == code
    assert outcome.outputs["retryable"] == "true"
    assert outcome.outputs["authenticated"] == "false"
    assert outcome.exit_code == (0 if policy == "skip" else 1)
    assert len(outcome.commands("warning")) == (1 if policy == "skip" else 0)
    assert len(outcome.commands("error")) == (0 if policy == "skip" else 1)
    assert world.time.seconds <= 60


def test_skip_covers_the_id_token_endpoint(world):
    """An unavailable ID-token endpoint can be skipped too, with its own code."""
    world.script.on("ID-TOKEN", *[world.answer(status=503, text="busy")] * 40)
    world.script.verify = lambda: None
    outcome = issue(world, on_unavailable="skip")
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (0, "ID_TOKEN_UNAVAILABLE")


@pytest.mark.parametrize("what", ["permission", "input", "certificate", "id-token-403"])
def test_skip_never_hides_what_waiting_does_not_mend(world, what):
    """`skip` does not apply to errors that waiting cannot fix: permission, input, certificate."""
    inputs = {}
    if what == "permission":
        world.environ["ACTIONS_ID_TOKEN_REQUEST_URL"] = ""
    elif what == "input":
        inputs = {"timeout": "never"}
    elif what == "certificate":
        error = httpx.ConnectError("tls")
        error.__cause__ = __import__("ssl").SSLCertVerificationError("self-signed certificate")
        world.script.on(EXCHANGE, world.answer(error=error))
    else:
        world.script.on("ID-TOKEN", world.answer(status=403, text="no"))
    outcome = issue(world, on_unavailable="skip", **inputs)
    assert outcome.exit_code == 1
    assert outcome.outputs["authenticated"] == "false"
    assert len(outcome.commands("error")) == 1


def test_bad_input_makes_no_request(world):
    """Inputs are checked before anything is sent."""
    outcome = issue(world, agent_id="deploy-bot")
    assert outcome.outputs["error-code"] == "INVALID_INPUT"
    assert world.script.requests == []


@pytest.mark.parametrize(
    "token",
    [None, 7, "short", "x" * 30 + "\n::error::y", "x" * (16 * 1024 + 1)],
    ids=["none", "number", "short", "command", "long"],
)
def test_answer_that_is_no_token_is_refused(world, token):
    """An unusable token is neither an output nor saved as state."""
    world.script.on(EXCHANGE, world.token(access_token=token))
    outcome = issue(world)
    assert outcome.outputs["error-code"] == "INVALID_RESPONSE"
    assert len(outcome.commands("error")) == 1
    assert "access-token" not in outcome.outputs
    assert outcome.state == {}


def test_longest_token_is_taken(world):
    """A token of 16 KiB is accepted."""
    world.script.on(EXCHANGE, world.token(access_token="x" * 16 * 1024))
    assert issue(world).outputs["access-token"] == "x" * 16 * 1024


HOSTILE_MEMBERS = [
    ("expires_in", "3600"),
    ("expires_in", None),
    ("expires_in", True),
    ("expires_in", 0),
    ("expires_in", -1),
    ("expires_in", 3600.0),
    ("expires_in", 1_000_000_000),
    ("expires_in", int("9" * 4000)),
    ("expires_at", None),
    ("expires_at", 1_800_000_000),
    ("expires_at", int("9" * 4000)),
    ("expires_at", "tomorrow"),
    ("expires_at", "2027-01-15T09:00:00"),
    ("expires_at", "0001-01-01T00:00:00+23:59"),
    ("expires_at", "9999-12-31T23:59:59-23:59"),
    ("expires_at", "99999-12-31T23:59:59Z"),
    ("scope", 'a"b'),
    ("scope", None),
    ("scope", "a" * 4097),
    ("scope", "a " * 3000 + "a"),
]


@pytest.mark.parametrize(
    ("name", "value"), HOSTILE_MEMBERS, ids=[f"{name}-{str(value)[:30]}" for name, value in HOSTILE_MEMBERS]
)
def test_token_of_a_broken_answer_is_revoked(world, name, value):
    """A response with a token but unusable other fields fails the step, and the token is revoked."""
    world.script.on(EXCHANGE, world.token(**{name: value}))
    outcome = issue(world)
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (1, "INVALID_RESPONSE")
    assert len(outcome.commands("error")) == 1
    assert f"`{name}`" in outcome.commands("error")[0]
    assert outcome.outputs["authenticated"] == "false"
    assert "access-token" not in outcome.outputs

    world.environ |= {f"STATE_{key}": kept for key, kept in outcome.state.items()}
    world.script.on("POST /token/revoke", world.answer(json={}))
    assert world.run("revoke").stdout.endswith("The access token is revoked.\n")
    assert world.script.requests[-1].body == {"token": [world.access_token]}


@pytest.mark.parametrize(
    "retry_after",
    ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 400, "9" * 5000, "86401"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_useless_retry_after_does_not_end_the_retries(world, status, retry_after):
    """A `Retry-After` that no job could wait for is ignored, and the request is retried as usual."""
    busy = world.answer(status=status, text="busy", headers={"Retry-After": retry_after})
    world.script.on(EXCHANGE, busy, world.token())
    assert issue(world).exit_code == 0
    assert world.time.sleeps == [0.25]


def test_state_is_kept_before_anything_else_is_done(world, monkeypatch):
    """The token is saved for the post step before anything else can fail."""
    from sentryagent_actions.idp import IdentityProvider

    def broken(provider, body):
        raise RuntimeError

    monkeypatch.setattr(IdentityProvider, "_seconds", broken)
    world.script.on(EXCHANGE, world.token())
    with pytest.raises(RuntimeError):
        issue(world, timeout="600")
    assert world.state() == {
        "access_token": world.access_token,
        "api_url": world.api_url,
        "ca_certificate": "",
        "timeout": "600",
    }


def test_no_token_is_asked_for_where_its_state_cannot_be_kept(world, tmp_path):
    """If the state file cannot be written, no token is requested: nothing would revoke it."""
    from sentryagent_actions.workflow import RunnerFileUnavailableError

    world.environ["GITHUB_STATE"] = str(tmp_path / "gone" / "state")
    with pytest.raises(RunnerFileUnavailableError, match="GITHUB_STATE"):
        issue(world)
    assert world.script.requests == []


def test_no_request_without_a_place_for_outputs(world):
    """Without GITHUB_OUTPUT no token is requested: it could not be handed over."""
    from sentryagent_actions.workflow import RunnerFileUnavailableError

    del world.environ["GITHUB_OUTPUT"]
    with pytest.raises(RunnerFileUnavailableError):
        issue(world)
    assert world.script.requests == []


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("{}", "its certificates are trusted"),
        ("/nonexistent:{}", "its certificates are trusted"),
        ("/nonexistent", "it is ignored"),
        ("/nonexistent:/other", "it is ignored"),
    ],
)
def test_one_folder_of_several_is_enough(world, tmp_path, folders, said):
    """OpenSSL skips folders that do not exist."""
    world.script.on(EXCHANGE, world.token())
    world.environ["SSL_CERT_DIR"] = folders.format(tmp_path)
    assert f"SSL_CERT_DIR is set: {said}" in issue(world).stdout


def test_log_says_which_overrides_counted(world, tmp_path):
    """The log names the proxy and trust variables of the environment, but not their values."""
    world.script.on(EXCHANGE, world.token())
    world.environ |= {
        "HTTPS_PROXY": "http://user:secret@proxy.example",
        "SSL_CERT_FILE": str(tmp_path / "gone.pem"),
    }
    outcome = issue(world)
    assert (
        "HTTPS_PROXY is set: its proxy is used, except for loopback and the hosts in NO_PROXY."
        in outcome.stdout
    )
    assert (
        "SSL_CERT_FILE is set: it is ignored because it does not name a file of PEM certificates"
        in outcome.stdout
    )
    assert "secret" not in outcome.stdout


def test_token_of_another_audience_is_not_sent(world):
    """A token for another audience, which the provider could use elsewhere, is not sent."""
    answer = world.id_token(aud="https://elsewhere.example")
    foreign = answer.json["value"]
    world.script.on("ID-TOKEN", answer)
    outcome = issue(world)
    assert world.script.calls() == ["ID-TOKEN"]
    assert outcome.outputs["error-code"] == "ID_TOKEN_UNAVAILABLE"
    assert foreign not in outcome.visible


def test_token_that_looks_expired_is_for_the_provider_to_judge(world):
    """A token that seems expired is sent: the log notes the clocks, and the provider's reason is reported."""
    world.script.on("ID-TOKEN", world.id_token(exp=int(world.start) - 240))
    world.script.on(EXCHANGE, world.refusal(401, "INVALID_OIDC_TOKEN", reason="too_old"))
    outcome = issue(world)
    assert (
        "This runner's clock is 240 s past the ID token's expiry; one of the clocks is wrong."
        in outcome.stdout
    )
    assert outcome.outputs["error-code"] == "INVALID_OIDC_TOKEN"
    assert "<tr><td>Reason</td><td>too_old</td></tr>" in outcome.summary


def test_credential_of_the_job_is_masked_where_it_is_one(world):
    """A local runner passes the credential as a plain variable, so it is masked, unless it is too short."""
    world.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "a-credential-of-the-job"
    world.script.on(EXCHANGE, world.token())
    assert issue(world).stdout.startswith("::add-mask::a-credential-of-the-job\n")


@pytest.mark.parametrize("action", ["issue-token", "toolkit"])
def test_authenticated_is_set_before_anything_can_go_wrong(world, action):
    """`authenticated` is false from the start, so the workflow can rely on it even after a cancellation."""

    def cancelled(seconds):
        raise KeyboardInterrupt

    world.script.on(EXCHANGE, world.answer(status=503, text="busy"))
    world.time.sleep = cancelled
    with pytest.raises(KeyboardInterrupt):
        world.run(action, agent_id=world.agent_id)
    assert world.files["output"].read_text().startswith("authenticated<<")


@pytest.mark.parametrize("debug", ["", "1"])
def test_debug_lines_come_with_step_debugging_only(world, debug):
    """With RUNNER_DEBUG each call is logged with status and time, but without query or credential."""
    world.environ["RUNNER_DEBUG"] = debug
    world.script.on(EXCHANGE, world.answer(error=httpx.ReadError("reset")), world.token())
    lines = [line.removeprefix("::debug::") for line in issue(world).commands("debug")]
    github = "GET https://run-actions-3.actions.example.com/232//idtoken/plan/job: 200 (0.00 s)"
    exchange = f"POST {world.api_url}/api/v1/oidc/token"
    calls = [
        f"GET {world.api_url}/api/v1/oidc/audience: 200 (0.00 s)",
        github,
        f"{exchange}: reset (0.00 s)",
        github,
        f"{exchange}: 200 (0.00 s)",
    ]
    assert lines == (calls if debug else [])


def test_proxy_that_refuses_is_final(world):
    """A proxy that demands a password is neither retried nor skipped."""
    refusal = world.answer(error=httpx.ProxyError("407 Proxy Authentication Required"))
    world.script.on(EXCHANGE, refusal)
    outcome = issue(world, on_unavailable="skip")
    assert outcome.exit_code == 1
    assert (outcome.outputs["error-code"], outcome.outputs["retryable"]) == ("PROVIDER_UNREACHABLE", "false")
    assert "the proxy responded with 407" in outcome.commands("error")[0]
    assert "NO_PROXY" in outcome.commands("error")[0]
