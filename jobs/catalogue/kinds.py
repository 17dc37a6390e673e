"""[jobs.NAME] as kinds of job, and one run of such a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

import sql
from jobs.catalogue.ground import Table, survey
from jobs.catalogue.needs import Fault, Need, faults, tables_of
from jobs.catalogue.settings import BatchSettings, JobSettings
from jobs.catalogue.verb import Verb, Work
from jobs.catalogue.verbs import VERBS
from jobs.context import Context
from jobs.model import Done, Outcome, Snooze
from jobs.registry import Kind
from jobs.values import Duration

_SQL = sql.load("catalogue.sql")

CAREFUL = _SQL["careful"]
BUSY_S = 15.0
"""A run that meets another of its job looks again after this; then most likely nothing is left to do."""

PARKED_S = 60.0
"""A run that finds its tables gone goes back to its queue for so long, where no daemon has parked it yet."""

CHANGED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
"""The tables are not any more what they were when the run began."""


@dataclass(frozen=True, slots=True)
class Look:
    """A job's tables as they are now: `faults` park it, `advice` is for people."""

    tables: Mapping[str, Table]
    faults: tuple[Fault, ...]
    advice: tuple[str, ...] = ()

    @property
    def reason(self) -> str | None:
        """Why it cannot run; None: it can."""
        return "; ".join(str(fault) for fault in self.faults) or None


def kinds(jobs: Mapping[str, JobSettings]) -> dict[str, Kind]:
    """One kind for each job of the config."""
    return {name: _kind(name, settings, VERBS[settings.verb]) for name, settings in jobs.items()}


async def look(conn: Any, settings: JobSettings) -> Look:
    """Whether the database has what the settings name."""
    verb = VERBS[settings.verb]
    needs: list[Need] = list(verb.needs(settings))
    tables = await survey(conn, tables_of(needs))
    wrong = tuple(await faults(conn, needs, tables))
    if not wrong and verb.inspect is not None:
        wrong = tuple(await verb.inspect(conn, settings, tables))
    return Look(tables, wrong, () if wrong else (*_unseen(tables), *verb.advise(settings, tables)))


def _unseen(tables: Mapping[str, Table]) -> Iterator[str]:
    for name, table in tables.items():
        if table.filtered:
            yield (
                f"row security of {name} hides what no policy shows to role {table.role}: a job leaves those rows as "
                f"they are; create policy … on {table.sql} to {table.role} using (true)"
            )


async def looks(conn: Any, jobs: Mapping[str, JobSettings]) -> dict[str, Look]:
    """Of each job."""
    return {name: await look(conn, settings) for name, settings in jobs.items()}


def _kind(name: str, settings: JobSettings, verb: Verb[Any]) -> Kind:
    async def handler(args: Any, ctx: Context) -> Outcome:
        return await _run(name, settings, verb, args, ctx)

    decode = msgspec.json.Decoder(verb.args).decode
    return Kind(name, handler, verb.args, None, Duration(settings.timeout), None, decode)


async def _run(name: str, settings: JobSettings, verb: Verb[Any], args: Any, ctx: Context) -> Outcome:
    """Checked anew each time: tables change while a daemon runs."""
    async with ctx.db.acquire() as conn:
        found = await look(conn, settings)
        if found.reason is not None:
            return Snooze(f"jobs.{name}.{found.reason}", after=PARKED_S, code="parked")
        now = await conn.fetchval(_SQL["now"])
        work = Work(name=name, settings=settings, args=args, ctx=ctx, conn=conn, tables=found.tables, now=now)
        try:
            if ctx.dry_run:
                return Done(await verb.rehearse(work))
            if not await conn.fetchval(_SQL["lock"], name):  # freed when the pool has the connection back
                return Snooze(f"another run of {name} is going on", after=BUSY_S, code="busy")
            if isinstance(settings, BatchSettings):
                await conn.execute(CAREFUL, f"{round(settings.lock_timeout * 1000)}ms")
            return Done(await verb.run(work))
        except CHANGED as error:
            return Snooze(f"its tables have changed: {error}", after=PARKED_S, code="parked")
