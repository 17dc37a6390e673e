"""From a host name to a session: aiosmtplib connects, starts TLS and logs in, then hands the connection over."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import cast

import aiosmtplib

from jobs.email.reply import Fault, Phase, Reply, reply_text
from jobs.email.session import Session
from jobs.email.settings import RelaySettings
from jobs.secrets import SecretMissing, Secrets


class RelayFault(Exception):
    """There is no session to be had, through no fault of any message."""

    def __init__(self, phase: Phase, fault: Fault, note: str, reply: Reply | None = None) -> None:
        super().__init__(note)
        self.phase: Phase = phase
        self.fault: Fault = fault
        self.note = note
        self.reply = reply


def tls_context(relay: RelaySettings) -> ssl.SSLContext | None:
    """What the relay's certificate must satisfy; None without TLS.  OSError if `ca_file` cannot be read or has no
    certificates."""
    if relay.tls == "none":
        return None
    context = ssl.create_default_context(cafile=relay.ca_file)
    if not relay.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_session(relay: RelaySettings, context: ssl.SSLContext | None, secrets: Secrets) -> Session:
    """A session that is ready for MAIL; RelayFault if any step fails.  Nothing stays open when it does, or when the
    caller is cancelled."""
    client = aiosmtplib.SMTP(
        hostname=relay.host,
        port=relay.port,
        use_tls=relay.tls == "implicit",
        start_tls=False,  # done by hand below: so it is known which step failed
        tls_context=context,
        local_hostname=relay.helo or socket.gethostname(),
    )
    steps = _Steps(client, relay, secrets)
    try:
        await steps.walk()
        transport = client.transport
        if transport is None or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("closed right after the login")
        return Session(cast(asyncio.Transport, transport), dict(client.esmtp_extensions), relay)
    except RelayFault:
        client.close()
        raise
    except (aiosmtplib.SMTPException, OSError, ValueError, SecretMissing) as error:
        client.close()
        raise _fault(steps.phase, error) from error
    except BaseException:
        client.close()
        raise


class _Steps:
    """The way to a session; `phase` is the step that it is at.

    The time limits are ours, since aiosmtplib's go through asyncio.wait_for, which before Python 3.12 swallows a
    cancellation that comes as its inner step ends: the message would not stop.
    """

    def __init__(self, client: aiosmtplib.SMTP, relay: RelaySettings, secrets: Secrets) -> None:
        self._client = client
        self._relay = relay
        self._secrets = secrets
        self.phase: Phase = "connect"

    async def walk(self) -> None:
        async with asyncio.timeout(self._relay.connect_timeout):
            await self._client.connect(timeout=None)
        await self._hello()
        if self._relay.tls == "required":
            await self._start_tls()
            await self._hello()
        if self._relay.username is not None:
            await self._login(self._relay.username)

    async def _hello(self) -> None:
        self.phase = "hello"
        try:
            async with asyncio.timeout(self._relay.command_timeout):
                await self._client.ehlo(timeout=None)
        except aiosmtplib.SMTPHeloError as error:
            if error.code == 421 or not self._client.is_connected:
                raise
            async with asyncio.timeout(self._relay.command_timeout):
                await self._client.helo(timeout=None)

    async def _start_tls(self) -> None:
        self.phase = "tls"
        if not self._client.supports_extension("starttls"):
            raise RelayFault("tls", "tls", "the relay does not offer STARTTLS, and tls is required")
        async with asyncio.timeout(self._relay.connect_timeout):
            await self._client.starttls(timeout=None)

    async def _login(self, username: str) -> None:
        self.phase = "auth"
        async with asyncio.timeout(self._relay.command_timeout):
            await self._client.login(username, self._password(), timeout=None)

    def _password(self) -> str:
        if self._relay.password_file is not None:
            return Path(self._relay.password_file).read_text().rstrip("\n")
        return self._secrets.resolve(self._relay.password or "")


def _fault(phase: Phase, error: Exception) -> RelayFault:
    """aiosmtplib's errors in our words."""
    note = reply_text(f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return RelayFault("tls", "tls", note)
    match error:
        case aiosmtplib.SMTPResponseException(code=-1):
            return RelayFault(phase, "garbled", note)
        case aiosmtplib.SMTPResponseException():
            text = reply_text(error.message.encode("utf-8", "surrogateescape"))
            reply = Reply(error.code, text)
            return RelayFault(phase, "auth" if phase == "auth" else "refused", f"{error.code} {reply.words}", reply)
        case TimeoutError():
            return RelayFault(phase, "timeout", note)
        case aiosmtplib.SMTPServerDisconnected():
            return RelayFault(phase, "lost", note)
        case _ if phase in ("tls", "auth"):
            return RelayFault(phase, "tls" if phase == "tls" else "auth", note)
        case _:
            return RelayFault(phase, "refused", note)
