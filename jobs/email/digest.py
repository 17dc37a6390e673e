"""Digests: the things that are told together in one mail, taken once and given up when it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

import sql
from jobs.context import Ledger
from jobs.email.draft import AGAIN_S, AWAY, NoDraft
from jobs.model import Done, Snooze

if TYPE_CHECKING:
    import asyncpg

    from jobs.context import Context
    from jobs.email.message import Digest

_SQL = sql.load("email.sql")

LEDGER = Ledger("email_digest_items")

BYTES_MAX = 768 * 1024
"""Of items in one mail: templates are given no more than a mebibyte.  What is left over is in the next one."""


@dataclass(frozen=True, slots=True)
class Items:
    """What one mail tells of; `ids` are of its rows."""

    ids: Sequence[int] = ()
    items: Sequence[Any] = ()

    @property
    def data(self) -> Mapping[str, Any]:
        """For the template."""
        return {"items": self.items}


async def taken(digest: Digest, ctx: Context) -> Items:
    """The items of this job's mail: at its first attempt those that wait, at most so many; at a later one the same
    again, so that one Message-ID always says the same.  NoDraft where there are none, since another mail has them."""
    try:
        rows = await _rows(digest, ctx)
    except AWAY as error:
        ctx.log.warning("email_digest_unread", error=repr(error))
        raise NoDraft(Snooze("the digest could not be read", after=AGAIN_S, code="database_away")) from None
    if rows and rows[0]["id"] is None:
        raise NoDraft(Snooze("another attempt has this row", after=AGAIN_S, code="row_lost"))
    if not rows:
        raise NoDraft(Done({"items": 0}))
    return Items([row["id"] for row in rows], [msgspec.json.decode(row["item"]) for row in rows])


async def _rows(digest: Digest, ctx: Context) -> Sequence[asyncpg.Record]:
    """And a job for what is left, in the same commit."""
    job = ctx.job
    given = (job.id, digest.id, job.org_id, digest.most, BYTES_MAX)
    if ctx.dry_run:
        return await ctx.db.fetch(_SQL["digest_seen"], *given)
    async with ctx.db.acquire() as conn, conn.transaction():
        rows = await conn.fetch(_SQL["digest_take"], *given, job.fence, job.worker_id)
        if rows and rows[0]["more"]:
            await conn.execute(_SQL["digest_rest"], digest.id, digest.most)
        return rows
