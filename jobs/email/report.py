"""A bounce as mail servers write it (RFC 3464), read: who did not get the message, and why."""

from __future__ import annotations

import email
from dataclasses import dataclass
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses
from typing import Any

MOST_PARTS = 20
MOST_RECIPIENTS = 500

_CAME_TO = ("delivered-to", "x-original-to", "envelope-to", "to")
"""Headers in which mail servers note the address that a message was for; the signature decides which is ours."""


class NoReport(ValueError):
    """The message says nothing of a delivery that failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient.  `recipient` None: it is not said who; `action` as RFC 3464 has it: failed, delayed, …"""

    recipient: str | None
    action: str
    status: str
    words: str


def read(raw: bytes) -> tuple[Failure, ...]:
    """NoReport if it is none, or cannot be read.  The end of `raw` may be missing."""
    try:
        return _failures(email.message_from_bytes(raw, policy=compat32))
    except NoReport:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # what strangers' bytes bring
        raise NoReport(f"it cannot be read: {type(error).__name__}") from error


def came_to(raw: bytes) -> tuple[str, ...]:
    """Addresses that a message was for, by its header."""
    try:
        return _came_to(email.message_from_bytes(raw, policy=compat32))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NoReport(f"it cannot be read: {type(error).__name__}") from error


def _came_to(message: Message) -> tuple[str, ...]:
    said = [str(value) for name in _CAME_TO for value in message.get_all(name, [])]
    return tuple(address for _name, address in getaddresses(said) if address)


def _failures(message: Message) -> tuple[Failure, ...]:
    if message.get_content_type() != "multipart/report":
        raise NoReport(f"it is {message.get_content_type()}, not multipart/report")
    parts: Any = message.get_payload()
    for part in parts[:MOST_PARTS] if isinstance(parts, list) else ():
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            groups = part.get_payload()
            found = [_failure(group) for group in groups if isinstance(group, Message) and _is_of_one(group)]
            if not found:
                raise NoReport("it names nobody")
            return tuple(found[:MOST_RECIPIENTS])
    raise NoReport("it has no part message/delivery-status")


def _is_of_one(group: Message) -> bool:
    """The first group of fields is about the message, each further one about a recipient."""
    return any(group.get(name) for name in ("final-recipient", "original-recipient", "action", "status"))


def _failure(group: Message) -> Failure:
    status = str(group.get("status") or "").split("(")[0].strip()
    action = str(group.get("action") or "failed").strip().lower()
    words = " ".join(str(group.get("diagnostic-code") or "").split())
    return Failure(
        _address(group.get("original-recipient")) or _address(group.get("final-recipient")),
        action,
        status or "5.0.0",
        words.partition(";")[2].strip() or words,
    )


def _address(field: str | None) -> str | None:
    """Of `rfc822; ann@x.example`."""
    if field is None:
        return None
    text = str(field).partition(";")[2].strip().strip("<>")
    return text if "@" in text else None
