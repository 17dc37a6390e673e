"""Client certificates: shown to the servers that they are for, on connections of their own, and made ready once."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

import jobs.webhook.tls
from jobs.model import Dead, Done, Retry
from tests.jobs.webhook.certificate import client_pem, self_signed
from tests.jobs.webhook.server import OK, Request, Server, says
from tests.jobs.webhook.world import KIND, names, world

LOOKUP = names(shop_example=["127.0.0.1"])


async def _who(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Answers with the name in the client's certificate."""
    (((_, name),),) = writer.get_extra_info("peercert")["subject"]
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
    await writer.drain()


class Bank:
    """A server at shop.example that talks to those who show one of two certificates, and what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.tls, self.ca = self_signed(folder / "server", "shop.example")
        self.pems = {}
        self.tls.verify_mode = ssl.CERT_REQUIRED
        for name in ("alice", "bob"):
            self.pems[name], certificate = client_pem(folder / name, name)
            self.tls.load_verify_locations(certificate)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path)


async def test_each_row_shows_its_own_certificate_on_connections_of_its_own(bank: Bank) -> None:
    async with (
        Server(_who, tls=bank.tls) as server,
        world(lookup=LOOKUP, ca_file=bank.ca, secrets=bank.pems) as w,
    ):
        for name in ("alice", "bob", "alice", "bob"):
            outcome = await w.deliver(server.url(host="shop.example"), client_certificate=f"secret://{name}")
            assert isinstance(outcome, Done)
            assert w.record["response_body"] == name
        assert server.connections == 2
        first, *_others, last = w.records
        assert set(first["phases"]) == {"dns", "connect", "tls", "first_byte", "body"}
        assert first["phases"]["tls"] > 0
        assert sum(first["phases"].values()) <= first["duration_ms"]
        assert "tls" not in last["phases"], "the connection was open"
    assert "PRIVATE KEY" not in json.dumps(w.records)


@pytest.mark.parametrize(
    ("version", "word"),
    [(ssl.TLSVersion.TLSv1_2, "retry"), (ssl.TLSVersion.TLSv1_3, "unknown")],  # 1.3 says no after the first bytes
)
async def test_without_one_the_server_hangs_up_and_a_connection_of_another_row_is_not_used(
    version: ssl.TLSVersion, word: str, bank: Bank
) -> None:
    bank.tls.maximum_version = version
    async with (
        Server(_who, tls=bank.tls) as server,
        world(lookup=LOOKUP, ca_file=bank.ca, secrets=bank.pems) as w,
    ):
        await w.deliver(server.url(host="shop.example"), client_certificate="secret://alice")
        outcome = await w.deliver(server.url(host="shop.example"))
        assert isinstance(outcome, Retry)
        assert w.record["outcome"] == word
        assert len(server.requests) == 1


async def test_a_context_is_made_once_however_many_ask_for_it(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []
    make = jobs.webhook.tls._context

    def counted(ca: Path | None, pem: str | None = None) -> ssl.SSLContext:
        made.append(pem)
        return make(ca, pem)

    monkeypatch.setattr(jobs.webhook.tls, "_context", counted)
    async with (
        Server(_who, tls=bank.tls) as server,
        world(lookup=LOOKUP, ca_file=bank.ca, secrets=bank.pems) as w,
    ):
        url = server.url(host="shop.example")
        await asyncio.gather(*(w.deliver(url, client_certificate="secret://alice") for _ in range(5)))
        await w.deliver(url, client_certificate="secret://alice")
    assert made == [None, bank.pems["alice"]]


async def test_connections_to_many_hosts_share_one_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make one takes longer than a hundred deliveries."""
    tls, ca = self_signed(tmp_path, "*.shop.example")
    hosts = [f"{name}.shop.example" for name in "abcde"]
    async with (
        Server(says(OK), tls=tls) as server,
        world(lookup=names(**{host.replace(".", "_"): ["127.0.0.1"] for host in hosts}), ca_file=ca) as w,
    ):
        for maker in ("ssl.create_default_context", "aiohttp.connector._make_ssl_context", "jobs.webhook.tls._context"):
            monkeypatch.setattr(maker, None)  # from here on none can be made
        for host in hosts:
            assert isinstance(await w.deliver(server.url(host=host)), Done)
        assert server.connections == len(hosts)


async def test_the_server_is_told_which_host_is_meant(bank: Bank) -> None:
    tls, ca = bank.tls, bank.ca
    tls.verify_mode = ssl.CERT_NONE
    told: list[str | None] = []
    tls.sni_callback = lambda _sock, name, _context: told.append(name)
    async with Server(says(OK), tls=tls) as server, world(lookup=LOOKUP, ca_file=ca) as w:
        await w.deliver(server.url(host="shop.example"))
    assert told == ["shop.example"]


async def _breaks(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Says something that is no TLS."""
    os.write(writer.get_extra_info("socket").fileno(), b"nonsense" * 100)
    await asyncio.Event().wait()


async def test_a_receiver_that_breaks_tls_after_the_request_is_to_blame(bank: Bank) -> None:
    """The error's number is that of a firewall's refusal: taken for ours, it would be tried for ever."""
    bank.tls.verify_mode = ssl.CERT_NONE
    async with Server(_breaks, tls=bank.tls) as server, world(lookup=LOOKUP, ca_file=bank.ca) as w, asyncio.timeout(60):
        outcome = await w.deliver(server.url(host="shop.example"))
    assert (w.record["outcome"], w.record["code"]) == ("unknown", "tls_error")
    assert isinstance(outcome, Retry)
    assert outcome.lane_fault


async def test_a_certificate_that_was_replaced_counts_at_once(bank: Bank) -> None:
    secrets = {"mine": bank.pems["alice"]}
    async with Server(_who, tls=bank.tls) as server, world(lookup=LOOKUP, ca_file=bank.ca, secrets=secrets) as w:
        url = server.url(host="shop.example")
        for name in ("alice", "bob"):
            w.secrets._env["JOBSD_SECRET_MINE"] = bank.pems[name]  # type: ignore[index]  # as a rotation would
            await w.deliver(url, client_certificate="secret://mine")
            assert w.record["response_body"] == name


def _encrypted(pem: str) -> str:
    certificate, mark, key = pem.partition("-----BEGIN PRIVATE KEY")
    loaded = serialization.load_pem_private_key((mark + key).encode(), None)
    sealed = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    return certificate + sealed.decode()


@pytest.mark.parametrize("how", ["nonsense", "no key", "encrypted", "another's key", "missing"])
async def test_a_certificate_that_cannot_be_used_sends_nothing(how: str, bank: Bank) -> None:
    alice, bob = bank.pems["alice"], bank.pems["bob"]
    pem = {
        "nonsense": "hunter2",
        "no key": alice.partition("-----BEGIN PRIVATE KEY")[0],
        "encrypted": _encrypted(alice),
        "another's key": alice.partition("-----BEGIN PRIVATE KEY")[0] + bob[bob.index("-----BEGIN PRIVATE KEY") :],
    }
    secrets = {"mine": pem[how]} if how in pem else {}
    async with Server(_who, tls=bank.tls) as server, world(lookup=LOOKUP, ca_file=bank.ca, secrets=secrets) as w:
        outcome = await w.deliver(server.url(host="shop.example"), client_certificate="secret://mine")
        assert server.connections == 0
    assert isinstance(outcome, Retry)  # for the operator to put right, within the ladder's time
    assert outcome.code == ("secret_missing" if how == "missing" else "secret_invalid")
    assert "hunter2" not in outcome.reason


async def test_a_certificate_is_not_taken_for_plain_http() -> None:
    async with Server(says(OK)) as server, world(secrets={"mine": "x"}) as w:
        outcome = await w.deliver(server.url(), client_certificate="secret://mine")
        assert server.connections == 0
    assert isinstance(outcome, Dead)
    assert outcome.code == "bad_url"


@pytest.mark.parametrize("certificate", ["-----BEGIN CERTIFICATE-----", "mine", ""])
def test_a_row_holds_no_private_key(certificate: str) -> None:
    args: dict[str, Any] = {"url": "https://x/", "payload": 1, "client_certificate": certificate}
    with pytest.raises(msgspec.ValidationError, match="write secret://NAME"):
        KIND.decode(json.dumps(args))


async def test_an_authority_of_ones_own_is_believed_beside_the_systems(bank: Bank, tmp_path: Path) -> None:
    tls, ca = self_signed(tmp_path / "plain", "shop.example")
    async with Server(says(OK), tls=tls) as server:
        for believed, code in ((None, "tls_error"), (bank.ca, "tls_error"), (ca, "http_200")):
            async with world(lookup=LOOKUP, ca_file=believed) as w:
                await w.deliver(server.url(host="shop.example"))
                assert w.record["code"] == code
    assert len(jobs.webhook.tls._context(ca).get_ca_certs()) > 1
