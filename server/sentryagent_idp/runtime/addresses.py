"""IP addresses in the canonical form in which they are counted, compared and stored."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_IPV4_BITS = 0xFFFF_FFFF
_WITH_PORT = re.compile(
    r"(?P<ipv4>[0-9.]+):[0-9]{1,5}|\[(?P<ipv6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](?::[0-9]{1,5})?", re.ASCII
)


def read(text: str) -> Address:
    """Parse an address; an IPv4-mapped one such as `::ffff:192.0.2.1`, from a dual-stack socket, becomes IPv4.

    Raises `ValueError` if the text is not an address or has a zone id: another machine's zones mean nothing here.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        raise ValueError("the address has a zone id")
    return address.ipv4_mapped or address


def read_hop(text: str) -> Address:
    """Parse the address of a hop in `X-Forwarded-For`, to which some gateways add the port; raises `ValueError`."""
    found = _WITH_PORT.fullmatch(text)
    return read(found["ipv4"] or found["ipv6"] if found else text)


def network(text: str) -> Network:
    """Parse a network; a network of IPv4-mapped addresses becomes IPv4. Raises `ValueError`."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone id")
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        prefix = found.prefixlen - _MAPPED.prefixlen
        return IPv4Network((int(found.network_address) & _IPV4_BITS, prefix))
    return found


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def canonical(text: str) -> str:
    """Return an address or network in the form in which it is stored, and any other text unchanged."""
    for form in (read, network):
        try:
            return str(form(text))
        except ValueError:
            continue
    return text


def allowance(address: str | None) -> str:
    """The rate-limit key of an address: the address itself, or the /64 of an IPv6 address, which one host may own."""
    if address is None:
        return "unknown"
    return str(IPv6Network((address, 64), strict=False)) if ":" in address else address
