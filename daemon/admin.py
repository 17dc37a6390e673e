"""The admin HTTP server: metrics for Prometheus, and whether the daemon lives and is ready."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon.files import PATTERN, Files
from daemon.observe import Observer
from daemon.settings import AdminSettings
from jobs.storage.storage import Storage

Check = Callable[[], str | None]
"""Looks at what is already known, never at the database itself; the reason why it is not fine, or None."""

HEADERS = {
    "Server": "jobsd",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

INDEX = """jobsd

/metrics   for Prometheus
/livez     whether the process lives
/readyz    whether it takes rows
           ?verbose names every check
/files/    what signed links lead to
"""


class Admin:
    """Serves one address.  To change the address start a second Admin, then close the first.

    `listen` is `admin.listen` of the config; "" serves nothing.  `ready` and `live` are {name: check}; `parked`, which
    jobs wait for what, is no reason not to be ready.  Every page is a GET without a body, and none waits for anything
    but the rendering of metrics and the look at a file, which have a thread each.  `storage`: whose local files are
    served under /files/ to whoever has a link.
    """

    def __init__(
        self,
        listen: str,
        observe: Observer,
        ready: Mapping[str, Check],
        live: Mapping[str, Check] | None = None,
        parked: Callable[[], Mapping[str, str]] = dict,
        storage: Callable[[], Storage | None] = lambda: None,
    ) -> None:
        self._address = AdminSettings(listen=listen).address
        self._observe = observe
        self._ready = ready
        self._live = live or {}
        self._parked = parked
        # Not the event loop's own threads: handlers may hold all of those, waiting for name servers and disks.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._files = Files(storage)
        # Without lingering: a body is never read, the connection is closed instead.
        self._runner = web.AppRunner(
            self._pages(), access_log=None, keepalive_timeout=30.0, lingering_time=0.0, shutdown_timeout=1.0
        )
        self._socket: tuple[Path, int] | None = (
            None  # and its inode: the path may be somebody else's by the time we close
        )
        self.addresses: tuple[str, ...] = ()
        """Where it answers: "127.0.0.1:9464", "unix:/run/jobsd/admin.sock"; () when `listen` is ""."""

    async def start(self) -> None:
        """Answer from now on.  OSError: the address is taken, or not ours to take."""
        if self._address is None:
            return
        await self._runner.setup()
        try:
            if isinstance(self._address, Path):
                await self._bind_path(self._address)
            else:
                await web.TCPSite(self._runner, *self._address).start()
        except BaseException:
            await self.close()
            raise
        self.addresses = tuple(_shown(address) for address in self._runner.addresses)
        self._observe.life.admin_listening(self.addresses)

    async def close(self) -> None:
        """Stop answering; a page that is being written gets a second more."""
        await self._runner.cleanup()
        self._renderer.shutdown(wait=False, cancel_futures=True)
        self._files.close()
        if self._socket is not None:
            _unlink(*self._socket)
            self._socket = None
        self.addresses = ()

    async def _bind_path(self, path: Path) -> None:
        if _is_served(path):  # otherwise it is what a killed daemon left behind, and replaced
            raise OSError(f"{path}: another process listens there")
        await web.UnixSite(self._runner, path).start()
        self._socket = (path, _opened_to_group(path))

    # --- pages ------------------------------------------------------------------------------------------------------

    def _pages(self) -> web.Application:
        pages = web.Application(middlewares=[self._guard])
        pages.router.add_get("/", self._index)
        pages.router.add_get("/metrics", self._metrics)
        pages.router.add_get("/livez", self._livez)
        pages.router.add_get("/readyz", self._readyz)
        pages.router.add_get(PATTERN, self._files.page)
        return pages

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=INDEX)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self._observe.refresh()
        accept = ",".join(request.headers.getall("Accept", []))
        loop = asyncio.get_running_loop()
        body, content_type = await loop.run_in_executor(self._renderer, self._observe.metrics.render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _livez(self, request: web.Request) -> web.StreamResponse:
        return _verdict(self._live, verbose="verbose" in request.query)

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        return _verdict(self._ready, verbose="verbose" in request.query, parked=self._parked())

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One shape for errors, the same headers everywhere, and every answer counted."""
        resource = request.match_info.route.resource
        page = resource.canonical if resource is not None else "other"
        try:
            response = await handler(request)
        except web.HTTPException as refused:
            response = _refusal(refused)
        except Exception as error:
            self._observe.life.admin_failed(page, error)
            response = _json(500, {"error": {"status": 500, "message": "Internal Server Error"}})
        response.headers.update(HEADERS)
        self._observe.life.admin_answered(page, response.status)
        return response


def _verdict(checks: Mapping[str, Check], *, verbose: bool, parked: Mapping[str, str] | None = None) -> web.Response:
    """200 when every check is fine, 503 when one is not; with `verbose` what each of them says, and what is parked."""
    said = {name: _said(check) for name, check in checks.items()}
    failing = [name for name, reason in said.items() if reason is not None]
    answer: dict[str, Any] = {"status": "failing", "failing": failing} if failing else {"status": "ok"}
    if verbose:
        answer["checks"] = {name: reason or "ok" for name, reason in said.items()}
        answer |= {"parked": dict(parked)} if parked else {}
    return _json(503 if failing else 200, answer)


def _said(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # a check that breaks is a check that fails, not a page that does
        return f"the check itself failed: {type(error).__name__}"


def _refusal(refused: web.HTTPException) -> web.Response:
    response = _json(refused.status, {"error": {"status": refused.status, "message": refused.reason}})
    if "Allow" in refused.headers:
        response.headers["Allow"] = refused.headers["Allow"]
    return response


def _json(status: int, answer: Mapping[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE), content_type="application/json"
    )


# --- addresses ------------------------------------------------------------------------------------------------------


def _shown(address: str | bytes | tuple[Any, ...]) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address if isinstance(address, str) else address.decode()}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _opened_to_group(path: Path) -> int:
    """The socket's inode.  Who gets that far is up to the folder's mode (RuntimeDirectoryMode=)."""
    path.chmod(0o660)
    return path.stat().st_ino


def _unlink(path: Path, inode: int) -> None:
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
