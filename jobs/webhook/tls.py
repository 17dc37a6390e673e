"""TLS contexts for outgoing connections: one for all, and one for each client certificate, made once and kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT = 64  # each holds a copy of the certificate store, 0.8 MiB


class BadCertificate(ValueError):
    """The text is no certificate with its private key; the message does not hold it."""


class TlsContexts:
    """`ca`: a PEM file of authorities to believe besides the system's.  `base` stands in for the context of connections
    without a client certificate.

    To make a context takes some 18 ms (it reads the whole certificate store), so each is made once, in a thread, and
    however many attempts ask for it at the same time.
    """

    def __init__(self, ca: Path | None, base: ssl.SSLContext | None = None) -> None:
        self._ca = ca
        self._made: OrderedDict[bytes, asyncio.Future[ssl.SSLContext]] = OrderedDict()
        self.default: ssl.SSLContext | None = base or (_context(ca) if ca else None)

    async def of(self, pem: str) -> ssl.SSLContext:
        """The context that shows the certificate in `pem` (certificates first or last, one unencrypted private key);
        BadCertificate if there is none.  Connections are pooled by context, so no other certificate's is used."""
        name = hashlib.sha256(pem.encode()).digest()
        making = self._made.get(name)
        if making is None:
            making = self._made[name] = asyncio.get_running_loop().run_in_executor(None, _context, self._ca, pem)
            making.add_done_callback(lambda done: self._forget_failed(name, done))
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(name)
        return await asyncio.shield(making)

    def _forget_failed(self, name: bytes, done: asyncio.Future[ssl.SSLContext]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._made.pop(name, None)


def _context(ca: Path | None, pem: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        context.load_verify_locations(ca)
    if pem is not None:
        try:
            with _file_of(pem) as path:
                context.load_cert_chain(path, password=_refuse)
        except (ssl.SSLError, ValueError):  # any other OSError is our own trouble: no file can be opened
            raise BadCertificate("it is no PEM with a certificate and its unencrypted private key") from None
    return context


@contextmanager
def _file_of(pem: str) -> Iterator[str]:
    """OpenSSL is asked by a file's name; this one is in memory and has no other."""
    fd = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _refuse() -> str:
    """Else OpenSSL would ask for the password at the terminal."""
    raise ValueError("the private key is encrypted")
