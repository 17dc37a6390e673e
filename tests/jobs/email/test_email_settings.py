from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jobs.email.relay import Mail
from jobs.email.settings import EmailSettings, RelaySettings
from jobs.values import Secret, rate
from tests.jobs.email.mail import SECRETS


def test_tls_is_required_unless_told_otherwise() -> None:
    relay = RelaySettings(host="mail.example")
    assert (relay.tls, relay.verify_certificate, relay.port) == ("required", True, 587)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"port": 0}, "port"),
        ({"tls": "maybe"}, "tls"),
        ({"username": "u"}, "username"),
        ({"password": Secret("p")}, "username"),
        ({"username": "u", "password": Secret("p"), "password_file": "/x"}, "password"),
        ({"connections": 0}, "connections"),
        ({"final_timeout": 0.0}, "final_timeout"),
        ({"helo": "a b"}, "helo"),
        ({"burst": 5}, "burst"),
        ({"rate": rate("2000000/d")}, "rate"),
    ],
)
def test_a_wrong_relay_is_refused_by_the_name_of_its_field(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=f"^{names}: "):
        RelaySettings(**{"host": "mail.example"} | changes)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"from_": "nobody"}, "from"),
        ({"from_": "a@x\r\nBcc: b@x"}, "from"),
        ({"message_id_domain": "x y"}, "message_id_domain"),
        ({"max_size": 10}, "max_size"),
        ({"relays": {"other": RelaySettings(host="x")}}, "relays"),
        ({"relays": {"main": RelaySettings(host="x", fallback=("main",))}}, r"relays: main\.fallback names"),
        ({"relays": {"main": RelaySettings(host="x", fallback=("backup",))}}, r"relays: main\.fallback names"),
        (
            {"relays": {"main": RelaySettings(host="x", fallback=("b", "b")), "b": RelaySettings(host="x")}},
            r"relays: main\.fallback names",
        ),
    ],
)
def test_a_wrong_section_is_refused_by_the_name_of_its_field(given: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=f"^{names}"):
        EmailSettings(**given)


def test_every_key_says_what_it_changes() -> None:
    for section in (EmailSettings, RelaySettings):
        assert all(field.metadata["doc"].endswith(".") for field in dataclasses.fields(section))


def test_certificates_that_cannot_be_read_are_seen_before_anything_is_sent() -> None:
    relay = RelaySettings(host="mail.example", ca_file="/nowhere/ca.pem")
    with pytest.raises(OSError, match=r"\w"):
        Mail(EmailSettings(relays={"main": relay}), SECRETS)
