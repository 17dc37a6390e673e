"""Which rows a purge is about, as pieces of its statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.catalogue.conditions import conditions
from jobs.catalogue.ground import Table
from jobs.catalogue.predicates import predicates
from jobs.catalogue.skeleton import NOTHING, Blocks, Parameters, Sql, joined
from jobs.catalogue.verb import Work
from jobs.cleanup.purge_settings import PurgeSettings

_BLOCKS = Blocks("purge.sql")


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows whose `column` is before `below`, as far as `longer` and their owners let them go; all of it at `now`."""

    column: str
    now: datetime
    below: datetime
    longer: datetime | None = None

    def later(self, seconds: float) -> Pass:
        """The pass as it will be then."""
        by = timedelta(seconds=seconds)
        longer = None if self.longer is None else self.longer + by
        return Pass(self.column, self.now + by, self.below + by, longer)


async def passes(work: Work[PurgeSettings]) -> list[Pass]:
    """One for each limit there is."""
    settings, now = work.settings, work.now
    below = now - timedelta(seconds=settings.retention)
    if (latest := await _latest_of_owners(work)) is not None:
        below = max(below, latest)
    longer = None if settings.longer_retention is None else now - timedelta(seconds=settings.longer_retention)
    found = [Pass(settings.age_column, now, below, longer)]
    if settings.idle_column is not None and settings.idle_retention is not None:
        found.append(Pass(settings.idle_column, now, now - timedelta(seconds=settings.idle_retention), longer))
    return found


async def _latest_of_owners(work: Work[PurgeSettings]) -> datetime | None:
    settings = work.settings
    if settings.owner_table is None or settings.owner_retention is None:
        return None
    owner, parameters = work.tables[settings.owner_table], Parameters(work.now)
    statement = _BLOCKS.fill(
        "latest",
        now=parameters.now,
        own=_own(owner, settings.owner_retention),
        owner=owner.sql,
        column=owner.columns[settings.owner_retention].sql,
    )
    found: datetime | None = await work.conn.fetchval(str(statement), *parameters.values)
    return found


def doom(work: Work[PurgeSettings], one: Pass, table: Table, parameters: Parameters) -> Sql:
    """That the row is old enough."""
    settings, age = work.settings, table.columns[one.column].sql
    if settings.owner_table is None or settings.owner_retention is None or one.column != settings.age_column:
        return _BLOCKS.fill("older", age=age, below=parameters.once("below", one.below))
    return _BLOCKS.fill(
        "older_of_owner",
        age=age,
        now=parameters.once("at", one.now),
        own=_own(work.tables[settings.owner_table], settings.owner_retention),
        seconds=parameters.add(str(settings.retention)),
    )


def joins(settings: PurgeSettings, tables: Mapping[str, Table]) -> Sql:
    """Whose the row is, where that matters."""
    if settings.owner_table is None or settings.owner_column is None:
        return NOTHING
    owner, table = tables[settings.owner_table], tables[settings.table]
    return _BLOCKS.fill("owner", owner=owner.sql, key=owner.key[0].sql, column=table.columns[settings.owner_column].sql)


def _fits(work: Work[Any], table: Table, parameters: Parameters) -> Sql:
    """What must hold of a row whatever its age."""
    settings: PurgeSettings = work.settings
    found = [conditions(predicates(settings.where), table, parameters)]
    if settings.parent_table is not None and settings.parent_column is not None:
        parent = work.tables[settings.parent_table]
        column = table.columns[settings.parent_column].sql
        found.append(_BLOCKS.fill("orphan", parent=parent.sql, key=parent.key[0].sql, column=column))
    return joined(found, " ")


def bound(work: Work[PurgeSettings], one: Pass, table: Table, parameters: Parameters) -> Sql:
    """What must hold beside the age for a row to go, or to be warned of."""
    settings = work.settings
    found = [_fits(work, table, parameters)]
    if one.longer is not None:
        found.append(
            _BLOCKS.fill(
                "longer",
                age=table.columns[one.column].sql,
                below=parameters.add(one.longer),
                conditions=conditions(predicates(settings.longer_where), table, parameters),
            )
        )
    return joined(found, " ")


def rest(work: Work[PurgeSettings], one: Pass, table: Table, parameters: Parameters) -> Sql:
    """What must hold beside the age for a row to go."""
    settings = work.settings
    found = [bound(work, one, table, parameters)]
    if settings.warn_column is not None and settings.warn_before is not None:
        found.append(
            _BLOCKS.fill(
                "warned",
                column=table.columns[settings.warn_column].sql,
                now=parameters.now,
                seconds=parameters.add(str(settings.warn_before)),
            )
        )
    return joined(found, " ")


def _own(owner: Table, name: str) -> Sql:
    column = owner.columns[name]
    return _BLOCKS.fill("span_days" if column.category == "N" else "span_interval", column=column.sql)
