"""A row of kind `email`, run as the daemon would run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec

from jobs.context import Context, Ledger, Tools
from jobs.email.handler import email
from jobs.email.relay import Mail
from jobs.email.suppressions import Key, Suppression, open_suppressions
from jobs.email.template import open_templates
from jobs.loads import Loads
from jobs.model import Job, Outcome, Retry, Snooze
from jobs.registry import KINDS
from jobs.templates import Templates
from sql import load
from tests.jobs.email.mail import SECRETS

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]


class OnlyTools:
    """What this kind uses of the daemon's tools."""

    def __init__(self, mail: Mail, db: Pool | None = None, templates: Templates | None = None) -> None:
        self.mail = mail
        self.db = db
        self.templates = templates
        self.secrets = SECRETS
        self.suppressions = open_suppressions(db) if db else Loads(_nobody, most=1, stale_s=0.0)
        if db is not None:
            self.email_templates = open_templates(db)


async def _nobody(keys: Sequence[Key]) -> Mapping[Key, Suppression]:
    return {}


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
        self.id = job_id
        self.attempt = 0
        self.crashes = 0
        self.records: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.log = Silent()

    async def run(self, *, dry_run: bool = False) -> Outcome:
        self.attempt += 1
        text = msgspec.json.encode(self.args).decode()
        job = Job(
            self.id,
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
        by_ledger: dict[Ledger, list[dict[str, Any]]] = {}
        for ledger, row in context.records:
            by_ledger.setdefault(ledger, []).append(dict(row))
        self.records = by_ledger.pop(Ledger("email_deliveries"), [])
        self.said = by_ledger.pop(Ledger("email_suppressions"), [])
        assert not by_ledger
        if self._db:
            await self._write("email_deliveries", self.records, job, outcome)
            await self._write("email_suppressions", self.said, job, outcome)
        return outcome

    async def _write(self, ledger: str, records: list[dict[str, Any]], job: Job, outcome: Outcome) -> None:
        if not records:
            return
        assert self._db is not None
        again = isinstance(outcome, Retry | Snooze)
        more = {"job_id": job.id, "attempt": job.attempt, "org_id": job.org_id, "retry_in_s": 60 if again else None}
        text = msgspec.json.encode([record | more for record in records]).decode()
        await self._db.execute(load("ledgers.sql")[ledger], text)
