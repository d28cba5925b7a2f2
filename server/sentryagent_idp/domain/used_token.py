"""ID tokens that were exchanged; each can be exchanged only once."""

from datetime import datetime

import msgspec


class UsedToken(msgspec.Struct, frozen=True):
    """An ID token that was exchanged, and until when its `jti` is kept."""

    issuer: str
    jti: str
    keep_until: datetime
