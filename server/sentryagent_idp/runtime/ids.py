"""Time-ordered ids, for records of which there are many."""

import time
from random import getrandbits
from uuid import UUID

_VERSION = 0b0111 << 76
_VARIANT = 0b10 << 62


def uuid7() -> UUID:
    """Return a UUID of 48 bits of time in milliseconds and 74 random bits (RFC 9562, 5.7).

    New rows go to the end of an index over such ids; with random ids, each row would change a different page, and a
    commit would write them all. The id reveals its creation time, so it is only for records that show theirs anyway.
    """
    # Not a secret, so `random` is enough: the system seeds it, again in each forked process, and it never blocks.
    random = getrandbits(74)
    in_milliseconds = time.time_ns() // 1_000_000
    head, tail = random >> 62, random & ((1 << 62) - 1)
    return UUID(int=(in_milliseconds << 80) | _VERSION | (head << 64) | _VARIANT | tail)
