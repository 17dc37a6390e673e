"""One request of any kind to somebody else's server: sent once, or only rehearsed, by the guarded client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import httpx2

from jobs.model import Done, Outcome
from jobs.webhook.attempt import Message, Reply
from jobs.webhook.delivery import shown_url
from jobs.webhook.faults import Fault, fault_of
from jobs.webhook.judge import Verdict, judge_fault
from jobs.webhook.transport import HttpClient, Transport
from jobs.webhook.trip import Trip


def guarded(client: httpx2.AsyncClient) -> Transport:
    """What is below `ctx.http`."""
    if not isinstance(client, HttpClient):
        raise TypeError("ctx.http was not made by open_http, so nothing would guard this request")
    return client.guarded


async def sent(sending: Awaitable[None], reply: Reply) -> None:
    """Wait for `sending`, which fills `reply`.  Of an attempt that was stopped before a byte had left the cancellation
    goes on, and its row goes back as it was; else the receiver may have acted on it, so it counts."""
    try:
        await sending
    except asyncio.CancelledError:
        if not reply.sent:
            raise


def silence(reply: Reply) -> Verdict:
    """Of an attempt that no readable answer came to; also of one that was stopped in mid-flight."""
    return judge_fault(reply.fault or Fault("interrupted"), sent=reply.sent)


async def rehearse(message: Message, transport: Transport, **more: Any) -> Outcome:
    """Everything but the connection.  `more` goes into the result."""
    try:
        found = await transport.guard.addresses(message.target)
    except OSError as error:
        return judge_fault(fault_of(error, Trip()), sent=False).outcome
    would = f"{message.method} {len(message.body)} bytes to {shown_url(str(message.target.url))}"
    return Done({"would": would, "headers": sorted(message.headers), "addresses": len(found), **more})
