"""The receivers of the demo: a webhook, a mail and a DNS sink on loopback, some of which fail the first time."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.demo_dns import DnsSink
from daemon.demo_mail import MailSink
from daemon.demo_webhooks import WebhookSink
from jobs.email.dkim_keys import SigningKey

HOST = "127.0.0.1"
ADMIN_PORT = 9464
WEBHOOK_PORT, MAIL_PORT, DNS_PORT = 9465, 9466, 9467
"""Wished for, so that rows that still wait when the demo stops find their receivers at the next start; where one is
taken, any free port will do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens on 127.0.0.1."""

    admin: int
    webhook: int
    mail: int
    dns: int


class Sinks:
    """`async with Sinks(secret, mail_folder, dkim) as sinks:` all three answer; leaving closes them."""

    def __init__(self, secret: str, mail_folder: Path, dkim: SigningKey) -> None:
        self.webhook = WebhookSink(secret)
        self.mail = MailSink(mail_folder)
        self.dns = DnsSink(dkim)
        self._stack = AsyncExitStack()
        self._ports: list[int] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            for sink, wish in ((self.webhook, WEBHOOK_PORT), (self.mail, MAIL_PORT), (self.dns, DNS_PORT)):
                self._ports.append(await wished_or_free(sink.start, wish))
                opened.push_async_callback(sink.close)
            self._stack = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def ports(self) -> Ports:
        """Theirs, and one for the admin server that is free just now."""
        return Ports(free_port(ADMIN_PORT), *self._ports)


async def wished_or_free(start: Callable[[str, int], Awaitable[int]], wish: int) -> int:
    """Where `start` listens now: at the port wished for, or at any free one."""
    try:
        return await start(HOST, wish)
    except OSError:
        return await start(HOST, 0)


def free_port(wish: int) -> int:
    """`wish` if nobody listens there, else a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wish))
        except OSError:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
