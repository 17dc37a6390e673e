"""Connections to the database: a pool for the engine, one for handlers, single ones for listener and lease."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from daemon.settings import DatabaseSettings
from daemon.statements import AWAY, search_path
from daemon.stop import within

T = TypeVar("T")

ENGINE_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Statements are planned once, most likely while table jobs is empty: a plan that reads it whole would be kept when
100,000 rows have come, until something analyzes it."""

TRANSACTION_GRACE_S = 10.0
"""So much later than the daemon the server ends a transaction that takes too long."""

ENGINE_CONNECTIONS = 8
"""Claimer, finisher, keeper and scheduler each hold one at a time, endpoints and events one each while they are looked
up; the rest is for limits and progress."""


class Database:
    """One database under one schema."""

    def __init__(self, dsn: str, settings: DatabaseSettings) -> None:
        self.dsn = dsn
        self._settings = settings

    @property
    def channel(self) -> str:
        """Where the insert trigger of this schema sends its hints."""
        return f"jobsd:{self._settings.schema}"[:63]

    @property
    def answer_s(self) -> float:
        """How long to wait for an answer: a little longer than Postgres would let the statement run."""
        limit_s = self._settings.statement_timeout
        return limit_s + 1.0 if limit_s else 31.0

    async def connect(self) -> asyncpg.Connection:
        """A connection outside any pool, for whoever must not wait for one."""
        return await asyncpg.connect(
            self.dsn, timeout=self._settings.connect_timeout, server_settings=self._server_settings("")
        )

    async def engine_pool(self) -> asyncpg.Pool:
        """Its statements are few and named; planning them anew for each call is a tenth of what a claim costs."""
        return await self._pool(2, ENGINE_CONNECTIONS, "", reset=_as_it_is, **ENGINE_PLANS)

    async def handler_pool(self) -> asyncpg.Pool:
        """Handlers' connections are their own, so that no handler can keep the engine from its work."""
        return await self._pool(0, self._settings.pool_size, " handlers")

    async def transaction_pool(self) -> asyncpg.Pool:
        """For transactional handlers.  Should this process stand still, the server ends their transactions itself."""
        limit_ms = str(round((self._settings.transaction_timeout + TRANSACTION_GRACE_S) * 1000))
        return await self._pool(
            0,
            self._settings.transaction_pool_size,
            " transactions",
            statement_timeout=limit_ms,
            idle_in_transaction_session_timeout=limit_ms,
        )

    async def _pool(
        self,
        least: int,
        most: int,
        suffix: str,
        *,
        reset: Callable[[Any], Awaitable[None]] | None = None,
        **settings: str,
    ) -> asyncpg.Pool:
        return await asyncpg.create_pool(
            self.dsn,
            min_size=least,
            max_size=most,
            timeout=self._settings.connect_timeout,
            server_settings={**self._server_settings(suffix), **settings},
            reset=reset,
        )

    def _server_settings(self, suffix: str) -> dict[str, str]:
        return {
            "application_name": self._settings.application_name + suffix,
            "search_path": search_path(self._settings.schema),
            "statement_timeout": str(round(self._settings.statement_timeout * 1000)),
            "timezone": "UTC",
        }


async def _as_it_is(_conn: Any) -> None:
    """The engine's statements leave nothing behind in a session; resetting it would double their number."""


async def close_pool(pool: asyncpg.Pool) -> None:
    """When its connections are given back, or three seconds later over their heads."""
    if not await within(3, pool.close()):
        pool.terminate()


async def until_there(attempt: Callable[[], Awaitable[T]], on_failure: Callable[[BaseException], None]) -> T:
    """The result of `attempt`, made again while the database is away: 0.1 s apart at first, 5 s in the end."""
    pause_s = 0.1
    while True:
        try:
            return await attempt()
        except (*AWAY, asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            on_failure(error)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads reconnects, no secret
        pause_s = min(pause_s * 2, 5.0)
