"""What we sign verifies, with the verifier that everybody has; and what was changed or added on the way does not."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from dkim.canonicalization import Relaxed

from jobs.email.canonical import relaxed_body, relaxed_field
from jobs.email.dkim import NoKey, Signer
from jobs.email.dkim_settings import DkimSettings
from jobs.email.settings import EmailSettings
from jobs.model import Done, Snooze
from jobs.secrets import Secrets
from jobs.values import Secret
from tests.jobs.email.dkim_keys import Dns, dns_of, ed25519_pem, pem, rsa_pem
from tests.jobs.email.mail import NOW, SECRETS, mail, message
from tests.jobs.email.peer import Peer
from tests.jobs.email.row import Row

pytestmark = pytest.mark.req("OR-01")


def rsa_key(**given: Any) -> DkimSettings:
    return DkimSettings(**{"domain": "shop.example", "selector": "r1", "private_key": Secret(rsa_pem())} | given)


def ed_key(**given: Any) -> DkimSettings:
    return rsa_key(selector="e1", private_key=Secret(ed25519_pem()), **given)


def signer(*keys: DkimSettings, unsigned: Sequence[str] = ()) -> Signer:
    return Signer(keys or [rsa_key(), ed_key()], SECRETS, unsigned=unsigned)


def verdicts(wire: bytes, by: Signer, domain: str = "shop.example") -> list[bool]:
    """Of each signature, from the top."""
    keys = by.keys(domain)
    return [_verifies(wire, n, dns_of(keys)) for n in range(len(keys))]


def _verifies(wire: bytes, n: int, dns: Dns) -> bool:
    try:
        found: bool = dkim.DKIM(wire).verify(idx=n, dnsfunc=dns)
    except dkim.ValidationError:  # another body
        return False
    return found


_PIECES = (
    "Hello", "=?utf-8?q?a=0D=0Ab?=", "Ünïcödé", "日本語の件名", "🎉", "a  b", "\ta", "x" * 200, "https://x.example/?a=b=c",
    ".", "..", "From me", "=20", "end ", "", "--=_x", "ﬁn", "𝔘", "a;b", "b=", "h=from:to",
)  # fmt: skip


def generated(dice: random.Random) -> bytes:
    """A message as `email` composes it, of pieces that are hard to fold, to encode or to canonicalise."""

    def text(most: int, between: str) -> str:
        return between.join(dice.choices(_PIECES, k=dice.randrange(1, most)))

    given: dict[str, Any] = {
        "to": [f"u{n}@x.example" for n in range(dice.randrange(1, 9))],
        "subject": text(12, " ").replace("\t", " "),
        "text": text(40, dice.choice(["\n", "\r\n", " \n", "\n\n", "\t\n "])) + "\n" * dice.randrange(4),
        "headers": {"List-Unsubscribe": "<https://x.example/u>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
    }
    if dice.random() < 0.5:
        given["html"] = f"<p>{text(30, '<br> ')}</p>"
    if dice.random() < 0.2:
        given["attachments"] = [{"filename": "a b.pdf", "content": "AAECAw=="}]
    return message(**given).wire


def test_generated_messages_verify_by_both_keys() -> None:
    dice, by = random.Random(1), signer()
    for _ in range(150):
        wire = generated(dice)
        signed = by.signed(wire, "shop.example", NOW)
        assert signed.endswith(wire)
        assert verdicts(signed, by) == [True, True]


def test_canonical_forms_are_those_of_dkimpy() -> None:
    dice = random.Random(2)
    for _ in range(2000):
        body = (
            b"".join(dice.choices([b" ", b"\t", b"\r\n", b"a", b".", b"\xff", b" \r\n"], k=dice.randrange(30)))
            + b"\r\n"
        )
        theirs = Relaxed.canonicalize_body(body)
        assert relaxed_body(body) == (b"" if theirs == b"\r\n" else theirs)
        value = b"".join(dice.choices([b" ", b"\t", b"\r\n ", b"A", b":"], k=dice.randrange(20)))
        [(name, said)] = Relaxed.canonicalize_headers([(b"X-Name", value + b"\r\n")])
        assert relaxed_field(b"X-Name:" + value) == name + b":" + said.removesuffix(b"\r\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"From: ", b"From: Evil <evil@x.example>\r\nFrom: "),
        (b"Subject: Hello", b"Subject: Hello!"),
        (b"To: ", b"Cc: more@x.example\r\nTo: "),
        (b"Date: ", b"Reply-To: evil@x.example\r\nDate: "),
        (b"To: ", b"Sender: evil@x.example\r\nTo: "),
        (b"One-Click", b"Two-Click"),
        (b"List-Unsubscribe:", b"List-Unsubscribe: <https://evil.example>\r\nList-Unsubscribe:"),
        (b"Hello, Jane", b"Hello, June"),
        (b"Content-Type: text/plain", b"Content-Type: text/html"),
    ],
)
def test_what_is_changed_or_added_on_the_way_breaks_every_signature(old: bytes, new: bytes) -> None:
    by = signer()
    unsubscribe = {"List-Unsubscribe": "<https://x.example/u>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    wire = by.signed(message(headers=unsubscribe).wire, "shop.example", NOW)
    changed = wire.replace(old, new, 1)
    assert changed != wire
    assert (verdicts(wire, by), verdicts(changed, by)) == ([True, True], [False, False])


def test_one_click_unsubscription_stands_inside_the_signature() -> None:
    """RFC 8058, 4: both headers are covered, or the button is not shown."""
    wire = signer(rsa_key()).signed(
        message(headers={"List-Unsubscribe": "<https://x.example/u>"}).wire, "shop.example", NOW
    )
    covered = re.sub(rb"\s", b"", re.findall(rb"h=([^;]*);", wire)[0]).decode().split(":")
    assert covered.count("list-unsubscribe") == 2  # the one that is there, and none more
    assert covered.count("list-unsubscribe-post") == 1
    assert covered.count("from") == 2


def test_headers_that_the_relay_rewrites_can_be_left_out() -> None:
    by = signer(unsigned=["Date", "message-id"])
    wire = by.signed(message().wire, "shop.example", NOW)
    rewritten = re.sub(rb"Date: [^\r]*", b"Date: another", re.sub(rb"Message-ID: [^\r]*", b"Message-ID: <a@b>", wire))
    assert rewritten != wire
    assert verdicts(rewritten, by) == [True, True]


def test_the_key_is_that_of_the_domain_and_subdomains_are_named() -> None:
    by = signer(
        rsa_key(subdomains=("News.shop.example",)), ed_key(domain="other.example"), rsa_key(selector="r2", signs=False)
    )
    wire = message().wire
    assert [key.host for key in by.keys("shop.example")] == ["r1._domainkey.shop.example"]
    assert b"d=shop.example" in by.signed(wire, "news.SHOP.example", NOW)
    for domain in ("mail.shop.example", "example", "evilshop.example", "shop.example.evil"):
        assert by.signed(wire, domain, NOW) == wire


def test_a_secret_that_was_replaced_counts_at_once_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "dkim").write_text(rsa_pem())
    by = Signer([rsa_key(private_key=Secret("secret://dkim"))], Secrets((tmp_path,), {}))
    [first] = by.keys("shop.example")
    (tmp_path / "dkim").write_text(ed25519_pem())
    [second] = by.keys("shop.example")
    assert (first.algorithm, second.algorithm) == ("rsa-sha256", "ed25519-sha256")
    (tmp_path / "dkim").write_text("rubbish")
    with pytest.raises(NoKey, match=r"r1\._domainkey\.shop\.example: it is no private key in PEM"):
        by.keys("shop.example")
    (tmp_path / "dkim").unlink()
    with pytest.raises(NoKey, match="no secret named 'dkim'"):
        by.keys("shop.example")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"domain": "shop"}, "domain: 'shop' is no domain"),
        ({"domain": "a b.example"}, "domain: "),
        ({"selector": "a b"}, "selector: 'a b'"),
        ({"selector": ""}, "selector: ''"),
        ({"subdomains": ("other.example",)}, "subdomains: 'other.example' is no subdomain"),
        ({"private_key": Secret("rubbish")}, "private_key: it is no private key in PEM; make one with: openssl"),
        ({"private_key": Secret(rsa_pem(1024))}, "private_key: the RSA key has 1024 bits"),
        ({"private_key": Secret(pem(ec.generate_private_key(ec.SECP256R1())))}, "private_key: it is neither an RSA"),
    ],
)
def test_a_wrong_key_is_refused_by_the_name_of_its_field(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        rsa_key(**given)


def test_two_keys_under_one_selector_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^dkim: two keys have the selector 'r1' of 'shop.example'"):
        EmailSettings(dkim={"a": rsa_key(), "b": rsa_key(domain="SHOP.example")})
    with pytest.raises(ValueError, match=r"^dkim_unsigned: "):
        EmailSettings(dkim_unsigned=("FROM",))


def test_a_record_fits_the_strings_of_dns_and_holds_the_public_key() -> None:
    for one in signer().keys("shop.example"):
        strings = re.findall(r'"([^"]*)"', one.zone_line)
        assert all(len(string) <= 255 for string in strings)
        assert "".join(strings) == one.record


async def test_the_kind_signs_what_it_sends() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        out.signer = by = signer()
        assert isinstance(await Row(out).run(), Done)
        [received] = peer.received
        assert verdicts(received.wire, by) == [True, True]
        assert (await rehearsed(Row(out)))["dkim"] == ["r1._domainkey.shop.example", "e1._domainkey.shop.example"]
        await out.close()


async def test_mail_waits_for_a_key_that_is_missing_and_is_not_sent_unsigned() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        out.signer = signer(replace(rsa_key(), private_key=Secret("secret://nowhere")))
        outcome = await Row(out).run()
        assert isinstance(outcome, Snooze)
        assert (outcome.code, "nowhere" in outcome.reason) == ("dkim_key_missing", True)
        assert peer.connections == 0
        await out.close()


async def rehearsed(row: Row) -> dict[str, Any]:
    outcome = await row.run(dry_run=True)
    assert isinstance(outcome, Done)
    found: dict[str, Any] = outcome.result
    return found
