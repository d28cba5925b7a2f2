"""Logs: one JSON object per line on stderr, with the request id."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import structlog

_writing = threading.Lock()
# In a process forked while another thread writes, that thread's lock would be held for ever.
os.register_at_fork(
    before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release
)


def configure(level: str) -> None:
    """Log from `level` (debug, info, warning, error) upwards, in this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def silence() -> None:
    """Log nothing in this process, for commands that print their own findings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class _Lines(structlog.BytesLogger):
    """Writes log lines; a line that cannot be written is lost, and its request continues.

    A full disk or a closed pipe must not cost a run its access token after its ID token was used up.
    """

    def msg(self, message: bytes) -> None:
        """Write a line."""
        with _writing, suppress(OSError):
            super().msg(message)

    log = debug = info = warning = error = critical = msg


def _json(event: Any, default: Callable[[Any], Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=default)
