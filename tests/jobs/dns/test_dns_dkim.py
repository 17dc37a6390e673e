"""DKIM: keys compared as bytes, and what else in a record makes receivers refuse signatures."""

from __future__ import annotations

import base64
from email.message import EmailMessage

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from jobs.dns.expectation import Expectation
from jobs.dns.values import normal
from jobs.email.dkim_keys import SigningKey
from tests.jobs.dns.book import DOMAIN, Book

RSA = SigningKey(DOMAIN, "s1", rsa.generate_private_key(65537, 2048))
OTHER = SigningKey(DOMAIN, "s1", rsa.generate_private_key(65537, 2048))
ED = SigningKey(DOMAIN, "s1", ed25519.Ed25519PrivateKey.generate())
P = RSA.public


async def said(*records: str, value: str = RSA.record) -> tuple[str, str]:
    finding = await Book({(RSA.host, "TXT"): list(records)}).judge("DKIM", value, "s1")
    return finding.verdict, finding.reason


SAME = {
    "as it is": (RSA.record, RSA.record),
    "the key alone is expected": (RSA.record, P),
    "p= alone": (f"p={P}", RSA.record),
    "more tags": (f"p={P}; k=rsa; h=sha1:sha256; n=note; s=email", RSA.record),
    "no spaces, capitals": (f"v=DKIM1;k=RSA;p={P};", RSA.record),
    "spaces everywhere": (f" v = DKIM1 ; p = {P[:80]} {P[80:]} ", RSA.record),
    "no padding": (f"v=DKIM1; p={P.rstrip('=')}", RSA.record),
    "flags": (f"v=DKIM1; p={P}; t=s; s=*; unknown=1", RSA.record),
    "quoted in two": (RSA.record, f'"v=DKIM1; k=rsa; " "p={P}"'),
    "ed25519": (ED.record, ED.record),
}


@pytest.mark.parametrize("case", SAME)
async def test_the_same_key_matches_however_its_record_is_written(case: str) -> None:
    record, value = SAME[case]
    assert await said(record, value=value) == ("match", "")


WRONG = {
    "another key": (OTHER.record, "other_value"),
    "revoked": ("v=DKIM1; p=", "revoked"),
    "revoked, in testing": ("v=DKIM1; k=rsa; p= ; t=y", "revoked"),
    "our bytes, another type": (f"v=DKIM1; k=ed25519; p={P}", "other_key_type"),
    "another type": (ED.record, "other_key_type"),
    "sha1 alone": (f"v=DKIM1; h=sha1; p={P}", "no_sha256"),
    "not for mail": (f"v=DKIM1; s=tlsrpt; p={P}", "not_for_mail"),
    "DKIM2": (f"v=DKIM2; p={P}", "not_a_key"),
    "v= last": (f"p={P}; v=DKIM1", "not_a_key"),
    "two p=": (f"v=DKIM1; p={P}; p={P}", "not_a_key"),
    "a part that is no tag": (f"v=DKIM1; p={P}; and more", "not_a_key"),
    "not base64": (f"v=DKIM1; p={P[:-9]}!{P[-8:]}", "not_a_key"),
    "quoted": (f'"v=DKIM1; k=rsa; p={P}"', "quoted"),
    "a bare key": (P, "not_a_key"),
    "too long": (f"v=DKIM1; p={P}; n={'x' * 20_000}", "not_a_key"),
    "SPF": ("v=spf1 -all", "not_a_key"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_receivers_would_not_verify_by_is_named(case: str) -> None:
    record, reason = WRONG[case]
    assert await said(record) == ("mismatch", reason)


async def test_two_keys_under_one_selector_are_none() -> None:
    assert await said(RSA.record, OTHER.record) == ("mismatch", "several_records")
    assert await said(RSA.record, "some other text") == ("match", "")


async def test_the_flags_of_a_key_are_told() -> None:
    finding = await Book({(RSA.host, "TXT"): f"v=DKIM1; t=y:s; h=sha256; p={P}"}).judge("DKIM", P, "s1")
    assert finding.facts == {"h": "sha256", "t": "y:s"}
    assert [note[:4] for note in finding.notes] == ["t=y:", "t=s:"]


@given(cuts=st.lists(st.integers(0, 400), max_size=8), seed=st.randoms(use_true_random=False))
async def test_splits_spaces_and_the_order_of_tags_are_no_difference(cuts: list[int], seed: object) -> None:
    text = P
    for at in sorted(cuts, reverse=True):
        text = f"{text[:at]} {text[at:]}"
    tags = ["k=rsa", f"p={text}", "h=sha256", "n=x"]
    seed.shuffle(tags)  # type: ignore[attr-defined] # it is a Random
    assert await said("; ".join(["v=DKIM1", *tags])) == ("match", "")


SIGNERS = {"rsa": RSA, "another": OTHER, "ed25519": ED}
RECORDS = {
    **{name: signer.record for name, signer in SIGNERS.items()},
    "p= alone": f"p={P}",
    "revoked": "v=DKIM1; p=",
    "not for mail": f"v=DKIM1; s=x; p={P}",
}


@pytest.mark.parametrize("signing", SIGNERS)
@pytest.mark.parametrize("published", RECORDS)
async def test_we_say_match_exactly_where_another_implementation_verifies(signing: str, published: str) -> None:
    signer, record = SIGNERS[signing], RECORDS[published]
    finding = await Book({(signer.host, "TXT"): record}).judge("DKIM", signer.record, "s1")
    assert (finding.verdict == "match") == verifies(signer, record)


def verifies(signer: SigningKey, record: str) -> bool:
    """Whether dkimpy takes what `signer` has signed, when it finds `record`."""
    mail = EmailMessage()
    mail["From"] = f"a@{DOMAIN}"
    mail.set_content("hello")
    wire = mail.as_bytes()
    key = signer.private
    private = (
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        if isinstance(key, rsa.RSAPrivateKey)
        else base64.b64encode(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    )
    algorithm = signer.algorithm.encode()
    signature = dkim.sign(
        wire, b"s1", DOMAIN.encode(), private, include_headers=[b"From"], signature_algorithm=algorithm
    )
    try:
        return bool(dkim.verify(signature + wire, dnsfunc=lambda name, timeout=5: record.encode()))
    except ValueError:  # an RSA signature is no ed25519 one
        return False


def test_a_selector_is_put_where_keys_are() -> None:
    for name, place in (
        ("s1", "s1._domainkey.shop.example"),
        ("s1.mail", "s1.mail._domainkey.shop.example"),
        ("s1._domainkey", "s1._domainkey.shop.example"),
        ("S1._domainkey.news", "s1._domainkey.news.shop.example"),
        ("s1._domainkey.shop.example.", "s1._domainkey.shop.example"),
    ):
        assert Expectation(type="DKIM", value=P, name=name).at(DOMAIN).question == (place, "TXT")


@pytest.mark.parametrize("name", [None, "@"])
def test_without_a_selector_there_is_nothing_to_look_for(name: str | None) -> None:
    with pytest.raises(ValueError, match="SELECTOR"):
        Expectation(type="DKIM", value=P, name=name)
    with pytest.raises(ValueError, match="no selector"):
        Expectation(type="DKIM", value=P, name="_domainkey").at(DOMAIN)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("v=DKIM1; p=", "revokes"),
        ("v=DKIM1; k=dsa; p=AAAA", "k=dsa"),
        ("p=%%%%", "not base64"),
        ("v=DKIM1; k=rsa", "not base64|missing"),
    ],
)
def test_a_value_that_is_no_key_is_refused(value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        normal("DKIM", value)
