"""Reading requests: the client's address, the body, the form and the query. Nothing is coerced."""

import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from flask import current_app, g, request
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_snake

from sentryagent_idp.api.description import PAGING, description_of
from sentryagent_idp.api.fields import UUID_FORM, scope_problem
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.concurrency.loop import LARGE_BODY_BYTES, MAX_BODY_BYTES, too_large
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.text import has_unprintable
from sentryagent_idp.errors import (
    ServiceError,
    UnsupportedGrantType,
    UnsupportedMediaType,
    ValidationFailed,
    field_reason,
)
from sentryagent_idp.jose.strict_json import Limits, StrictJsonError, parse, repeated
from sentryagent_idp.runtime.addresses import allowance
from sentryagent_idp.runtime.ids import uuid7

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Model = TypeVar("Model", bound=BaseModel)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_ETAG = re.compile(r'"([0-9]{1,10})"', re.ASCII)
_LIMITS = {
    MAX_BODY_BYTES: Limits(fields=3000, string_length=MAX_BODY_BYTES),
    LARGE_BODY_BYTES: Limits(fields=30_000, string_length=MAX_BODY_BYTES),
}
_LONGEST_NAME = 64


def context() -> RequestContext:
    """The id, the address and the person that the audit records for this request."""
    made: RequestContext = g.context
    return made


def begin(environ: "WSGIEnvironment") -> RequestContext:
    """Create the request's context with a new id: an id from the client could point to another request's audit record.

    The address is the peer's, or the one that trusted proxies report.
    """
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
    address = use_cases().client_addresses.of(environ.get("REMOTE_ADDR", ""), forwarded)
    g.context = made = RequestContext(str(uuid7()), address)
    return made


def act_for(person: str | None) -> None:
    """Have the audit name the person for whom the request's token was created."""
    g.context = msgspec.structs.replace(context(), person=person)


def limit_key() -> str:
    """The rate-limit key of this request."""
    return allowance(context().address)


def parse_uuid(text: str, absent: ServiceError) -> UUID:
    """Parse the id in a path; raises `absent` if it is not a UUID."""
    if not UUID_FORM.fullmatch(text):
        raise absent
    return uuid.UUID(text)


def read_json(
    model: type[Model], *, explicit_nulls: Collection[str] = (), limit: int = MAX_BODY_BYTES
) -> tuple[Model, frozenset[str]]:
    """Read the JSON body, of at most `limit` bytes, as `model`; also return which of `explicit_nulls` are `null`.

    Any other `null` is the same as an absent field. Raises `ValidationFailed` naming the field,
    `UnsupportedMediaType`, `PayloadTooLarge`.
    """
    if request.mimetype != JSON:
        raise UnsupportedMediaType(f"Send the body as {JSON}.")
    _refuse_query()
    body = _object(_body(limit), _LIMITS[limit])
    _refuse_unknown(body, _names(model), "field")
    present = {name: value for name, value in body.items() if value is not None}
    return validate(model, present), frozenset((body.keys() - present.keys()) & set(explicit_nulls))


@cache
def _names(model: type[BaseModel]) -> Collection[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def expected_versions() -> list[int] | None:
    """The versions in `If-Match` (RFC 9110, 13.1.1), or `None` if any version will do. A weak tag matches nothing."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tags = (_ETAG.fullmatch(tag.strip()) for tag in header.split(","))
    return [int(tag.group(1)) for tag in tags if tag]


def has_body() -> bool:
    """Whether the request has a body, of any type; raises `PayloadTooLarge`."""
    return bool(request.mimetype or _body())


def _body(limit: int = MAX_BODY_BYTES) -> bytes:
    """The body; raises `PayloadTooLarge`."""
    # The loop reads the body whole and within its limit, so werkzeug's own checks have nothing left to do.
    body: bytes = request.environ["wsgi.input"].read(limit + 1)
    if len(body) > limit:
        raise too_large(limit)
    return body


def _object(text: bytes, limits: Limits) -> dict[str, Any]:
    try:
        body = parse(text, limits)
    except StrictJsonError as error:
        raise ValidationFailed(_shortened(error.field or "body"), error.reason) from error
    if not isinstance(body, dict):
        raise ValidationFailed("body", "it must be a JSON object")
    return body


def _shortened(name: str) -> str:
    """Cut a name for an error message: a token that was sent as a name must not reach the log (B19)."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def validate(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Validate the fields as `model`; raises `ValidationFailed` for the first invalid one."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(_shortened(str(part)) for part in first["loc"]) or "body"
        raise ValidationFailed(field, field_reason(first)) from error


def _refuse_unknown(names: Iterable[str], known: Collection[str], kind: str) -> None:
    for name in names:
        if name not in known:
            reason = f"unknown {kind}; " + (f"allowed: {', '.join(sorted(known))}" if known else "remove it")
            raise ValidationFailed(_shortened(name), reason)


def read_form() -> dict[str, str]:
    """Read the form's parameters; empty ones count as absent (RFC 6749, 3.2).

    Raises `ValidationFailed` for a repeated parameter (parameter pollution, B32), `UnsupportedMediaType`.
    """
    return read_form_with(())[0]


def read_form_with(repeatable: Collection[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read a form as `read_form` does, but return the distinct values of each `repeatable` parameter separately."""
    if request.mimetype != FORM:
        raise UnsupportedMediaType(f"Send the body as {FORM}.")
    _refuse_query()
    try:
        text = _body().decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise ValidationFailed("body", "the form is malformed") from error
    single = _once([pair for pair in pairs if pair[0] not in repeatable])
    several = {
        name: dict.fromkeys(value for other, value in pairs if other == name and value) for name in repeatable
    }
    return (
        {name: value for name, value in single.items() if value},
        {name: list(values) for name, values in several.items()},
    )


def _refuse_query() -> None:
    """Raise `ValidationFailed` if a request with a body also has query parameters (RFC 6749, 3.2).

    Every proxy logs them, so a token sent there is compromised; and two values for one parameter would be ambiguous.
    """
    name = next(iter(request.args), None) if request.query_string else None
    if name is not None:
        raise ValidationFailed(_shortened(name), "it must not be in the query string; send it in the body")


def check_grant_type(form: Mapping[str, str], expected: str) -> None:
    """Raise `UnsupportedGrantType` if the grant type is not `expected`, `ValidationFailed` if it is missing."""
    if "grant_type" not in form:
        raise ValidationFailed("grant_type", f"it is missing; it must be {expected}")
    if form["grant_type"] != expected:
        raise UnsupportedGrantType(f"grant_type must be {expected}.")


def check_has_agent(resource: str | None, agent_id: UUID | None, *, field: str = "agentId") -> None:
    """Raise `ValidationFailed` if a service is requested without an agent."""
    if resource is not None and agent_id is None:
        raise ValidationFailed(field, "a token for a service requires an agent; name the agent, too")


def scope_of(form: Mapping[str, str], resource: str | None = None) -> tuple[str, ...] | None:
    """The scopes that a form requests, of a service or the provider's own API, or `None`; raises `ValidationFailed`."""
    text = form.get("scope")
    if text is None:
        return None
    problem = scope_problem(text, resource)
    if problem:
        raise ValidationFailed("scope", problem)
    return scopes.parse(text)


def read_query() -> tuple[dict[str, Any], dict[str, int]]:
    """Parse the query by the view's description: filters by field name, and `page` and `limit` if the view has pages.

    Raises `ValidationFailed` for an unknown, repeated, unprintable or malformed parameter.
    """
    known = description_of(current_app, request.endpoint or "").query
    paging = {name: known[name].schema["default"] for name in PAGING if name in known}
    query = _once(list(request.args.items(multi=True)))
    _refuse_unknown(query, known, "parameter")
    values = {}
    for name, text in query.items():
        if has_unprintable(text):
            raise ValidationFailed(name, "it contains control characters")
        try:
            values[name] = known[name].read(text)
        except ValueError as error:
            raise ValidationFailed(name, str(error)) from error
    filters = {to_snake(name): value for name, value in values.items() if name not in paging}
    return filters, {name: values.get(name, default) for name, default in paging.items()}


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    twice = repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValidationFailed(_shortened(twice), "it is given more than once")
    return dict(pairs)
