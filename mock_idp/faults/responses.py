"""The faults of a whole HTTP response, by name. Pure; `http.app` applies them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.faults.jws import Minted

ERROR_STATUS: Final = 400


@dataclass(frozen=True)
class RawResponse:
    """An HTTP response before it is sent.

    `cut` announces the whole body and sends half of it; `reset` breaks the connection; `redirect` redirects to the
    request's own URL. `minted` is the ID token in the body.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    redirect: bool = False
    cut: bool = False
    reset: bool = False
    minted: Minted | None = field(default=None, repr=False)


RESPONSE_FAULTS: Final[Mapping[str, Callable[[RawResponse], RawResponse]]] = {
    "reset": lambda given: replace(given, reset=True),
    "truncated": lambda given: replace(given, cut=True),
    "empty": lambda given: replace(given, body=b""),
    "garbage": lambda given: replace(given, body=b"<html>bad gateway</html>"),
    "wrong-content-type": lambda given: replace(given, content_type="text/html"),
    "not-an-object": lambda given: replace(given, body=b'["value"]'),
    "missing-members": lambda given: replace(given, body=b"{}"),
    "huge": lambda given: replace(given, body=b'{"padding":"' + b"x" * (16 << 20) + b'"}'),
    "redirect": lambda given: replace(given, status=302, body=b"", redirect=True),
}


def json_response(body: object, status: int = 200) -> RawResponse:
    """Return a response with a JSON body whose fields keep their order."""
    return RawResponse(status, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
