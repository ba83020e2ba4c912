"""What only we can reach stays out of users' reach, however its address is written."""

import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.clients.guard import Allowed, is_public, permitted, system_resolve
from genonaut.core.errors import DeliveryFailedError, DeliveryRefusedError

PRIVATE = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::10.0.0.1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:a00:1::1", "2002:808:808::"),
    *("2001:0:4136:e378::1", "2001:db8::1", "3fff::1", "fc00::1", "fd12::1", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "100::1", "5f00::1", "::ffff:0:10.0.0.1"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00::1"]
PUBLIC += ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "203.0.114.7"]


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_is_not_public_is_known(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_known(text):
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_address_means_the_same_inside_ipv6(address):
    assert is_public(address) == is_public(ip_address(f"::ffff:{address}"))
    assert is_public(address) == is_public(ip_address(f"64:ff9b::{address}"))


@given(st.ip_addresses())
def test_nothing_is_public_to_us_that_python_knows_to_be_private(address):
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        embedded = getattr(address, "ipv4_mapped", None)
        assert not is_public(address) or embedded is not None


def resolving(*answers):
    left = list(answers)
    return lambda host, port: left.pop(0)


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    with pytest.raises(DeliveryRefusedError) as refused:
        permitted("h", 80, Allowed(), timeout_s=1, resolve=resolving(["8.8.8.8", "10.0.0.1"]))
    assert refused.value.code == "address_refused"
    assert "10.0.0.1" not in str(refused.value)


def test_the_addresses_that_were_judged_are_given():
    found = permitted("h", 80, Allowed(), timeout_s=1, resolve=resolving(["8.8.8.8", "2a00::1"]))
    assert found == ["8.8.8.8", "2a00::1"]


def test_a_network_may_be_allowed():
    allowed = Allowed.of(["10.1.0.0/16", "::1/128"])
    for address in ("10.1.2.3", "::1", "::ffff:10.1.2.3"):
        assert permitted("h", 80, allowed, timeout_s=1, resolve=resolving([address])) == [address]
    with pytest.raises(DeliveryRefusedError):
        permitted("h", 80, allowed, timeout_s=1, resolve=resolving(["10.2.0.1"]))


def test_a_name_service_that_is_silent_is_not_waited_for():
    began = time.monotonic()

    def silent(host: str, port: int) -> list[str]:
        time.sleep(2)
        return []

    with pytest.raises(DeliveryFailedError):
        permitted("h", 80, Allowed(), timeout_s=0.1, resolve=silent)
    assert time.monotonic() - began < 1


def test_a_name_that_is_not_known_may_be_known_later():
    for resolve in (resolving([]), lambda *_: system_resolve("name.invalid", 80)):
        with pytest.raises(DeliveryFailedError):
            permitted("h", 80, Allowed(), timeout_s=5, resolve=resolve)
    with pytest.raises(DeliveryFailedError):
        permitted("x" * 70 + ".example", 80, Allowed(), timeout_s=5)
