"""`mock-idp attack` against our provider: every hostile token is refused in each form of the exchange."""

import json

import pytest

from kit.processes import BIN

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
CALLED = "octo-org/workflows/.github/workflows/deploy.yml"


@pytest.fixture
def attack(environment, github, provider, repository, tmp_path, transcript):
    """Attack the exchange as the test's repository; return the exit code and the results by name."""

    def attack(*words):
        report = tmp_path / "report.json"
        command = [BIN / "mock-idp", "attack", f"{provider.url}/api/v1/oidc/token", "--url", github.url]
        command += ["--audience", provider.url, "--repository", repository, "--json", report, *words]
        done = transcript.run(*command, env=environment, timeout=150)
        assert done.stderr == ""
        transcript.add("the report", report.read_text())
        return done.returncode, {it["name"]: it for it in json.loads(report.read_text())["results"]}

    return attack


def test_a_bootstrap_policy_lets_nothing_through(attack, provider, repository):
    """With a bootstrap policy for one branch, the provider refuses the whole attack pack, sent as JSON."""
    provider.policy(repository, branch="main")

    code, results = attack("--send", "json:token")

    assert (code, [name for name, it in results.items() if not it["asExpected"]]) == (0, [])
    assert len(results) > 100
    assert results["control"]["status"] == results["control-again"]["status"] == 200


def test_an_agents_policy_lets_nothing_through(attack, trusted_agent):
    """The same holds for exchanges for an agent's token."""
    code, results = attack("--send", "json:token", "--member", f"agentId={trusted_agent}")

    assert (code, [name for name, it in results.items() if not it["asExpected"]]) == (0, [])


def test_the_standard_form_lets_nothing_through(attack, provider, repository):
    """The same holds for RFC 8693's form."""
    provider.policy(repository, branch="main")
    members = [("grant_type", EXCHANGE), ("subject_token_type", JWT_TYPE)]

    code, results = attack(
        "--send", "form:subject_token", *(word for pair in members for word in ("--member", "=".join(pair)))
    )

    assert (code, [name for name, it in results.items() if not it["asExpected"]]) == (0, [])


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"workflow": "deploy.yml"}, ["--workflow", "deploy.yml"]),
        ({"calledWorkflow": f"{CALLED}@refs/tags/v1"}, ["--called-workflow", f"{CALLED}@refs/tags/v1"]),
    ],
)
def test_a_policy_of_every_part_lets_nothing_through(attack, provider, repository, condition, words):
    """With a policy on environment, workflow, runner and visibility, these conditions are attacked too."""
    others = {"environment": "production", "runnerEnvironment": "self-hosted", "visibility": "private"}
    provider.policy(repository, branch="main", **others, **condition)
    words += ["--environment", "production", "--runner-environment", "self-hosted", "--visibility", "private"]

    code, results = attack("--send", "json:token", *words)

    assert (code, [name for name, it in results.items() if not it["asExpected"]]) == (0, [])
    assert results.keys() >= {
        "other-environment",
        "workflow-on-another-ref",
        "other-runner",
        "other-visibility",
    }
