"""IP addresses in the one form in which they are counted, compared and stored."""

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
    """The address; `::ffff:192.0.2.1`, as a dual-stack socket writes it, is the IPv4 address that it stands for.

    Raises `ValueError` where the text is not an address, or names a zone: another machine's zones mean nothing here.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        raise ValueError("the address has a zone id")
    return address.ipv4_mapped or address


def read_hop(text: str) -> Address:
    """The address of a hop in `X-Forwarded-For`, where some gateways add the port; raises `ValueError`."""
    found = _WITH_PORT.fullmatch(text)
    return read(found["ipv4"] or found["ipv6"] if found else text)


def network(text: str) -> Network:
    """The network; one of IPv4-mapped addresses is the IPv4 network. Raises `ValueError`."""
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
    """The address or network as it is stored, whatever its spelling; any other text as it is."""
    for form in (read, network):
        try:
            return str(form(text))
        except ValueError:
            continue
    return text


def allowance(address: str | None) -> str:
    """Whose allowance a request spends: that of the address, of IPv6 that of its /64, since one host has all of it."""
    if address is None:
        return "unknown"
    return str(IPv6Network((address, 64), strict=False)) if ":" in address else address
