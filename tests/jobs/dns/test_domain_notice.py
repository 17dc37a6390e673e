"""What owners of domains are told, and that they can act on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jobs.dns.notice import About, event, mail
from jobs.dns.policy import DomainPolicy
from jobs.dns.registered import to_publish, wanted
from jobs.dns.state import Memory, Notice, State, Step
from jobs.email.message import EmailArgs

pytestmark = pytest.mark.req("BJ-20")

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
TOKEN = "abcdefghijklmnopqrstuvwxyz234567"
POLICY = DomainPolicy(page="https://shop.example/domains/{domain}")
WANTED = wanted("shop.test", "_jobsd-challenge", TOKEN, '[{"type": "MX", "value": "mx.shop.example"}]')


def about(notice: Notice, before: State, mismatch_s: float = 0.0, verified_at: datetime = NOW) -> About:
    state: State = notice
    memory = Memory(
        state=state, since=NOW, slot=0.5, mismatch_s=mismatch_s, noticed=notice, noticed_at=NOW, verified_at=verified_at
    )
    step = Step(memory=memory, next_check_at=NOW + timedelta(hours=1), notice=notice)
    return About("shop.test", "acme", before, step, "ns2.shop.test lacks it.", to_publish(WANTED))


@pytest.mark.parametrize(
    ("notice", "before", "subject"),
    [
        ("verified", "pending", "shop.test is verified"),
        ("verified", "expired", "shop.test is verified"),
        ("degraded", "degraded", "shop.test: its DNS records need a look"),
        ("failed", "degraded", "shop.test is no longer verified"),
        ("expired", "pending", "shop.test was not verified"),
    ],
)
def test_each_notice_is_a_mail_that_the_email_kind_takes(notice: Notice, before: State, subject: str) -> None:
    args = mail(about(notice, before), "ann@shop.test", POLICY)
    said = msgspec.convert(args, EmailArgs)
    assert said.subject == subject
    assert said.text is not None
    assert said.text.endswith("https://shop.example/domains/shop.test\n")
    has_reason = "ns2.shop.test lacks it." in said.text
    assert has_reason == (notice != "verified")
    assert (f"_jobsd-challenge.shop.test  TXT  token={TOKEN}" in said.text) == has_reason
    assert ("mx.shop.example" in said.text) == has_reason


@pytest.mark.parametrize("before", ["degraded", "failed", "expired", "pending"])
def test_one_that_was_verified_before_is_well_again(before: State) -> None:
    args = mail(about("verified", before, verified_at=NOW - timedelta(days=9)), "ann@shop.test", POLICY)
    assert args["subject"] == "shop.test is well again"
    assert "as they should be again" in args["text"]


def test_a_warning_says_until_when_there_is_time() -> None:
    """A day of five has passed."""
    warned = about("degraded", "degraded", mismatch_s=86_400.0)
    assert event(warned, POLICY)["fails_at"] == "2026-03-08T12:00:00Z"
    assert "2026-03-08T12:00:00Z" in mail(warned, "ann@shop.test", POLICY)["text"]
    assert event(about("failed", "degraded"), POLICY)["fails_at"] is None


def test_a_template_of_the_operators_has_all_that_the_event_has() -> None:
    policy = replace(POLICY, template="domain_notice")
    args = mail(about("failed", "degraded"), "ann@shop.test", policy)
    assert msgspec.convert(args, EmailArgs).template == "domain_notice"
    assert args["data"]["notice"] == "failed"
    assert args["data"]["reason"] == "ns2.shop.test lacks it."
    assert {**event(about("failed", "degraded"), policy)}.items() <= args["data"].items()


def test_what_is_to_be_published_is_said_in_the_words_of_a_providers_form() -> None:
    records = wanted(
        "shop.test",
        "_shop-challenge",
        TOKEN,
        '[{"type": "SPF", "value": "include:spf.shop.example"}, {"type": "DMARC", "value": "none"},'
        ' {"type": "NS", "value": "ns1.shop.example"}, {"type": "CNAME", "name": "go", "value": "shop.example"}]',
    )
    assert [(one["name"], one["type"], one["value"]) for one in to_publish(records)] == [
        ("_shop-challenge.shop.test", "TXT", f"token={TOKEN}"),
        ("shop.test", "TXT", "one record v=spf1 … with include:spf.shop.example"),
        ("_dmarc.shop.test", "TXT", "v=DMARC1; p=none, or stricter"),
        ("go.shop.test", "CNAME", "shop.example"),
    ]
