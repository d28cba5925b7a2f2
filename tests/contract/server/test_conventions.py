"""Rules that hold for every request and response."""

import json
from io import BytesIO
from uuid import UUID, uuid4

import pytest

from kit.provider import AGENTS, EXCHANGE, NOBODY, POLICIES, SERVICES
from kit.refusals import assert_invalid, assert_refused

LIMIT = 32 * 1024


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/api/v1/oidc/audience", 200),
        ("GET", POLICIES, 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/health", 405),
        ("POST", EXCHANGE, 415),
        ("POST", "/api/v1/token", 415),
        ("GET", f"{AGENTS}/{NOBODY}", 404),
    ],
)
def test_request_id_is_made_here(still_provider, method, path, status):
    """Every response has a request id that the server generated, never one from the client."""
    sent = str(uuid4())

    answer = still_provider.http.open(
        path, method=method, headers={**still_provider.admin, "X-Request-Id": sent}
    )

    assert answer.status_code == status
    assert UUID(answer.headers["X-Request-Id"]) != UUID(sent)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_request_id_is_new_for_each_request(provider):
    """No two requests share an id."""
    answers = [provider.http.get("/health") for _ in range(3)]

    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3


def test_request_id_leads_to_the_audit_record(provider):
    """The audit record of a request has the id from its response."""
    answer = provider.post(AGENTS, json={"email": "a@octo-org.example"})

    records = provider.audit(requestId=answer.headers["X-Request-Id"])

    assert [record["action"] for record in records] == ["agent.created"]


@pytest.mark.parametrize(
    "path", ["/", "/api/v1", "/api/v2/agents", f"{AGENTS}/", "/api/v1//agents", "//health"]
)
def test_unknown_path_is_404_and_never_a_redirect(still_provider, path):
    """A redirect could send a POST and its token elsewhere."""
    assert_refused(still_provider.post(path, json={}), 404, "NOT_FOUND", {})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EXCHANGE, {"OPTIONS", "POST"}),
        ("PATCH", POLICIES, {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PATCH", f"{POLICIES}/{NOBODY}", {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}),
        ("PUT", f"{AGENTS}/{NOBODY}", {"GET", "HEAD", "OPTIONS", "PATCH", "DELETE"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_wrong_method_says_which_are_right(still_provider, method, path, allowed):
    """A 405 lists the path's methods in Allow."""
    answer = still_provider.call(method, path)

    assert_refused(answer, 405, "METHOD_NOT_ALLOWED", {})
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        (method, path.format(one), code)
        for one in ("x", "%00", "1" * 300, NOBODY[:-1], NOBODY, "{}")
        for method, path, code in (
            ("GET", POLICIES + "/{}", "TRUST_POLICY_NOT_FOUND"),
            ("DELETE", POLICIES + "/{}", "TRUST_POLICY_NOT_FOUND"),
            ("GET", AGENTS + "/{}", "AGENT_NOT_FOUND"),
            ("DELETE", AGENTS + "/{}", "AGENT_NOT_FOUND"),
            ("GET", AGENTS + "/{}/credentials", "AGENT_NOT_FOUND"),
            ("POST", AGENTS + "/{}/credentials", "AGENT_NOT_FOUND"),
        )
    ],
)
def test_unknown_id_is_the_resources_own_404(still_provider, method, path, code):
    """An id that is not a UUID gets the same 404 as an unknown UUID."""
    assert_refused(still_provider.call(method, path), 404, code, {})


WRONG_TEXTS = [
    (b"", "body"),
    (b"[]", "body"),
    (b"null", "body"),
    (b'"token"', "body"),
    (b"{", "body"),
    (b'{"FIELD": "x",}', "body"),
    (b"{'FIELD': 'x'}", "body"),
    (b'\xef\xbb\xbf{"FIELD": "x"}', "body"),
    (b'{"FIELD": "\xff"}', "body"),
    ('{"FIELD": "x"}'.encode("utf-16"), "body"),
    (b'{"FIELD": "a\x00b"}', "body"),
    (b'{"FIELD": "x", "\\u0000": 1}', "\x00"),
    (b'{"FIELD": ' + b"[" * 9 + b"]" * 9 + b"}", "body"),
    (b'{"FIELD": ' + b"[" * 9_000 + b"]" * 9_000 + b"}", "body"),
    (b'{"FIELD": "x", "FIELD": "x"}', "FIELD"),
    (b'{"FIELD": "x", "nothing": 1}', "nothing"),
    (b'{"FIELD": 1}', "FIELD"),
    (b'{"FIELD": 1.0}', "FIELD"),
    (b'{"FIELD": NaN}', "FIELD"),
    (b'{"FIELD": -Infinity}', "FIELD"),
    (b'{"FIELD": 1e999}', "FIELD"),
    (b'{"FIELD": ' + b"9" * 5_000 + b"}", "FIELD"),
    (b'{"FIELD": true}', "FIELD"),
    (b'{"FIELD": ["x"]}', "FIELD"),
    (b'{"FIELD": {"x": "y"}}', "FIELD"),
    (b'{"FIELD": "\\ud800"}', "FIELD"),
    (b'{"FIELD": "x", "\\ud800": 1}', "body"),
    (b'{"FIELD": null}', "FIELD"),
    (b"{}", "FIELD"),
]


@pytest.mark.parametrize(("text", "field"), WRONG_TEXTS)
@pytest.mark.parametrize(
    ("method", "path", "required"),
    [("POST", EXCHANGE, "token"), ("POST", AGENTS, "email"), ("POST", POLICIES, "repository")],
)
def test_json_means_one_thing_only(still_provider, method, path, required, text, field):
    """JSON that two parsers could read differently, or of the wrong type, is refused by field."""
    body = text.replace(b"FIELD", required.encode()).replace(
        "FIELD".encode("utf-16-le"), required.encode("utf-16-le")
    )

    answer = still_provider.call(method, path, data=body, content_type="application/json")

    assert_invalid(answer, field.replace("FIELD", required))


@pytest.mark.parametrize("name", ["x" * 65, "eyJhbGciOiJSUzI1NiJ9." * 20])
def test_a_long_unknown_name_is_cut(still_provider, name):
    """A token sent as a field's name is truncated in the response, and therefore in the log."""
    answer = still_provider.post(AGENTS, json={name: 1})

    assert assert_refused(answer, 400, "VALIDATION_ERROR")["details"]["field"] == f"{name[:64]}…"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (POLICIES, {"repository": "octo-org/hello-agent"}),
        (AGENTS, {"email": "bot@octo-org.example"}),
    ],
)
def test_null_is_the_same_as_absent(provider, path, body):
    """Sending every optional field as null gives the same record as leaving them out."""
    plain = provider.post(path, json=body).json
    optional = {
        name: None
        for name in plain.keys() - body.keys()
        if name
        not in {
            "id",
            "agentId",
            "issuer",
            "createdAt",
            "updatedAt",
            "version",
            "lastUsedAt",
            "derivedFrom",
            "status",
        }
        | {"registeredBy"}
    }
    different = (
        {"repository": "octo-org/other"} if "repository" in body else {"email": "other@octo-org.example"}
    )

    answer = provider.post(path, json={**optional, **different})

    assert answer.status_code == 201, answer.text
    unequal = {name for name in plain if plain[name] != answer.json[name]}
    assert unequal == {*different, "id" if "repository" in body else "agentId"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-json",
        "multipart/form-data; boundary=x",
        "application/jsonx",
    ],
)
@pytest.mark.parametrize("path", [EXCHANGE, POLICIES, AGENTS])
def test_other_content_types_are_415(still_provider, path, content_type):
    """Only the JSON media type is accepted, so that a browser's form or text from another site is not read."""
    answer = still_provider.post(path, data=b"{}", content_type=content_type)

    assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE", {})


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_with_parameters_is_json(provider, content_type):
    """Parameters and letter case of the media type are ignored (RFC 9110, 8.3.1)."""
    body = json.dumps({"email": "bot@octo-org.example"})

    answer = provider.post(AGENTS, data=body, content_type=content_type)

    assert answer.status_code == 201


def _json_of(size: int) -> bytes:
    body = json.dumps({"email": "bot@octo-org.example"}).encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(
    ("size", "status"), [(LIMIT, 201), (LIMIT + 1, 413), (LIMIT + 2, 413), (LIMIT * 4, 413)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_32_kib_is_the_largest(provider, size, status, chunked):
    """A body of 32 KiB is accepted and one byte more is a 413, with or without a Content-Length."""
    body = _json_of(size)
    # A server passes a chunked body without a length, as a stream that ends by itself.
    transfer = (
        {"input_stream": BytesIO(body), "environ_overrides": {"wsgi.input_terminated": True}}
        if chunked
        else {"data": body}
    )

    answer = provider.post(AGENTS, content_type="application/json", **transfer)

    assert answer.status_code == status, answer.text
    if status == 413:
        assert answer.json["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("path", [POLICIES, AGENTS, "/api/v1/audit", f"{AGENTS}/{NOBODY}/credentials"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=1.0", "page"),
        ("page=", "page"),
        ("page=%D9%A1", "page"),
        ("page=99999999999999999999", "page"),
        ("page=1000001", "page"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=5&limit=5", "limit"),
        ("nothing=1", "nothing"),
        ("page=1%00", "page"),
    ],
)
def test_lists_refuse_other_pages(still_provider, path, query, field):
    """Page and limit must be numbers in range; unknown and repeated parameters are refused by name."""
    answer = still_provider.get(f"{path}?{query}")

    assert_invalid(answer, field)


def test_a_path_without_parameters_refuses_any(still_provider):
    """The reason does not end in an empty list of allowed ones."""
    answer = still_provider.get("/api/v1/audit/verify?nothing=1")

    assert assert_invalid(answer, "nothing") == "unknown parameter; remove it"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (POLICIES, "repository"),
        (POLICIES, "provider"),
        (AGENTS, "owner"),
        (AGENTS, "email"),
        ("/api/v1/audit", "actor"),
        ("/api/v1/audit", "address"),
        ("/api/v1/audit", "requestId"),
        ("/api/v1/audit", "action"),
        ("/api/v1/audit", "repository"),
    ],
)
@pytest.mark.parametrize("value", ["%00", "a%00b", "%0A", "%1b[31m", "%C2%85", "%E2%80%A8"])
def test_filters_refuse_control_characters(still_provider, path, name, value):
    """A control character in a filter is refused before it reaches PostgreSQL, which rejects NUL."""
    assert_invalid(still_provider.get(f"{path}?{name}={value}"), name)


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "words"),
    [
        ("GET", f"{POLICIES}?enabled=yes", None, "enabled", "true, false"),
        ("GET", f"{AGENTS}?status=Active", None, "status", "active, suspended, decommissioned"),
        ("POST", POLICIES, {"repository": "a/b", "enabled": "yes"}, "enabled", "true, false"),
        (
            "POST",
            POLICIES,
            {"repository": "a/b", "visibility": "x"},
            "visibility",
            "public, private, internal",
        ),
        ("PATCH", f"{AGENTS}/{NOBODY}", {"status": "deleted"}, "status", "active, suspended"),
        (
            "PATCH",
            f"{AGENTS}/{NOBODY}",
            {"deploymentEnv": "prod"},
            "deploymentEnv",
            "development, staging, production",
        ),
    ],
)
def test_choices_are_listed_in_one_form(still_provider, method, path, body, field, words):
    """Wherever a value is one of a few words, in a query or a body, the refusal lists them in the same form."""
    answer = still_provider.call(method, path, json=body)

    assert assert_invalid(answer, field) == f"it must be one of {words}"


@pytest.mark.parametrize(
    "value", ["%27%20OR%201%3D1%20--", "%25", "_", "%FF", "%F0%9F%98%80", "x" * 3000, ""]
)
@pytest.mark.parametrize(
    ("path", "name"), [(POLICIES, "repository"), (AGENTS, "owner"), ("/api/v1/audit", "actor")]
)
def test_filters_are_values_not_patterns(provider, path, name, value):
    """Quotes, wildcards and odd characters in a filter are compared literally."""
    provider.policy()
    provider.agent()

    answer = provider.get(f"{path}?{name}={value}")

    assert (answer.status_code, answer.json["data"]) == (200, []), answer.text


@pytest.mark.parametrize("path", [POLICIES, AGENTS])
def test_lists_are_in_order_of_creation(provider, path):
    """A list is ordered by createdAt, then id, and every page has the total."""
    names = ("c", "a", "b", "e", "d")
    for name in names:
        if path == AGENTS:
            provider.agent(f"{name}@octo-org.example")
        else:
            provider.policy(repository=f"octo-org/{name}")
        provider.clock.advance(1)

    pages = [provider.get(f"{path}?page={page}&limit=2").json for page in (1, 2, 3, 4)]

    member = "email" if path == AGENTS else "repository"
    found = [item[member] for page in pages for item in page["data"]]
    assert [name.removeprefix("octo-org/").partition("@")[0] for name in found] == list(names)
    assert [(page["total"], page["page"], page["limit"]) for page in pages] == [
        (5, n, 2) for n in (1, 2, 3, 4)
    ]
    assert pages[3]["data"] == []


def test_items_of_one_moment_are_in_order_of_their_ids(provider):
    """Items created at the same time are ordered by id."""
    ids = [provider.agent(f"{name}@octo-org.example")["agentId"] for name in "abcde"]

    answer = provider.get(AGENTS).json

    assert [agent["agentId"] for agent in answer["data"]] == sorted(ids)
    assert answer["limit"] == 20


def test_times_are_utc_with_z(provider):
    """A time in another zone is returned as the same time in UTC."""
    policy = provider.policy(expiresAt="2027-01-01T01:30:00.25+02:00")

    assert policy["expiresAt"] == "2026-12-31T23:30:00.250000Z"
    assert policy["createdAt"] == "2026-11-24T12:00:00Z"


@pytest.mark.parametrize(
    "moment",
    [
        "2027-01-01",
        "2027-01-01T00:00:00",
        "tomorrow",
        "",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2027-13-01T00:00:00Z",
        1,
        True,
    ],
)
def test_times_without_zone_or_calendar_are_refused(still_provider, moment):
    """A time must have a zone and be representable in UTC."""
    body = {"repository": "octo-org/hello-agent", "expiresAt": moment}

    assert_invalid(still_provider.post(POLICIES, json=body), "expiresAt")


def test_unexpected_error_tells_nothing_but_its_request_id(provider, monkeypatch):
    """An unexpected error is a 500 in the usual shape, without its cause."""
    monkeypatch.setattr(provider.store, "read", lambda: 1 / 0)

    answer = provider.get(POLICIES)

    assert "division" not in assert_refused(answer, 500, "INTERNAL_SERVER_ERROR", {})["message"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('"1"', 304),
        ('W/"1"', 304),
        ('"7", "1"', 304),
        ("*", 304),
        ('"2"', 200),
        ("1x", 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("kind", ["policy", "service"])
def test_a_version_that_is_known_is_not_sent_again(provider, kind, header, status):
    """`If-None-Match` uses weak comparison (RFC 9110, 13.1.2); a 304 keeps the ETag and the request id."""
    if kind == "policy":
        path = f"{POLICIES}/{provider.policy()['id']}"
    else:
        path = f"{SERVICES}/{provider.service('urn:ex:a', 'x')['serviceId']}"

    answer = provider.get(path, headers={**provider.admin, "If-None-Match": header})

    assert (answer.status_code, answer.headers["ETag"]) == (status, '"1"')
    assert bool(answer.data) is (status == 200)
    assert "X-Request-Id" in answer.headers
    assert ("Content-Type" in answer.headers) is (status == 200)
