"""Error responses, in the API's own shape and in OAuth's."""

import re
from collections.abc import Mapping

import structlog
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed

from sentryagent_idp import errors
from sentryagent_idp.api import API, observation
from sentryagent_idp.api.requests import FORM, context
from sentryagent_idp.api.responses import OauthError, Problem
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.concurrency.loop import MAX_BODY_BYTES, too_large

log = structlog.get_logger()


PROBLEMS: Mapping[type[errors.ServiceError], errors.ErrorResponse] = {
    error: error.response for error in errors.ServiceError.declared
}
"""The response to each refusal."""

REFUSALS = {
    (error.code, reason)
    for error in PROBLEMS
    for reason in (error.reasons if issubclass(error, errors.InvalidOidcToken) else ("",))
}
"""Code and reason of every refusal, as the metrics count them."""

_INTERNAL = "Internal error. Report the requestId to the operator."
_REALM = 'Bearer realm="sentryagent"'
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""RFC 6749, 5.2 allows printable ASCII without quotes and backslashes."""


def register(app: Flask) -> None:
    """Have the application respond to every error in the format of docs/errors.md."""
    app.register_error_handler(errors.ServiceError, _refused)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected)


def _speaks_oauth() -> bool:
    """Whether errors have the shape of RFC 6749, 5.2. The path decides, so that a 404 or a 405 there has it, too."""
    path = request.path.removeprefix(API)
    is_form_of_exchange = path == "/oidc/token" and request.mimetype == FORM
    return is_form_of_exchange or path == "/token" or path.startswith("/token/")


def _refused(error: errors.ServiceError) -> Response:
    if isinstance(error, errors.ExchangeRefused) and not use_cases().explain:
        error.remove_explanation()
    oauth = _speaks_oauth()
    status = error.response.oauth_status if oauth else error.response.status
    response = jsonify(_oauth_body(error) if oauth else _body(error))
    response.status_code = status
    if isinstance(error, errors.RetryableError):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = _challenge(error)
    observation.record_refusal(error)
    return response


def _body(error: errors.ServiceError) -> Problem:
    return Problem(
        code=error.code, message=error.message, details=error.details, requestId=context().request_id
    )


def _oauth_body(error: errors.ServiceError) -> OauthError:
    description = _NOT_IN_DESCRIPTION.sub("?", f"{error.code}: {error.message}")
    return {"error": error.response.oauth_error, "error_description": description}


def _challenge(error: errors.ServiceError) -> str:
    """The value of `WWW-Authenticate` (RFC 6750, section 3); it has no error code if the request had no credentials."""
    if isinstance(error, errors.InvalidClient):
        return 'Basic realm="sentryagent"'
    presented = "Authorization" in request.headers
    return (
        f'{_REALM}, error="invalid_token"' if presented and isinstance(error, errors.Unauthorized) else _REALM
    )


def _http_exception(error: HTTPException) -> Response:
    response = _refused(_translated(error))
    if isinstance(error, WerkzeugMethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _translated(error: HTTPException) -> errors.ServiceError:
    match error.code:
        case 404:
            return errors.NotFound(f"This path does not exist; the API is under {API}.")
        case 405:
            return errors.MethodNotAllowed("This path does not support this method; use one listed in Allow.")
        case 413:
            return too_large(MAX_BODY_BYTES)
        case 415:
            return errors.UnsupportedMediaType("Send the body as application/json.")
        case code if code is not None and code < 500:
            return errors.ValidationFailed("request", error.description or "it is malformed")
        case _:
            return errors.InternalError(_INTERNAL)


def _unexpected(error: Exception) -> Response:
    """Log a defect under the request id, and reveal nothing of it in the response."""
    log.error("unexpected error", exc_info=error)
    return _refused(errors.InternalError(_INTERNAL))
