"""Our signing keys as the database stores them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class KeyStatus(StrEnum):
    """A signing key is published before it signs, signs while it is active, and still verifies when it is retired."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A stored signing key: PKCS #8 in PEM, encrypted if an encryption key is configured."""

    kid: str
    alg: str
    private_pem: bytes = field(repr=False)
    status: KeyStatus
    created_at: datetime
    retired_at: datetime | None = None
