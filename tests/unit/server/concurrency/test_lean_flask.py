"""`LeanFlask` leaves out parts of Flask that the provider does not use, and otherwise behaves like Flask."""

import pytest
from flask import Blueprint, Flask, request, session, url_for

from sentryagent_idp.app import bare_app
from sentryagent_idp.concurrency.lean_flask import LeanFlask, WholeResponse

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "")
PATHS = (
    "/items",
    "/items/",
    "//items",
    "/items/7",
    "/items/7/parts",
    "/Items",
    "/items%2F7",
    "/",
    "",
    "*",
    "/\u00e9",
)


def routes(kind):
    """Make an application with fixed and variable paths that returns what was requested."""
    app = kind("test", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    items = Blueprint("items", "items")
    items.add_url_rule("/items", "all", lambda: f"{request.endpoint} {request.url_rule}")
    items.add_url_rule("/items", "add", lambda: url_for("items.one", item="a b"), methods=["POST"])
    items.add_url_rule("/items/<item>", "one", lambda item: f"{request.endpoint} {item} {request.method}")
    app.register_blueprint(items)
    return app


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_the_route_is_flasks(method, path):
    """Status, `Allow` and body equal Flask's for every method and path."""
    answers = []
    for kind in (Flask, LeanFlask):
        answer = routes(kind).test_client().open(path, method=method)
        answers.append((answer.status_code, sorted(answer.headers.get("Allow", "").split(", ")), answer.data))

    assert answers[0] == answers[1]


def test_an_address_keeps_the_prefix_under_which_the_application_runs():
    """`url_for` keeps the prefix under which the application runs."""
    answer = routes(LeanFlask).test_client().post("/items", environ_overrides={"SCRIPT_NAME": "/idp"})

    assert answer.text == "/idp/items/a%20b"


def test_no_blueprint_has_hooks():
    """Blueprints have no hooks, because `LeanFlask` would not run them."""
    app = bare_app()
    hooks = (
        app.before_request_funcs,
        app.after_request_funcs,
        app.teardown_request_funcs,
        app.url_value_preprocessors,
        app.url_default_functions,
    )

    assert app.blueprints
    assert not [name for of_kind in hooks for name, given in of_kind.items() if name is not None and given]
    assert not [name for name, given in app.error_handler_spec.items() if name is not None and given]


def test_a_session_keeps_nothing():
    """A session is empty and sets no cookie."""
    app = LeanFlask("test")
    app.secret_key = "a key for the test"
    app.add_url_rule("/", "read", lambda: str(dict(session)))

    answer = app.test_client().get("/")

    assert answer.text == "{}"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(("method", "body"), [("GET", b"[1]"), ("HEAD", b"")])
def test_a_whole_response(method, body):
    """A HEAD request gets the headers of GET without a body (RFC 9110, 9.3.2)."""
    app = LeanFlask("test")
    app.add_url_rule("/", "read", lambda: WholeResponse("[1]", content_type="application/json"))

    answer = app.test_client().open("/", method=method)

    assert (answer.status_code, answer.data) == (200, body)
    assert dict(answer.headers) == {"Content-Type": "application/json", "Content-Length": "3"}
