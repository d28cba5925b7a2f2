"""GitHub tokens that were exchanged: each is good once."""

from datetime import datetime

import msgspec


class UsedToken(msgspec.Struct, frozen=True):
    """A GitHub token that was exchanged, and how long its name is kept."""

    issuer: str
    jti: str
    keep_until: datetime
