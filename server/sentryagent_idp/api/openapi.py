"""The OpenAPI 3.1 document, generated from the routes, guards, validation models and the table of statuses."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Flask
from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from werkzeug.routing import Rule

from sentryagent_idp import errors
from sentryagent_idp.api.description import ID, Description, Refusal, description_of
from sentryagent_idp.api.problems import PROBLEMS
from sentryagent_idp.api.requests import FORM, JSON
from sentryagent_idp.api.responses import OauthError, Problem

_SCHEMAS = "#/components/schemas/"
_SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of this provider; its scopes determine what it can do.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "client_id and client_secret; both can be sent in the form instead.",
    },
}
_HEADERS: Mapping[str, str] = {
    "X-Request-Id": "The request's id in the log and the audit.",
    "Location": "The path of the new resource.",
    "ETag": "The version of the resource, for If-Match and If-None-Match.",
    "Retry-After": "Seconds to wait before retrying.",
    "WWW-Authenticate": "The accepted authentication scheme (RFC 6750, RFC 7617).",
}

_NOT_MODIFIED = {
    "description": "Not modified: If-None-Match has the current version.",
    "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", "ETag")},
}
_REFUSAL_HEADER = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

Json = dict[str, Any]


def document(app: Flask) -> Json:
    """Generate the application's document, which depends only on its routes, not on any setting."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SentryAgent identity provider",
            "version": "1.0.0",  # of the interface, not of the program: it changes only with the interface
            "description": "Exchanges the OIDC tokens of GitHub Actions for access tokens of AI agents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": _tag(name)} for name in app.blueprints],
        "paths": _paths(app),
        "components": {
            "schemas": _schemas(app),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
            },
            "securitySchemes": _SECURITY,
        },
    }


def _paths(app: Flask) -> Json:
    paths: Json = {}
    for rule in app.url_map.iter_rules():
        operation = _operation(app, rule)
        path = re.sub(r"<(\w+)>", lambda found: f"{{{to_camel(found[1])}}}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(path, {})[method.lower()] = operation
    return paths


def _operation(app: Flask, rule: Rule) -> Json:
    view, about = app.view_functions[rule.endpoint], description_of(app, rule.endpoint)
    scope: str | None = getattr(view, "required_scope", None)
    summary, _, more = (view.__doc__ or "").partition("\n")
    operation = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [_tag(rule.endpoint.partition(".")[0])],
        "summary": summary.strip(),
        "description": " ".join(more.split()),
        "security": _security(about, scope),
        "parameters": list(_parameters(rule, about)),
        "requestBody": _body(about),
        "responses": _responses(about, refusals(about, scope)),
    }
    return {name: value for name, value in operation.items() if value or name == "security"}


def _tag(blueprint: str) -> str:
    return blueprint.replace("_", " ").capitalize()


def _security(about: Description, scope: str | None) -> list[Json]:
    bearer: list[Json] = [{"bearer": [scope]}] if scope else []
    return bearer + [{name: []} if name else {} for name in about.credentials]


def _parameters(rule: Rule, about: Description) -> Iterator[Json]:
    for name in sorted(rule.arguments):
        yield {"name": to_camel(name), "in": "path", "required": True, "schema": dict(ID.schema)}
    for name, parameter in about.query.items():
        yield {"name": name, "in": "query", "schema": dict(parameter.schema)}
    for name in about.headers:
        yield {"name": name, "in": "header", "schema": {"type": "string"}}


def _body(about: Description) -> Json:
    content: Json = {}
    for media_type, model in ((JSON, about.body), (FORM, about.form)):
        if model:
            content[media_type] = {"schema": _reference(model)}
    if about.example:
        next(iter(content.values()))["example"] = dict(about.example)
    return {"required": not about.body_is_optional, "content": content} if content else {}


def _reference(model: type) -> Json:
    return {"$ref": f"{_SCHEMAS}{model.__name__}"}


def refusals(about: Description, scope: str | None) -> set[Refusal]:
    """Return every refusal that an operation can respond with."""
    found: set[Refusal] = {errors.InternalError, *about.refusals}
    if scope:
        found |= {errors.Unauthorized, errors.Forbidden}
    if about.body or about.form:
        found |= {
            errors.ValidationFailed,
            errors.PayloadTooLarge,
            errors.RequestTimeout,
            errors.UnsupportedMediaType,
        }
    if about.query:
        found.add(errors.ValidationFailed)
    if about.needs_database:
        found.add(errors.DatabaseUnavailable)
    return found


def _responses(about: Description, refused: set[Refusal]) -> Json:
    words: dict[int, dict[type, set[str]]] = defaultdict(lambda: defaultdict(set))
    for error in refused:
        problem = PROBLEMS[error]
        if about.body or not about.form:
            words[problem.status][Problem].add(error.code)
        if about.form:
            words[problem.oauth_status][OauthError].add(problem.oauth_error)
    return {
        **{str(status): _refusal(status, shapes) for status, shapes in sorted(words.items())},
        **{str(status): _response(about) for status in about.statuses},
        **({"304": _NOT_MODIFIED} if "If-None-Match" in about.headers else {}),
    }


def _response(about: Description) -> Json:
    references = [_reference(model) for model in about.response]
    content: Json = {"schema": _one_of(references)} if references else {}
    return {
        "description": (about.response[0].__doc__ or "").splitlines()[0] if about.response else "Done.",
        "headers": _headers(*about.response_headers),
        **({"content": {about.media_type: content}} if about.media_type else {}),
    }


def _refusal(status: int, shapes: Mapping[type, set[str]]) -> Json:
    """The error response of one status; its description lists the error codes.

    A schema with the codes for each response would give a generated client hundreds of classes.
    """
    schemas = [_reference(shape) for shape in sorted(shapes, key=lambda shape: shape.__name__, reverse=True)]
    return {
        "description": f"Refused: {', '.join(sorted(set().union(*shapes.values())))}.",
        "headers": _headers(*([_REFUSAL_HEADER[status]] if status in _REFUSAL_HEADER else [])),
        "content": {JSON: {"schema": _one_of(schemas)}},
    }


def _one_of(schemas: list[Json]) -> Json:
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


class _Schema(GenerateJsonSchema):
    """Leaves out pydantic's titles, which repeat the fields' names, and closes TypedDicts to unknown fields."""

    def typed_dict_schema(self, schema: Any) -> Json:
        return {"additionalProperties": False, **super().typed_dict_schema(schema)}

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def _schemas(app: Flask) -> Json:
    """The schemas of all models: request bodies as they are validated, responses as they are serialized."""
    descriptions = [description_of(app, endpoint) for endpoint in app.view_functions]
    requests = {model for about in descriptions for model in (about.body, about.form) if model}
    responses = {model for about in descriptions for model in about.response}
    return {
        **{name: _with_nulls(schema) for name, schema in _definitions(requests, "validation").items()},
        **_definitions({*responses, Problem, OauthError}, "serialization"),
    }


def _definitions(models: Iterable[type], mode: JsonSchemaMode) -> Json:
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schema = TypeAdapter.json_schemas(
        [(model, mode, TypeAdapter(model)) for model in ordered],
        ref_template=f"{_SCHEMAS}{{model}}",
        schema_generator=_Schema,
    )
    definitions: Json = schema["$defs"]
    return definitions


def _with_nulls(schema: Json) -> Json:
    """The schema of a request body, in which `null` for an optional field means the same as its absence."""
    optional = schema.get("properties", {}).keys() - schema.get("required", ())
    fields = {
        name: _or_null(field) if name in optional else field
        for name, field in schema.get("properties", {}).items()
    }
    return {**schema, **({"properties": fields} if fields else {})}


def _or_null(field: Json) -> Json:
    rule = {name: value for name, value in field.items() if name != "default"}
    if not rule or {"type": "null"} in rule.get("anyOf", ()):
        return field
    return {"anyOf": [rule, {"type": "null"}], "default": field.get("default")}
