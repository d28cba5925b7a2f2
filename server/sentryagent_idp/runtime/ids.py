"""Ids that grow with the time, for what there are many of."""

import time
from random import getrandbits
from uuid import UUID

_VERSION = 0b0111 << 76
_VARIANT = 0b10 << 62


def uuid7() -> UUID:
    """48 bits of the present in milliseconds, then 74 random ones (RFC 9562, 5.7).

    New rows go to the end of an index over such ids; over random ones each would change a page of its own, all of which
    every commit writes. When it was made can be read from such an id: it is for records that say so anyway.
    """
    # No secret: `random` is seeded by the system, again in each process that is forked, and never waits for it.
    random = getrandbits(74)
    in_milliseconds = time.time_ns() // 1_000_000
    head, tail = random >> 62, random & ((1 << 62) - 1)
    return UUID(int=(in_milliseconds << 80) | _VERSION | (head << 64) | _VARIANT | tail)
