"""The sockets at which this process listens: granian makes them, and hands none of them over."""

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
"""SO_ATTACH_FILTER of Linux, which Python's `socket` does not name."""
_FLAGS, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
"""Where the flags are in a TCP header, and two of them (RFC 9293, 3.1)."""
_NO_SYN = (
    (0x30, 0, 0, _FLAGS),  # A = the flags
    (0x54, 0, 0, _SYN_OR_ACK),  # A &= SYN | ACK
    (0x15, 0, 1, _SYN),  # SYN alone: the next line, else the one after it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
)
"""Instructions of the classic BPF: https://docs.kernel.org/networking/filter.html."""


def limit_unread_answers(seconds: int) -> None:
    """Let the kernel close connections whose client takes nothing of its answer (tcp(7), TCP_USER_TIMEOUT).

    Each of them holds an answer in memory and one of the connections that a worker takes. Accepted connections have
    the option from the socket that listens.
    """
    for listener in _listeners():
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def begin_no_connection() -> None:
    """Let the kernel drop what would begin a connection, until the socket is closed; others are still completed.

    A client tries again a second later, and is then refused, or accepted by the next process. Without this, the
    kernel would go on to complete connections until the socket is closed, and then end those that nobody had
    accepted: their clients have sent a request by then, and cannot tell whether it counted.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _NO_SYN))
    options = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    for listener in _listeners():
        with suppress(OSError):  # a sandbox may have no filters; the loss is a rare one
            listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, options)


def _listeners() -> Iterator[socket.socket]:
    """The listening sockets; none on other systems than Linux."""
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
