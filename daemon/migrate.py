"""Bring a database's schema forward: numbered steps, each once, in order, under a lock."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

import sql
from daemon.role_store import put_right
from daemon.roles import quoted
from daemon.statements import search_path
from sql import Migration

_SQL = sql.load("migrate.sql")
PARTITIONED = (
    "job_history",
    "job_attempts",
    "webhook_deliveries",
    "email_deliveries",
    "domain_checks",
    "job_logs",
    "webhook_events",
    "notification_deliveries",
    "monitor_checks",
)
DAYS_AHEAD = 3


class SchemaError(Exception):
    """The database's schema is not the one this version works with; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a migration would do: the steps not yet applied."""

    pending: tuple[Migration, ...]
    applied: int


async def migrate(dsn: str, schema: str = "public", *, post: bool = True, roles: bool = False) -> list[str]:
    """Apply what is missing and return the names of the applied steps.

    The rights follow the manifest, as far as this role may give them: row-level security always, and what the roles may
    do if they exist.  `roles`: make them, for the whole server, and let jobsd_owner own everything.

    Steps marked `post` wait for `post=True`: they may break daemons of the previous version.  A second call, at once or
    later, does nothing.  SchemaError when an applied step's text has changed since, or the database is ahead of us.
    """
    conn = await asyncpg.connect(dsn, timeout=30, server_settings={"application_name": "jobsd migrate"})
    try:
        await conn.fetchval(_SQL["lock"], schema)  # waits for as long as another one works
        await conn.execute("set lock_timeout = '5s'")
        # not `create … if not exists`, which asks for the right to create even where nothing is to be created
        if not await conn.fetchval(_SQL["schema_exists"], schema):
            await conn.execute(f"create schema {quoted(schema)}")
        await conn.execute(f"set search_path = {search_path(schema)}")
        await conn.execute(_SQL["create"])
        done = []
        for step in compare(await conn.fetch(_SQL["applied"])).pending:
            if step.post and not post:
                break
            await _apply(conn, step)
            done.append(step.name)
        await conn.fetch(_SQL["partitions"], list(PARTITIONED), DAYS_AHEAD)
        await put_right(conn, create=roles, own=roles)
        return done
    finally:
        await conn.close()


async def plan(dsn: str, schema: str = "public") -> Plan:
    """What `migrate` would do now.  Changes nothing."""
    conn = await asyncpg.connect(dsn, timeout=30, server_settings={"search_path": search_path(schema)})
    try:
        return await look(conn)
    finally:
        await conn.close()


async def look(conn: asyncpg.Connection) -> Plan:
    """The plan for the schema that `conn` sees."""
    exists = await conn.fetchval(_SQL["exists"])
    return compare(await conn.fetch(_SQL["applied"]) if exists else [])


def compare(rows: Sequence[asyncpg.Record]) -> Plan:
    """Applied steps against ours.  Pure."""
    known = {step.number: step for step in sql.migrations()}
    for row in rows:
        step = known.get(row["number"])
        if step is None:
            raise SchemaError(
                f"the database has migration {row['name']}, which this version of jobsd does not know: "
                "it is ahead of the program; run a newer jobsd"
            )
        if row["checksum"] != checksum(step):
            raise SchemaError(
                f"migration {step.name} was changed after it was applied: install the jobsd that applied it, "
                "and make your change in a migration of its own"
            )
    applied = {row["number"] for row in rows}
    return Plan(tuple(step for number, step in known.items() if number not in applied), len(applied))


def checksum(step: Migration) -> str:
    return hashlib.sha256(step.script.encode()).hexdigest()


async def _apply(conn: asyncpg.Connection, step: Migration) -> None:
    """A step and its record commit together; one that cannot run in a transaction must be safe to run again."""
    if step.transactional:
        async with conn.transaction():
            await conn.execute(step.script)
            await conn.execute(_SQL["record"], step.number, step.name, checksum(step))
    else:
        await conn.execute(step.script)
        await conn.execute(_SQL["record"], step.number, step.name, checksum(step))


async def require_current(conn: asyncpg.Connection) -> None:
    """SchemaError when migrations are wanting.  Closes the connection."""
    try:
        pending = (await look(conn)).pending
    finally:
        await conn.close()
    if pending:
        raise SchemaError(
            f"the database is {len(pending)} migrations behind (next: {pending[0].name}); run: jobsd migrate"
        )
