from __future__ import annotations

from typing import get_args

import pytest

from jobs.email.judge import judge
from jobs.email.reply import Answer, Fault, Phase, Reply, reply_text

REPLIES: list[tuple[Phase, int, str, str, str]] = [
    ("final", 250, "2.0.0 queued", "delivered", "delivered"),
    ("connect", 554, "5.7.1 no", "deferred", "relay_connect"),
    ("connect", 421, "busy", "deferred", "relay_connect"),
    ("hello", 550, "no", "deferred", "relay_hello"),
    ("tls", 454, "4.7.0 TLS not available", "deferred", "relay_tls"),
    ("auth", 535, "5.7.8 wrong", "deferred", "relay_auth"),
    ("auth", 454, "4.7.0 later", "deferred", "relay_auth"),
    ("mail", 421, "4.3.2 closing", "deferred", "relay_closing"),
    ("rcpt", 421, "", "deferred", "relay_closing"),
    ("data", 421, "", "deferred", "relay_closing"),
    ("final", 421, "", "deferred", "relay_closing"),
    ("mail", 530, "5.7.0 authentication required", "deferred", "relay_auth"),
    ("rcpt", 535, "", "deferred", "relay_auth"),
    ("final", 454, "Throttling failure: Maximum sending rate exceeded.", "deferred", "relay_throttled"),
    ("final", 454, "Throttling failure: Daily message quota exceeded.", "deferred", "relay_quota"),
    ("rcpt", 450, "4.2.0 Greylisted, see http://postgrey.example", "soft", "greylisted"),
    ("rcpt", 451, "4.7.1 Gray-listing in action", "soft", "greylisted"),
    ("rcpt", 550, "Greylisted, come back", "soft", "greylisted"),
    ("rcpt", 452, "4.2.2 mailbox full", "soft", "mailbox_full"),
    ("rcpt", 452, "4.5.3 too many recipients", "soft", "too_many_recipients"),
    ("rcpt", 451, "local error", "soft", "smtp_451"),
    ("final", 452, "4.3.1 disk", "soft", "smtp_452"),
    ("rcpt", 450, "5.1.1 the code counts before the enhanced one", "soft", "smtp_450"),
    ("rcpt", 550, "5.1.1 no such user; try again with another", "hard", "bad_recipient"),
    ("rcpt", 550, "5.1.10 null MX", "hard", "bad_recipient"),
    ("rcpt", 550, "5.1.2 no such domain", "hard", "bad_recipient"),
    ("mail", 553, "5.1.8 sender domain", "hard", "bad_sender"),
    ("rcpt", 550, "5.2.1 disabled", "hard", "mailbox_disabled"),
    ("rcpt", 552, "5.2.2 full", "soft", "mailbox_full"),
    ("rcpt", 552, "full house", "soft", "smtp_552"),
    ("final", 552, "no", "hard", "smtp_552"),
    ("final", 550, "5.4.5 Daily user sending limit exceeded", "deferred", "relay_quota"),
    ("mail", 452, "4.3.1 Daily sending quota reached", "deferred", "relay_quota"),
    ("mail", 450, "4.3.2 not accepting mail", "deferred", "relay_closing"),
    ("rcpt", 450, "4.3.2 not accepting mail", "soft", "smtp_450"),
    ("rcpt", 554, "5.7.1 <a@x>: Relay access denied", "soft", "relaying_denied"),
    ("rcpt", 550, "relay not permitted", "soft", "relaying_denied"),
    ("data", 554, "SMTP synchronization error", "soft", "pipelining"),
    ("final", 552, "5.3.4 too big", "hard", "too_large"),
    ("final", 550, "5.7.1 looks like spam", "hard", "policy"),
    ("final", 554, "5.7.26 DMARC", "hard", "policy"),
    ("rcpt", 550, "no", "hard", "smtp_550"),
    ("final", 554, "transaction failed", "hard", "smtp_554"),
    ("rcpt", 550, "Connection frequency limited", "soft", "slow_down"),
    ("rcpt", 550, "5.7.1 too many messages, try again later", "soft", "slow_down"),
    ("rcpt", 550, "DNS lookup failure", "soft", "slow_down"),
    ("rcpt", 550, "sending rate too high", "soft", "slow_down"),
    ("rcpt", 554, "temporarily rejected", "soft", "slow_down"),
    ("rcpt", 550, "separate accounts only", "hard", "smtp_550"),
    ("rcpt", 550, "4.1.8 the two disagree", "soft", "smtp_550"),
    ("data", 250, "no go-ahead", "soft", "unexpected_reply"),
    ("mail", 354, "", "soft", "unexpected_reply"),
    ("final", 354, "", "unknown", "unexpected_reply"),
]


@pytest.mark.parametrize(("phase", "code", "text", "result", "word"), REPLIES)
def test_a_reply_means(phase: Phase, code: int, text: str, result: str, word: str) -> None:
    verdict = judge(Answer("a@x", phase, Reply(code, text)))
    assert (verdict.result, verdict.code) == (result, word)
    assert verdict.why.startswith(str(code))


FAULTS: list[tuple[Phase, Fault, str, str]] = [
    ("queue", "rate", "deferred", "relay_rate"),
    ("queue", "busy", "deferred", "relay_busy"),
    ("queue", "resting", "deferred", "relay_resting"),
    ("connect", "refused", "deferred", "relay_connect"),
    ("connect", "timeout", "deferred", "relay_connect"),
    ("tls", "tls", "deferred", "relay_tls"),
    ("auth", "auth", "deferred", "relay_auth"),
    ("mail", "lost", "deferred", "relay_lost"),
    ("rcpt", "lost", "soft", "connection_lost"),
    ("data", "timeout", "soft", "connection_timeout"),
    ("final", "lost", "unknown", "lost_after_dot"),
    ("final", "timeout", "unknown", "timeout_after_dot"),
    ("final", "garbled", "unknown", "garbled_after_dot"),
    ("hello", "smtputf8", "hard", "smtputf8_unsupported"),
    ("hello", "8bit", "hard", "8bit_unsupported"),
    ("hello", "size", "hard", "too_large"),
]


@pytest.mark.parametrize(("phase", "fault", "result", "word"), FAULTS)
def test_no_reply_means(phase: Phase, fault: Fault, result: str, word: str) -> None:
    verdict = judge(Answer("a@x", phase, fault=fault))
    assert (verdict.result, verdict.code) == (result, word)


def test_only_what_is_lost_after_the_dot_is_unknown() -> None:
    for phase in get_args(Phase):
        for fault in ("lost", "timeout", "garbled"):
            assert (judge(Answer("a@x", phase, fault=fault)).result == "unknown") == (phase == "final")


@pytest.mark.parametrize(
    "raw", [b"a\0b", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31mred", b"\xc2\x85", "日本".encode() * 1000, b"x" * 5000]
)
def test_what_a_relay_says_can_always_be_stored(raw: bytes) -> None:
    words = Reply(550, reply_text(raw)).words
    assert len(words.encode("utf-8")) <= 1024
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in words)
