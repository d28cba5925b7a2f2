"""The requests that carry tokens to a verifier, checked on the wire."""

import socket
import struct
import threading

import pytest

from mock_idp.attack.verifier import UnsendableError, Verifier, field_at

REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nnot  you\n"


@pytest.fixture
def listen():
    """Respond to one request with these bytes; return the URL and a list that will contain the request."""
    listeners = []

    def listen(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        received = []

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                text = connection.recv(65536)
                head, _, body = text.partition(b"\r\n\r\n")
                wanted = next(
                    (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")),
                    0,
                )
                while len(body) < wanted:
                    body += connection.recv(65536)
                received.extend((head.decode(), body.decode()))
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", received

    yield listen
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("options", "first_line", "header", "body"),
    [
        ({"place": "bearer"}, "GET /a?b=1 HTTP/1.1", "Authorization: Bearer e.y.j", ""),
        ({"place": "bearer", "method": "PUT"}, "PUT /a?b=1 HTTP/1.1", "Authorization: Bearer e.y.j", ""),
        (
            {"place": "json", "token_field": "t", "others": {"x": "1"}},
            "POST /a?b=1 HTTP/1.1",
            "Content-Type: application/json",
            '{"x": "1", "t": "e.y.j"}',
        ),
        (
            {"place": "form", "token_field": "t", "others": {"x": "a b"}},
            "POST /a?b=1 HTTP/1.1",
            "Content-Type: application/x-www-form-urlencoded",
            "x=a+b&t=e.y.j",
        ),
        (
            {"place": "json", "token_field": "t", "headers": {"X-Key": "k"}},
            "POST /a?b=1 HTTP/1.1",
            "X-Key: k",
            '{"t": "e.y.j"}',
        ),
        (
            {"place": "json", "token_field": "auth.jwt.token", "others": {"x": "1"}},
            "POST /a?b=1 HTTP/1.1",
            "Content-Type: application/json",
            '{"x": "1", "auth": {"jwt": {"token": "e.y.j"}}}',
        ),
        (
            {"place": "query", "token_field": "id token", "others": {"x": "a&b"}},
            "GET /a?b=1&x=a%26b&id+token=e.y.j HTTP/1.1",
            "Accept: application/json",
            "",
        ),
        ({"place": "header", "token_field": "X-Token"}, "GET /a?b=1 HTTP/1.1", "X-Token: e.y.j", ""),
    ],
)
def test_a_token_travels_as_it_was_asked(listen, options, first_line, header, body):
    """The token is sent in the chosen place, with method, query, headers and body as given."""
    url, received = listen(REFUSAL)

    answer = Verifier(f"{url}/a?b=1", **options).send("e.y.j")

    assert (answer.status, answer.note) == (401, "not you")
    head, sent = received
    assert head.splitlines()[0] == first_line
    assert header in head.splitlines()
    assert sent == body


@pytest.mark.parametrize(
    ("body", "answer"),
    [(b"secret", None), (b'{"active": true, "x": "secret"}', {"active": True, "x": "secret"})],
)
def test_a_yes_is_not_quoted(listen, body, answer):
    """The body of an accepting response is not shown, because it may contain a token; its JSON is only evaluated."""
    url, _ = listen(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    response = Verifier(url, "bearer").send("t")

    assert (response.note, response.answer) == ("", answer)
    assert "secret" not in repr(response)


@pytest.fixture
def serve_once():
    """Pass the only connection to a function; return the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(use):
            def accept():
                connection, _ = listener.accept()
                with connection:
                    use(connection)

            threading.Thread(target=accept, daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield serve


def test_a_body_that_breaks_off_does_not_hide_the_status(serve_once):
    """The status counts even if the body breaks off."""

    def refuse(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nno")
        # With this option, closing resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert Verifier(serve_once(refuse), "bearer").send("t").status == 403


def test_an_answer_that_comes_before_the_whole_request_is_read(serve_once):
    """A 413 that arrives while we are still sending the body is read."""

    def refuse(connection):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")

    assert Verifier(serve_once(refuse), "form", "t").send("t" * (16 << 20)).status == 413


@pytest.mark.parametrize(
    ("answer", "path", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": [1]}}, "a.b", [1]),
        ({"a": 1}, "b", None),
        ([], "a", None),
        ({"a": 1}, "a.b", None),
    ],
)
def test_a_field_of_an_answer_is_found_by_names(answer, path, value):
    """A field is found by names joined with dots; a missing field is `None`."""
    assert field_at(answer, path) == value


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_no_answer_is_told_with_its_reason(listen, answer):
    """A closed connection or a response that is not HTTP is reported with its reason."""
    url, _ = listen(answer)

    result = Verifier(url, "bearer").send("t")

    assert result.status == 0
    assert result.note.startswith("no response: ")


def test_silence_ends_with_the_timeout():
    """A server that never responds is given up after the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = Verifier(f"http://127.0.0.1:{listener.getsockname()[1]}", "bearer", timeout=0.1).send("t")

    assert (result.status, result.note) == (0, "no response: TimeoutError timed out")


def test_a_line_break_cannot_be_sent_in_a_header(listen):
    """A token with a line break cannot be sent in a header, which is not a refusal; in a body, it is sent."""
    url, received = listen(REFUSAL)

    with pytest.raises(UnsendableError):
        Verifier(url, "bearer").send("t\n")
    Verifier(url, "form", "t").send("t\n")
    assert received[1] == "t=t%0A"
