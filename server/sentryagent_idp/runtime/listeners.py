"""Options for this process's listening sockets, which granian creates and does not expose."""

import ctypes
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ATTACH_FILTER = 26
"""Linux's SO_ATTACH_FILTER, which Python's `socket` does not define."""
_FLAGS, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
"""The offset of the flags in a TCP header, and two masks (RFC 9293, 3.1)."""
_NO_SYN = (
    (0x30, 0, 0, _FLAGS),  # A = the flags
    (0x54, 0, 0, _SYN_OR_ACK),  # A &= SYN | ACK
    (0x15, 0, 1, _SYN),  # SYN alone: the next line, else the one after it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # accept all of it
)
"""Instructions of the classic BPF: https://docs.kernel.org/networking/filter.html."""


def limit_unread_answers(seconds: int) -> None:
    """Have the kernel close connections whose client does not read its response (tcp(7), TCP_USER_TIMEOUT).

    Each of them holds a response in memory and one of the worker's connections. Accepted connections inherit the
    option from the listening socket.
    """
    for listener in _listeners():
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def begin_no_connection() -> None:
    """Have the kernel drop packets that begin a connection; handshakes under way are still completed.

    A client tries again a second later, and is then refused, or accepted by the next process. Without this, the
    kernel would complete connections until the socket is closed, and then reset those that were never accepted:
    their clients have sent a request by then, and cannot know whether it was handled.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _NO_SYN))
    options = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    for listener in _listeners():
        with suppress(OSError):  # a sandbox may not support filters; lost connections are rare
            listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, options)


def _listeners() -> Iterator[socket.socket]:
    """Yield the listening sockets; none on systems other than Linux."""
    if sys.platform == "linux":
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the descriptor of the listing itself is gone
                yield from _if_listening(int(entry.name))


def _if_listening(descriptor: int) -> Iterator[socket.socket]:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    with socket.socket(fileno=os.dup(descriptor)) as found:
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield found
