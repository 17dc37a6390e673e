"""The Postgres that tests run on: one for a process, in a thread of its own, with a database cloned for each test."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

import sql
from jobs.testing import clock
from jobs.testing.engine import Postgres, find_engine

T = TypeVar("T")
Schema = str | Path | Callable[[str], Awaitable[None] | None] | None
"""The user's own tables: SQL, a file of it, or a function that is given a DSN."""

EMBEDDED = "embedded"
_ENOUGH_MEMORY_BYTES = 1 << 30
_CLOSE_S = 60.0
_CUT_S = 5.0
_CUT_LOOK_S = 0.002
_SQL = sql.load("testing.sql")


@dataclass(frozen=True, slots=True)
class Database:
    """One test's own."""

    name: str
    dsn: str


class Server:
    """Makes databases, and drops them.  `dsn` is a server whose user may create databases, or "embedded"."""

    def __init__(self, dsn: str = EMBEDDED) -> None:
        self._dsn = dsn
        self._engine = find_engine()
        self._token = f"{os.getpid()}_{secrets.token_hex(3)}"
        self._numbers = count()
        self._templates: dict[Schema, str] = {}
        self._postgres: Postgres | None = None
        self._folder: Path | None = None
        self._admin: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._strategy = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._fault: BaseException | None = None
        self._closing: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="jobs.testing server", daemon=True)

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it can be asked for databases; blocks for half a second when it is our own."""
        self._thread.start()
        self._up.wait()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Drop the templates, and end a server of our own."""
        if self._loop is not None and self._closing is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(_CLOSE_S)

    def _main(self) -> None:
        """The thread lives as long as the server: the kernel ends the one with the other."""
        try:
            asyncio.run(self._live())
        except BaseException as error:  # belongs to whoever called start()
            self._fault = error
        finally:
            self._up.set()

    async def _live(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self._open()
            self._up.set()
            await self._closing.wait()
        finally:
            await self._shut()

    async def _open(self) -> None:
        if self._dsn == EMBEDDED:
            self._folder = _roomy_folder()
            self._postgres = self._engine.postgres(self._folder / "postgres")
            await self._postgres.start()
            self._dsn = self._postgres.dsn("postgres")
            self._strategy = " strategy file_copy"  # half the time of wal_log where nothing is synced
        self._admin = await asyncpg.connect(self._dsn)

    async def _shut(self) -> None:
        if self._admin is not None:
            if self._postgres is None:
                for name in self._templates.values():
                    await self._drop(name)
            await self._admin.close()
        if self._postgres is not None:
            await self._postgres.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- databases ----------------------------------------------------------------------------------------------------

    async def clone(self, schema: Schema = None) -> Database:
        """A new database with the jobs tables and those of `schema`."""
        return await self._ask(self._clone(schema))

    async def copy(self, source: Database) -> Database:
        """Another with the same in it; whoever is connected to `source` is cut off."""
        return await self._ask(self._copy(source, f"jobsd_test_{self._token}_{next(self._numbers)}"))

    async def put_back(self, database: Database, copy: Database) -> None:
        """Make `database` what it was when `copy` was taken."""
        await self._ask(self._put_back(database, copy))

    async def drop(self, database: Database) -> None:
        await self._ask(self._drop(database.name))

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Done in the server's own loop: the caller's may be another in each test."""
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise RuntimeError("this server is closed")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _clone(self, schema: Schema) -> Database:
        async with self._turn:
            template = await self._template(schema)
            name = f"jobsd_test_{self._token}_{next(self._numbers)}"
            await self._create(name, template)
        return Database(name, self._dsn_of(name))

    async def _copy(self, source: Database, name: str) -> Database:
        async with self._turn:
            await self._cut_off(source.name)
            await self._create(name, source.name)
        return Database(name, self._dsn_of(name))

    async def _put_back(self, database: Database, copy: Database) -> None:
        async with self._turn:
            await self._cut_off(database.name)
            await self._drop(database.name)
            await self._create(database.name, copy.name)

    async def _template(self, schema: Schema) -> str:
        """Made once for each schema; nobody is connected to it."""
        if schema in self._templates:
            return self._templates[schema]
        name = f"jobsd_template_{self._token}_{next(self._numbers)}"
        if schema is None:
            await self._execute(f'create database "{name}"')
            await self._fill(name)
        else:
            await self._create(name, await self._template(None))
            await _apply(schema, self._dsn_of(name))
            await self._rebind(name)
        self._templates[schema] = name
        return name

    async def _fill(self, name: str) -> None:
        await self._engine.migrate(self._dsn_of(name))
        conn = await asyncpg.connect(self._dsn_of(name))
        try:
            await clock.install(conn, name)
        finally:
            await conn.close()
        await self._rebind(name)

    async def _rebind(self, name: str) -> None:
        conn = await asyncpg.connect(self._dsn_of(name))
        try:
            await clock.rebind(conn)
        finally:
            await conn.close()

    async def _create(self, name: str, template: str) -> None:
        await self._execute(f'create database "{name}" template "{template}"{self._strategy}')
        await self._execute(clock.in_sight(name))

    async def _drop(self, name: str) -> None:
        await self._execute(f'drop database if exists "{name}" with (force)')

    async def _cut_off(self, name: str) -> None:
        """End every connection to it.  Waited for here: Postgres looks only every 100 ms whether they are gone."""
        for _ in range(round(_CUT_S / _CUT_LOOK_S)):
            if not await self._query(_SQL["cut_off"], name):
                return
            await asyncio.sleep(_CUT_LOOK_S)
        raise TimeoutError(f"somebody stays connected to {name}")

    async def _query(self, statement: str, *args: Any) -> Any:
        if self._admin is None:
            raise RuntimeError("this server is not started")
        return await self._admin.fetchval(statement, *args)

    async def _execute(self, statement: str) -> None:
        if self._admin is None:
            raise RuntimeError("this server is not started")
        await self._admin.execute(statement)

    def _dsn_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{database}"))


async def _apply(schema: Schema, dsn: str) -> None:
    if callable(schema):
        if inspect.iscoroutinefunction(schema):
            await schema(dsn)
        else:
            await asyncio.to_thread(schema, dsn)
        return
    text = schema.read_text() if isinstance(schema, Path) else schema
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(text or "")
    finally:
        await conn.close()


def _roomy_folder() -> Path:
    """In memory where there is enough; the server's account can enter it."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="jobsd-testing-", dir=memory if roomy else None))
    folder.chmod(0o711)
    return folder


# --- one for the process ----------------------------------------------------------------------------------------------

_servers: dict[str, Server] = {}
_door = threading.Lock()


def server(dsn: str | None = None) -> Server:
    """The server of this process for that address, started at its first use and ended with the process."""
    wanted = dsn or EMBEDDED
    with _door:
        if wanted not in _servers:
            made = Server(wanted)
            made.start()
            if not _servers:
                atexit.register(close_servers)
            _servers[wanted] = made
        return _servers[wanted]


def close_servers() -> None:
    """End them now; the next use starts anew."""
    with _door:
        while _servers:
            _servers.popitem()[1].close()
        atexit.unregister(close_servers)
