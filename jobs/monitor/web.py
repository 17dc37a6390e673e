"""A web page's check: one GET over HTTP/1.1, its status, and words that must be in it."""

from __future__ import annotations

from collections.abc import Sequence

import h11

from jobs.monitor.reach import Line, Reach, unwell
from jobs.monitor.reading import Look, Unwell
from jobs.monitor.target import Target

READ_MAX = 64 * 1024
"""So much of a body is looked through."""

_PIECE = 16 * 1024


async def check_web(
    reach: Reach, target: Target, look: Look, *, user_agent: str, statuses: Sequence[range], contains: str | None
) -> None:
    """Unwell if it does not answer as it should.  Redirects are answers, and are not followed."""
    async with reach.line(target.host, target.port, look, tls=target.scheme == "https") as line:
        spoken = h11.Connection(h11.CLIENT)
        with unwell(), look.phase("response"):
            response = await _ask(spoken, line, target, user_agent)
        if not any(response.status_code in good for good in statuses):
            raise Unwell(f"http_{response.status_code}", f"it answers with status {response.status_code}")
        if contains is not None:
            with unwell(), look.phase("body"):
                body = await _body(spoken, line)
            if contains.encode() not in body:
                raise Unwell("not_contained", f"its answer does not contain {contains!r}")


async def _ask(spoken: h11.Connection, line: Line, target: Target, user_agent: str) -> h11.Response:
    request = h11.Request(
        method="GET",
        target=target.path or "/",
        headers=[
            ("host", target.authority),
            ("user-agent", user_agent),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("connection", "close"),
        ],
    )
    line.writer.write((spoken.send(request) or b"") + (spoken.send(h11.EndOfMessage()) or b""))
    await line.writer.drain()
    while not isinstance(event := await _next(spoken, line), h11.Response):
        if not isinstance(event, h11.InformationalResponse):
            raise Unwell("connection_closed", "it closed the connection without a response")
    return event


async def _body(spoken: h11.Connection, line: Line) -> bytes:
    """The beginning of it."""
    found = bytearray()
    while len(found) < READ_MAX and isinstance(event := await _next(spoken, line), h11.Data):
        found += event.data
    return bytes(found[:READ_MAX])


async def _next(spoken: h11.Connection, line: Line) -> object:
    """An event of h11, or its word for none."""
    piece: bytes | None = None
    try:
        while (event := spoken.next_event()) is h11.NEED_DATA:
            piece = await line.reader.read(_PIECE)
            spoken.receive_data(piece)
    except h11.RemoteProtocolError as error:
        if piece == b"":
            raise Unwell("connection_closed", "it closed the connection without a whole response") from error
        raise Unwell("protocol_error", f"it does not speak HTTP/1.1: {str(error)[:200]}") from error
    return event
