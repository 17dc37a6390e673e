"""Roll-ups that are kept no longer are purged, as the verb of that name does it."""

from __future__ import annotations

from typing import Any

from jobs.catalogue.verb import Bounds, Work
from jobs.cleanup.purge import PURGE
from jobs.cleanup.purge_settings import PurgeSettings
from jobs.values import Duration


async def forget(work: Work[Any], table: str, column: str, retention: Duration) -> int:
    """How many rows of `table` went whose `column` is longer ago than that."""
    mine = work.settings
    settings = PurgeSettings(
        verb=PURGE.name,
        table=table,
        age_column=column,
        retention=retention,
        batch=mine.batch,
        pause=mine.pause,
        lock_timeout=mine.lock_timeout,
    )
    purge: Work[PurgeSettings] = Work(
        name=work.name,
        settings=settings,
        args=Bounds(),
        ctx=work.ctx,
        conn=work.conn,
        tables=work.tables,
        now=work.now,
    )
    deleted: int = (await PURGE.run(purge))["deleted"]
    return deleted
