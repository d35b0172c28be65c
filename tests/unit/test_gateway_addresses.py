from ipaddress import ip_network

import pytest

from services.gateway.src.addresses import Addresses, is_within

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "ip"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # not from a trusted proxy: not believed
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the left-most is whatever the client wrote
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all trusted: the first in the chain
        ("10.0.0.1", "6.6.6.6, nonsense", "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("", "198.51.100.1", "unknown"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_ours(peer: str, forwarded: str | None, ip: str) -> None:
    assert Addresses(TRUSTED).client(peer, forwarded).ip == ip


def test_nobody_is_trusted_unless_told() -> None:
    assert Addresses(()).client("127.0.0.1", "198.51.100.1").ip == "127.0.0.1"
    assert not Addresses(()).trusts("127.0.0.1")
    assert Addresses(TRUSTED).trusts("10.2.3.4")


def test_an_ipv6_network_is_one_client() -> None:
    addresses = Addresses(())
    one, other = addresses.client("2001:db8::1", None), addresses.client("2001:db8::2", None)
    assert one.ip != other.ip
    assert one.owner == other.owner == "2001:db8::/64"
    assert addresses.client("::ffff:192.0.2.1", None).owner == "192.0.2.1"


def test_networks_hold_their_addresses_only() -> None:
    assert is_within("10.1.2.3", TRUSTED)
    assert not is_within("11.1.2.3", TRUSTED)
    assert not is_within("unknown", TRUSTED)
