"""The inputs of the three actions, read once and validated before any request."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sentryagent_actions.errors import InvalidInputError
from sentryagent_actions.origin import Origin
from sentryagent_actions.untrusted import shown

_DEFAULT_TIMEOUT = 60
_MAX_TIMEOUT = 600
_MAX_AUDIENCE = 1000
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_MAX_RESOURCE = 255
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:[!-~]+)?")  # RFC 3986, section 3: a scheme, no spaces
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

_CONNECTION = ("api-url", "audience", "timeout", "dry-run", "summary", "ca-certificate")
_TOKEN = ("resource", "scope", "expires-in", "revoke", "on-unavailable")
_PROFILE = (
    "agent-description",
    "agent-type",
    "agent-version",
    "capabilities",
    "owner",
    "deployment-env",
)
# The inputs of each action; a test compares them with its action.yml.
NAMES: Mapping[str, tuple[str, ...]] = {
    "issue-token": (*_CONNECTION, "agent-id", *_TOKEN),
    "register-agent": (*_CONNECTION, "agent-name", *_PROFILE, "update"),
    "toolkit": (*_CONNECTION, "agent-id", "agent-name", *_PROFILE, "update", *_TOKEN),
}
BOOLEANS = frozenset({"dry-run", "summary", "revoke", "update"})

# The action's input for each field of an exchange request and of an agent in the provider's API.
INPUT_OF_FIELD = {
    "email": "agent-name",
    "description": "agent-description",
    "agentType": "agent-type",
    "version": "agent-version",
    "capabilities": "capabilities",
    "owner": "owner",
    "deploymentEnv": "deployment-env",
    "agentId": "agent-id",
    "resource": "resource",
    "scope": "scope",
    "expiresIn": "expires-in",
}


class Inputs:
    """The `INPUT_*` variables of a step, trimmed; a missing one is the empty string.

    GitHub's runner upper-cases an input's name and keeps its hyphens. Source: `Handler.AddInputsToEnvironment`
    of actions/runner.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        """Return an input's trimmed text."""
        return self._environ.get(f"INPUT_{name.upper()}", "").strip()

    def required(self, name: str) -> str:
        """Return an input that must not be empty, because GitHub does not enforce `required`. Raises InvalidInputError."""
        value = self.text(name)
        if not value:
            raise InvalidInputError(
                name,
                "is empty; add it under `with:`. If it comes from `${{ vars.… }}`, that variable is not set for this "
                "repository, organisation or environment (a variable of an environment needs `environment:` in the job)",
            )
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a boolean as spelled in the YAML 1.2 core schema, or `default` for an empty input."""
        value = self.text(name)
        if not value:
            return default
        if value not in _BOOLEANS:
            raise InvalidInputError(name, f"is {shown(value, 80)!r}; write true or false")
        return _BOOLEANS[value]

    def seconds(self, name: str, *, maximum: int) -> int | None:
        """Return a whole number from 1 to `maximum`, or `None` for an empty input."""
        value = self.text(name)
        if not value:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= maximum:
            raise InvalidInputError(
                name, f"is {shown(value, 80)!r}; write seconds as a whole number from 1 to {maximum}"
            )
        return int(value)

    def choice(self, name: str, *choices: str) -> str:
        """Return one of `choices`; the first is the default."""
        value = self.text(name) or choices[0]
        if value not in choices:
            raise InvalidInputError(name, f"is {shown(value, 80)!r}; write {' or '.join(choices)}")
        return value


@dataclass(frozen=True)
class Connection:
    """The inputs with which every action reaches the provider; `timeout` is in seconds, for all calls together."""

    api_url: Origin
    audience: str
    timeout: int
    ca_certificate: str

    @classmethod
    def from_inputs(cls, inputs: Inputs) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        inputs.boolean(
            "summary", default=True
        )  # `Workflow.summarize` reads it, and takes any other word for true
        return cls(
            api_url=_origin(inputs),
            audience=_audience(inputs),
            timeout=inputs.seconds("timeout", maximum=_MAX_TIMEOUT) or _DEFAULT_TIMEOUT,
            ca_certificate=_certificate(inputs),
        )


@dataclass(frozen=True)
class TokenRequest:
    """The token to request and how to handle it: the inputs of issue-token besides the agent and the connection."""

    resource: str
    scope: str
    expires_in: int | None
    revoke: bool
    skip_when_unavailable: bool
    dry_run: bool

    @classmethod
    def from_inputs(cls, inputs: Inputs) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        return cls(
            resource=_resource(inputs),
            scope=" ".join(inputs.text("scope").replace(",", " ").split()),
            expires_in=inputs.seconds("expires-in", maximum=999_999_999),
            revoke=inputs.boolean("revoke", default=True),
            skip_when_unavailable=inputs.choice("on-unavailable", "fail", "skip") == "skip",
            dry_run=inputs.boolean("dry-run", default=False),
        )


@dataclass(frozen=True)
class AgentProfile:
    """An agent as described by the workflow; the provider fills an empty field with its default."""

    name: str
    description: str
    agent_type: str
    version: str
    capabilities: tuple[str, ...]
    owner: str
    deployment_env: str

    @classmethod
    def from_inputs(cls, inputs: Inputs) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        return cls(
            name=_email(inputs),
            description=inputs.text("agent-description"),
            agent_type=inputs.text("agent-type"),
            version=inputs.text("agent-version"),
            capabilities=tuple(inputs.text("capabilities").replace(",", " ").split()),
            owner=inputs.text("owner"),
            deployment_env=inputs.text("deployment-env"),
        )

    def as_json(self) -> dict[str, object]:
        """Return the fields of the provider's agent record that the workflow sets."""
        record = {
            "email": self.name,
            "description": self.description,
            "agentType": self.agent_type,
            "version": self.version,
            "capabilities": list(self.capabilities),
            "owner": self.owner,
            "deploymentEnv": self.deployment_env,
        }
        return {name: value for name, value in record.items() if value}


@dataclass(frozen=True)
class IssueTokenInputs:
    """The inputs of `issue-token`; `agent_id` may be empty in a dry run, because one of `register-agent` sets no id."""

    connection: Connection
    agent_id: str
    token: TokenRequest

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        inputs = Inputs(environ)
        connection, token = Connection.from_inputs(inputs), TokenRequest.from_inputs(inputs)
        no_agent = token.dry_run and not inputs.text("agent-id")
        return cls(connection, "" if no_agent else _agent_id(inputs), token)


@dataclass(frozen=True)
class RegisterAgentInputs:
    """The inputs of `register-agent`."""

    connection: Connection
    profile: AgentProfile
    update: bool
    dry_run: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        inputs = Inputs(environ)
        return cls(
            Connection.from_inputs(inputs),
            AgentProfile.from_inputs(inputs),
            inputs.boolean("update", default=False),
            inputs.boolean("dry-run", default=False),
        )


@dataclass(frozen=True)
class OneStepInputs:
    """The inputs of the root action; `agent` is an agent's id, or the profile of an agent to register."""

    connection: Connection
    agent: str | AgentProfile
    update: bool
    token: TokenRequest

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read and validate the inputs. Raises InvalidInputError."""
        inputs = Inputs(environ)
        return cls(
            Connection.from_inputs(inputs),
            _agent(inputs),
            inputs.boolean("update", default=False),
            TokenRequest.from_inputs(inputs),
        )


def _agent(inputs: Inputs) -> str | AgentProfile:
    has_id, has_name = bool(inputs.text("agent-id")), bool(inputs.text("agent-name"))
    if has_id == has_name:
        both = "given" if has_id else "empty"
        raise InvalidInputError(
            "agent-id", f"and input `agent-name` are both {both}; give exactly one of them"
        )
    if has_name:
        return AgentProfile.from_inputs(inputs)
    for name in _PROFILE:
        if inputs.text(name):
            raise InvalidInputError(
                name,
                "describes an agent to register, but `agent-id` names an existing agent; give `agent-name` instead",
            )
    return _agent_id(inputs)


def _origin(inputs: Inputs) -> Origin:
    value = inputs.required("api-url")
    try:
        return Origin.from_base_url(value)
    except ValueError as error:
        raise InvalidInputError("api-url", str(error)) from error


def _audience(inputs: Inputs) -> str:
    value = inputs.text("audience")
    if not value.isprintable() or len(value) > _MAX_AUDIENCE:
        raise InvalidInputError(
            "audience",
            f"has a line break, an invisible character, or more than {_MAX_AUDIENCE} characters; write one audience",
        )
    return value


def _certificate(inputs: Inputs) -> str:
    value = inputs.text("ca-certificate")
    if not value:
        return ""
    from sentryagent_actions.pem import certificates  # takes a millisecond, and most steps set no certificate

    try:
        return certificates(value)
    except ValueError as error:
        raise InvalidInputError("ca-certificate", str(error)) from error


def _resource(inputs: Inputs) -> str:
    value = inputs.text("resource")
    if not _URI.fullmatch(value) or len(value) > _MAX_RESOURCE:
        raise InvalidInputError(
            "resource",
            f"is {shown(value, 80)!r}, which is not the identifier of a service; write one such as https://deploy.example.com",
        )
    return value


def _agent_id(inputs: Inputs) -> str:
    value = inputs.required("agent-id")
    try:
        agent_id = str(uuid.UUID(value))
    except ValueError:
        agent_id = ""
    # uuid.UUID also accepts braces, `urn:uuid:` and missing hyphens.
    if agent_id != value.lower():
        raise InvalidInputError(
            "agent-id",
            f"is {shown(value, 80)!r}, which is not a UUID; use the output `agent-id` of register-agent",
            paste="agent-id: ${{ steps.register.outputs.agent-id }}",
        )
    return agent_id


def _email(inputs: Inputs) -> str:
    value = inputs.required("agent-name")
    if not _EMAIL.fullmatch(value) or not value.isprintable():
        raise InvalidInputError(
            "agent-name",
            f"is {shown(value, 80)!r}, which is not an e-mail address; write one such as deploy-bot@example.com",
        )
    return value
