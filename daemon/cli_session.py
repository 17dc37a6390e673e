"""What a command works with: the settings, and one connection to their database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import asyncpg

from daemon.config import Config, load
from daemon.database import Database
from daemon.embedded import Embedded
from daemon.exits import UNAVAILABLE, Exit
from daemon.migrate import migrate
from daemon.operator_store import OperatorStore
from daemon.settings import EMBEDDED, DatabaseSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """One command's view of the database."""

    config: Config
    conn: asyncpg.Connection
    store: OperatorStore


def with_session(config_file: Path | None, command: Callable[[Session], Awaitable[T]]) -> T:
    """Run `command` on an open session; what goes wrong is left to cli.main."""
    config = load(config_file)

    async def run() -> T:
        async with session(config) as opened:
            return await command(opened)

    return asyncio.run(run())


@asynccontextmanager
async def session(config: Config) -> AsyncIterator[Session]:
    async with database(config) as found:
        with reaching():
            conn = await found.connect()
        try:
            yield Session(config, conn, OperatorStore(conn))
        finally:
            await conn.close(timeout=5)


@asynccontextmanager
async def database(config: Config, *, as_it_is: bool = False) -> AsyncIterator[Database]:
    """The database of the settings; an embedded one is started, or shared with the daemon that runs it.

    One that is started is migrated, as `serve` does, unless it is wanted `as_it_is`.
    """
    settings = named(config.database)
    if config.database.dsn != EMBEDDED:
        yield Database(str(config.database.dsn), settings)
        return
    server = Embedded(config.daemon.postgres_folder)
    with reaching():
        dsn = await server.start()
    try:
        if server.pid is not None and not as_it_is:  # ours alone, so there is no older daemon to be disturbed
            await migrate(dsn, settings.schema, roles=True)
        yield Database(dsn, settings)
    finally:
        await server.stop()


@contextmanager
def reaching() -> Iterator[None]:
    """While connecting, whatever the operating system says is about the database."""
    try:
        yield
    except OSError as error:
        raise Exit(UNAVAILABLE, f"the database is unavailable: {error or type(error).__name__}") from error


def named(settings: DatabaseSettings) -> DatabaseSettings:
    """As the daemon's, but told apart in pg_stat_activity."""
    return replace(settings, application_name=f"{settings.application_name} cli"[:63])
