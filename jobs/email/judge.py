"""What an answer means.  Pure, and in this order: how far the message came, reply code, enhanced code, text, default.

The tables hold what relays and receivers say (RFC 5321, RFC 3463, the trackers of Postal and Forward Email).  A wrong
guess costs a few retries, or loses a message that could have been delivered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jobs.email.reply import Answer, Fault, Phase, Reply

Result = Literal["delivered", "soft", "hard", "unknown", "deferred", "suppressed"]
"""Taken; may work later; never will; handed over and never answered; not the message's fault; not even tried."""

UNSUBSCRIBED = "unsubscribed"
"""The code of a recipient who asked for no more of this: nobody need be told that he got none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is a word of a bounded vocabulary, `after_s` asks for at least that much patience, `why` is for people."""

    result: Result
    code: str
    after_s: float = 0.0
    why: str = ""


_BEFORE_MAIL: tuple[Phase, ...] = ("connect", "tls", "hello", "auth")

_FAULTS: Mapping[Fault, Verdict] = {
    "resting": Verdict("deferred", "relay_resting"),
    "rate": Verdict("deferred", "relay_rate"),
    "busy": Verdict("deferred", "relay_busy"),
    "smtputf8": Verdict("hard", "smtputf8_unsupported"),
    "8bit": Verdict("hard", "8bit_unsupported"),
    "size": Verdict("hard", "too_large"),
}

_THROTTLED_S = 60.0
_QUOTA_S = 3600.0

_LOGIN_WANTED = (530, 534, 535, 538)

_ADDRESS_IS_WRONG = Verdict("hard", "bad_recipient")
_BY_STATUS: Mapping[str, Verdict] = {  # without the class: a 4 or a 5 stands before it
    "1.1": _ADDRESS_IS_WRONG,
    "1.2": _ADDRESS_IS_WRONG,
    "1.3": _ADDRESS_IS_WRONG,
    "1.6": _ADDRESS_IS_WRONG,
    "1.10": _ADDRESS_IS_WRONG,
    "1.7": Verdict("hard", "bad_sender"),
    "1.8": Verdict("hard", "bad_sender"),
    "2.1": Verdict("hard", "mailbox_disabled"),
    "2.2": Verdict("soft", "mailbox_full"),  # said with a 5, it is emptied all the same
    "2.3": Verdict("hard", "too_large"),
    "3.4": Verdict("hard", "too_large"),
    "4.5": Verdict("deferred", "relay_quota", _QUOTA_S),  # Gmail
}
_TOO_MANY_RECIPIENTS = 552
"""Or too large, or a full mailbox: RFC 5321, 4.5.3.1.10 wants it taken for 452 where the status does not tell."""

_QUOTA = re.compile(r"daily (?:\w+ ){0,2}(?:quota|limit)|quota exceeded for today", re.IGNORECASE)
_NO_RELAYING = re.compile(r"relay(?:ing)? (?:access )?(?:is )?(?:denied|not (?:permitted|allowed))", re.IGNORECASE)
_PIPELINING = re.compile(r"pipelin|synchroni[sz]ation", re.IGNORECASE)
_THROTTLED = re.compile(r"throttl|maximum sending rate", re.IGNORECASE)
_GREYLISTED = re.compile(r"gr[ae]y[- ]?list", re.IGNORECASE)
_SOFT_AT_HEART = re.compile(
    r"frequency|\brate\b|rate[- ]limit|too many|too much mail|try (?:again|later)|gr[ae]y[- ]?list|\bdns\b|temporar",
    re.IGNORECASE,
)
_NO_SUCH_USER = re.compile(
    r"(?:no such|unknown|invalid) (?:user|recipient|mailbox|address)|"
    r"(?:user|recipient|mailbox|address|account)\b.{0,80}\b(?:unknown|not found|(?:does not|doesn't) exist)",
    re.IGNORECASE,
)


def judge(answer: Answer) -> Verdict:
    """What came of one recipient."""
    verdict = _judge(answer)
    said = f"{answer.reply.code} {answer.reply.words}".strip() if answer.reply else answer.note or answer.fault or ""
    return replace(verdict, why=said)


def _judge(answer: Answer) -> Verdict:
    if answer.reply is None:
        return _by_phase(answer.phase, answer.fault)
    reply = answer.reply
    if answer.phase in _BEFORE_MAIL:
        return Verdict("deferred", f"relay_{answer.phase}")
    if reply.code == 421:
        return Verdict("deferred", "relay_closing")
    if reply.code in _LOGIN_WANTED:
        return Verdict("deferred", "relay_auth")
    match reply.code // 100, answer.phase:
        case 2, "final":
            return Verdict("delivered", "delivered")
        case 4, _:
            return _transient(reply, answer.phase)
        case 5, _:
            return _permanent(reply, answer.phase)
        case _, "final":  # no answer to the dot: it may have the message, or not
            return Verdict("unknown", "unexpected_reply")
        case _:
            return Verdict("soft", "unexpected_reply")


def _by_phase(phase: Phase, fault: Fault | None) -> Verdict:
    """No reply.  From RCPT on an attempt is charged: what breaks there may be the message's doing, and a row that
    always breaks its connection must come to an end."""
    if phase == "queue" and fault == "stopped":
        return Verdict("deferred", "stopped")
    if fault is not None and fault in _FAULTS:
        return _FAULTS[fault]
    if phase in _BEFORE_MAIL:
        return Verdict("deferred", f"relay_{phase}")
    if phase == "mail":
        return Verdict("deferred", f"relay_{fault}")
    if phase == "final":
        return Verdict("unknown", f"{fault}_after_dot")
    return Verdict("soft", f"connection_{fault}")


def _transient(reply: Reply, phase: Phase) -> Verdict:
    if _QUOTA.search(reply.text):
        return Verdict("deferred", "relay_quota", _QUOTA_S)
    if _THROTTLED.search(reply.text):
        return Verdict("deferred", "relay_throttled", _THROTTLED_S)
    if phase == "mail" and reply.enhanced == "4.3.2":  # said before it knew anything of the message
        return Verdict("deferred", "relay_closing")
    match reply.enhanced:
        case "4.2.2":
            return Verdict("soft", "mailbox_full")
        case "4.5.3":
            return Verdict("soft", "too_many_recipients")
    if _GREYLISTED.search(reply.text):
        return Verdict("soft", "greylisted")
    return Verdict("soft", f"smtp_{reply.code}")


def _permanent(reply: Reply, phase: Phase) -> Verdict:
    """An address or a size is wrong for good.  5.7.x and what has no code is also said by receivers that mean "slower",
    and by relays that want a login, so there the text decides."""
    class_, _, status = (reply.enhanced or "").partition(".")
    if class_ == "5" and status in _BY_STATUS:
        return _BY_STATUS[status]
    if class_ == "4":
        return Verdict("soft", f"smtp_{reply.code}")
    if word := _softened(reply.text):
        return Verdict("soft", word)
    if reply.code == _TOO_MANY_RECIPIENTS and phase == "rcpt":
        return Verdict("soft", f"smtp_{reply.code}")
    if not status.startswith("7.") and _NO_SUCH_USER.search(reply.text):
        return _ADDRESS_IS_WRONG
    return Verdict("hard", "policy" if status.startswith("7.") else f"smtp_{reply.code}")


def _softened(text: str) -> str | None:
    """What a refusal says that is not meant for ever."""
    if _GREYLISTED.search(text):
        return "greylisted"
    if _NO_RELAYING.search(text):  # a login or an address list that somebody will mend
        return "relaying_denied"
    if _PIPELINING.search(text):
        return "pipelining"
    return "slow_down" if _SOFT_AT_HEART.search(text) else None
