"""A connection to what is watched, guarded as webhooks are: every address of its name is judged before one is used."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.monitor.reading import Look, Unwell
from jobs.monitor.settings import MonitorSettings
from jobs.webhook.addresses import is_allowed, networks
from jobs.webhook.faults import OURS, SENTENCES
from jobs.webhook.names import Lookup, Names, Unresolved

_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM})
_ERRNO = {errno.ECONNREFUSED: "connection_refused", errno.ETIMEDOUT: "connect_timeout"}
_CERTIFICATE = {
    9: ("certificate_not_yet_valid", "its certificate is not valid yet"),
    10: ("certificate_expired", "its certificate has ended"),
    62: ("certificate_wrong_host", "its certificate is for another host"),
    64: ("certificate_wrong_host", "its certificate is for another address"),
}
"""By OpenSSL's X509_V_ERR_… of the verification."""


@dataclass(frozen=True, slots=True)
class Line:
    """A stream to what is watched."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Reach:
    """What all checks share: the threads that look names up, and the certificates that are believed."""

    def __init__(self, settings: MonitorSettings, lookup: Lookup | None = None) -> None:
        self._names = Names(settings.dns_timeout, lookup)
        self._exceptions = networks(settings.allow_addresses)
        self._making: asyncio.Future[ssl.SSLContext] | None = None
        self._context = _context(settings.ca_file) if settings.ca_file else None

    def close(self) -> None:
        self._names.close()

    def judge(self, address: str) -> None:
        """Unwell if nobody may be connected to there."""
        if not is_allowed(address, self._exceptions):
            raise Unwell("blocked", "it is not on the public internet, nor in monitor.allow_addresses")

    async def tls(self) -> ssl.SSLContext:
        """Made once, in a thread: it reads the whole certificate store, for some 18 ms."""
        if self._context is None:
            if self._making is None:
                self._making = asyncio.get_running_loop().run_in_executor(None, _context)
            try:
                self._context = await asyncio.shield(self._making)
            except OSError as error:  # no file can be opened, or one is broken: the next check tries again
                self._making = None
                raise Unwell("local_error", f"no certificates to compare with: {error}", ours=True) from error
        return self._context

    async def connect(self, host: str, port: int, look: Look) -> socket.socket:
        """A socket that is connected to the first of the host's addresses that takes it; Unwell if none does."""
        with look.phase("resolve"):
            addresses = await self._addresses(host)
        with look.phase("connect"), unwell():
            for others, address in zip(range(len(addresses), 1, -1), addresses, strict=False):
                try:
                    async with asyncio.timeout(look.left_s / others):  # one that is silent leaves time for the others
                        return await _dial(address, port, look)
                except OSError:
                    continue  # the next one may; what the last one says is what is told
            return await _dial(addresses[-1], port, look)

    @asynccontextmanager
    async def line(self, host: str, port: int, look: Look, *, tls: bool) -> AsyncIterator[Line]:
        """A stream, broken off at the end."""
        context = await self.tls() if tls else None
        sock = await self.connect(host, port, look)
        with look.phase("tls" if tls else "open"), unwell(), _closing_if_not(sock):
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname=host if tls else None
            )
        try:
            look.expires_at = expiry(writer.get_extra_info("ssl_object"))
            yield Line(reader, writer)
        finally:
            writer.transport.abort()

    async def _addresses(self, host: str) -> list[str]:
        """All of them judged: a name may have one good address and one bad."""
        try:
            found = await self._names.of(host)
        except Unresolved as error:
            raise Unwell(error.code, SENTENCES[error.code], ours=error.code in OURS) from error
        for address in found:
            self.judge(address)
        return found


def expiry(connection: ssl.SSLObject | None) -> datetime | None:
    """When the certificate of the other end ends."""
    certificate = connection.getpeercert() if connection is not None else None
    ends = (certificate or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if isinstance(ends, str) else None


@contextmanager
def unwell() -> Iterator[None]:
    """What a connection raises, in our words.  A time limit of somebody further out goes through."""
    try:
        yield
    except Unwell:
        raise
    except ssl.SSLCertVerificationError as error:
        code, reason = _CERTIFICATE.get(error.verify_code, ("certificate_untrusted", "its certificate is not believed"))
        raise Unwell(code, f"{reason} ({error.verify_message})") from error
    except ssl.SSLError as error:
        raise Unwell("tls_error", f"TLS failed: {error.reason or 'handshake'}") from error
    except asyncio.IncompleteReadError as error:
        raise Unwell("connection_closed", "it closed the connection in the middle") from error
    except TimeoutError as error:
        if error.errno is None:
            raise
        raise Unwell("connect_timeout", SENTENCES["connect_timeout"]) from error
    except OSError as error:
        raise _os_error(error) from error


def _os_error(error: OSError) -> Unwell:
    if error.errno in _LOCAL:
        return Unwell("local_error", SENTENCES["local_error"], ours=True)
    code = _ERRNO.get(error.errno or 0) or ("connection_reset" if isinstance(error, ConnectionError) else "unreachable")
    return Unwell(code, SENTENCES[code])


async def _dial(address: str, port: int, look: Look) -> socket.socket:
    look.address = address
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    with _closing_if_not(sock):
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    return sock


@contextmanager
def _closing_if_not(sock: socket.socket) -> Iterator[None]:
    """Close it if the block does not come to its end."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _context(ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context
