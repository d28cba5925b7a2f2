"""The error that stops a run before the action can start."""

from __future__ import annotations


class ActionError(Exception):
    """The action folder cannot be run as it is; the message says what to change."""
