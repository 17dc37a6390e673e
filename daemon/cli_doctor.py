"""`jobsd doctor`: looks at everything the daemon rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic, time

import asyncpg
import click

import sql
from daemon import doctor as judge
from daemon import doctor_roles, doctor_server
from daemon.cli_faults import meaning
from daemon.cli_options import config_option, json_option
from daemon.cli_output import cell, print_json
from daemon.cli_session import database
from daemon.config import Config, ConfigError, load
from daemon.database import ENGINE_CONNECTIONS, Database
from daemon.doctor import Finding
from daemon.exits import FAILED, OK, Exit
from daemon.handlers import HandlerError, load_kinds
from daemon.manifest import manifest
from daemon.migrate import SchemaError, look
from daemon.operator_store import OperatorStore
from daemon.outfit import secret_folders
from daemon.role_store import seen
from daemon.settings import EMBEDDED
from jobs.catalogue.kinds import looks
from jobs.email.dkim import unusable_keys
from jobs.secrets import Secrets
from jobs.webhook.profiles import names

_SQL = sql.load("doctor.sql")
_HINT = sql.load("worker.sql")["hint"]
HEAR_S = 1.0
APART = 2
"""Connections outside the pools: the listener's and the lease's."""

DAYS = 1
"""Today's partition and tomorrow's must be there; a daemon makes more."""


@click.command(short_help="Check everything the daemon rests on, with a remedy for each fault.")
@config_option
@json_option
def doctor(config_file: Path | None, as_json: bool) -> int:
    """Looks at the settings, the database, its schema, triggers, partitions and clock, at the daemons that live and the
    rows nobody serves, and says of each OK, WARN or FAIL, with a remedy. Exit code 1 if anything failed."""
    found = _examine(config_file)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            click.echo(f"{finding.verdict.upper():4}  {finding.check}: {cell(finding.says)}")
            if finding.fix:
                click.echo(f"      fix: {cell(finding.fix)}")
    return FAILED if any(finding.verdict == "fail" for finding in found) else OK


def _examine(config_file: Path | None) -> list[Finding]:
    """The settings first: without them there is nothing else to look at."""
    try:
        config = load(config_file)
    except ConfigError as error:
        return [Finding("config", "fail", str(problem), "jobsd config check") for problem in error.problems]
    return [*_settings(config), judge.python(), *asyncio.run(_reached(config))]


def _settings(config: Config) -> list[Finding]:
    found = [Finding("config", "warn", str(warning), "see docs/config.md") for warning in config.warnings]
    try:
        load_kinds(config.daemon.handlers, config.daemon.kinds, config.jobs)
    except HandlerError as error:
        found.append(Finding("handlers", "fail", str(error), "mend the module, or take it out of daemon.handlers"))
    found += judge.dkim(unusable_keys(config.email.dkim.values(), Secrets(secret_folders(config))))
    return found or [Finding("config", "ok", config.source)]


async def _reached(config: Config) -> list[Finding]:
    try:
        async with database(config) as found:
            conn = await found.connect()
            try:
                return await _look_around(config, found, conn)
            finally:
                await conn.close(timeout=5)
    except Exit as error:
        return [Finding("database", "fail", error.message, "start the server, or correct database.dsn")]
    except Exception as error:  # whatever the driver or the server says is a finding too
        said = meaning(error)
        return [
            Finding("database", "fail", said[1] if said else repr(error), "correct database.dsn, or the role's rights")
        ]


async def _look_around(config: Config, found: Database, conn: asyncpg.Connection) -> list[Finding]:
    asked, asked_at = monotonic(), time()
    server = await conn.fetchrow(_SQL["server"])
    took_s = monotonic() - asked
    if server is None:
        raise ConnectionError("no answer")
    findings = [
        judge.server(server["version"], server["shown"], standby=server["standby"]),
        judge.durability(server["synchronous_commit"], server["fsync"]),
        judge.clock(server["clock"] - asked_at - took_s / 2, took_s),
    ]
    schema = await _schema(conn)
    findings.append(schema)
    findings += judge.hearing(await _heard_after(found, conn), pooled=await _is_pooled(conn))
    findings += judge.horizon([dict(row) for row in await conn.fetch(_SQL["horizon"], judge.HORIZON_S)])
    findings += await _server(conn)
    if schema.verdict == "ok":
        findings += await _rights(config, conn)
        findings += await _tables(config, conn)
    return findings


async def _server(conn: asyncpg.Connection) -> list[Finding]:
    held = await conn.fetch(_SQL["settings"], list(manifest().settings))
    invalid = await conn.fetch(_SQL["invalid_indexes"], list(manifest().tables))
    return [
        *doctor_server.settings({row["name"]: row["setting"] for row in held}),
        *doctor_server.slots([dict(row) for row in await conn.fetch(_SQL["slots"])]),
        *doctor_server.indexes([dict(row) for row in invalid]),
    ]


async def _rights(config: Config, conn: asyncpg.Connection) -> list[Finding]:
    there = await seen(conn, manifest())
    (me,) = await conn.fetch(_SQL["me"])
    embedded = config.database.dsn == EMBEDDED
    return [*doctor_roles.me(dict(me), there, embedded=embedded), *doctor_roles.rights(manifest(), there)]


async def _schema(conn: asyncpg.Connection) -> Finding:
    try:
        return judge.schema([step.name for step in (await look(conn)).pending])
    except SchemaError as error:
        return Finding("schema", "fail", str(error), "run the jobsd that fits the database")


async def _tables(config: Config, conn: asyncpg.Connection) -> Sequence[Finding]:
    store = OperatorStore(conn)
    workers = await store.workers()
    (room,) = await conn.fetch(_SQL["room"])
    each = config.database.pool_size + config.database.transaction_pool_size + ENGINE_CONNECTIONS + APART
    missing = {row["parent"]: row["missing"] for row in await conn.fetch(_SQL["partitions"], DAYS)}
    with_triggers = [table for table, _ in judge.TRIGGERS]
    return [
        judge.partitions(missing),
        judge.strays([row["parent"] for row in await conn.fetch(_SQL["strays"])]),
        *judge.triggers([row["tgname"] for row in await conn.fetch(_SQL["triggers"], with_triggers)]),
        *judge.profiles([dict(row) for row in await conn.fetch(_SQL["profiles"], names(config.webhook.profiles))]),
        doctor_server.connections(*room, each=each, daemons=sum(row["lives"] for row in workers)),
        *judge.workers(workers),
        *judge.unserved((await store.survey()).parked),
        *judge.catalogue(await looks(conn, config.jobs)),
    ]


async def _is_pooled(conn: asyncpg.Connection) -> bool:
    return len({await conn.fetchval(_SQL["backend"]) for _ in range(5)}) > 1


async def _heard_after(found: Database, conn: asyncpg.Connection) -> float | None:
    """Seconds from a hint sent by `conn` to its arrival at a connection that listens."""
    heard = asyncio.Event()
    ear = await found.connect()
    try:
        await ear.add_listener(found.channel, lambda *_: heard.set())
        sent = monotonic()
        await conn.execute(_HINT)
        async with asyncio.timeout(HEAR_S):
            await heard.wait()
        return monotonic() - sent
    except TimeoutError:
        return None
    finally:
        await ear.close(timeout=5)
