"""A zip file written while it is made: each table as JSON and as CSV, whatever its size, in memory that is bounded."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import zipfile
from collections.abc import AsyncIterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from itertools import chain, count
from types import TracebackType

from jobs.storage.writing import Writing

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet takes a cell that begins so for a formula."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
"""What the name of a file cannot have on somebody's disk."""


class _Pipe(io.RawIOBase):
    """What the zip file has written, until somebody takes it.  It cannot go back, so sizes come after their files."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._bytes += view
        return view.nbytes

    def taken(self) -> bytes:
        content = bytes(self._bytes)
        self._bytes.clear()
        return content


class Bundle(AbstractAsyncContextManager["Bundle"]):
    """`out`: where it goes; whoever opened it closes it."""

    def __init__(self, out: Writing, at: datetime) -> None:
        self._out, self._at = out, at
        self._pipe = _Pipe()
        self._zip = zipfile.ZipFile(self._pipe, "w", zipfile.ZIP_DEFLATED, allowZip64=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await asyncio.to_thread(self._zip.close)
            await self._out.write(self._pipe.taken())

    async def add(self, name: str, pieces: AsyncIterable[str]) -> None:
        member = self._zip.open(self._named(name), "w", force_zip64=True)
        try:
            async for piece in pieces:
                await asyncio.to_thread(member.write, piece.encode())
                await self._out.write(self._pipe.taken())
        finally:
            member.close()
        await self._out.write(self._pipe.taken())

    def _named(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self._at.timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return info


def file_names(names: Sequence[str]) -> list[str]:
    """What to call the files of these tables, each differently on any disk, also where `A` and `a` are one."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = _UNSAFE.sub("_", name.replace('"', ""))
        candidates = chain([plain], (f"{plain}-{n}" for n in count(2)))
        found.append(next(each for each in candidates if each.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


def json_text(rows: Sequence[str], *, first: bool) -> str:
    """A piece of a JSON array, one row a line."""
    return "" if not rows else ("" if first else ",\n") + ",\n".join(rows)


def csv_text(rows: Sequence[Sequence[str | None]], are_texts: Sequence[bool]) -> str:
    """Lines of CSV.  A text that a spreadsheet would run is given a `'` in front; the JSON has it as it is."""
    lines = io.StringIO()
    csv.writer(lines).writerows(
        [_tame(value) if is_text else value for value, is_text in zip(row, are_texts, strict=True)] for row in rows
    )
    return lines.getvalue()


def _tame(value: str | None) -> str | None:
    return f"'{value}" if value is not None and value.startswith(_FORMULA) else value
