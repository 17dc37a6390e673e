"""Which addresses are public is decided by our own table, whatever the interpreter thinks."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhook.addresses import is_allowed, networks

NOT_PUBLIC = [
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1"),
    *("192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "2620:4f:8000::1", "3fff::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_a_special_address_is_refused(text: str) -> None:
    assert not is_allowed(text, ())


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert is_allowed(text, ())


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.1.1.1 ", "0x7f.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not is_allowed(text, networks(["0.0.0.0/0", "::/0"]))


def test_an_exception_opens_its_own_network_and_no_other() -> None:
    exceptions = networks(["10.0.0.0/24"])
    assert is_allowed("10.0.0.7", exceptions)
    assert is_allowed("::ffff:10.0.0.7", exceptions)
    assert not is_allowed("10.0.1.7", exceptions)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_in_ipv6_changes_nothing(address: IPv4Address) -> None:
    plain = is_allowed(str(address), ())
    assert is_allowed(f"::ffff:{address}", ()) == plain
    assert is_allowed(f"64:ff9b::{address}", ()) == plain
