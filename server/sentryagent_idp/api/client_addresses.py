"""The client's IP address when requests arrive through proxies."""

from collections.abc import Sequence
from functools import lru_cache

import structlog

from sentryagent_idp.runtime.addresses import Network, read_hop
from sentryagent_idp.runtime.rate_limit import PerMinute

log = structlog.get_logger()


class ClientAddresses:
    """Determines a request's client address; `warnings` limits how often an unreadable header is logged."""

    def __init__(self, proxies: Sequence[Network], warnings: PerMinute) -> None:
        self._proxies = proxies
        self._warnings = warnings
        self._look_up = lru_cache(maxsize=1024)(self._read)

    def of(self, peer: str, forwarded: str) -> str | None:
        """Return the client's address: the peer's, or the one that trusted proxies report in `X-Forwarded-For`.

        The header is read from the right, and only as long as each hop is a trusted proxy: entries that a client wrote
        itself are further left and are ignored. A hop that is not an address ends the walk.
        """
        address = None
        hops = [peer, *reversed(forwarded.split(","))] if forwarded.strip() else [peer]
        for hop in hops:
            try:
                address, is_proxy = self._look_up(hop.strip(" \t"))
            except ValueError:
                self._warn(address)
                return address
            if not is_proxy:
                return address
        return address

    def is_proxy(self, peer: str) -> bool:
        """Whether the peer is a trusted proxy, whose headers about a request are believed."""
        try:
            return self._look_up(peer)[1]
        except ValueError:
            return False

    def _read(self, hop: str) -> tuple[str, bool]:
        """Return the hop's canonical address, and whether it is a trusted proxy; raises `ValueError`."""
        address = read_hop(hop)
        return str(address), any(address in network for network in self._proxies)

    def _warn(self, proxy: str | None) -> None:
        """Log that requests count as the proxy's. The hop itself is left out: a client may have written it."""
        if self._warnings.count("X-Forwarded-For") is None:
            log.warning(
                "X-Forwarded-For cannot be read: the requests count as those of the proxy that sent it",
                proxy=proxy,
            )
