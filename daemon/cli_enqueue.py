"""`jobsd enqueue`: what a producer does in SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.cli_options import args_option, config_option, json_option, moment
from daemon.cli_output import note, print_json
from daemon.cli_session import Session, with_session
from daemon.operator_store import NewRow


@click.command(short_help="Insert a row; print its id.")
@click.argument("kind")
@config_option
@args_option
@click.option("--queue", metavar="NAME", help="Its queue; `default` if not given.")
@click.option("--org", "org_id", metavar="ID", help="The organisation it belongs to.")
@click.option("--priority", type=click.IntRange(1, 4), help="1 is first, 4 is last; 2 if not given.")
@click.option("--run-at", type=moment, metavar="TIME|+DURATION", help="Not before.")
@click.option("--expires-at", type=moment, metavar="TIME|+DURATION", help="Not after: then it is dead.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="So many attempts; else its kind's policy.")
@click.option("--unique-key", metavar="KEY", help="At most one unfinished job per kind and key.")
@click.option(
    "--on-duplicate",
    type=click.Choice(("refuse", "ignore", "replace", "postpone", "replace_and_postpone")),
    help="What becomes of a waiting job with the same unique key; refuse and ignore: it stays.",
)
@click.option("--idempotency-key", metavar="KEY", help="At most one job ever per kind and key.")
@click.option("--ordering-key", metavar="KEY", help="One at a time, in id order, per kind and key.")
@click.option("--lane", metavar="NAME", help="The destination whose limits apply; else found from its args.")
@click.option("--correlation-id", metavar="ID", help="Carried into logs, history and headers.")
@json_option
def enqueue(config_file: Path | None, as_json: bool, **columns: Any) -> None:
    """Inserts one row and prints its id; a daemon runs it when it is due.

    Where the unique or the idempotency key is taken, no row is added: the id of the job that has it is printed, and
    standard error says so. With --on-duplicate that job may have changed: docs/identity.md says how. TIME is like
    2026-12-31T23:00Z, DURATION like 30m.

    A webhook with an event and no destination is an event: its id is printed, and each endpoint that wants it gets a
    job.
    """
    row = NewRow(**columns)

    async def insert(session: Session) -> tuple[int, bool]:
        return await session.store.enqueue(row)

    job_id, added = with_session(config_file, insert)
    noun = "event" if row.is_event else "job"
    if not added:
        note(f"nothing added: {noun} {job_id} has this key")
    elif row.is_event:
        note(f"this is an event: a job for each endpoint that wants it; {job_id} is its id in webhook_events")
    if as_json:
        print_json({"id": job_id, "added": added, **({"event": True} if row.is_event else {})})
    else:
        click.echo(job_id)
