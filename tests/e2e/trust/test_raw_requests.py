"""Requests that two HTTP parsers could read differently (request smuggling): the real server accepts none of them.

Each body contains a genuine token, so that a request which got through would get a 200.
"""

import json
import re

from kit.http import raw

PATH = "/api/v1/oidc/token"

# name: the lines of the request's head, in which {length} is the length of the body
RAW = {
    "two lengths": ["POST {path} HTTP/1.1", "Host: x", "Content-Length: {length}", "Content-Length: 5"],
    "two lengths in one line": ["POST {path} HTTP/1.1", "Host: x", "Content-Length: {length}, 5"],
    "a negative length": ["POST {path} HTTP/1.1", "Host: x", "Content-Length: -{length}"],
    "a signed length": ["POST {path} HTTP/1.1", "Host: x", "Content-Length: +{length}"],
    "a hexadecimal length": ["POST {path} HTTP/1.1", "Host: x", "Content-Length: 0x{length}"],
    "an endless length": ["POST {path} HTTP/1.1", "Host: x", f"Content-Length: {'9' * 40}"],
    "a blank before the colon": ["POST {path} HTTP/1.1", "Host: x", "Content-Length : {length}"],
    "a folded header": ["POST {path} HTTP/1.1", "Host: x", "X-A: b", " Content-Length: 0", "Content-Length: {length}"],
    "NUL in a header": ["POST {path} HTTP/1.1", "Host: x", "X-A: \0", "Content-Length: {length}"],
    "NUL in a name": ["POST {path} HTTP/1.1", "Host: x", "X\0A: b", "Content-Length: {length}"],
    "chunks that are none": ["POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"],
    "a coding after the chunks": ["POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked, identity", "Content-Length: {length}"],
    "a coding that looks alike": ["POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: xchunked", "Content-Length: {length}"],
    "an unknown version": ["POST {path} HTTP/9.9", "Host: x", "Content-Length: {length}"],
    "no version": ["POST {path}", "Host: x", "Content-Length: {length}"],
    "a blank in the path": ["POST {path} x HTTP/1.1", "Host: x", "Content-Length: {length}"],
    "a method of two words": ["PO ST {path} HTTP/1.1", "Host: x", "Content-Length: {length}"],
    "a megabyte of headers": ["POST {path} HTTP/1.1", "Host: x", f"X-A: {'a' * 2**20}", "Content-Length: {length}"],
    "ten thousand headers": ["POST {path} HTTP/1.1", "Host: x", *["X-A: b"] * 10_000, "Content-Length: {length}"],
}  # fmt: skip


def send(url, octets):
    """The statuses of the responses, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", raw(url, octets))]


def request(lines, body):
    head = "\r\n".join([*lines, "Content-Type: application/json", "Connection: close", "", ""])
    return head.format(path=PATH, length=len(body)).encode() + body


def test_ambiguous_requests_are_not_exchanged(serve, errors_in):
    """Each is refused with a 4xx or a closed connection; the same request without the flaw succeeds."""
    server = serve()
    good = ["POST {path} HTTP/1.1", "Host: x", "Content-Length: {length}"]
    sound = send(server.url, request(good, json.dumps({"token": server.token()}).encode()))

    answers = {
        name: send(server.url, request(lines, json.dumps({"token": server.token()}).encode()))
        for name, lines in RAW.items()
    }

    assert sound == [200]
    taken = {
        name: statuses for name, statuses in answers.items() if any(not 400 <= it < 500 for it in statuses)
    }
    assert taken == {}
    assert len(server.audit("token.issued")) == 1
    assert server.http.get("/health").status_code == 200
    assert not errors_in()


def test_a_request_hidden_behind_chunks_is_not_run(serve):
    """With both a length and chunks, the chunks count (RFC 9112, 6.3), and the bytes after them are not executed."""
    server = serve()
    first, hidden = (json.dumps({"token": server.token()}).encode() for _ in range(2))
    smuggled = request(["POST {path} HTTP/1.1", "Host: x", "Content-Length: {length}"], hidden)
    body = f"{len(first):x}\r\n".encode() + first + b"\r\n0\r\n\r\n" + smuggled
    lines = ["POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "Content-Length: {length}"]

    assert send(server.url, request(lines, body)) == [200]
    assert len(server.audit("token.issued")) == 1
