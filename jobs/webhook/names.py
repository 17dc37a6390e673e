"""Host names to addresses, and whose trouble it is when there are none: the name's, or that of our own name server."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 # the first lookup would import it, and could not without files
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host name, as text; OSError (gaierror) when it has none."""

WELL_KNOWN = "a.root-servers.net"
"""A name that each name server on the internet can find, and answers for out of its memory."""

# getaddrinfo cannot be cancelled: a thread stays with a slow name server until that gives up.  A pool of our own keeps
# that away from everything else that uses threads, and its size bounds how many can be stuck.
_THREADS = 16
_KNOWN_S = 2.0
_DEFINITE = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})
"""The name server has answered: there is no such name, or it has no address."""


class Unresolved(OSError):
    """The host name has no address for us; `code` says whose fault that is, in the words of `faults`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Names:
    """`lookup` None: the system's resolver."""

    def __init__(self, timeout_s: float, lookup: Lookup | None = None) -> None:
        self._timeout_s = timeout_s
        self._own = [] if lookup else [SystemLookup(_THREADS, timeout_s / 2), SystemLookup(1, timeout_s / 2)]
        self._lookup: Lookup = lookup or self._own[0]
        self._ask: Lookup = lookup or self._own[1]
        self._asking = asyncio.Lock()
        self._asked_at = -_KNOWN_S
        self._answers = True

    async def of(self, host: str) -> list[str]:
        """Every address of `host`, or Unresolved."""
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._lookup(host)
        except TimeoutError:
            raise Unresolved(await self._blamed("dns_timeout")) from None
        except Unresolved:
            raise
        except socket.gaierror as error:
            code = "dns_error" if error.errno in _DEFINITE else await self._blamed("dns_error")
            raise Unresolved(code) from error
        except OSError as error:  # the system could not even ask
            raise Unresolved("local_error") from error
        except UnicodeError as error:  # labels the idna codec refuses
            raise Unresolved("dns_error") from error
        if not found:
            raise Unresolved("dns_error")
        return list(found)

    async def _blamed(self, code: str) -> str:
        """`code`, if it is the name's trouble.  Whether a name server of ours is away or one of theirs looks the same
        from here; so ours is asked for another name, once for all who want to know."""
        async with self._asking:
            if monotonic() - self._asked_at >= _KNOWN_S:
                self._answers = await self._answers_at_all()
                self._asked_at = monotonic()
        return code if self._answers else "resolver_error"

    async def _answers_at_all(self) -> bool:
        try:
            async with asyncio.timeout(min(1.0, self._timeout_s)):
                await self._ask(WELL_KNOWN)
        except OSError as error:  # TimeoutError too
            return isinstance(error, socket.gaierror) and error.errno in _DEFINITE
        return True

    def close(self) -> None:
        for lookup in self._own:
            lookup.close()


class SystemLookup:
    """getaddrinfo in `threads` of its own.  Who waits for a free one longer than `patience_s` has asked nobody yet."""

    def __init__(self, threads: int, patience_s: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lookup")
        self._free = asyncio.Semaphore(threads)
        self._patience_s = patience_s

    async def __call__(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unresolved("resolver_error") from None
        asked = self._threads.submit(_getaddrinfo, host)
        asked.add_done_callback(partial(self._freed, asyncio.get_running_loop()))
        found = await asyncio.wrap_future(asked)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _freed(self, loop: asyncio.AbstractEventLoop, _asked: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended before the thread
            loop.call_soon_threadsafe(self._free.release)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str) -> list[tuple[Any, ...]]:
    try:
        return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except socket.gaierror:
        os.close(os.open(os.devnull, os.O_RDONLY))  # where no file can be opened, glibc says that there is no such name
        raise
