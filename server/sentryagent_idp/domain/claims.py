"""The trust state of claims, in their type."""

from collections.abc import Mapping
from typing import Any, NewType

SignedClaims = NewType("SignedClaims", Mapping[str, Any])
"""Claims whose signature, issuer, audience and times were checked; made only by `sentryagent_idp.tokens`."""
