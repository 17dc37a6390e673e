"""A row of kind `email`, run as the daemon would run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec

from jobs.context import Context, Ledger, Tools
from jobs.email.handler import email
from jobs.email.relay import Mail
from jobs.email.template import open_templates
from jobs.model import Job, Outcome, Snooze
from jobs.registry import KINDS
from jobs.templates import Templates
from sql import load

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]


class OnlyTools:
    """What this kind uses of the daemon's tools."""

    def __init__(self, mail: Mail, db: Pool | None = None, templates: Templates | None = None) -> None:
        self.mail = mail
        self.db = db
        self.templates = templates
        if db is not None:
            self.email_templates = open_templates(db)


class Silent:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.info(event, **fields)

    def debug(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    info = warning = error = debug


async def no_progress(percent: float, **fields: Any) -> None:
    raise AssertionError("nobody asked for progress")


class Row:
    """One row of `jobs`, run again and again as the daemon would; each attempt's records go to the log's table.

    What it says is a text unless it says something else.
    """

    def __init__(
        self,
        mail: Mail,
        db: Pool | None = None,
        *,
        org_id: str | None = None,
        templates: Templates | None = None,
        tools: OnlyTools | None = None,
        job_id: int = 7,
        **args: Any,
    ) -> None:
        usual = {} if "template" in args else {"subject": "Hello", "text": "Hello, Jane.\n"}
        self.args = {"to": "jane@x.example"} | usual | args
        self._tools = tools or OnlyTools(mail, db, templates)
        self._db = db
        self._org_id = org_id
        self.job_id = job_id
        self.attempt = 0
        self.crashes = 0
        self.records: list[dict[str, Any]] = []
        self.log = Silent()

    async def run(self, *, dry_run: bool = False) -> Outcome:
        self.attempt += 1
        text = msgspec.json.encode(self.args).decode()
        job = Job(
            self.job_id,
            self.attempt,
            "email",
            "default",
            2,
            self.attempt,
            text,
            run_at=0.0,
            crashes=self.crashes,
            org_id=self._org_id,
        )
        context = Context(job, cast(Tools, self._tools), self.log, no_progress, dry_run=dry_run)
        outcome = await email(KINDS["email"].decode(text), context)
        if isinstance(outcome, Snooze):
            self.attempt -= 1
        assert {ledger for ledger, _ in context.records} <= {Ledger("email_deliveries")}
        self.records = [dict(row) for _, row in context.records]
        if self._db:
            rows = [row | {"job_id": job.id, "attempt": job.attempt} for row in self.records]
            await self._db.execute(load("ledgers.sql")["email_deliveries"], msgspec.json.encode(rows).decode())
        return outcome
