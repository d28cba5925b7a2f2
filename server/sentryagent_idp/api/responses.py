"""Response types that several resources share; the others are next to the functions that create them.

Responses are not validated against these types at run time: the tests check every response.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar, get_type_hints

from flask import Response, jsonify, request
from flask.json.provider import JSONProvider
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from sentryagent_idp.api.fields import Scope
from sentryagent_idp.api.models import json_type
from sentryagent_idp.concurrency.lean_flask import WholeResponse
from sentryagent_idp.domain import records
from sentryagent_idp.domain.conditions import DECLARED
from sentryagent_idp.domain.records import IdText, Page, policy_fields
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.jose import strict_json
from sentryagent_idp.use_cases.simulation import Simulated

Item = TypeVar("Item")


class Json(JSONProvider):
    """Flask's JSON provider, with msgspec; request bodies are parsed by `sentryagent_idp.jose.strict_json`."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """Return a value as JSON text."""
        return strict_json.write(obj)

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Return the value of a JSON text."""
        return json.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a response whose body is one value."""
        return WholeResponse(f"{self.dumps(*args, **kwargs)}\n", content_type="application/json")


class Problem(TypedDict):
    """An error: a code for programs, a message that says what to do, and the request id in the log and the audit."""

    code: str
    message: str
    details: dict[str, Any]
    requestId: IdText


class OauthError(TypedDict):
    """An error in the shape of RFC 6749, section 5.2; the description starts with the code that `Problem` has."""

    error: str
    error_description: str


class Simulations(TypedDict):
    """The decisions on several runs, in the order of the runs."""

    data: list[Simulated]


class Model(BaseModel):
    """The schema of a response that is built as a plain `dict`: fields in camelCase, and no others."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


_TYPES = {
    **get_type_hints(TrustPolicy),
    **{name: json_type(condition) | None for name, condition in DECLARED.items()},
    "provider": Literal["github"],
    "scopes": list[Scope],
    "grants": list[records.GrantedService],
    "version": Annotated[int, Field(ge=1)],
}
_FIELDS: Any = {name: (_TYPES[name], ...) for name, _ in policy_fields()}
_Policy: Any = create_model("_Policy", __base__=Model, **_FIELDS)


class Policy(_Policy):  # type: ignore[misc]  # built from the policy's fields and the conditions' declarations
    """A trust policy."""


class Listed(Model, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    total: int = Field(ge=0)
    page: int = Field(ge=1)
    limit: int = Field(ge=1, le=100)


class Policies(Listed[Policy]):
    """A page of trust policies."""


def listed(
    found: Page[Item], record: Callable[[Item], Mapping[str, Any]], *, page: int, limit: int
) -> dict[str, Any]:
    """Build one page of a list."""
    return {"data": [record(item) for item in found.data], "total": found.total, "page": page, "limit": limit}


def tagged(record: Mapping[str, Any], version: int, status: int = 200, **headers: str) -> Response:
    """Build the response for a versioned resource, or a 304 if `If-None-Match` has its version (RFC 9110, 13.1.2)."""
    response = jsonify(record)
    response.status_code = status
    response.headers.update({"ETag": f'"{version}"', **headers})
    if request.method == "GET" and request.if_none_match.contains_weak(str(version)):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Type"], response.headers["Content-Length"]
    return response


def with_token(body: Mapping[str, Any]) -> Response:
    """Build a response that issues a token, which no cache may store (RFC 6749, 5.1)."""
    response = jsonify(body)
    response.headers.add("Cache-Control", "no-store")
    response.headers.add("Pragma", "no-cache")
    return response
