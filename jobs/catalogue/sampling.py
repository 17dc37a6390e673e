"""What a rehearsal says: how many rows a job is about, and some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import asyncpg
import msgspec

from jobs.catalogue.ground import Table
from jobs.catalogue.skeleton import NOTHING, ROW, Blocks, Parameters, Sql, joined, of
from jobs.catalogue.verb import Result, Work

_BLOCKS = Blocks("sampling.sql")

COUNT_MAX = 1_000_000
"""Nobody counts further."""

SAMPLE = 5

Condition = Callable[[Parameters], Sql]
"""What must hold of a row `t`."""


async def count(work: Work[Any], table: Table, condition: Condition, joins: Sql = NOTHING) -> int | None:
    """How many rows fit, up to COUNT_MAX; None where counting takes longer than Postgres lets it."""
    parameters = Parameters(work.now)
    places = {"table": table.sql, "joins": joins, "condition": condition(parameters)}
    statement = _BLOCKS.fill("count", **places, most=parameters.add(COUNT_MAX))
    try:
        found: int = await work.conn.fetchval(str(statement), *parameters.values)
    except asyncpg.QueryCanceledError:
        return None
    return found


async def sample(
    work: Work[Any], table: Table, shown: Iterable[str], by: str, condition: Condition, joins: Sql = NOTHING
) -> list[Any]:
    """The first few that fit in the order of `by`: their keys and the columns `shown`."""
    parameters = Parameters(work.now)
    names = dict.fromkeys([*(column.name for column in table.key), by, *shown])
    statement = _BLOCKS.fill(
        "sample",
        shown=joined(of(ROW, table.columns[name].sql) for name in names),
        table=table.sql,
        joins=joins,
        condition=condition(parameters),
        order=of(ROW, table.columns[by].sql),
        most=parameters.add(SAMPLE),
    )
    rows = await work.conn.fetch(str(statement), *parameters.values)
    return [msgspec.json.decode(row[0]) for row in rows]


def added(counts: Iterable[int | None]) -> int | None:
    """All of them; None where one is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


def said(word: str, total: int | None, table: str, rows: list[Any]) -> Result:
    """`{"would_delete": 12, "table": …, "sample": […]}`."""
    more: Result = {"or_more": True} if total is not None and total >= COUNT_MAX else {}
    if total is None:
        more = {"note": "counting takes longer than database.statement_timeout"}
    return {f"would_{word}": total, **more, "table": table, "sample": rows[:SAMPLE]}
