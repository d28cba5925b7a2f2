"""Logs: one JSON object a line on stderr, with the request's id."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import structlog


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
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def _json(event: Any, default: Callable[[Any], Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=default)
