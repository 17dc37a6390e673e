"""What a handler may touch while it runs one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NewType, Protocol

from jobs.model import Job

if TYPE_CHECKING:
    import asyncpg
    import httpx2

    from jobs.dns.resolver import Resolver
    from jobs.email.relay import Mail
    from jobs.secrets import Secrets
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
    def webhook(self) -> WebhookSettings: ...


class Progress(Protocol):
    """Says how far a job is: `percent` 0–100, and whatever else people should read, up to 4 KiB of JSON.  Written at
    most once a second; the last value always is."""

    async def __call__(self, percent: float, **fields: Any) -> None: ...


class Context:
    """One attempt's view of the world.

    `ctx.job` is the row; `ctx.db`, `ctx.http`, `ctx.mail`, `ctx.dns` are the daemon's clients; `ctx.log` adds the job's
    fields to each line; `ctx.dry_run` is true where nothing may change; `ctx.fence` is the token to pass on to systems
    that can refuse a late writer.
    """

    __slots__ = ("dry_run", "job", "log", "progress", "records", "tools")

    def __init__(self, job: Job, tools: Tools, log: Log, progress: Progress, *, dry_run: bool = False) -> None:
        self.job = job
        self.tools = tools
        self.log = log
        self.progress = progress
        self.dry_run = dry_run
        self.records: list[tuple[Ledger, Mapping[str, Any]]] = []

    @property
    def fence(self) -> int:
        return self.job.fence

    @property
    def db(self) -> asyncpg.Pool:
        """Connections for the handler's own statements; borrow one only while you use it."""
        return self.tools.db

    @property
    def http(self) -> httpx2.AsyncClient:
        return self.tools.http

    @property
    def mail(self) -> Mail:
        return self.tools.mail

    @property
    def dns(self) -> Resolver:
        return self.tools.dns

    def record(self, ledger: Ledger, row: Mapping[str, Any]) -> None:
        """Write `row` to a channel's log in the same commit as this attempt's outcome."""
        self.records.append((ledger, row))
