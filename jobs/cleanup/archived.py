"""Rows that are to go, put into an archive part by part; a part is handed on when it was read back, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jobs.archive.part import Part, folder_of, run_of
from jobs.archive.table import line, lossless, named
from jobs.catalogue.facts import facts
from jobs.catalogue.pages import Page, Pages, key_texts
from jobs.catalogue.predicates import predicates
from jobs.catalogue.skeleton import Blocks, Sql, trusted
from jobs.catalogue.verb import Work
from jobs.cleanup.doom import Pass, doom, joins, rest
from jobs.cleanup.purge_settings import PurgeSettings

_BLOCKS = Blocks("purge.sql")

PART_ROWS = 20_000
"""Rows of one file: what a killed run has archived in vain is no more than this."""

PART_BYTES = 64 << 20
"""And their lines, before they are squeezed."""


@dataclass(slots=True)
class Rows:
    """Rows that are in an archive for good: their keys, and the versions that were archived."""

    keys: list[list[str]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    size_bytes: int = 0
    percent: float = 0.0

    def add(self, keys: list[list[str]], versions: list[str], size_bytes: int) -> None:
        self.keys += keys
        self.versions += versions
        self.size_bytes += size_bytes


class Archiving:
    """The rows of one pass on their way into the archive.  `left`: no more rows than this."""

    def __init__(self, work: Work[PurgeSettings], one: Pass, left: Callable[[], int | None]) -> None:
        self._work = work
        self._one = one
        self._left = left
        self._table = work.tables[work.settings.table]
        self._rows = Rows()
        self._over = False

    async def parts(self) -> AsyncIterator[Rows]:
        """What each file holds, when it holds it for good."""
        table, one = self._table, self._one
        of_archive = await named(self._work.conn, str(table.sql))
        await self._work.ctx.storage.tidy(folder_of(of_archive))
        text = trusted(line(of_archive))
        known = facts(predicates(self._work.settings.where), table)
        pages = Pages(self._work, table, table.columns[one.column], one.below, prepare=lossless, facts=known)
        read = pages.run(partial(_read, self._work, one, text), self._room)
        run, number = run_of(self._work.ctx.job), 0
        while not self._over:
            self._rows, number = Rows(), number + 1
            wanted = {f"{one.column} before": one.below.isoformat()}
            await self._fill(pages, read, partial(
                Part, self._work.ctx.storage, of_archive, job=self._work.name, run=run, number=number, range=wanted
            ))  # fmt: skip
            if self._rows.keys:
                yield self._rows
                self._rows = Rows()

    def _room(self) -> int | None:
        left = self._left()
        return None if left is None else left - len(self._rows.keys)

    async def _fill(self, pages: Pages, read: AsyncIterator[Any], begin: Callable[[], Part]) -> None:
        """One file, begun with its first row."""
        rows = self._rows
        part: Part | None = None
        async with AsyncExitStack() as stack:
            while not self._over and len(rows.keys) < PART_ROWS and rows.size_bytes < PART_BYTES:
                said = await anext(read, None)
                self._over = said is None
                if said is None or not said["lines"]:
                    continue
                rows.percent = pages.percent(said["at"])
                if part is None:
                    part = await stack.enter_async_context(begin())
                await part.add(said["lines"])
                rows.add(said["keys"], said["versions"], sum(map(len, said["lines"])))
        if part is not None and part.receipt.rows != len(rows.keys):  # without a receipt this raises, too
            raise RuntimeError(f"{part.receipt.path} has {part.receipt.rows} rows, and not {len(rows.keys)}")


def _read(work: Work[PurgeSettings], one: Pass, text: Sql, page: Page) -> Sql:
    table, parameters = page.table, page.parameters
    return _BLOCKS.fill(
        "read",
        scan=page.scan,
        key=key_texts(table),
        line=text,
        table=table.sql,
        same=page.same,
        joins=joins(work.settings, work.tables),
        doom=doom(work, one, table, parameters),
        conditions=rest(work, one, table, parameters),
    )
