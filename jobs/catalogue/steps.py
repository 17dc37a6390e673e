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

    async def run(
        self, things: Sequence[T], statement: Callable[[Sequence[T], Parameters], Sql]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """What the statement says of each step's things, until all were there."""
        done = 0
        while done < len(things):
            began = perf_counter()
            said, rows = await self._one(things, done, statement)
            took_s = perf_counter() - began
            self._pace.took(took_s, rows)
            done += rows
            yield said
            if done < len(things):
                await asyncio.sleep(min(self._work.settings.pause, took_s))

    async def _one(
        self, things: Sequence[T], done: int, statement: Callable[[Sequence[T], Parameters], Sql]
    ) -> tuple[Mapping[str, Any], int]:
        """What it says, and of how many: fewer after each refusal."""
        for tried in range(1, TRIES + 1):
            some = things[done : done + self._pace.rows]
            parameters = Parameters(self._work.now)
            text = str(statement(some, parameters))
            try:
                return await self._work.conn.fetchrow(text, *parameters.values), len(some)
            except REFUSED as error:
                self._pace.refused()
                refused = str(error)
                await asyncio.sleep(AGAIN_S * tried)
        raise Retry(f"{self._about}: a batch was refused {TRIES} times: {refused}", code="locked")
