"""Audit events: what a job did to rows, written into a table of the user's by the statement that did it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsTable
from jobs.catalogue.settings import check_columns, check_pair, check_table
from jobs.catalogue.skeleton import NOTHING, Blocks, Parameters, Sql, joined
from jobs.catalogue.verb import Work

AUDIT_TABLE = "Where it is written down, in the same statement."
AUDIT_VALUES = (
    "Its columns, and what goes into them: text with {job}, {verb}, {rows}, {now}, or a {column} of the row. "
    "With a column each row is written down, else each batch."
)
"""What a verb's keys `audit_table` and `audit_values` are."""

_BLOCKS = Blocks("audit.sql")
_PLACE = re.compile(r"\{(\w+)\}")
_OURS = ("job", "verb", "job_id", "now", "rows")


def check_audit(table: str | None, values: Mapping[str, str]) -> None:
    """ValueError that names the key."""
    check_table("audit_table", table)
    check_pair(audit_table=table, audit_values=values or None)
    check_columns("audit_values", *values)
    for name, text in values.items():
        if "rows" in _PLACE.findall(text) and _columns(values):
            raise ValueError(f"audit_values: {name}: {{rows}} counts a batch, and a column speaks of one row")


def audit_needs(table: str, audit: str | None, values: Mapping[str, str]) -> Iterator[Need]:
    if audit is None:
        return
    yield NeedsTable("audit_table", audit, ("insert",))
    for target in values:
        yield NeedsColumn(f"audit_values.{target}", audit, target, written=True)
    for target, text in values.items():
        for name in _PLACE.findall(text):
            if name not in _OURS:
                yield NeedsColumn(f"audit_values.{target}", table, name)


def each_row(values: Mapping[str, str]) -> bool:
    """Whether rows are written down one by one: what changes them must return them."""
    return bool(_columns(values))


def noted(
    work: Work[Any], source: Sql, table: Table, audit: str | None, values: Mapping[str, str], p: Parameters
) -> Sql:
    """What writes down the rows of `source`, which are rows of `table`; nothing without an audit table."""
    if audit is None:
        return NOTHING
    target = work.tables[audit]
    ours = {"job": work.name, "verb": work.settings.verb, "job_id": str(work.ctx.job.id), "now": work.now.isoformat()}
    return _BLOCKS.fill(
        "each" if each_row(values) else "once",
        table=target.sql,
        columns=joined(target.columns[name].sql for name in values),
        values=joined(_value(text, target.columns[name], table, ours, p) for name, text in values.items()),
        source=source,
    )


def _value(text: str, target: Column, table: Table, ours: Mapping[str, str], parameters: Parameters) -> Sql:
    """The text with its places filled, cast to the column's type; a column alone may be null.  In a column of JSON
    each place is a JSON value, with its own quotation marks."""
    in_json = target.base in ("json", "jsonb")
    parts: list[Sql] = []
    pieces = _PLACE.split(text)
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            if piece or len(pieces) == 1:
                parts.append(_BLOCKS.fill("text", value=parameters.add(piece)))
        elif piece == "rows":
            parts.append(_BLOCKS.fill("rows"))
        elif piece in ours:
            parts.append(
                _BLOCKS.fill("text", value=parameters.add(json.dumps(ours[piece]) if in_json else ours[piece]))
            )
        else:
            parts.append(_BLOCKS.fill("json" if in_json else "column", column=table.columns[piece].sql))
    whole = parts[0] if len(parts) == 1 else _BLOCKS.fill("concatenated", parts=joined(parts))
    return _BLOCKS.fill("cast", text=whole, type=target.type)


def _columns(values: Mapping[str, str]) -> set[str]:
    return {name for text in values.values() for name in _PLACE.findall(text)} - {*_OURS}
