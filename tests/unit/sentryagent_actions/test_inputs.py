"""The inputs of the actions (`with:`)."""

import certifi
import pytest

from sentryagent_actions.errors import InvalidInputError
from sentryagent_actions.inputs import IssueTokenInputs, OneStepInputs, RegisterAgentInputs

AGENT_ID = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
CERTIFICATE = certifi.contents().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"


def environ(**inputs):
    return {f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()}


def issue(**inputs):
    return IssueTokenInputs.from_environ(
        environ(**{"api_url": "https://idp.example.com", "agent_id": AGENT_ID} | inputs)
    )


def register(**inputs):
    given = {"api_url": "https://idp.example.com", "agent_name": "bot@example.com"} | inputs
    return RegisterAgentInputs.from_environ(environ(**given))


def test_issue_token_defaults():
    """An omitted input has the default that action.yml documents."""
    inputs = issue()
    assert (inputs.connection.timeout, inputs.connection.audience) == (60, "")
    assert inputs.token.revoke
    assert not inputs.token.skip_when_unavailable
    assert not inputs.token.dry_run
    assert inputs.token.expires_in is None


def test_inputs_are_trimmed():
    """Whitespace around a value, for example from a YAML block, is removed."""
    inputs = issue(
        agent_id=f"  {AGENT_ID.upper()}\n",
        scope=" agents:read\n tokens:read ",
        api_url=" https://idp.example.com/\n",
    )
    assert inputs.agent_id == AGENT_ID
    assert inputs.token.scope == "agents:read tokens:read"
    assert str(inputs.connection.api_url) == "https://idp.example.com"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("", True),
    ],
)
def test_booleans_are_those_of_yaml_core(written, value):
    """The six spellings of YAML 1.2 are accepted; an empty value is the default."""
    assert issue(revoke=written).token.revoke is value


@pytest.mark.parametrize(
    ("inputs", "named", "remedy"),
    [
        ({"api_url": ""}, "api-url", "`${{ vars.… }}`, that variable is not set"),
        ({"api_url": "idp.example.com"}, "api-url", "https://"),
        ({"agent_id": " "}, "agent-id", "Add it under `with:`"),
        ({"agent_id": "deploy-bot"}, "agent-id", "register-agent"),
        ({"agent_id": "{0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de}"}, "agent-id", "not a UUID"),
        ({"agent_id": AGENT_ID.replace("-", "")}, "agent-id", "not a UUID"),
        ({"revoke": "yes"}, "revoke", "Write true or false"),
        ({"dry_run": "1"}, "dry-run", "Write true or false"),
        ({"timeout": "0"}, "timeout", "from 1 to 600"),
        ({"timeout": "601"}, "timeout", "from 1 to 600"),
        ({"timeout": "1m"}, "timeout", "from 1 to 600"),
        ({"timeout": "٣"}, "timeout", "from 1 to 600"),
        ({"expires_in": "-5"}, "expires-in", "from 1 to"),
        ({"expires_in": "1h"}, "expires-in", "seconds as a whole number"),
        ({"resource": "deploy"}, "resource", "https://deploy.example.com"),
        ({"resource": "https://a b"}, "resource", "https://deploy.example.com"),
        ({"resource": "urn:" + "a" * 252}, "resource", "https://deploy.example.com"),
        ({"summary": "no"}, "summary", "Write true or false"),
        ({"on_unavailable": "ignore"}, "on-unavailable", "Write fail or skip"),
        ({"audience": "a\nb"}, "audience", "line break"),
        ({"audience": "a" * 1001}, "audience", "1000"),
        ({"ca_certificate": "not a certificate"}, "ca-certificate", "BEGIN CERTIFICATE"),
        ({"ca_certificate": "not ascii é"}, "ca-certificate", "BEGIN CERTIFICATE"),
        ({"ca_certificate": CERTIFICATE.replace("A", "B", 40)}, "ca-certificate", "BEGIN CERTIFICATE"),
    ],
)
def test_wrong_input_is_refused_with_what_to_write(inputs, named, remedy):
    """The error names the input and says what to write instead."""
    with pytest.raises(InvalidInputError) as refusal:
        issue(**inputs)
    assert f"`{named}`" in str(refusal.value)
    assert remedy in refusal.value.advice()


@pytest.mark.parametrize(
    "name", ["", "deploy-bot", "@example.com", "bot@", "a@b@c", "a b@example.com", "bot@exa\u200bmple.com"]
)
def test_agent_name_is_an_email_address(name):
    """An `agent-name` must be an e-mail address."""
    with pytest.raises(InvalidInputError, match="`agent-name`"):
        register(agent_name=name)


def test_certificate_is_taken_without_what_stands_around_it():
    """Only the certificates of an exported bundle are used."""
    pem = CERTIFICATE[CERTIFICATE.index("-----BEGIN") :]
    assert issue(ca_certificate=CERTIFICATE).connection.ca_certificate == pem


@pytest.mark.parametrize(
    ("written", "resource"),
    [("", ""), (" https://deploy.example.com\n", "https://deploy.example.com"), ("urn:octo:deploy",) * 2],
)
def test_resource_is_the_identifier_of_a_service(written, resource):
    """`resource` is an absolute URI or empty."""
    assert issue(resource=written).token.resource == resource


def test_scopes_are_separated_by_commas_or_spaces():
    """Scopes, like capabilities, may be separated by commas or spaces."""
    assert issue(scope="agents:read,tokens:read").token.scope == "agents:read tokens:read"


@pytest.mark.parametrize(
    "written", ["ci:run,code:read", "ci:run code:read", " ci:run,\n code:read ,", "ci:run\ncode:read"]
)
def test_capabilities_are_separated_by_commas_or_blanks(written):
    """Commas, spaces and newlines separate capabilities."""
    assert register(capabilities=written).profile.capabilities == ("ci:run", "code:read")


def test_profile_leaves_defaults_to_the_provider():
    """Only the inputs that are set are sent, so that the provider's defaults apply."""
    assert register().profile.as_json() == {"email": "bot@example.com"}
    full = register(
        agent_description="d",
        agent_type="monitor",
        agent_version="2.0.0",
        capabilities="a:b",
        owner="o",
        deployment_env="staging",
    )
    assert full.profile.as_json() == {
        "email": "bot@example.com",
        "description": "d",
        "agentType": "monitor",
        "version": "2.0.0",
        "capabilities": ["a:b"],
        "owner": "o",
        "deploymentEnv": "staging",
    }


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({}, "both empty"),
        ({"agent_id": AGENT_ID, "agent_name": "bot@example.com"}, "both given"),
        ({"agent_id": AGENT_ID, "agent_version": "1.0.0"}, "`agent-version` describes an agent to register"),
        ({"agent_id": AGENT_ID, "owner": "o"}, "`owner` describes an agent to register"),
    ],
)
def test_one_step_needs_one_way_to_its_agent(inputs, problem):
    """The root action takes either an id or a name, and a description of the agent only with a name."""
    with pytest.raises(InvalidInputError, match=problem):
        OneStepInputs.from_environ(environ(api_url="https://idp.example.com", **inputs))
