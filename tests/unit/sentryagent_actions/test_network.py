"""The time budget, the limits on time and size, and retries."""

import gzip
import json
import re
import socket
import ssl
from threading import Event

import certifi
import httpx
import pytest

from sentryagent_actions.errors import ActionError, ProviderUnknownError
from sentryagent_actions.network import (
    Call,
    CertificateError,
    RefusedByProxyError,
    Reply,
    TimedOutError,
    UnknownNameError,
    UnreachableError,
    UnusableResponseError,
    open_client,
)
from sentryagent_actions.tls import TlsProblem

URL = "https://idp.example.com/x"
ID_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOmEvYiJ9.c2lnbmF0dXJl"


class Later(ActionError):
    """A retryable error."""

    code = "LATER"
    retryable = True


class Once(ActionError):
    """An error that is worth one second try."""

    code = "ONCE"
    retry_once_after = 1.0


def caused_by(error, cause):
    error.__cause__ = cause
    return error


def failing(*errors):
    """Return a function that raises each error in turn, then returns."""
    left = list(errors)

    def attempt():
        if left:
            raise left.pop(0)
        return "done"

    return attempt


@pytest.mark.parametrize(
    ("answer", "expected", "text"),
    [
        ({"error": httpx.ConnectError("refused")}, UnreachableError, "refused"),
        ({"error": httpx.ConnectTimeout("")}, UnreachableError, "timed out"),
        ({"error": httpx.RemoteProtocolError("Server disconnected")}, UnreachableError, "disconnected"),
        ({"error": httpx.ReadError("")}, UnreachableError, "ReadError"),
        ({"error": httpx.ProxyError("407 Proxy Authentication Required")}, RefusedByProxyError, "407"),
        ({"error": httpx.ProxyError("403 Forbidden\n::error::x")}, RefusedByProxyError, "403 Forbidden ::"),
        ({"error": httpx.ProxyError("503 Service Unavailable")}, UnreachableError, "503"),
        ({"error": httpx.ReadTimeout("")}, TimedOutError, "the request timed out"),
        ({"error": httpx.WriteTimeout("")}, TimedOutError, "the request timed out"),
        ({"error": httpx.DecodingError("")}, UnusableResponseError, "decoded"),
        (
            {"status": 302, "headers": {"location": "https://evil.example/"}},
            UnusableResponseError,
            "redirect (302)",
        ),
        ({"status": 308, "headers": {"location": "/elsewhere"}}, UnusableResponseError, "/elsewhere"),
        ({"status": 304}, UnusableResponseError, "redirect (304) to nowhere"),
        ({"text": "x" * (1024 * 1024 + 1)}, UnusableResponseError, "more than 1 MiB"),
        (
            {"text": "x", "headers": {"Content-Encoding": "x-gzip"}},
            UnusableResponseError,
            "the content encoding x-gzip",
        ),
    ],
)
def test_a_call_that_brings_nothing_says_why(world, answer, expected, text):
    """Each way to fail has its own error and message."""
    world.script.on("GET /x", world.answer(**answer))
    with pytest.raises(expected) as failure:
        world.network().send(Call("GET", URL))
    assert text in str(failure.value)


def test_where_a_redirect_leads_is_told_without_what_the_provider_echoes(world):
    """A redirect's target is shown shortened, without the ID token, commands or pages that a provider may put there."""
    place = f"https://evil.example/?t={ID_TOKEN}&c=%0A::set-output {'x' * 500}"
    world.script.on("GET /x", world.answer(status=302, headers={"location": place}))
    with pytest.raises(UnusableResponseError) as failure:
        world.network().send(Call("GET", URL))
    assert str(failure.value).startswith("a redirect (302) to https://evil.example/?t=***")
    assert ID_TOKEN.split(".")[1] not in str(failure.value)
    assert len(str(failure.value)) <= 120


def of_openssl(reason):
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1006)")
    error.reason = reason
    return error


def of_verification(code, message):
    error = ssl.SSLCertVerificationError(message)
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("cause", "problem"),
    [
        (ssl.SSLCertVerificationError("self-signed certificate"), TlsProblem.UNTRUSTED),
        (of_verification(18, "self-signed certificate"), TlsProblem.UNTRUSTED),
        (of_verification(20, "unable to get local issuer certificate"), TlsProblem.UNTRUSTED),
        (of_verification(10, "certificate has expired"), TlsProblem.EXPIRED),
        (of_verification(9, "certificate is not yet valid"), TlsProblem.NOT_YET_VALID),
        (of_verification(62, "Hostname mismatch"), TlsProblem.OTHER_NAME),
        (of_verification(64, "IP address mismatch"), TlsProblem.OTHER_NAME),
        (of_verification(92, "Missing Authority Key Identifier"), TlsProblem.INVALID),
        (of_openssl("WRONG_VERSION_NUMBER"), TlsProblem.NO_TLS),
        (of_openssl("RECORD_LAYER_FAILURE"), TlsProblem.NO_TLS),
        (of_openssl("TLSV13_ALERT_CERTIFICATE_REQUIRED"), TlsProblem.CLIENT_CERTIFICATE),
        (of_openssl("TLSV1_ALERT_PROTOCOL_VERSION"), TlsProblem.OLD_VERSION),
        (of_openssl("UNSUPPORTED_PROTOCOL"), TlsProblem.OLD_VERSION),
    ],
    ids=lambda value: value.name if isinstance(value, TlsProblem) else None,
)
def test_tls_problems_are_told_apart(world, cause, problem):
    """Each TLS error has its own remedy; only an untrusted issuer needs `ca-certificate`."""
    world.script.on("GET /x", world.answer(error=caused_by(httpx.ConnectError("handshake"), cause)))
    with pytest.raises(CertificateError) as failure:
        world.network().send(Call("GET", URL))
    assert failure.value.problem is problem


@pytest.mark.parametrize("cause", [ssl.SSLEOFError(8, "EOF occurred"), ConnectionResetError("reset")])
def test_broken_handshake_is_no_wrong_certificate(world, cause):
    """A connection that breaks during the handshake is worth another try."""
    world.script.on("GET /x", world.answer(error=caused_by(httpx.ConnectError("handshake"), cause)))
    with pytest.raises(UnreachableError):
        world.network().send(Call("GET", URL))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(socket.EAI_NONAME, UnknownNameError), (socket.EAI_AGAIN, UnreachableError)],
)
def test_name_that_does_not_exist_is_told_from_a_resolver_that_is_down(world, number, expected):
    """An unknown name is a typo, a failing resolver an outage."""
    cause = socket.gaierror(number, "no answer")
    world.script.on("GET /x", world.answer(error=caused_by(httpx.ConnectError("no answer"), cause)))
    with pytest.raises(UnreachableError) as failure:
        world.network().send(Call("GET", URL))
    assert type(failure.value) is expected


def test_an_answer_of_exactly_the_limit_is_read(world):
    """A response of exactly 1 MiB is accepted."""
    world.script.on("GET /x", world.answer(text="x" * 1024 * 1024))
    assert len(world.network().send(Call("GET", URL)).body) == 1024 * 1024


def compressed(times, size=1 << 24):
    body = bytes(size)
    for _ in range(times):
        body = gzip.compress(body)
    return body


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_unfolds_is_not_unfolded(world, times):
    """A compressed response is refused: nested gzip turns a few bytes into gigabytes, and `identity` was requested."""
    headers = {"Content-Encoding": ", ".join(["gzip"] * times)}
    world.script.handle_request = lambda request: httpx.Response(
        200, headers=headers, stream=httpx.ByteStream(compressed(times))
    )
    with pytest.raises(UnusableResponseError, match="which was not requested"):
        world.network().send(Call("GET", URL))


@pytest.mark.parametrize(
    "answer", [{"text": "x" * (1024 * 1024 + 1)}, {"text": "x", "headers": {"Content-Encoding": "other"}}]
)
@pytest.mark.parametrize("status", [429, 503])
def test_page_of_a_busy_gateway_may_be_anything(world, answer, status):
    """With a retryable status, the body is not read and does not matter."""
    world.script.on("GET /x", world.answer(status=status, **answer))
    reply = world.network().send(Call("GET", URL))
    assert (reply.is_retryable, reply.body) == (True, b"")


def test_times_are_cut_to_what_is_left(world):
    """A call may take 5 s to connect and 15 s to respond, but never more than the remaining budget."""
    seen = []
    world.script.handle_request = lambda request: (
        seen.append(request.extensions["timeout"]) or world.time.sleep(50) or httpx.Response(200)
    )
    network = world.network(seconds=60)
    network.send(Call("GET", URL))
    network.send(Call("GET", URL))
    with pytest.raises(TimedOutError, match="`timeout`"):
        network.send(Call("GET", URL))
    assert [(timeout["connect"], timeout["read"]) for timeout in seen] == [(5, 15), (5, 10)]


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_never_ends_ends_with_the_budget(world, part):
    """The budget also ends a response that arrives byte by byte: httpx only limits each single read."""
    released = Event()

    class Dripping(httpx.SyncByteStream):
        def __iter__(self):
            released.wait()
            yield b"x"

    def answer(request):
        if part == "headers":
            released.wait()
        return httpx.Response(200, stream=Dripping())

    world.script.handle_request = answer
    try:
        with pytest.raises(TimedOutError, match="was not complete"):
            world.network(seconds=0.05).send(Call("GET", URL))
    finally:
        released.set()


def test_credentials_and_origin_of_a_request(world):
    """The request has a user agent, and its bearer only in the header."""
    world.script.on("POST /x", world.answer())
    world.network().send(Call("POST", URL, bearer="b", json={"a": 1}))
    (request,) = world.script.requests
    assert request.authorization == "Bearer b"
    assert request.user_agent.startswith("sentryagent-actions ")
    assert request.body == {"a": 1}


def test_retry_waits_longer_each_time_and_tells(world):
    """Waits double up to 8 s, with full jitter (one half here), and each is logged."""
    log = []
    result = world.network(log=log.append).retry(failing(*[Later("down.") for _ in range(6)]))
    assert result == "done"
    assert world.time.sleeps == [0.25, 0.5, 1, 2, 4, 4]
    assert log[0] == "Try 1: LATER from this action: down. Trying again in 0.2 s."


@pytest.mark.parametrize(
    ("budget", "sleeps"),
    [
        (3.0, [0.25, 0.5, 1]),
        (3.75, [0.25, 0.5, 1, 1]),
        (6.0, [0.25, 0.5, 1, 2, 1.25]),
        (30.0, [0.25, 0.5, 1, 2, 4, 4, 4, 4, 4, 4, 1.25]),
    ],
)
def test_retry_uses_the_budget_to_its_end(world, budget, sleeps):
    """The last wait is shortened so that one more call fits; the error has the number of tries."""
    with pytest.raises(Later) as last:
        world.network(seconds=budget).retry(failing(*[Later("down.") for _ in range(20)]))
    assert world.time.sleeps == sleeps
    assert last.value.tries == len(sleeps) + 1
    assert f"Gave up after {last.value.tries} tries." in last.value.advice()
    assert "asks for a wait" not in last.value.advice()


@pytest.mark.parametrize(("asked", "sleeps"), [(7.0, [7.25]), (59.0, [59.25]), (59.9, [59.9]), (60.0, [])])
def test_retry_after_is_honoured_within_the_budget(world, asked, sleeps):
    """The server's `Retry-After` is never shortened, only the jitter is; a wait beyond the budget is final."""
    attempt = failing(Later("down.", retry_after=asked))
    if sleeps:
        assert world.network().retry(attempt) == "done"
    else:
        with pytest.raises(Later):
            world.network().retry(attempt)
    assert world.time.sleeps == sleeps


def test_wait_that_does_not_fit_is_told(world):
    """If `Retry-After` exceeds the budget, the error says so."""
    with pytest.raises(Later) as last:
        world.network().retry(failing(Later("down.", retry_after=3600.0)))
    assert "It asks for a wait of 3600 s, which is longer than `timeout` allows." in last.value.advice()


def test_name_that_does_not_exist_is_tried_three_times(world):
    """A host name that does not exist is tried only three times."""
    with pytest.raises(ProviderUnknownError) as last:
        world.network().retry(failing(*[ProviderUnknownError("idp.exmaple.com") for _ in range(9)]))
    assert (last.value.tries, last.value.retryable) == (3, True)


def test_other_errors_are_not_retried(world):
    """An error that is not retryable is final."""
    with pytest.raises(ActionError, match="no"):
        world.network().retry(failing(ActionError("no")))
    assert world.time.sleeps == []


def test_one_delayed_second_try(world):
    """An error that is worth one second try gets exactly one, after one to two seconds."""
    assert world.network().retry(failing(Once("early"))) == "done"
    with pytest.raises(Once):
        world.network().retry(failing(Once("early"), Once("early")))
    assert world.time.sleeps == [1.5, 1.5]


def test_second_try_that_does_not_fit_is_not_made(world):
    """A second try that would come too early is not made, because it would be refused again."""
    with pytest.raises(Once):
        world.network(seconds=1.5).retry(failing(Once("early")))
    assert world.time.sleeps == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("86400", 86400.0),
        ("86401", None),
        ("9" * 400, None),
        ("9" * 5000, None),
        ("Fri, 02 Jan 1970 00:01:00 GMT", 86400.0),
        ("Fri, 02 Jan 1970 00:01:01 GMT", None),
        ("Mon, 01 Jan 1900 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +" + "9" * 30, None),
        ("Mon, 01 Jan 2026 00:00:00 +" + "9" * 5000, None),
        ("soon", None),
        ("-7", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_header(header, seconds):
    """Seconds and HTTP dates are read (RFC 9110, 10.2.3); anything else is ignored."""
    assert Reply(503, {"retry-after": header}, b"").retry_after(60.0) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"a":' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"a":' * 51 + b"1" + b"}" * 51,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_json_object_is_nothing_else(body):
    """A body that is not a JSON object raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Reply(200, {}, body).json_object()


def test_deepest_json_object_is_read():
    """50 levels of nesting are accepted."""
    body = b'{"a":' + b"[" * 49 + b"]" * 49 + b"}"
    assert json.dumps(Reply(200, {}, body).json_object()).encode() == body.replace(b":", b": ")


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(200, False), (400, False), (401, False), (403, False), (404, False), (409, False)]
    + [(status, True) for status in (408, 425, 429, 500, 502, 503, 504, 599)],
)
def test_which_statuses_say_later(status, retryable):
    """408, 425, 429 and 5xx are retryable, nothing else."""
    assert Reply(status, {}, b"").is_retryable is retryable


@pytest.mark.parametrize("proxy", ["ftp://proxy.example", "socks5://user:secret@proxy.example"])
def test_unusable_proxy_is_refused(world, proxy):
    """An unusable proxy variable fails the step as bad input, without showing its value."""
    world.environ["HTTPS_PROXY"] = proxy
    world.transport = None
    outcome = world.run("issue-token", agent_id=world.agent_id)
    assert outcome.outputs["error-code"] == "INVALID_INPUT"
    assert "The variable HTTPS_PROXY is not a proxy URL that this action can use." in outcome.stdout
    assert "secret" not in outcome.stdout


def test_key_log_that_cannot_be_written_is_named(world, monkeypatch, tmp_path):
    """A wrong SSLKEYLOGFILE would make OpenSSL fail on every connection, so it is reported by name."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "gone" / "keys"))
    world.transport = None
    outcome = world.run("issue-token", agent_id=world.agent_id)
    assert outcome.outputs["error-code"] == "INVALID_INPUT"
    assert "SSLKEYLOGFILE" in outcome.commands("error")[0]


def test_certificate_is_added_to_the_systems_roots():
    """The client trusts the system's roots and the given certificate."""
    pem = re.search("-----BEGIN.*?END CERTIFICATE-----\n", certifi.contents(), re.DOTALL)[0]
    with open_client(transport=None, ca_certificate=pem) as client:
        context = client._transport._pool._ssl_context
    with open_client(transport=None, ca_certificate="") as client:
        system = client._transport._pool._ssl_context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509"] >= system.cert_store_stats()["x509"] >= 1
    assert ssl.PEM_cert_to_DER_cert(pem) in context.get_ca_certs(binary_form=True)
