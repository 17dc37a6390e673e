"""What operators want of this daemon while it runs rows: attempts that nobody wants any more are stopped."""

from __future__ import annotations

import asyncio

from daemon.crew import Crew
from daemon.statements import AWAY
from daemon.worker_store import WorkerStore

ASK_S = 1.5
"""How often a daemon asks whether one of its attempts is to stop, should the call have been lost."""

MOST = 10_000


class Controls:
    """Asks about the rows that run here, when it is called and now and then; while none runs it asks nothing."""

    def __init__(self, store: WorkerStore, crew: Crew) -> None:
        self._store = store
        self._runner = crew.runner
        self._observer = crew.observer
        self._worker_id = crew.worker_id
        self._wake = asyncio.Event()

    def call(self) -> None:
        """A notification came: an operator wants something."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled: an answer is acted upon at once, and one that was lost is asked for again."""
        while True:
            try:
                async with asyncio.timeout(ASK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nobody called; the clock did
            self._wake.clear()
            try:
                await self.stop_unwanted()
            except AWAY as error:
                self._observer.keeper_failed("control", error)

    async def stop_unwanted(self) -> int:
        """Stop the attempts here whose rows somebody wants stopped; how many were not told before."""
        worker_id = self._worker_id()
        if worker_id is None or not len(self._runner):
            return 0
        wishes = await self._store.asked(worker_id, MOST)
        return sum(self._runner.stop_one((wish.id, wish.fence), wish.reason, wish.actor) for wish in wishes)
