"""One object while it is being written."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from jobs.storage.durable import room, sync
from jobs.storage.faults import StorageError, in_our_words

if TYPE_CHECKING:
    from obstore import AsyncWritableFile

    from jobs.storage.opening import Opened

AT_ONCE = 2
"""Parts on their way to the store; memory is bound to these and the one being filled."""


@dataclass(frozen=True, slots=True)
class Written:
    """An object that is whole, and safe: on the disk, or said to be stored by the bucket.  `sha256` in hex."""

    path: str
    size_bytes: int
    sha256: str


class Writing:
    """Use it as `async with`: leaving it well completes the object, an exception leaves nothing that can be seen.

    An object of the same name is replaced, whole, at that moment.
    """

    def __init__(self, opened: Opened, path: str, part_size: int, attributes: dict[str, str]) -> None:
        """Nothing is sent before the first part is full, or the object complete."""
        self._opened = opened
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0
        self._written: Written | None = None
        with in_our_words("write", path, opened.where):
            self._file: AsyncWritableFile = opened.library.open_writer_async(
                opened.store,
                path,
                buffer_size=part_size,
                max_concurrency=AT_ONCE,
                attributes=None if opened.folder is not None else attributes,  # a folder keeps none
            )

    @property
    def written(self) -> Written:
        """Once it is complete."""
        if self._written is None:
            raise RuntimeError(f"{self._path} is not complete")
        return self._written

    async def __aenter__(self) -> Writing:
        opened = self._opened
        if opened.folder is not None:
            with in_our_words("write", self._path, opened.where):
                await asyncio.to_thread(room, opened.folder, opened.folder / self._path)
        return self

    async def write(self, data: bytes) -> None:
        """Waits while the store is behind."""
        self._hash.update(data)
        self._size += len(data)
        with in_our_words("write", self._path, self._opened.where):
            await self._file.write(data)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._opened
        if kind is not None:
            # What went wrong first is what to tell; parts that are not taken back are nobody's object.
            with suppress(StorageError), in_our_words("take back", self._path, opened.where):
                await self._file.__aexit__(kind, error, trace)
            return
        with in_our_words("write", self._path, opened.where):
            await self._file.close()
            if opened.folder is not None:
                await asyncio.to_thread(sync, opened.folder, opened.folder / self._path)
        self._written = Written(self._path, self._size, self._hash.hexdigest())
