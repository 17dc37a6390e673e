"""Rows on their way into an archive; none may be deleted before there is a receipt for it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from types import TracebackType

import msgspec

from jobs.archive.manifest import FILE_END, FOLDER, FORMAT, Manifest, manifest_path
from jobs.archive.reading import check
from jobs.archive.squeeze import compressor
from jobs.archive.table import Table
from jobs.model import Job
from jobs.storage.names import segment
from jobs.storage.storage import Storage
from jobs.storage.writing import Writing

CONTENT_TYPE = "application/zstd"


def folder_of(table: Table) -> str:
    """Where the archives of a table lie, a folder for each day."""
    return f"{FOLDER}/{segment(table.schema)}.{segment(table.name)}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The file `path` holds `rows` lines: written, synced, read back, and found to be what was added."""

    path: str
    rows: int
    size_bytes: int
    sha256: str


def run_of(job: Job) -> str:
    """This attempt's name in its archives; another attempt, or another process, has another one."""
    return f"{job.id}-{job.fence}-{secrets.token_hex(4)}"


class Part:
    """One file of an archive, and its manifest.

        async with Part(ctx.storage, table, job="audit_log_purge", run=run_of(ctx.job), number=1) as part:
            await part.add(lines)          # of jobs.archive.table.line, read in a transaction that is lossless()
        part.receipt                       # only now may these rows be deleted, as they were when they were read:
                                           # by key and xmin, since a row that has changed since is not in it

    Bounded memory, however many lines are added.  StorageError: there is no receipt, and nothing may be deleted.
    """

    def __init__(
        self, storage: Storage, table: Table, *, job: str, run: str, number: int, range: Mapping[str, str] | None = None
    ) -> None:
        """`range`: for people, which rows were asked for, like `{"created_at before": "2026-01-01T00:00:00+00:00"}`."""
        self._storage = storage
        self._table = table
        self._job, self._run, self._number = job, run, number
        self._range = range or {}
        now = datetime.now(UTC)
        self.path = f"{folder_of(table)}/{now:%Y-%m-%d}/{segment(job)}-{run}-{number:05}{FILE_END}"
        self._out: Writing = storage.writing(self.path, content_type=CONTENT_TYPE)
        self._zstd = compressor()
        self._hash = hashlib.sha256()
        self._bytes = 0
        self.rows = 0
        self._first = self._last = ""
        self._receipt: Receipt | None = None

    @property
    def receipt(self) -> Receipt:
        if self._receipt is None:
            raise RuntimeError(f"{self.path} is not complete, so nothing in it may be deleted")
        return self._receipt

    async def __aenter__(self) -> Part:
        await self._out.__aenter__()
        return self

    async def add(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self._first = self._first or lines[0]
        self._last = lines[-1]
        self.rows += len(lines)
        await self._out.write(await asyncio.to_thread(self._squeezed, lines))

    def _squeezed(self, lines: Sequence[str]) -> bytes:
        content = "\n".join((*lines, "")).encode()
        self._hash.update(content)
        self._bytes += len(content)
        return self._zstd.compress(content)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                await self._out.write(self._zstd.flush())
            except BaseException as failed:
                await self._out.__aexit__(type(failed), failed, failed.__traceback__)
                raise
        await self._out.__aexit__(kind, error, trace)
        if kind is None:
            self._receipt = await self._complete()

    async def _complete(self) -> Receipt:
        """The file is stored: read it back, then say what is in it, and read that back too."""
        manifest = self._manifest()
        await check(self._storage, manifest)
        content = manifest.encoded()
        path = manifest_path(self.path)
        await self._storage.verify(await self._storage.put(path, content, content_type="application/json"))
        return Receipt(self.path, self.rows, manifest.size_bytes, manifest.sha256)

    def _manifest(self) -> Manifest:
        written = self._out.written
        return Manifest(
            format=FORMAT,
            table=self._table,
            job=self._job,
            run=self._run,
            part=self._number,
            rows=self.rows,
            range=self._range,
            first=self._key(self._first),
            last=self._key(self._last),
            file=self.path,
            size_bytes=written.size_bytes,
            sha256=written.sha256,
            content_bytes=self._bytes,
            content_sha256=self._hash.hexdigest(),
            written_at=datetime.now(UTC).isoformat(timespec="seconds"),
            tool=f"jobsd {version('jobsd')}",
        )

    def _key(self, line: str) -> dict[str, str | None]:
        values: dict[str, str | None] = msgspec.json.decode(line) if line else {}
        return {name: values[name] for name in self._table.key if name in values}
