"""Handlers whose work and whose row's end are one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

import asyncpg

from daemon.replies import failed
from daemon.settle import Transition
from daemon.store import Freed, Store
from jobs.model import Outcome, Retry

UNKNOWN = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
)
"""After these nobody knows whether the commit was made.  The fence does: the row is handed back if it is still ours."""

UNKNOWN_S = 1.0
"""When such a row is tried again."""

ROLLBACK_S = 5.0
"""A connection that does not roll back by then is closed, which does."""

LEFT_BY_HANDLER = Retry("the handler ended the transaction that it was given", code="no_transaction")

Fate = Literal["open", "committed", "late"]
"""Of a row's end: still to be written; committed with the handler's work; refused, and the work undone with it."""

Call = Callable[[asyncpg.Connection], Awaitable[Transition]]
Instead = Callable[[Outcome | None, float | None], Transition]
"""What becomes of the row when nothing can be committed: by an outcome, or handed back for so many seconds."""


class Transactions:
    """A few connections; a row waits for one in its slot, and its time begins with it."""

    def __init__(self, store: Store, pool: Callable[[], asyncpg.Pool]) -> None:
        self._store = store
        self._pool = pool

    async def run(self, call: Call, instead: Instead, ending: Callable[[], list[int]]) -> tuple[Transition, Fate]:
        """What the attempt came to.  Only what is done is committed, with the claims that are `ending`, and only while
        the row is ours; all else is rolled back."""
        pool = self._pool()
        try:
            conn: Any = await pool.acquire()
        except (*UNKNOWN, asyncpg.InsufficientResourcesError, TimeoutError):
            return instead(None, UNKNOWN_S), "open"
        transaction = conn.transaction()
        try:
            await transaction.start()
            t, fate, freed = await self._attempt(conn, call, instead, ending)
            if fate == "committed":
                await transaction.commit()
                if freed:
                    self._store.on_freed(freed)
            else:
                await _roll_back(conn, transaction)
        except UNKNOWN:
            conn.terminate()
            return instead(None, UNKNOWN_S), "open"
        except asyncpg.PostgresError as error:  # a constraint that waits for the commit; a transaction that has failed
            await _roll_back(conn, transaction)
            return instead(failed(error), None), "open"
        except BaseException:
            conn.terminate()
            raise
        else:
            return t, fate
        finally:
            with suppress(*UNKNOWN):
                await pool.release(conn, timeout=ROLLBACK_S)

    async def _attempt(
        self, conn: Any, call: Call, instead: Instead, ending: Callable[[], list[int]]
    ) -> tuple[Transition, Fate, list[Freed]]:
        t = await call(conn)
        if t.state != "done":
            return t, "open", []
        if not conn.is_in_transaction():
            return instead(LEFT_BY_HANDLER, None), "open", []
        ours, freed = await self._store.write_in(conn, t, ending())
        return t, "committed" if ours else "late", freed


async def _roll_back(conn: Any, transaction: Any) -> None:
    try:
        async with asyncio.timeout(ROLLBACK_S):
            await transaction.rollback()
    except (*UNKNOWN, TimeoutError, asyncpg.PostgresError):
        conn.terminate()
