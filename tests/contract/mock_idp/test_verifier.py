"""How tokens are sent to a verifier, seen from the wire."""

import socket
import threading

import pytest

from mock_idp.attack.verifier import UnsendableError, Verifier

REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nnot  you\n"


@pytest.fixture
def listen():
    """Answer one request with these bytes; gives the URL and, when it came, the request."""
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
    ],
)
def test_a_token_travels_as_it_was_asked(listen, options, first_line, header, body):
    """Method, path with its query, header and body."""
    url, received = listen(REFUSAL)

    answer = Verifier(f"{url}/a?b=1", **options).send("e.y.j")

    assert (answer.status, answer.note) == (401, "not you")
    head, sent = received
    assert head.splitlines()[0] == first_line
    assert header in head.splitlines()
    assert sent == body


def test_a_yes_is_not_quoted(listen):
    """Its body may carry a token."""
    url, _ = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    assert Verifier(url, "bearer").send("t").note == ""


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_no_answer_is_told_with_its_reason(listen, answer):
    """A connection that ends, or something that is no HTTP."""
    url, _ = listen(answer)

    result = Verifier(url, "bearer").send("t")

    assert result.status == 0
    assert result.note.startswith("no answer: ")


def test_silence_ends_with_the_timeout():
    """Nobody waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = Verifier(f"http://127.0.0.1:{listener.getsockname()[1]}", "bearer", timeout=0.1).send("t")

    assert (result.status, result.note) == (0, "no answer: TimeoutError timed out")


def test_a_line_break_cannot_be_sent_in_a_header(listen):
    """It is told apart from a refusal; in a body it goes through."""
    url, received = listen(REFUSAL)

    with pytest.raises(UnsendableError):
        Verifier(url, "bearer").send("t\n")
    Verifier(url, "form", "t").send("t\n")
    assert received[1] == "t=t%0A"
