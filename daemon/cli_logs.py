"""Tell a job's lines, and go on telling while it lives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import click

from daemon.cli_output import cell, note, time_text
from daemon.operator_store import OperatorStore

PAGE = 1000
LOOK_S = 0.5
"""How often to look for new lines; a daemon writes them once a second."""

LIVE = ("ready", "running")


async def tell_lines(store: OperatorStore, job_id: int, *, follow: bool, as_json: bool) -> bool:
    """Whether there is such a job."""
    last = (0, 0)
    while True:
        state = (await store.states([job_id])).get(job_id)  # before its lines: what it logs with its end is not missed
        while rows := await store.logs(job_id, last, PAGE):
            _tell(rows, last, as_json=as_json)
            last = (rows[-1]["fence"], rows[-1]["n"])
        if state is None and last == (0, 0):
            return False
        if not follow or state not in LIVE:
            return True
        await asyncio.sleep(LOOK_S)


def _tell(rows: Sequence[dict[str, Any]], last: tuple[int, int], *, as_json: bool) -> None:
    for row in rows:
        before = last[1] if row["fence"] == last[0] else 0
        if (dropped := row["n"] - before - 1) > 0:
            note(f"{dropped} older lines of attempt {row['attempt']} were dropped")
        last = (row["fence"], row["n"])
        if as_json:
            click.echo(json.dumps({**row, "at": time_text(row["at"])}, ensure_ascii=False, default=str))
        else:
            fields = "".join(f"  {name}={cell(value)}" for name, value in (row["fields"] or {}).items())
            words = (time_text(row["at"]), f"{row['level']:7}", f"attempt {row['attempt']}", cell(row["event"]))
            click.echo("  ".join(words) + cell(fields))
