"""Counting refusals of nobody in particular, so that they cannot fill the disk."""

from server.rejections import RejectionCounter


def test_count_by_address_and_reason():
    """Refusals are counted apart for each address and reason."""
    counter = RejectionCounter()
    for address, reason in [("192.0.2.1", "expired"), ("192.0.2.1", "expired"), (None, "malformed")]:
        counter.note(address, reason)

    assert counter.drain() == {("192.0.2.1", "expired"): 2, ("unknown", "malformed"): 1}


def test_drain_starts_again():
    """What was drained is not counted twice."""
    counter = RejectionCounter()
    counter.note("192.0.2.1", "expired")
    counter.drain()

    assert counter.drain() == {}


def test_bounded_memory():
    """From a thousand kinds on, new ones are counted together and known ones still apart."""
    counter = RejectionCounter()
    for number in range(1500):
        counter.note(f"2001:db8::{number:x}", "malformed")
    counter.note("2001:db8::0", "malformed")

    counts = counter.drain()

    assert len(counts) == 1001
    assert counts["others", "others"] == 500
    assert counts["2001:db8::0", "malformed"] == 2
