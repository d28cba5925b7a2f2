"""GitHub tokens that were exchanged: each is good once."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class UsedToken:
    """A GitHub token that was exchanged, and how long its name is kept."""

    issuer: str
    jti: str
    keep_until: datetime
