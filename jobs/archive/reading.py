"""An archive read back: whether it is what its manifest says, and its lines."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from jobs.archive.manifest import Manifest
from jobs.archive.squeeze import Damaged, Decompressor
from jobs.storage.faults import Changed
from jobs.storage.storage import Storage


class _Count:
    """What a file comes to."""

    def __init__(self) -> None:
        self._zstd = Decompressor()
        self._file, self._content = hashlib.sha256(), hashlib.sha256()
        self._size = self._bytes = self._lines = 0

    def add(self, data: bytes) -> None:
        self._file.update(data)
        self._size += len(data)
        for piece in self._zstd.pieces(data):
            self._content.update(piece)
            self._bytes += len(piece)
            self._lines += piece.count(b"\n")

    def differs(self, manifest: Manifest) -> str | None:
        """From what the manifest says; None if in nothing."""
        self._zstd.end()
        for name, said, found in (
            ("size_bytes", manifest.size_bytes, self._size),
            ("sha256", manifest.sha256, self._file.hexdigest()),
            ("rows", manifest.rows, self._lines),
            ("content_bytes", manifest.content_bytes, self._bytes),
            ("content_sha256", manifest.content_sha256, self._content.hexdigest()),
        ):
            if said != found:
                return f"its {name} should be {said}, and is {found}"
        return None


async def check(storage: Storage, manifest: Manifest) -> None:
    """Read the whole file back; Changed if it is not what its manifest says, NotThere."""
    count = _Count()
    try:
        async with aclosing(storage.read(manifest.file)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(count.add, piece)
        wrong = count.differs(manifest)
    except Damaged as error:
        wrong = str(error)
    if wrong is not None:
        raise Changed(f"{manifest.file} is damaged", storage.where, wrong)


async def lines(storage: Storage, manifest: Manifest, *, at_once: int = 1000) -> AsyncGenerator[list[str], None]:
    """All of the file's lines, up to so many at a time and in their order; Changed, NotThere."""
    zstd, rest, found = Decompressor(), b"", []
    try:
        async with aclosing(storage.read(manifest.file)) as pieces:
            async for data in pieces:
                for piece in zstd.pieces(data):
                    *whole, rest = (rest + piece).split(b"\n")
                    found += [line.decode() for line in whole]
                    while len(found) >= at_once:
                        yield found[:at_once]
                        del found[:at_once]
        zstd.end()
    except Damaged as error:
        raise Changed(f"{manifest.file} is damaged", storage.where, str(error)) from None
    if found:
        yield found
