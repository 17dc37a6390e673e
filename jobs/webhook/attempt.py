"""One POST from the name's lookup to the last byte kept, under one deadline; what came of it is a value."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic, time

import aiohttp
import msgspec

from jobs.webhook import trip as trips
from jobs.webhook.exchange import Answer
from jobs.webhook.faults import Fault
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.target import Target
from jobs.webhook.transport import Transport

_STALE_S = 1.0  # a dead pooled connection shows at once; what takes longer may have reached the receiver's code


class Message(msgspec.Struct, frozen=True):
    """A request ready to be written.  `tls` None: no client certificate.  `once`: never written a second time."""

    target: Target
    headers: Mapping[str, str]
    body: bytes
    tls: ssl.SSLContext | None = None
    method: str = "POST"
    once: bool = False


@dataclass(slots=True)
class Reply:
    """What is known of an attempt, filled while it runs, so that a deadline or a cancellation leaves what came.

    `status` None: no readable head of a response came; `fault` says why, and is None until something is known.  Once
    there is a head it decides, and a body that breaks off is only marked `truncated`: the receiver has spoken.
    `began_at`: seconds since 1970.
    """

    trip: trips.Trip | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False
    fault: Fault | None = None
    began_at: float = field(default_factory=time)
    duration_s: float = 0.0
    body_bytes: int = 0

    @property
    def sent(self) -> bool:
        """Bytes of the request may have left."""
        return self.trip is not None and self.trip.sent_at is not None

    @property
    def request_bytes(self) -> int:
        """Length of the request's body, if any of it may have left."""
        return self.body_bytes if self.sent else 0


async def post(
    transport: Transport, message: Message, settings: WebhookSettings, timeout_s: float, into: Reply
) -> None:
    """Send `message` and fill `into`.  Raises nothing but cancellation.

    When a connection out of the pool turns out to be dead before any byte of a response, the message goes out a second
    time at once: the commonest false failure, and receivers know a repeated `webhook-id`.  One that may go out `once`
    only takes no connection that lay idle.
    """
    began = monotonic()
    into.body_bytes = len(message.body)
    try:
        with transport.deadlines.within(timeout_s):
            try:
                await _once(transport, message, settings, into, trips.begin(), fresh=message.once)
            except Fault as fault:
                if message.once or not _is_stale(into, fault):
                    raise
                await _once(transport, message, settings, into, trips.begin(), fresh=True)
    except Fault as fault:
        into.fault = fault
    except TimeoutError:
        into.fault = Fault(_late(into.trip, transport))
        into.truncated = into.status is not None
    finally:
        into.duration_s = monotonic() - began


async def _once(
    transport: Transport,
    message: Message,
    settings: WebhookSettings,
    into: Reply,
    trip: trips.Trip,
    *,
    fresh: bool = False,
) -> None:
    into.trip = trip
    answer = await transport.post(
        message.target, message.headers, message.body, trip, message.tls, fresh=fresh, method=message.method
    )
    try:
        into.status = answer.status
        into.headers = answer.headers
        trip.answered()
        if not answer.content.at_eof():
            await _read(answer, settings, into)
    finally:
        trip.ended()
        answer.release()  # back to the pool when read to its end, closed otherwise


async def _read(answer: Answer, settings: WebhookSettings, into: Reply) -> None:
    """Keep the first `response_keep` bytes as they came off the wire, undecoded, and stop at `response_max`: a small
    rest is read, so that the connection can be used again."""
    content, seen = answer.content, 0
    try:
        while chunk := await content.readany():
            seen += len(chunk)
            into.body += chunk[: settings.response_keep - len(into.body)]
            if seen > settings.response_max:
                break
    except (aiohttp.ClientError, OSError):
        into.body += answer.rest()[: settings.response_keep - len(into.body)]
        into.truncated = True  # the head stands; see Reply
    into.truncated |= seen > len(into.body)


def _is_stale(reply: Reply, fault: Fault) -> bool:
    trip = reply.trip
    dead = fault.code in ("connection_closed", "connection_reset") and not fault.had_reply
    return dead and trip is not None and trip.reused and monotonic() - trip.started_at < _STALE_S


def _late(trip: trips.Trip | None, transport: Transport) -> str:
    """What the whole attempt's deadline interrupted."""
    if trip is None:
        return "pool_timeout"
    if trip.sent_at is not None:
        return "timeout"
    if trip.dialled:
        return "connect_timeout" if transport.proxy is None or trip.tunnelled else transport.proxy.late()
    return "dns_timeout" if trip.resolving else "pool_timeout"
