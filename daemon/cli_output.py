"""Standard output: data only, as JSON, as a table for people, or as aligned text for everything else."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from jobs.values import duration_text

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """All of each row as JSON, or its `columns` as a table."""
    if as_json:
        print_json([dict(row) for row in rows])
    elif sys.stdout.isatty():
        _rich_table(rows, columns)
    else:
        _aligned(rows, columns)


def print_facts(facts: Mapping[str, Any]) -> None:
    """One `name  value` a line, those without a value left out."""
    shown = {name: cell(value) for name, value in facts.items() if value is not None and value != {}}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        click.echo(f"{name:{width}}  {text}")


def note(message: str) -> None:
    """For whoever reads along: never on standard output."""
    click.echo(f"jobsd: {message}", err=True)


def cell(value: Any) -> str:
    """One line of text that cannot drive a terminal: error texts come from strangers."""
    match value:
        case None:
            return ""
        case str():
            text = value
        case datetime():
            text = time_text(value)
        case dict() | list():
            text = json.dumps(value, ensure_ascii=False, default=_plain)
        case _:
            text = str(value)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age_text(seconds: float) -> str:
    """Whole seconds are enough for an age: "1h12m5s"."""
    return duration_text(max(0, round(seconds)))


def _plain(value: Any) -> Any:
    return time_text(value) if isinstance(value, datetime) else str(value)


def _aligned(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Two spaces between columns, an empty cell is `-`: for eyes, awk and cut alike."""
    lines = [tuple(columns), *(tuple(_word(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        click.echo("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _word(value: Any) -> str:
    return cell(value) or "-"


def _rich_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415  30 ms that only a terminal needs
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    plain = bool(os.environ.get("NO_COLOR"))  # no-color.org: whatever its value
    table = Table(box=None, pad_edge=False, header_style="" if plain else "bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row[column])) for column in columns))
    Console(no_color=plain, highlight=False).print(table)
