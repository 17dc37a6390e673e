"""Deleted rows stay as sums: counted and added up in another table by the statement that deletes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsTable, NeedsUnique
from jobs.catalogue.settings import check_columns, check_pair, check_table
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, alias, joined

_BLOCKS = Blocks("totals.sql")
UNITS = ("hour", "day", "week", "month")


def check_totals(table: str | None, by: Mapping[str, str], count: str | None, sums: Mapping[str, str]) -> None:
    """ValueError that names the key."""
    check_table("totals_table", table)
    check_columns("totals_by", *by)
    check_columns("totals_by", *(part(text)[1] for text in by.values()))
    check_columns("totals_count", count)
    check_columns("totals_sums", *sums, *sums.values())
    check_pair(totals_table=table, totals_by=by or None)
    if table is None and (count is not None or sums):
        raise ValueError("totals_table: give the table that totals_count and totals_sums are columns of")
    if table is not None and count is None and not sums:
        raise ValueError("totals_count: give totals_count, totals_sums or both; this adds up nothing")
    if twice := {*by} & {*sums, count}:
        raise ValueError(f"totals_by: {min(map(str, twice))} cannot be what it goes by, and a sum")


def part(text: str) -> tuple[str | None, str]:
    """`day:received_at` is (day, received_at); a column that has such a name itself is written `:day:x`."""
    unit, colon, column = text.partition(":")
    if colon and unit in UNITS:
        return unit, column
    return None, text.removeprefix(":") if colon and not unit else text


def totals_needs(
    table: str, totals: str | None, by: Mapping[str, str], count: str | None, sums: Mapping[str, str]
) -> Iterator[Need]:
    if totals is None:
        return
    yield NeedsTable("totals_table", totals, ("select", "insert", "update"))
    for target, text in by.items():
        unit, column = part(text)
        yield NeedsColumn(f"totals_by.{target}", totals, target, "any" if unit is None else "time", written=True)
        yield NeedsColumn(f"totals_by.{target}", table, column, "any" if unit is None else "time")
    if count is not None:
        yield NeedsColumn("totals_count", totals, count, "number", written=True)
    for target, column in sums.items():
        yield NeedsColumn(f"totals_sums.{target}", totals, target, "number", written=True)
        yield NeedsColumn(f"totals_sums.{target}", table, column, "number")
    yield NeedsUnique("totals_by", totals, tuple(by))


def kept(
    table: Table,
    totals: Table,
    by: Mapping[str, str],
    count: str | None,
    sums: Mapping[str, str],
    parameters: Parameters,
) -> Sql:
    """What adds the rows of `gone` to their sums."""
    of = [_BLOCKS.fill("row", column=_source(table, text, totals.columns[to], parameters)) for to, text in by.items()]
    values = [
        _BLOCKS.fill("sum", column=table.columns[column].sql, type=totals.columns[to].type)
        for to, column in sums.items()
    ]
    counts = [] if count is None else [totals.columns[count].sql]
    added = [*counts, *(totals.columns[to].sql for to in sums)]
    return _BLOCKS.fill(
        "kept",
        table=totals.sql,
        columns=joined([*(totals.columns[to].sql for to in by), *added]),
        values=joined([*of, *([_BLOCKS.fill("count")] * len(counts)), *values]),
        group=joined(alias("", n) for n in range(1, len(by) + 1)),
        unique=joined(totals.columns[to].sql for to in by),
        sums=joined(_BLOCKS.fill("added", column=column) for column in added),
    )


def _source(table: Table, text: str, target: Column, parameters: Parameters) -> Sql:
    unit, name = part(text)
    column = table.columns[name]
    if unit is None:
        return _BLOCKS.fill("column", column=column.sql)
    block = "truncated_zone" if column.base == "timestamp with time zone" else "truncated"
    return _BLOCKS.fill(block, unit=parameters.add(unit), column=column.sql, type=target.type)
