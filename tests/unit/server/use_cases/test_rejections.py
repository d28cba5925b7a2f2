"""Counting refusals that anybody can cause, so that they cannot fill the disk."""

from server.use_cases.rejections import NOBODY, Rejection, RejectionCounter

CODE = "INVALID_OIDC_TOKEN"


def test_count_by_kind():
    """Refusals are counted apart for each code, reason, address and actor."""
    counter = RejectionCounter()
    for reason, address in [("expired", "192.0.2.1"), ("expired", "192.0.2.1"), ("malformed", None)]:
        counter.note(CODE, reason, address)
    counter.note("INVALID_CLIENT", "expired", "192.0.2.1", "admin-1")

    assert counter.drain() == {
        Rejection(CODE, "expired", "192.0.2.1", NOBODY): 2,
        Rejection(CODE, "malformed", "unknown", NOBODY): 1,
        Rejection("INVALID_CLIENT", "expired", "192.0.2.1", "admin-1"): 1,
    }


def test_drain_starts_again():
    """What was drained is not counted twice."""
    counter = RejectionCounter()
    counter.note(CODE, "expired", "192.0.2.1")
    counter.drain()

    assert counter.drain() == {}


def test_bounded_memory():
    """From a thousand kinds on, new ones are counted together by code, and known ones still apart."""
    counter = RejectionCounter()
    for number in range(1500):
        counter.note(CODE, "malformed", f"2001:db8::{number:x}")
    counter.note(CODE, "malformed", "2001:db8::0")

    counts = counter.drain()

    assert len(counts) == 1001
    assert counts[Rejection(CODE, "others", "others", NOBODY)] == 500
    assert counts[Rejection(CODE, "malformed", "2001:db8::0", NOBODY)] == 2
