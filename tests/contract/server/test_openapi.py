"""`/openapi.json` and `/docs` describe exactly what the provider does."""

import json
import re
from html.parser import HTMLParser

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from kit.processes import ROOT
from kit.provider import NOBODY
from kit.refusals import assert_invalid
from sentryagent_idp import errors
from sentryagent_idp.api import models
from sentryagent_idp.api.description import description_of
from sentryagent_idp.api.openapi import document
from sentryagent_idp.api.problems import PROBLEMS
from sentryagent_idp.app import bare_app

APP = bare_app()
DOCUMENT = document(APP)
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
DESCRIPTIONS = {endpoint: description_of(APP, endpoint) for endpoint in APP.view_functions}
NAMED = {endpoint.replace(".", "_"): about for endpoint, about in DESCRIPTIONS.items()}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    missing_required_header,
    unsupported_method,
]


def _words(schema):
    """The codes of every refusal in a part of the document, in both error formats."""
    return {
        word
        for listed in re.findall(r"Refused: ([^.]+)\.", json.dumps(schema))
        for word in listed.split(", ")
    }


def test_the_published_document_changes_on_purpose_only():
    """docs/openapi.json is the document that the application serves; `make openapi` writes it."""
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == DOCUMENT, "run `make openapi`"


def test_the_document_is_served(provider):
    """Everybody gets the same document, without a token and whatever the settings are."""
    answer = provider.with_settings(EXPLAIN="off", RATE_LIMIT="1").http.get("/openapi.json")

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json == DOCUMENT


def test_every_route_is_described():
    """Every route is an operation in the document; a view without a description is an error."""
    routes = {rule.endpoint for rule in APP.url_map.iter_rules()}
    assert OPERATIONS.keys() == {route.replace(".", "_") for route in routes}

    app = bare_app()
    app.add_url_rule("/new", "new", lambda: "")
    with pytest.raises(AttributeError, match="description"):
        document(app)


def test_every_refusal_stands_where_it_can_happen():
    """Every code is at some operation, except those of unknown paths and methods and OAuth's own; none is invented."""
    codes = {error.code for error in PROBLEMS}
    oauth_errors = {problem.oauth_error for problem in PROBLEMS.values()}
    told = _words(DOCUMENT["paths"])

    assert codes - told == {"NOT_FOUND", "METHOD_NOT_ALLOWED", "INVALID_CLIENT", "UNAUTHORIZED_CLIENT"}
    assert {"invalid_client", "unauthorized_client"} <= told
    assert told <= codes | oauth_errors


def test_refusals_share_their_schemas():
    """A generated client has one class for each of the two error formats, not one for each response."""
    allowed = [{"$ref": f"#/components/schemas/{shape}"} for shape in ("Problem", "OauthError")]
    for name, (_, _, operation) in OPERATIONS.items():
        for status, answer in operation["responses"].items():
            if "Refused" in answer["description"]:
                schema = answer["content"]["application/json"]["schema"]
                assert schema in (*allowed, {"oneOf": allowed}), (name, status)
    code = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]
    assert code == {"type": "string"}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_says_what_it_needs(name, provider):
    """An operation has the scope of its guard, a sentence as its summary, and its path parameters."""
    method, path, operation = OPERATIONS[name]
    endpoint = next(it for it in DESCRIPTIONS if it.replace(".", "_") == name)
    scope = getattr(provider.app.view_functions[endpoint], "required_scope", None)

    assert operation["summary"].endswith(".")
    client = [{"client": []}] if name == "tokens_introspect" else []
    assert ([{"bearer": [scope]}, *client] == operation["security"]) == (scope is not None)
    named = {it["name"] for it in operation.get("parameters", ()) if it["in"] == "path"}
    assert named == set(re.findall(r"\{(\w+)\}", path))
    assert ("401" in operation["responses"]) == bool(operation["security"]) or name == "exchange_exchange"
    assert method in {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, (_, _, it) in OPERATIONS.items()
        if any(p["in"] == "query" for p in it.get("parameters", ()))
    ),
)
def test_the_query_parameters_are_those_that_are_read(name, provider):
    """The documented query parameters are those listed when an unknown one is refused."""
    _, path, operation = OPERATIONS[name]
    path = re.sub(r"\{\w+\}", NOBODY, path)
    documented = {it["name"] for it in operation["parameters"] if it["in"] == "query"}

    reason = assert_invalid(provider.get(f"{path}?nonsense=1"), "nonsense")

    assert set(reason.partition("allowed: ")[2].split(", ")) == documented


@pytest.mark.parametrize("name", sorted(name for name, about in DESCRIPTIONS.items() if about.body))
def test_the_members_of_a_body_are_those_that_are_read(name, provider):
    """The documented fields of a body are those listed when an unknown one is refused."""
    about = DESCRIPTIONS[name]
    method, path, _ = OPERATIONS[name.replace(".", "_")]
    path = re.sub(r"\{\w+\}", NOBODY, path)
    schema = DOCUMENT["components"]["schemas"][about.body.__name__]

    answer = provider.call(method, path, json={"nonsense": 1})

    assert (
        set(assert_invalid(answer, "nonsense").partition("allowed: ")[2].split(", "))
        == schema["properties"].keys()
    )


def _below(model):
    """The direct and indirect subclasses of a model."""
    return {it for child in model.__subclasses__() for it in ({child} | _below(child))}


def test_every_model_of_a_body_is_in_the_document():
    """Every model that validates a body is in the document."""
    bodies = {model.__name__ for model in _below(models.Body) if not model.__name__.startswith("_")}

    assert "StoredPolicyBody" in bodies
    assert bodies <= DOCUMENT["components"]["schemas"].keys()


@pytest.mark.parametrize("name", sorted(name for name, about in DESCRIPTIONS.items() if about.example))
def test_an_example_fits_its_schema(name):
    """The provider accepts every documented example."""
    about = DESCRIPTIONS[name]
    (about.body or about.form).model_validate(about.example)
    model = (about.body or about.form).__name__
    registry = {"$ref": f"#/components/schemas/{model}", "components": DOCUMENT["components"]}
    jsonschema.validate(dict(about.example), registry, cls=jsonschema.Draft202012Validator)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.urls, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.urls += [attributes[it] for it in ("href", "src", "action") if it in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []


def test_the_page_needs_nobody_else(provider):
    """The page has no script, no other host, a policy that forbids both, and no dead link."""
    answer = provider.http.get("/docs")
    page = _Page()
    page.feed(answer.text)

    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)
    assert set(page.ids) == OPERATIONS.keys() | DOCUMENT["components"]["schemas"].keys()
    assert {url for url in page.urls if not url.startswith("#")} == {"/openapi.json"}
    assert {url[1:] for url in page.urls if url.startswith("#")} <= set(page.ids)


@pytest.fixture(scope="module")
def tried(still_provider):
    """A provider with an agent and a policy, without rate limits."""
    provider = still_provider.with_settings(RATE_LIMIT="0")
    provider.policy(agentId=provider.agent()["agentId"])
    return provider


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_application_does_what_the_document_says(name, tried):
    """Generated requests, valid and invalid, get only documented statuses, bodies and headers, and never a 5xx.

    A JSON body that breaks its schema is always refused; the encoding of a form or a query can hide such a violation.
    The test adds the credentials: authorization is tested elsewhere.
    """
    method, path, operation = OPERATIONS[name]
    generator = schemathesis.openapi.from_dict(
        {**DOCUMENT, "paths": {path: {method.lower(): {**operation, "security": []}}}}
    )
    generator.app = tried.app
    rejection = generator.config.checks.negative_data_rejection
    rejection.expected_statuses = [
        *rejection.expected_statuses,
        "413",
    ]  # an invalid body may also be too large
    strategies = [generator[path][method].as_strategy(generation_mode=mode) for mode in GenerationMode]
    headers = tried.admin if any("bearer" in way for way in operation["security"]) else {}
    checks = [*CHECKS, *([negative_data_rejection] if NAMED[name].body else [])]

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(strategies))
    def try_out(case):
        answer = case.call_and_validate(headers=headers, checks=checks)
        if answer.status_code >= 400 and method != "HEAD" and "json" in answer.headers["content-type"][0]:
            word = answer.json().get("code") or answer.json().get("error")
            assert word is None or word in _words(operation["responses"][str(answer.status_code)])

    try_out()


def _good_answers(provider):
    """A successful response of every operation that responds with a body."""
    agent = provider.agent()["agentId"]
    policy = provider.policy(agentId=agent)["id"]
    at = {"agentId": agent, "policyId": policy}

    def ask(name, **request):
        method, path, operation = OPERATIONS[name]
        for key, value in at.items():
            path = path.replace(f"{{{key}}}", value)
        headers = {} if name == "tokens_issue" else provider.admin
        answer = provider.http.open(path, method=method, headers=headers, **request)
        return name, answer, operation

    secret = ask("agents_generate_credential")
    at["credentialId"] = secret[1].json["credentialId"]
    client = {"client_id": agent, "client_secret": secret[1].json["clientSecret"]}
    issued = ask("tokens_issue", data={"grant_type": "client_credentials", **client})
    exchanged = ask("exchange_exchange", json={"token": provider.github_token(), "agentId": agent})
    yield from (secret, issued, exchanged)
    yield ask("exchange_exchange", json={"token": provider.github_token(), "agentId": agent, "dryRun": True})
    made = ask("services_create", json=DESCRIPTIONS["services.create"].example)
    at["serviceId"] = made[1].json["serviceId"]
    yield made
    yield ask("services_replace", json={"scopes": [{"name": "deploy:production"}]})
    grants = [{"service": made[1].json["identifier"], "scopes": ["deploy:production"]}]
    yield ask(
        "trust_policies_create",
        json={"repository": "octo-org/other", "trustRegistered": True, "grants": grants},
    )
    yield ask(
        "trust_policies_replace", json={"repository": "octo-org/hello-agent", "agentId": agent, "maxTtl": 60}
    )
    yield ask("trust_policies_simulate", json=DESCRIPTIONS["trust_policies.simulate"].example)
    yield ask("agents_register", json=DESCRIPTIONS["agents.register"].example)
    yield ask("agents_update", json={"version": "1.1.0"})
    yield ask("tokens_introspect", data={"token": exchanged[1].json["access_token"]})
    yield ask("tokens_introspect", data={"token": "unknown"})
    yield ask("tokens_introspect", data={"token": issued[1].json["access_token"]})
    yield ask("agents_rotate_credential")
    for name, (method, _, _) in OPERATIONS.items():
        if method == "GET":
            yield ask(name)


def test_good_answers_fit_their_schemas(provider):
    """Every successful response with a body fits its schema; no operation is left out."""
    seen = set()
    for name, answer, operation in _good_answers(provider):
        content = operation["responses"][str(answer.status_code)]["content"]
        assert answer.status_code < 300, (name, answer.text)
        assert content.keys() == {answer.mimetype}, name
        if schema := content[answer.mimetype].get("schema"):
            whole = {**schema, "components": DOCUMENT["components"]}
            jsonschema.validate(
                answer.json,
                whole,
                cls=jsonschema.Draft202012Validator,
                format_checker=jsonschema.FormatChecker(),
            )
        seen.add(name)
    assert {name for name, about in NAMED.items() if about.media_type} == seen


def test_every_change_has_its_record(provider):
    """Each operation that changes something writes an audit record with the id of its request."""
    asked = list(_good_answers(provider))
    ids = {record["requestId"] for record in provider.audit()}
    changing = {
        name for name, (method, _, _) in OPERATIONS.items() if method != "GET" and NAMED[name].media_type
    }

    recorded = {name for name, answer, _ in asked if answer.headers["X-Request-Id"] in ids}

    assert recorded == changing - {"tokens_introspect", "trust_policies_simulate"}


def test_the_document_is_no_licence_for_less(provider):
    """Every retryable refusal is documented with Retry-After."""
    retryable = {PROBLEMS[it].status for it in (errors.RateLimited, errors.DatabaseUnavailable)}
    for _, path, operation in OPERATIONS.values():
        for status, answer in operation["responses"].items():
            if int(status) in retryable and "Refused" in answer["description"]:
                assert "Retry-After" in answer["headers"], path
