"""What the tests of the channel send, and through what."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from jobs.email.address import mailbox
from jobs.email.message import EmailArgs, Message, compose
from jobs.email.relay import Mail
from jobs.email.reply import Answer, DeliveryReport
from jobs.email.settings import EmailSettings, RelaySettings
from jobs.secrets import Secrets
from jobs.values import Secret

SENDER = "Shop <no-reply@shop.example>"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SETTINGS = EmailSettings(from_=SENDER)
SECRETS = Secrets(env={"JOBSD_SECRET_RELAY": "hunter2"})
PASSWORD = Secret("secret://relay")

_ids = itertools.count(1)


def args(**given: Any) -> EmailArgs:
    """Args as a row's JSON has them."""
    return msgspec.convert({"to": "jane@x.example", "subject": "Hello", "text": "Hello, Jane.\n"} | given, EmailArgs)


def message(settings: EmailSettings = SETTINGS, **given: Any) -> Message:
    return compose(args(**given), settings, identity=str(next(_ids)), now=NOW)


def mail(relay: RelaySettings, *, clock: Callable[[], float] | None = None) -> Mail:
    settings = EmailSettings(from_=SENDER, relays={"main": relay})
    return Mail(settings, SECRETS, clock=clock) if clock else Mail(settings, SECRETS)


async def send(mail: Mail, *to: str, **given: Any) -> DeliveryReport:
    one = message(to=to or ("jane@x.example",), **given)
    return await mail.send(one, one.recipients, mailbox(SENDER))


async def send_large(mail: Mail) -> DeliveryReport:
    """More than the buffers of a connection hold."""
    one = message()
    large = replace(one, wire=one.wire + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 7000)
    return await mail.send(large, one.recipients, one.sender)


def only(report: DeliveryReport) -> Answer:
    [answer] = report.answers
    return answer


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
