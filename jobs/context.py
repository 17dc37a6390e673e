"""What a handler may touch while it runs one job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NewType, Protocol

from jobs.children import Callback, New, OnFailure, add, begin
from jobs.model import Job

if TYPE_CHECKING:
    import asyncpg
    import httpx2

    from jobs.dns.resolver import Resolver
    from jobs.email.relay import Mail
    from jobs.email.suppressions import Key as SuppressionKey
    from jobs.email.suppressions import Suppression
    from jobs.email.template import Key as TemplateKey
    from jobs.email.template import Template
    from jobs.email.turns import Turns
    from jobs.loads import Loads
    from jobs.monitor.prober import Prober
    from jobs.push.client import Push
    from jobs.secrets import Secrets
    from jobs.sms.client import Sms
    from jobs.storage.storage import Storage
    from jobs.templates import Templates
    from jobs.webhook.endpoints import Endpoint, Event
    from jobs.webhook.health import Health
    from jobs.webhook.settings import WebhookSettings

Ledger = NewType("Ledger", str)
"""A statement of sql/ledgers.sql that inserts one jsonb array of rows: `Ledger("webhook_deliveries")`."""


class Log(Protocol):
    """A logger bound to one attempt; each call is one JSON line with the job's fields added, and is kept with the job
    (`jobsd jobs logs`).  Called by itself it is `info`."""

    def __call__(self, event: str, **fields: Any) -> None: ...
    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...


class Tools(Protocol):
    """The long-lived clients a daemon opens once from its settings; swapped whole at a reload."""

    @property
    def db(self) -> asyncpg.Pool: ...
    @property
    def http(self) -> httpx2.AsyncClient: ...
    @property
    def mail(self) -> Mail: ...
    @property
    def dns(self) -> Resolver: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def templates(self) -> Templates: ...
    @property
    def email_templates(self) -> Loads[TemplateKey, Template]: ...
    @property
    def suppressions(self) -> Loads[SuppressionKey, Suppression]: ...
    @property
    def webhook(self) -> WebhookSettings: ...
    @property
    def endpoints(self) -> Loads[int, Endpoint]: ...
    @property
    def events(self) -> Loads[int, Event]: ...
    @property
    def health(self) -> Health: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def push(self) -> Push: ...
    @property
    def sms(self) -> Sms: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def monitor(self) -> Prober: ...


class Progress(Protocol):
    """Says how far a job is: `percent` 0–100, and whatever else people should read, up to 4 KiB of JSON.  Written at
    most once a second; the last value always is."""

    async def __call__(self, percent: float, **fields: Any) -> None: ...


class Context:
    """One attempt's view of the world.

    `ctx.job` is the row; `ctx.db`, `ctx.http`, `ctx.mail`, `ctx.dns`, `ctx.storage` are the daemon's clients; `ctx.log`
    adds the job's fields to each line; `ctx.dry_run` is true where nothing may change; `ctx.fence` is the token to pass
    on to systems that can refuse a late writer.
    """

    __slots__ = ("_conn", "dry_run", "job", "log", "progress", "records", "tools")

    def __init__(self, job: Job, tools: Tools, log: Log, progress: Progress, *, dry_run: bool = False) -> None:
        self.job = job
        self.tools = tools
        self.log = log
        self.progress = progress
        self.dry_run = dry_run
        self.records: list[tuple[Ledger, Mapping[str, Any]]] = []
        self._conn: asyncpg.Connection | None = None

    @property
    def fence(self) -> int:
        return self.job.fence

    @property
    def db(self) -> asyncpg.Pool:
        """Connections for the handler's own statements; borrow one only while you use it."""
        return self.tools.db

    @property
    def conn(self) -> asyncpg.Connection:
        """Of a transactional kind: the connection whose open transaction is committed with this row's end."""
        if self._conn is None:
            raise RuntimeError("ctx.conn is there for kinds registered with transactional=True, and while they run")
        return self._conn

    def lend(self, conn: asyncpg.Connection | None) -> None:
        """Give the handler its transaction, or take it back; whoever calls the handler does."""
        self._conn = conn

    @property
    def http(self) -> httpx2.AsyncClient:
        return self.tools.http

    @property
    def mail(self) -> Mail:
        return self.tools.mail

    @property
    def dns(self) -> Resolver:
        return self.tools.dns

    @property
    def storage(self) -> Storage:
        """Where archives and exports lie: `[storage]` of the config."""
        return self.tools.storage

    async def batch(
        self,
        children: Iterable[New],
        *,
        then: Callback | None,
        on_failure: OnFailure = "call",
        key: str | None = None,
        nested: bool = True,
    ) -> int:
        """Begin a batch: these rows, and `then` one more when all of them have ended; its id.  Called again for the
        same job and `key` it begins nothing: the handler may run twice.  `nested`: if this job is a child itself, its
        own batch waits for the new one.  In a transactional handler all of it is part of the transaction."""
        job = self.job
        return await begin(
            self.db if self._conn is None else self._conn,
            (child if child.org_id else replace(child, org_id=job.org_id) for child in children),
            then=then,
            on_failure=on_failure,
            key=f"job-{job.id}" + (f"-{key}" if key else ""),
            org_id=job.org_id,
            parent_id=job.batch_id if nested else None,
            correlation_id=job.correlation_id,
        )

    async def add(self, children: Iterable[New]) -> list[int]:
        """More children for the batch that this job is a child of; their ids."""
        job = self.job
        if job.batch_id is None:
            raise RuntimeError(f"job {job.id} is no child of a batch")
        of_ours = (child if child.org_id else replace(child, org_id=job.org_id) for child in children)
        return await add(self.db if self._conn is None else self._conn, job.batch_id, of_ours)

    def record(self, ledger: Ledger, row: Mapping[str, Any]) -> None:
        """Write `row` to a channel's log in the same commit as this attempt's outcome."""
        self.records.append((ledger, row))
