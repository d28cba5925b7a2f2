"""IP addresses in a canonical form, whatever the notation."""

from ipaddress import ip_address, ip_network

import pytest

from sentryagent_idp.api.client_addresses import ClientAddresses
from sentryagent_idp.runtime import addresses
from sentryagent_idp.runtime.rate_limit import PerMinute

READABLE = [
    # hop, address
    ("203.0.113.7", "203.0.113.7"),
    ("203.0.113.7:4431", "203.0.113.7"),
    ("203.0.113.7:0", "203.0.113.7"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ("::FFFF:cb00:7107", "203.0.113.7"),
    ("0:0:0:0:0:ffff:203.0.113.7", "203.0.113.7"),
    ("[::ffff:203.0.113.7]:443", "203.0.113.7"),
    ("2001:db8::1", "2001:db8::1"),
    ("2001:0DB8:0:0:0:0:0:1", "2001:db8::1"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[2001:db8::1]:443", "2001:db8::1"),
    ("::1", "::1"),
    # an address without a port, because a port needs brackets
    ("2001:db8::1:443", "2001:db8::1:443"),
]

UNREADABLE = [
    "",
    "unknown",
    "_hidden",
    "unix:",
    "203.0.113",
    "203.0.113.256",
    "203.0.113.07",
    "203.0.113.7:",
    "203.0.113.7:port",
    "203.0.113.7:443210",
    "203.0.113.7:-1",
    "203.0.113.7:٤٤٣",
    "203.0.113.7 :443",
    "203.0.113.7:443:443",
    "203.0.113.7/32",
    "[203.0.113.7]:443",
    "[203.0.113.7]",
    "[2001:db8::1",
    "2001:db8::1]:443",
    "[2001:db8::1]443",
    "[2001:db8::1]:",
    "[]:443",
    "fe80::1%eth0",
    "[fe80::1%eth0]:443",
    "::ffff:203.0.113.7%1",
    "::ffff:203.0.113.7:443",
    "example.com",
    "203.0.113.7\n",
]


@pytest.mark.parametrize(("hop", "address"), READABLE)
def test_readable_hop(hop, address):
    """An address is read with or without a port, in any notation."""
    assert addresses.read_hop(hop) == ip_address(address)


@pytest.mark.parametrize("hop", UNREADABLE)
def test_unreadable_hop(hop):
    """Names, zones and garbage are not addresses."""
    with pytest.raises(ValueError, match=r"."):
        addresses.read_hop(hop)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.5", "10.0.0.5/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.5", "10.0.0.5/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
    ],
)
def test_network(text, network):
    """A network of IPv4-mapped addresses becomes an IPv4 network."""
    assert addresses.network(text) == ip_network(network)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (None, "unknown"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
    ],
)
def test_allowance(address, key):
    """The rate limit counts an IPv4 address, or a whole /64."""
    assert addresses.allowance(address) == key


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("2001:DB8:0:7:0::/64", "2001:db8:0:7::/64"),
        ("others", "others"),
        ("unknown", "unknown"),
        ("2001:db8::1/64", "2001:db8::1/64"),
        ("", ""),
    ],
)
def test_canonical(text, stored):
    """An address in an audit filter is normalised like in the records; other text does not change."""
    assert addresses.canonical(text) == stored


PROXIES = "10.0.0.0/8", "2001:db8::/32"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "203.0.113.7:4431", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.9, 203.0.113.7:4431, 10.0.0.2:80", "203.0.113.7"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, ::ffff:10.0.0.5", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, [2001:db8::5]:443", "203.0.113.7"),
        ("10.0.0.1", "[2001:db9::1]:443", "2001:db9::1"),
        ("10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        # an unreadable hop ends the walk: a client may have written everything to its left
        ("10.0.0.1", "203.0.113.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, fe80::1%eth0, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.7, , 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.7,", "10.0.0.1"),
        # only a trusted proxy is believed
        ("192.0.2.1", "203.0.113.7", "192.0.2.1"),
        ("::ffff:192.0.2.1", "203.0.113.7", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.7, 192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", " ", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("", "203.0.113.7", None),
        ("not-an-address", "203.0.113.7", None),
    ],
)
def test_who_asks(peer, forwarded, address):
    """Hops are read from the right, as long as each one is a trusted proxy."""
    proxies = [addresses.network(it) for it in PROXIES]

    assert ClientAddresses(proxies, PerMinute(1, what="header")).of(peer, forwarded) == address
