"""A job's dry run: its handler is told to change nothing, and gets a database in which nothing can be changed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import Any, cast

import asyncpg

from daemon.config import Config
from daemon.database import Database
from daemon.observe import Observer
from daemon.outfit import secret_folders, wanted
from daemon.statements import search_path
from jobs.clients import Clients, open_clients
from jobs.context import Context
from jobs.model import Done, Job, Outcome, Retry
from jobs.registry import Kind
from jobs.secrets import Secrets


async def rehearse(
    config: Config, database: Database, kind: Kind, job: Job, observer: Observer
) -> tuple[Outcome, str | None]:
    """What the handler says, and the trace of what it raised.  No row is inserted, claimed or written."""
    timeout_s = config.timeout_s(kind.name, job.queue, kind.timeout_s)
    async with _clients(config, database) as clients:
        context = Context(job, clients, observer.log_for(job), _no_progress, dry_run=True)
        try:
            async with asyncio.timeout(timeout_s), _lent(clients, kind, context):
                reply = await kind.handler(kind.decode(job.args_json), context)
        except Outcome as said:
            return said, None
        except TimeoutError:
            return Retry(f"no end within {timeout_s:g} s", code="timeout"), None
        except Exception as error:  # a handler may raise anything
            return Retry(str(error) or type(error).__name__, code="exception"), traceback.format_exc()
    return (reply if isinstance(reply, Outcome) else Done(reply)), None


def unsaved(kind: Kind, args_json: str, queue: str, org_id: str | None) -> Job:
    """A job that has no row; its id is 0."""
    now = time()
    job = Job(0, 0, kind.name, queue, 2, 1, args_json, run_at=now, claimed_at=now, org_id=org_id)
    if kind.lane is not None:
        job.lane = kind.lane(kind.decode(args_json))
    return job


@asynccontextmanager
async def _clients(config: Config, database: Database) -> AsyncIterator[Clients]:
    """Connected to only when the handler asks for a connection; whatever writes on one is refused by Postgres."""
    async with asyncpg.create_pool(
        database.dsn,
        min_size=0,
        max_size=config.database.pool_size,
        timeout=config.database.connect_timeout,
        server_settings={
            "application_name": f"{config.database.application_name} dry run"[:63],
            "search_path": search_path(config.database.schema),
            "default_transaction_read_only": "on",
            "timezone": "UTC",
        },
    ) as pool:
        clients = open_clients(wanted(config), pool, Secrets(secret_folders(config)))
        try:
            yield clients
        finally:
            await clients.close()


@asynccontextmanager
async def _lent(clients: Clients, kind: Kind, context: Context) -> AsyncIterator[None]:
    """The transaction of a transactional kind."""
    if not kind.transactional:
        yield
        return
    async with clients.db.acquire() as conn, conn.transaction(readonly=True):
        context.lend(cast(asyncpg.Connection, conn))
        yield


async def _no_progress(percent: float, **fields: Any) -> None:
    """There is no row to keep it in."""
