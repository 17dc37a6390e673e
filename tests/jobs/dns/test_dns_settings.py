"""What the operator may write under [dns]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from jobs.dns import roots, suffixes
from jobs.dns.recursive import system_servers
from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings, Server, server
from jobs.webhook.addresses import is_public, parse


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:5353", Server("127.0.0.1", 5353)),
        ("9.9.9.9", Server("9.9.9.9", 53)),
        ("[::1]:53", Server("::1", 53)),
        ("[2001:db8::1]:5353", Server("2001:db8::1", 5353)),
        ("[::1]", Server("::1", 53)),
        ("2001:db8::1", Server("2001:db8::1", 53)),
    ],
)
def test_a_resolver_is_an_address_and_perhaps_a_port(text: str, place: Server) -> None:
    assert server(text) == place
    assert server(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "localhost", "dns.example.com:53", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1", "1.2.3.4:x"]
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a resolver"):
        server(text)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"resolvers": ("127.0.0.1", "localhost")}, "resolvers"),
        ({"resolvers": ("127.0.0.1",) * 17}, "resolvers"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": 61.0}, "timeout"),
        ({"tries": 0}, "tries"),
        ({"edns_payload": 100}, "edns_payload"),
        ({"concurrency": 0}, "concurrency"),
        ({"quorum": 0}, "quorum"),
        ({"validating": ("dns.example.com",)}, "validating"),
        ({"resolvers": ("127.0.0.1",), "validating": ("127.0.0.2",)}, "validating"),
        ({"roots": ("198.41.0.4:53",)}, "roots"),
        ({"allow_addresses": ("127.0.0.1/8",)}, "allow_addresses"),
        ({"authority_port": 65536}, "authority_port"),
        ({"authority_rate": 0}, "authority_rate"),
        ({"check_questions": 9}, "check_questions"),
        ({"check_timeout": 0.0}, "check_timeout"),
    ],
)
def test_a_value_out_of_bounds_names_its_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        DnsSettings(**wrong)


def test_a_validating_resolver_may_be_written_as_it_likes() -> None:
    assert DnsSettings(resolvers=("127.0.0.1", "::1"), validating=("127.0.0.1:53", "[::1]:53"))


def test_the_roots_are_those_of_iana() -> None:
    assert len(roots.ADDRESSES) == len(set(roots.ADDRESSES)) == 26
    assert all(is_public(parse(address)) for address in roots.ADDRESSES)


@pytest.mark.parametrize("name", ["com", "co.uk", "github.io", "nowhere", "xn--55qx5d.cn", "anything.ck"])
def test_what_strangers_register_under_is_nobodys_own(name: str) -> None:
    assert suffixes.is_public(name)


@pytest.mark.parametrize("name", ["example.com", "shop.co.uk", "me.github.io", "shop.nowhere", "www.ck"])
def test_what_somebody_has_registered_is_his(name: str) -> None:
    assert not suffixes.is_public(name)


def test_without_resolvers_the_systems_are_asked() -> None:
    assert Resolver(DnsSettings()).servers == system_servers()


def test_a_system_that_names_none_has_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def empty() -> dns.resolver.Resolver:
        (tmp_path / "resolv.conf").write_text("search example.test\n")
        return type(unset)(str(tmp_path / "resolv.conf"))

    unset = dns.resolver.Resolver(configure=False)
    monkeypatch.setattr(dns.resolver, "Resolver", empty)
    assert system_servers() == (Server("127.0.0.1", 53),)


def test_a_resolver_that_is_named_twice_has_one_vote() -> None:
    resolver = Resolver(DnsSettings(resolvers=("9.9.9.9", "9.9.9.9:53", "1.1.1.1")))
    assert resolver.servers == (Server("9.9.9.9"), Server("1.1.1.1"))
