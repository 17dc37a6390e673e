"""`jobsd email dkim`: the records of the keys, whether DNS has them, and what is wrong with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from jobs.email.srs import Srs
from tests.jobs.dns.server import DnsServer
from tests.jobs.email.dkim_keys import ed25519_pem, rsa_pem
from tests.life.cli_terminal import Terminal, opened


@pytest.fixture
def terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Terminal]:
    """Two keys, one of them behind a reference; there is no database, and none is needed."""
    (tmp_path / "rsa.pem").write_text(rsa_pem())
    monkeypatch.setenv("JOBSD_SECRET_DKIM_2026", ed25519_pem())
    for terminal in opened(capfd, monkeypatch, "postgresql://127.0.0.1:1/nowhere", tmp_path):
        terminal.configure(
            f"""
            [email.dkim.old]
            domain = "shop.example"
            selector = "s2025"
            private_key_file = "{tmp_path}/rsa.pem"
            [email.dkim.new]
            domain = "shop.example"
            selector = "s2026"
            private_key = "secret://dkim-2026"
            signs = false
            """
        )
        yield terminal


async def test_records_are_printed_as_a_zone_file_has_them(terminal: Terminal) -> None:
    old, new = (await terminal.ok("email", "dkim")).out.splitlines()
    assert old.startswith('s2025._domainkey.shop.example. 3600 IN TXT "v=DKIM1; k=rsa; p=')
    assert new.startswith('s2026._domainkey.shop.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=')
    assert (await terminal.ok("email", "dkim", "new")).out.splitlines() == [new]
    [shown] = (await terminal.ok("email", "dkim", "new", "--json")).json
    assert (shown["host"], shown["signs"], shown["published"]) == ("s2026._domainkey.shop.example", False, None)
    assert "PRIVATE" not in old + new


async def test_dns_is_asked_whether_it_has_them(terminal: Terminal) -> None:
    old, new = (await terminal.ok("email", "dkim")).out.splitlines()
    async with DnsServer(zone="shop.example.") as server:
        terminal.configure(terminal.file.read_text() + f'[dns]\nresolvers = ["{server.place}"]\n')
        server.add(old, new.replace("; p=", "; p=AAAA"))
        said = await terminal("email", "dkim", "--check")
        assert said.code == 1
        assert said.out.splitlines()[1::2] == [
            "; old: published",
            "; new: DNS has another key under this selector",
        ]
        assert (await terminal.ok("email", "dkim", "old", "--check")).code == 0
        server.fault = "servfail"
        assert "not in DNS: servfail" in (await terminal("email", "dkim", "old", "--check")).out


async def test_what_is_wrong_with_a_key_is_said_with_its_place(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = await terminal("email", "dkim", "newest")
    assert (said.code, said.err) == (78, "jobsd: there is no [email.dkim.newest]; the config has old, new\n")
    monkeypatch.delenv("JOBSD_SECRET_DKIM_2026")
    said = await terminal("email", "dkim")
    assert said.code == 78
    assert "s2026._domainkey.shop.example: no secret named 'dkim-2026'" in said.err
    said = await terminal("doctor", "--json")
    [found] = [row for row in said.json if row["check"] == "dkim"]
    assert (found["verdict"], "cannot be signed" in found["says"]) == ("fail", True)
    (tmp_path / "rsa.pem").write_text("rubbish")
    said = await terminal("config", "check")
    assert said.code == 78
    assert "email.dkim.old.private_key: it is no private key in PEM; make one with: openssl" in said.err
    assert str(terminal.file) in said.err


async def test_a_bounce_s_address_is_decoded_and_a_forged_one_refused(terminal: Terminal) -> None:
    srs = Srs("fwd.shop.example", ["new", "old"])
    made = srs.forward("jane@x.example", time())
    assert made is not None
    said = await terminal("email", "srs", made.address)
    assert (said.code, said.err) == (78, "jobsd: email.forward.domain is not set\n")
    terminal.configure('[email.forward]\ndomain = "fwd.shop.example"\nsrs_secrets = ["newer", "new"]\n')
    assert (await terminal.ok("email", "srs", made.address)).out == "jane@x.example\n"
    assert (await terminal.ok("email", "srs", made.address.lower(), "--json")).json["for"] == "jane@x.example"
    said = await terminal("email", "srs", made.address.replace("=jane@", "=june@"))
    assert (said.code, said.out) == (1, "")
    assert "its hash is not ours" in said.err
