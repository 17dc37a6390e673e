"""The page that links to local files lead to: one file each, to whoever has the link, while it is good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobs.storage.links import PAGE, disposition
from jobs.storage.storage import Gone, Storage

PATTERN = PAGE + "{token}/{name}"
CONTENT_TYPE = "application/octet-stream"


class Files:
    """`storage`: the one in force, or None while there is none."""

    def __init__(self, storage: Callable[[], Storage | None]) -> None:
        self._storage = storage
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="files")  # at the disk, which may be slow

    def close(self) -> None:
        self._looker.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The file, or the range of it that was asked for.  Who has no link learns nothing: whatever is wrong with a
        token is 404; 410 is for one that was good."""
        storage = self._storage()
        if storage is None:
            raise web.HTTPServiceUnavailable
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._looker, storage.linked, request.match_info["token"])
        except Gone:
            raise web.HTTPGone(reason="This link is over") from None
        if found is None or found[1].name != request.match_info["name"]:
            raise web.HTTPNotFound
        path, link = found
        return _ThisFile(path, headers={"Content-Disposition": disposition(link.name), "Content-Type": CONTENT_TYPE})


class _ThisFile(web.FileResponse):
    """The file itself.  To a client that takes compressed answers the library gives what lies beside it under the same
    name and `.gz` or `.br`; but that is another object, to which the link does not lead."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = request.headers.copy()
        headers.popall("Accept-Encoding", None)
        return await super().prepare(request.clone(headers=headers))
