"""What an erasure needs of the database, and what only the map of all tables shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.accounts.held import Held, held, needs, placed, request_edges, request_faults
from jobs.accounts.settings import EraseSettings
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsTable


def erase_needs(settings: EraseSettings) -> Iterator[Need]:
    yield from needs(settings)
    yield NeedsTable("table", settings.table, ("select", "delete"), keyed=True)
    for name in settings.revoke:
        yield NeedsTable("revoke", name, ("select", "delete"), keyed=True)
    for name, columns in settings.blank.items():
        yield NeedsTable(f"blank.{name}", name, ("select", "update"), keyed=True)
        for column in columns:
            yield NeedsColumn(f"blank.{name}", name, column, written=True)
    for name in settings.files:
        yield from placed("files", name)
    if settings.requests is not None:
        yield NeedsTable("requests", settings.requests)
        yield NeedsColumn("requests", settings.requests, "completed_at", "time", written=True)
        yield NeedsColumn("requests", settings.requests, "rows_deleted", "number", written=True)


async def inspect(conn: Any, settings: EraseSettings, known: Mapping[str, Table]) -> list[Fault]:
    """What only the map of all tables shows."""
    found = await held(conn, settings, known, kept(settings))
    return [*found.faults, *_unfit(settings, known, found)]


def _unfit(settings: EraseSettings, known: Mapping[str, Table], found: Held) -> Iterator[Fault]:
    stay = {str(known[name].sql) for name in kept(settings)}
    for holding in found.ties.holdings:
        table = found.tables[holding.table]
        if holding.goes and holding.table not in stay and "delete" not in table.rights:
            yield Fault(
                "table", f"role {table.role} may not delete: grant select, delete on {table.sql} to {table.role}"
            )
    for name, columns in settings.blank.items():
        blanked = found.holding(known[name])
        own = set() if blanked is None else {c for edge in blanked.own for c in edge.columns}
        if not own:
            yield Fault(f"blank.{name}", f"no column of {name} holds an account")
        elif left := own - set(columns):
            yield Fault(f"blank.{name}", f"{', '.join(sorted(left))} would go on naming the account; empty it, too")
    for name in settings.revoke:
        opening = found.holding(known[name])
        if opening is None or not opening.own:
            yield Fault("revoke", f"no column of {name} holds an account")
    if settings.requests is not None:
        table = known[settings.requests]
        edges = request_edges(settings, table, found)
        yield from request_faults(settings, table, edges)
        if len(edges) == 1 and not edges[0].loose:
            yield Fault(
                "requests", f"{table.asked}.{edges[0].columns[0]} cannot be null, and would go on naming the account"
            )
        if settings.requests in settings.blank:
            yield Fault(f"blank.{settings.requests}", "is the table of requests, whose keys become null at the end")


def kept(settings: EraseSettings) -> list[str]:
    """Tables whose rows stay."""
    return [*settings.blank, *([] if settings.requests is None else [settings.requests])]
