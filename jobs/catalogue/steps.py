"""Goes through a list of things step by step, each a transaction of its own that is short and waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeVar

from jobs.catalogue.pace import Pace
from jobs.catalogue.pages import AGAIN_S, REFUSED, TRIES
from jobs.catalogue.skeleton import Parameters, Sql
from jobs.catalogue.verb import Work
from jobs.model import Retry

T = TypeVar("T")


class Steps:
    """Of one run.  `about`: the table that is written, for people."""

    def __init__(self, work: Work[Any], about: str) -> None:
        self._work = work
        self._about = about
        self._pace = Pace(work.settings.batch)
        self._rest_s = 0.0

    async def over(
        self, things: Sequence[T], statement: Callable[[Sequence[T], Parameters], Sql]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """What the statement says of each step's things, until all were there."""
        done = 0
        while done < len(things):
            said, rows = await self._one(lambda rows, given: statement(things[done : done + rows], given))  # noqa: B023
            done += rows
            yield said

    async def pages(self, statement: Callable[[int, Parameters], Sql]) -> AsyncIterator[Mapping[str, Any]]:
        """What the statement says of each page, until one has `scanned` fewer rows than it was asked for.  How it goes
        on where the last one ended is the statement's own affair."""
        while True:
            said, rows = await self._one(statement)
            yield said
            if said["scanned"] < rows:
                return

    async def _one(self, statement: Callable[[int, Parameters], Sql]) -> tuple[Mapping[str, Any], int]:
        """What it says, and of how many rows it was asked."""
        if self._rest_s > 0:
            await asyncio.sleep(self._rest_s)
        began = perf_counter()
        said, rows = await self._tried(statement)
        took_s = perf_counter() - began
        self._pace.took(took_s, rows)
        self._rest_s = min(self._work.settings.pause, took_s)
        return said, rows

    async def _tried(self, statement: Callable[[int, Parameters], Sql]) -> tuple[Mapping[str, Any], int]:
        """Fewer rows after each refusal."""
        for tried in range(1, TRIES + 1):
            rows = self._pace.rows
            parameters = Parameters(self._work.now)
            text = str(statement(rows, parameters))
            try:
                return await self._work.conn.fetchrow(text, *parameters.values), rows
            except REFUSED as error:
                self._pace.refused()
                refused = str(error)
                await asyncio.sleep(AGAIN_S * tried)
        raise Retry(f"{self._about}: a batch was refused {TRIES} times: {refused}", code="locked")
