"""Who is at the other end: the one address that a request counts for."""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from heartguard.settings import Network

IPV6_PREFIX = 64
"""An IPv6 customer holds at least a /64: one bucket for each single address would be as good as no limit."""


@dataclass(frozen=True, slots=True)
class Address:
    """A client's address, and what counts as one client when its requests are limited."""

    ip: str
    owner: str


UNKNOWN = Address("unknown", "unknown")


class Addresses:
    """Reads client addresses, believing ``X-Forwarded-For`` only from trusted proxies."""

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted
        self._read = lru_cache(maxsize=4096)(self._parse)

    def client(self, peer: str, forwarded: str | None) -> Address:
        """The right-most address that no trusted proxy has; each proxy appends the one it was called from."""
        address, trusted = self._read(peer)
        if not trusted or not forwarded:
            return address
        for hop in reversed(forwarded.split(",")):
            found, trusted = self._read(hop.strip())
            if found is UNKNOWN:
                break
            address = found
            if not trusted:
                break
        return address

    def trusts(self, peer: str) -> bool:
        return self._read(peer)[1]

    def _parse(self, text: str) -> tuple[Address, bool]:
        try:
            ip = unmapped(without_port(text))
        except ValueError:
            return UNKNOWN, False
        return Address(str(ip), _owner(ip)), any(ip in network for network in self._trusted)


def unmapped(text: str) -> IPv4Address | IPv6Address:
    """The address; an IPv4 address written as IPv6 (``::ffff:192.0.2.1``) is the IPv4 address."""
    ip = ip_address(text)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _owner(ip: IPv4Address | IPv6Address) -> str:
    return str(ip) if ip.version == 4 else str(ip_network((ip, IPV6_PREFIX), strict=False))


def is_within(ip: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    return any(address in network for network in networks)
