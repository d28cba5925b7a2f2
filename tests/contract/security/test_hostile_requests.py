"""Hostile requests with a genuine token: bodies, forms, headers and bearers that two parsers could read differently.

Every request in the tables has a valid token, so a refusal is due to the request.
"""

import gzip
import json
from urllib.parse import quote, urlencode

import pytest

from kit.provider import EXCHANGE, FORM, NOBODY
from kit.tokens import bearer, token_of

JSON = "application/json"


def _json(**members):
    """A function that returns a JSON body for a token, with further fields."""
    return lambda token: json.dumps({"token": token, **members}).encode()


def _text(template):
    """A function that returns the template with a token in place of TOKEN."""
    return lambda token: template.replace("TOKEN", token).encode()


def _nested(levels):
    return _text('{"token":"TOKEN","provider":' + "[" * levels + "]" * levels + "}")


def _padded(token, size):
    body = json.dumps({"token": token, "scope": ""}).encode()
    return body.replace(b'"scope": "', b'"scope": "' + b"x" * (size - len(body)))


def _members(token, **more):
    return {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        **more,
    }


def _form(token, *more, **members):
    return urlencode([*_members(token, **members).items(), *more]).encode()


BODIES = [
    # attack, content type, body as a function of the token, status, code, field
    ("B11 token twice", JSON, _text('{"token":"x","token":"TOKEN"}'), 400, "VALIDATION_ERROR", "token"),
    (
        "B11 token twice, once escaped",
        JSON,
        _text('{"tok\\u0065n":"x","token":"TOKEN"}'),
        400,
        "VALIDATION_ERROR",
        "token",
    ),
    (
        "B11 agent twice",
        JSON,
        _text('{"token":"TOKEN","agentId":null,"agentId":null}'),
        400,
        "VALIDATION_ERROR",
        "agentId",
    ),
    (
        "B11 half a surrogate pair",
        JSON,
        _text('{"token":"TOKEN\\ud800"}'),
        400,
        "VALIDATION_ERROR",
        "token",
    ),
    ("B10 NaN", JSON, _text('{"token":"TOKEN","expiresIn":NaN}'), 400, "VALIDATION_ERROR", "expiresIn"),
    ("B10 overflow", JSON, _text('{"token":"TOKEN","expiresIn":1e400}'), 400, "VALIDATION_ERROR", "expiresIn"),
    (
        "B10 5 000 digits",
        JSON,
        _text('{"token":"TOKEN","expiresIn":' + "9" * 5_000 + "}"),
        400,
        "VALIDATION_ERROR",
        "expiresIn",
    ),
    ("B10 nested", JSON, _nested(20), 400, "VALIDATION_ERROR", "body"),
    ("B10 nested deeply", JSON, _nested(10_000), 400, "VALIDATION_ERROR", "body"),
    ("B10 never closed", JSON, _text('{"token":"TOKEN","x":' + "[" * 20_000), 400, "VALIDATION_ERROR", "body"),
    ("B10 many members", JSON, _json(**{f"{it:x}": 1 for it in range(3_100)}), 400, "VALIDATION_ERROR", "body"),
    ("B9 32 KiB and one byte", JSON, lambda token: _padded(token, 32 * 1024 + 1), 413, "PAYLOAD_TOO_LARGE", None),
    ("B9 ten megabytes", JSON, lambda token: _padded(token, 10 * 2**20), 413, "PAYLOAD_TOO_LARGE", None),
    ("byte order mark", JSON, lambda token: b"\xef\xbb\xbf" + _json()(token), 400, "VALIDATION_ERROR", "body"),
    ("UTF-16", JSON, lambda token: _json()(token).decode().encode("utf-16"), 400, "VALIDATION_ERROR", "body"),
    ("gzip", JSON, lambda token: gzip.compress(_json()(token)), 400, "VALIDATION_ERROR", "body"),
    ("a comment", JSON, _text('{"token":"TOKEN"/**/}'), 400, "VALIDATION_ERROR", "body"),
    ("two objects", JSON, _text('{"token":"TOKEN"}{"token":"TOKEN"}'), 400, "VALIDATION_ERROR", "body"),
    ("a list around it", JSON, _text('[{"token":"TOKEN"}]'), 400, "VALIDATION_ERROR", "body"),
    ("the token alone", JSON, _text('"TOKEN"'), 400, "VALIDATION_ERROR", "body"),
    ("empty body", JSON, lambda _: b"", 400, "VALIDATION_ERROR", "body"),
    ("B32 a list of tokens", JSON, _text('{"token":["TOKEN","TOKEN"]}'), 400, "VALIDATION_ERROR", "token"),
    ("B32 an object as token", JSON, _text('{"token":{"token":"TOKEN"}}'), 400, "VALIDATION_ERROR", "token"),
    ("B32 a member of the form", JSON, _json(subject_token="x"), 400, "VALIDATION_ERROR", "subject_token"),
    ("B32 an issuer of the sender's", JSON, _json(issuer="https://evil.example"), 400, "VALIDATION_ERROR", "issuer"),
    ("B18 keys of the sender's", JSON, _json(jwks_uri="http://169.254.169.254/"), 400, "VALIDATION_ERROR", "jwks_uri"),
    ("B18 provider as an address", JSON, _json(provider="http://127.0.0.1:1"), 400, "VALIDATION_ERROR", "provider"),
    ("B18 another provider", JSON, _json(provider="gitlab"), 400, "VALIDATION_ERROR", "provider"),
    ("B23 SQL as agent", JSON, _json(agentId="' OR '1'='1"), 400, "VALIDATION_ERROR", "agentId"),
    ("B23 a wildcard as agent", JSON, _json(agentId="%"), 400, "VALIDATION_ERROR", "agentId"),
    ("B22 agent in other digits", JSON, _json(agentId=NOBODY.replace("0", "\u0660")), 400, "VALIDATION_ERROR", "agentId"),
    ("B22 agent with a newline", JSON, _json(agentId=f"{NOBODY}\n"), 400, "VALIDATION_ERROR", "agentId"),
    ("scope with a newline", JSON, _json(scope="agents:write\n"), 400, "VALIDATION_ERROR", "scope"),
    ("every scope", JSON, _json(scope="agents:write policies:write"), 403, "SCOPE_NOT_PERMITTED", None),
    ("negative lifetime", JSON, _json(expiresIn=-1), 400, "VALIDATION_ERROR", "expiresIn"),
    ("an agent that nobody trusts", JSON, _json(agentId=NOBODY), 403, "TRUST_POLICY_VIOLATION", None),
    ("JSON called text", "text/plain", _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("JSON called nothing", None, _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("JSON called a JWT", "application/jwt", _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("JSON called a patch", "application/json-patch+json", _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("B32 JSON and a form", f"{JSON}, {FORM}", _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("a browser's upload", "multipart/form-data; boundary=x", _json(), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ("B32 a form called JSON", JSON, _form, 400, "VALIDATION_ERROR", "body"),
]  # fmt: skip


FORMS = [
    # attack, body as a function of the token, error, code
    ("B32 token twice", lambda it: _form(it, ("subject_token", "x")), "invalid_request", "VALIDATION_ERROR"),
    ("B32 the same token twice", lambda it: _form(it, ("subject_token", it)), "invalid_request", "VALIDATION_ERROR"),
    ("B32 resource twice", lambda it: _form(it, ("resource", "a"), ("resource", "b")), "invalid_request", "VALIDATION_ERROR"),
    ("B32 twice, once empty", lambda it: _form(it, ("scope", ""), ("scope", "")), "invalid_request", "VALIDATION_ERROR"),
    ("B32 twice, once escaped", lambda it: _form(it) + b"&subject%5Ftoken=x", "invalid_request", "VALIDATION_ERROR"),
    ("B32 JSON called a form", _json(), "invalid_request", "VALIDATION_ERROR"),
    ("B32 separated by semicolons", lambda it: _form(it).replace(b"&", b";"), "unsupported_grant_type", "UNSUPPORTED_GRANT_TYPE"),
    ("not UTF-8", lambda it: _form(it) + b"&scope=%FF", "invalid_request", "VALIDATION_ERROR"),
    ("bytes beyond ASCII", lambda it: _form(it) + b"&scope=\xc3\xa9", "invalid_request", "VALIDATION_ERROR"),
    ("B9 many parameters", lambda it: _form(it, *((f"a{n}", "1") for n in range(500))), "invalid_request", "VALIDATION_ERROR"),
    ("B15 an access token by its type", lambda it: _form(it, subject_token_type="urn:ietf:params:oauth:token-type:access_token"), "invalid_request", "VALIDATION_ERROR"),
    ("RFC 8693 a refresh token wanted", lambda it: _form(it, requested_token_type="urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request", "VALIDATION_ERROR"),
    ("RFC 8693 on behalf of another", lambda it: _form(it, actor_token=it, actor_token_type="urn:ietf:params:oauth:token-type:jwt"), "invalid_request", "VALIDATION_ERROR"),
    ("RFC 8693 another audience without an agent", lambda it: _form(it, audience="https://api.other.example"), "invalid_request", "VALIDATION_ERROR"),
    ("RFC 8693 a resource of others without an agent", lambda it: _form(it, resource="https://other.example"), "invalid_request", "VALIDATION_ERROR"),
    ("RFC 8693 an audience that is no name", lambda it: _form(it, audience="sts.amazonaws.com"), "invalid_target", "INVALID_TARGET"),
    ("RFC 8707 two services", lambda it: _form(it, ("audience", "https://a.example"), ("audience", "https://b.example"), resource=f"urn:sentryagent:agent:{NOBODY}"), "invalid_target", "INVALID_TARGET"),
    ("an agent that nobody trusts", lambda it: _form(it, resource=f"urn:sentryagent:agent:{NOBODY}"), "invalid_target", "TRUST_POLICY_VIOLATION"),
    ("every scope", lambda it: _form(it, scope="agents:write policies:write"), "invalid_scope", "SCOPE_NOT_PERMITTED"),
    ("RFC 6749 a password", lambda it: _form(it, grant_type="password"), "unsupported_grant_type", "UNSUPPORTED_GRANT_TYPE"),
    ("RFC 6749 a client's own grant", lambda it: _form(it, grant_type="client_credentials"), "unsupported_grant_type", "UNSUPPORTED_GRANT_TYPE"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "content_type", "body", "status", "code", "field"), BODIES, ids=[row[0] for row in BODIES]
)
def test_hostile_body(attack, content_type, body, status, code, field, guarded, unchanged_but_for_refusals):
    """A body that is ambiguous or requests too much is refused, and its token is not exchanged."""
    sent = body(guarded.github_token())

    answer = guarded.http.post(EXCHANGE, data=sent, content_type=content_type)

    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert answer.json["details"].get("field") == field


@pytest.mark.parametrize(("attack", "body", "error", "code"), FORMS, ids=[row[0] for row in FORMS])
def test_hostile_form(attack, body, error, code, guarded, unchanged_but_for_refusals):
    """The same holds for the form, whose errors have OAuth's format."""
    answer = guarded.http.post(EXCHANGE, data=body(guarded.github_token()), content_type=FORM)

    assert (answer.status_code, answer.json["error"]) == (400, error), answer.text
    assert answer.json["error_description"].startswith(f"{code}: ")


QUERIES = [
    ("B19 the token in the address", lambda token: {"token": token}, "token"),
    ("B32 an agent in the address", lambda _: {"agentId": NOBODY}, "agentId"),
    ("B32 a dry run in the address", lambda _: {"dryRun": "true"}, "dryRun"),
    ("B19 a bearer in the address", lambda token: {"access_token": token}, "access_token"),
]


@pytest.mark.parametrize(("attack", "query", "field"), QUERIES, ids=[row[0] for row in QUERIES])
def test_parameters_in_the_address_are_refused(attack, query, field, guarded, unchanged_but_for_refusals):
    """Query parameters are refused: proxies log them, and an ignored parameter must not look as if it took effect."""
    token = guarded.github_token()
    answers = [
        guarded.http.post(EXCHANGE, json={"token": token}, query_string=query(token)),
        guarded.http.post(EXCHANGE, data=_members(token), query_string=query(token)),
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json["details"]["field"] == field
    assert answers[1].json["error"] == "invalid_request"
    assert token not in answers[0].text + answers[1].text


HEADERS = [
    ("B20 an id of the sender's", {"X-Request-Id": "0" * 32}),
    ("B20 a request id that breaks the line", {"X-Request-Id": "x'; DROP TABLE audit_log;--"}),
    ("a method in a header", {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "PUT"}),
    ("a path in a header", {"X-Original-URL": "/api/v1/audit", "X-Rewrite-URL": "/api/v1/audit"}),
    ("a host of the sender's", {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}),
    ("an address of the sender's", {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}),
    ("a proxy's word on the user", {"X-Forwarded-User": "admin", "Remote-User": "admin"}),
    ("an admin's bearer that is none", {"Authorization": "Bearer admin"}),
    ("a cookie", {"Cookie": "session=admin; access_token=x"}),
    ("a foreign page", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}),
]


@pytest.mark.parametrize(("attack", "headers"), HEADERS, ids=[row[0] for row in HEADERS])
def test_hostile_headers_change_nothing(attack, headers, target):
    """A client's headers cannot change its identity, address, request id, method or path."""
    target.policy(branch="main")

    answer = target.http.post(EXCHANGE, json={"token": target.github_token()}, headers=headers)
    refused = target.http.get("/api/v1/audit", headers=headers)

    assert answer.status_code == 200, answer.text
    assert refused.status_code == 401
    (record,) = target.audit(action="token.issued")
    assert record["address"] == "127.0.0.1"
    assert record["requestId"] == answer.headers["X-Request-Id"] != headers.get("X-Request-Id")
    assert "evil.example" not in answer.text + str(answer.headers)
    assert not [name for name in answer.headers.keys() if name.startswith("Access-Control-")]  # noqa: SIM118 (werkzeug's headers iterate as pairs)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1@idp.example"])
def test_documents_do_not_repeat_the_host(host, guarded):
    """Discovery names the configured URL, not the Host header, so that a poisoned cache cannot redirect clients."""
    for path in ("openid-configuration", "oauth-authorization-server"):
        answer = guarded.http.get(f"/.well-known/{path}", headers={"Host": host})
        assert answer.status_code == 200
        assert answer.json["issuer"] == "https://idp.example"
        assert host not in answer.text


METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND"]


@pytest.mark.parametrize("method", METHODS)
def test_only_a_post_exchanges(method, guarded, unchanged):
    """Every other method gets a 405, and no path redirects, which could send the token elsewhere."""
    body = {"token": guarded.github_token()}
    assert guarded.http.open(EXCHANGE, method=method, json=body).status_code == 405
    for path in (f"{EXCHANGE}/", f"/{EXCHANGE}", EXCHANGE.upper(), f"{EXCHANGE}%2f", "/api/v1//oidc/token"):
        assert guarded.http.post(path, json=body).status_code == 404


BEARERS = [
    # attack, Authorization header as a function of an admin's valid token
    ("B15 twice in a row", lambda token: f"Bearer {token} {token}"),
    ("B15 a list", lambda token: f"Bearer {token}, Bearer {token}"),
    ("B15 quoted", lambda token: f'Bearer "{token}"'),
    ("B15 as a parameter", lambda token: f"Bearer token={token}"),
    ("B15 without a scheme", lambda token: token),
    ("B15 another scheme", lambda token: f"Token {token}"),
    ("B15 as a password", lambda token: f"Basic {token}"),
    ("B8 padded", lambda token: f"Bearer {token}=="),
    ("B8 escaped", lambda token: f"Bearer {quote(token).replace('.', '%2E')}"),
    ("B8 cut", lambda token: f"Bearer {token[:-4]}"),
    ("B1 unsigned", lambda token: f"Bearer {token.rpartition('.')[0]}."),
    ("B1 no signature", lambda token: f"Bearer {token.rpartition('.')[0]}"),
    ("B14 five parts", lambda token: f"Bearer {token}.AAAA.AAAA"),
    ("B9 huge", lambda token: f"Bearer {token}{'A' * 20_000}"),
    ("nothing", lambda _: "Bearer "),
    ("a wildcard", lambda _: "Bearer *"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "header"), BEARERS, ids=[row[0] for row in BEARERS])
def test_hostile_bearer(attack, header, guarded):
    """An admin's token is accepted in one exact form only."""
    headers = {"Authorization": header(token_of(guarded.admin))}
    answer = guarded.http.get("/api/v1/audit", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert token_of(guarded.admin) not in answer.text


def test_a_bearer_is_taken_from_the_header_only(guarded):
    """An access token in a query, a form or a cookie is ignored (RFC 6750, 2.2 and 2.3; B19)."""
    token = token_of(guarded.admin)
    answers = [
        guarded.http.get("/api/v1/audit", query_string={"access_token": token}),
        guarded.http.post("/api/v1/agents", data={"access_token": token}),
        guarded.http.get("/api/v1/audit", headers={"Cookie": f"access_token={token}"}),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 401]


OWN_TOKENS = ["bootstrap", "agent", "admin"]


@pytest.mark.parametrize("kind", OWN_TOKENS)
def test_our_own_token_is_no_identity(kind, target):
    """Our access tokens cannot be exchanged for ones with a longer lifetime or more scopes (B15)."""
    agent = target.agent()
    target.policy()
    target.policy(agentId=agent)
    token = {
        "bootstrap": lambda: target.exchange().json["access_token"],
        "agent": lambda: target.exchange(agentId=agent).json["access_token"],
        "admin": lambda: token_of(target.admin),
    }[kind]()

    answer = target.exchange(token)
    in_form = target.exchange_form(token)

    assert (answer.status_code, answer.json["details"]) == (401, {"reason": "wrong_type"})
    assert (in_form.status_code, in_form.json["error"]) == (400, "invalid_request")


def test_githubs_token_is_no_bearer(guarded, unchanged):
    """GitHub's token gives no access to the API, even with the `typ` and claims of an access token (B15)."""
    claims = {
        "iss": "https://idp.example",
        "client_id": "admin-cli",
        "sub": "admin-cli",
        "scope": "policies:write",
    }
    for token in (guarded.github_token(), guarded.github_token({"typ": "at+jwt"}, **claims)):
        for method, path in (("GET", "audit"), ("POST", "oidc/trust-policies"), ("GET", "agents")):
            answer = guarded.http.open(f"/api/v1/{path}", method=method, headers=bearer(token))
            assert answer.status_code == 401, answer.text
