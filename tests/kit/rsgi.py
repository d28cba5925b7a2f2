"""Stand-ins for the objects that granian passes for each request (RSGI)."""

import asyncio

from granian.rsgi import ProtocolClosed


class Headers:
    """Header fields as granian provides them: `items` omits values that are not visible ASCII."""

    def __init__(self, fields):
        self._fields = fields

    def __len__(self):
        return len({name for name, _ in self._fields})

    def __contains__(self, name):
        return any(field == name for field, _ in self._fields)

    def items(self):
        return [(name, value) for name, value in self._fields if value.isascii()]

    def get(self, name, default=None):
        return next((value for field, value in self.items() if field == name), default)


class Scope:
    """The scope of a POST request with these header fields."""

    def __init__(self, *fields, path="/api/v1/oidc/token", query="a=1", client="198.51.100.7:4431"):
        self.method, self.path, self.query_string = "POST", path, query
        self.client, self.server = client, "127.0.0.1:3000"
        self.headers = Headers(fields)


class Client:
    """The client of a connection: the parts of its request body, and the response that it gets."""

    def __init__(self, *parts, ends="well"):
        self.parts, self.ends = parts, ends
        self.read = 0
        self.answer = None

    def __call__(self):
        return asyncio.ensure_future(self._whole())

    async def _whole(self):
        if self.ends == "never":
            await asyncio.Event().wait()
        if self.ends == "early":
            raise ProtocolClosed
        return b"".join(self.parts)

    async def __aiter__(self):
        for part in self.parts:
            self.read += len(part)
            yield part
        if self.ends == "never":
            await asyncio.Event().wait()
        if self.ends == "early":
            yield b""
        yield b""

    def response_bytes(self, status, headers, body):
        self.answer = (status, headers, body)
