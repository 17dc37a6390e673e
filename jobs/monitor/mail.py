"""A mail server's check: its greeting, EHLO and STARTTLS, and no message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import aiosmtplib

from jobs.email.reply import Reply, reply_text
from jobs.monitor.reach import Reach, expiry, unwell
from jobs.monitor.reading import Look, Unwell
from jobs.monitor.target import Target


async def check_mail(reach: Reach, target: Target, look: Look, *, helo: str, starttls: bool) -> None:
    """Unwell if it does not greet, or does not offer the TLS that is wanted, or cannot do it."""
    implicit = target.scheme == "smtps"
    context = await reach.tls() if implicit or starttls else None
    sock = await reach.connect(target.host, target.port, look)
    client = aiosmtplib.SMTP(
        hostname=target.host,
        sock=sock,
        use_tls=implicit,
        start_tls=False,  # by hand below: so it is known which step failed
        tls_context=context,
        local_hostname=helo,
        timeout=None,
    )
    try:
        with _in_our_words():
            await _walk(client, look, starttls=starttls and not implicit)
        look.expires_at = expiry(client.get_transport_info("ssl_object"))
    finally:
        transport = client.transport
        client.close()
        if transport is not None:
            cast(asyncio.Transport, transport).abort()


async def _walk(client: aiosmtplib.SMTP, look: Look, *, starttls: bool) -> None:
    with look.phase("greeting"):
        await client.connect()
    with look.phase("hello"):
        await client.ehlo()
    if starttls:
        if not client.supports_extension("starttls"):
            raise Unwell("no_starttls", "it does not offer STARTTLS")
        with look.phase("tls"):
            await client.starttls()
        with look.phase("hello_again"):
            await client.ehlo()


@contextmanager
def _in_our_words() -> Iterator[None]:
    """aiosmtplib's errors; it hides those of the connection behind its own."""
    with unwell():
        try:
            yield
        except aiosmtplib.SMTPResponseException as error:
            text = reply_text(error.message.encode("utf-8", "surrogateescape"))
            if error.code < 0:
                raise Unwell("no_smtp", "it does not speak SMTP") from error
            raise Unwell(f"smtp_{error.code}", f"it says {Reply(error.code, text).words[:200]!r}") from error
        except aiosmtplib.SMTPException as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from error
            raise Unwell("connection_closed", "it closed the connection in the middle") from error
