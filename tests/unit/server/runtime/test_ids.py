"""Time-ordered ids (RFC 9562, 5.7)."""

import subprocess
import sys
from uuid import RFC_4122, UUID

import pytest

from sentryagent_idp.runtime import ids
from sentryagent_idp.runtime.ids import uuid7


@pytest.fixture
def surroundings(monkeypatch):
    """Fix the time and the random bits."""

    def fix(*, milliseconds, random):
        monkeypatch.setattr(ids.time, "time_ns", lambda: milliseconds * 1_000_000 + 999_999)
        monkeypatch.setattr(ids, "getrandbits", lambda bits: random & ((1 << bits) - 1))

    return fix


def test_it_has_the_form_of_the_rfc(surroundings):
    """The example of RFC 9562, appendix A.6 is reproduced."""
    surroundings(milliseconds=0x017F22E279B0, random=0xCC3 << 62 | 0x18C4DC0C0C07398F)
    made = uuid7()
    assert made == UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    assert (made.version, made.variant) == (7, RFC_4122)


def test_all_other_bits_are_random(surroundings):
    """74 bits are random, so that ids of the same millisecond cannot be predicted."""
    surroundings(milliseconds=0, random=0)
    none = uuid7()
    surroundings(milliseconds=0, random=-1)
    assert (none.int ^ uuid7().int).bit_count() == 74


def test_they_grow_with_the_time(surroundings):
    """Later ids are greater, as numbers and as text, whatever the random bits are."""
    surroundings(milliseconds=1_763_985_600_000, random=-1)
    earlier = uuid7()
    surroundings(milliseconds=1_763_985_600_001, random=0)
    later = uuid7()
    assert earlier < later
    assert str(earlier) < str(later)


def test_they_are_unique():
    """Ids are unique even if thousands are created at once."""
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_forked_workers_make_different_ids():
    """Forked processes do not share random bits, although they begin with the same memory."""
    script = (
        "import os\n"
        "from sentryagent_idp.runtime.ids import uuid7\n"
        "uuid7()\n"
        "for _ in range(2):\n"
        "    if not (child := os.fork()):\n"
        "        print(uuid7().int & ((1 << 62) - 1), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert len(set(said.split())) == 2
