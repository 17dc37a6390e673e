"""The embedded server keeps its data, belongs to one owner, and goes when its owner goes, however that ends."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from daemon.embedded import Embedded
from daemon.pginstall import EmbeddedError, wheel_bin_dir

LAX = {"fsync": "off", "shared_buffers": "16MB"}
OWNER = """
import asyncio, concurrent.futures.thread, os, sys
from pathlib import Path
from daemon.embedded import Embedded
if len(sys.argv) > 2:  # imported as root: the interpreter may stand where others cannot read it
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
async def main():
    server = Embedded(Path(sys.argv[1]), settings={"fsync": "off"})
    await server.start()
    print(server.pid, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()
asyncio.run(main())
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as somebody else")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals and /proc are Linux's")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Outside pytest's own folders, which nobody but their owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="jobsd-embedded-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(scratch: Path) -> Path:
    """One data folder for all tests that start warm."""
    return scratch / "postgres"


@pytest.fixture
async def server(home: Path) -> AsyncIterator[Embedded]:
    """A running server; a test may stop it."""
    server = Embedded(home, settings=LAX)
    await server.start()
    yield server
    await server.stop()


def owner_of(path: Path) -> int:
    return path.stat().st_uid


def popen_beside(home: Path, *command: str | Path) -> subprocess.Popen[bytes]:
    """A process of the same account as the server's."""
    user = owner_of(home) if os.geteuid() == 0 else None
    return subprocess.Popen(command, user=user, stderr=subprocess.DEVNULL)


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)


async def fetchval(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def spawn_owner(*arguments: str | Path) -> asyncio.subprocess.Process:
    """Another process that starts the server, says its pid, and stops it when it is sent a line."""
    command = (sys.executable, "-c", OWNER, *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def gone(pid: int) -> bool:
    """Whether the process ends within a minute, by the kernel's own word."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [watched], [], [], 60)
        return bool(readable)
    finally:
        os.close(watched)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_committed_rows_survive_every_way_of_stopping(home: Path, mode: str) -> None:
    server = Embedded(home, settings=LAX)
    dsn = await server.start()
    await fetchval(dsn, f"create table kept_{mode} as select 7 as value")
    await server.stop("immediate" if mode == "immediate" else "fast")
    assert await server.start() == dsn
    assert await fetchval(dsn, f"select value from kept_{mode}") == 7
    await server.stop()


async def test_it_is_durable_unless_told_otherwise(home: Path) -> None:
    server = Embedded(home)
    dsn = await server.start()
    assert await fetchval(dsn, "select current_setting('fsync') || current_setting('synchronous_commit')") == "onon"
    await server.stop()


async def test_only_a_private_socket_leads_to_it(server: Embedded) -> None:
    assert await fetchval(server.dsn(), "select current_setting('listen_addresses')") == ""
    assert server.socket_folder.stat().st_mode & 0o777 == 0o700
    assert server.folder.stat().st_mode & 0o777 == 0o700


@on_linux
async def test_a_ctrl_c_in_the_terminal_does_not_reach_it(server: Embedded) -> None:
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)


@on_linux
async def test_it_inherits_nothing_of_our_environment_nor_does_the_way_to_it(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.stop()
    for name in ("NOTIFY_SOCKET", "PGPORT", "PGUSER", "PGSSLMODE"):
        monkeypatch.setenv(name, "require" if name == "PGSSLMODE" else "1")
    assert await fetchval(await server.start(), "select 1") == 1
    seen = await asyncio.to_thread(Path(f"/proc/{server.pid}/environ").read_bytes)
    assert b"NOTIFY_SOCKET" not in seen
    assert b"PGPORT" not in seen


async def test_a_second_user_attaches_and_leaves_it_running(server: Embedded) -> None:
    guest = Embedded(server.folder, settings=LAX)
    assert await guest.start() == server.dsn()
    assert guest.pid is None
    await guest.stop()
    assert await fetchval(server.dsn(), "select 1") == 1


async def test_who_must_own_it_waits_for_the_owner_to_finish(server: Embedded) -> None:
    heir = Embedded(server.folder, settings=LAX, attach=False)
    waiting = asyncio.create_task(heir.start())
    await server.stop()
    await waiting
    assert heir.pid is not None
    await heir.stop()


async def test_who_must_own_it_does_not_wait_for_ever(server: Embedded) -> None:
    with pytest.raises(EmbeddedError, match="another process owns"):
        await Embedded(server.folder, attach=False, timeout_s=0.05).start()


async def test_starting_twice_is_refused_and_harmless(server: Embedded) -> None:
    with pytest.raises(EmbeddedError, match="already started"):
        await server.start()
    assert await fetchval(server.dsn(), "select 1") == 1


@on_linux
async def test_a_killed_owner_takes_the_server_along(home: Path) -> None:
    owner = await spawn_owner(home)
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    owner.kill()
    await owner.wait()
    assert await gone(pid)
    heir = Embedded(home, settings=LAX)
    assert await fetchval(await heir.start(), "select 1") == 1
    await heir.stop()


@on_linux
async def test_a_server_left_without_owner_is_ended_and_its_data_served(home: Path, server: Embedded) -> None:
    await fetchval(server.dsn(), "create table left_behind as select 3 as value")
    await server.stop()
    arguments = ("-D", home / "data", f"--unix_socket_directories={home / 'run'}", "--listen_addresses=")
    orphan = popen_beside(home, server.bin_dir / "postgres", *arguments)
    await until((home / "run" / ".s.PGSQL.5432").exists)
    reaping = asyncio.create_task(asyncio.to_thread(orphan.wait))
    await server.start()
    await reaping
    assert await fetchval(server.dsn(), "select value from left_behind") == 3


@on_linux
async def test_a_pid_file_naming_a_stranger_blocks_nothing(home: Path, server: Embedded) -> None:
    await server.stop()
    stranger = popen_beside(home, "sleep", "60")
    try:
        left = f"{stranger.pid}\n{home / 'data'}\n1\n5432\n{home}\n\n1 1\nready\n"
        (home / "data" / "postmaster.pid").write_text(left)
        await server.start()
        assert await fetchval(server.dsn(), "select 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_server_that_cannot_start_says_why_and_frees_the_folder(home: Path, server: Embedded) -> None:
    await server.stop()
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        await Embedded(home, settings={"shared_buffers": "much"}).start()
    await server.start()


async def test_data_of_another_version_is_refused(home: Path, server: Embedded) -> None:
    await server.stop()
    with pytest.raises(EmbeddedError, match="belongs to PostgreSQL 18, not 16"):
        await Embedded(home, version=16).start()
    await server.start()


async def test_a_cancelled_start_leaves_no_server(server: Embedded) -> None:
    await server.stop()
    starting = asyncio.create_task(server.start())
    await until(lambda: server.pid)
    pid = server.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pid is not None
    assert await gone(pid)
    assert await fetchval(await server.start(), "select 1") == 1


async def test_unfinished_initdb_and_a_long_path_are_no_hindrance(scratch: Path) -> None:
    home = scratch / ("long" * 30) / "postgres"
    home.parent.mkdir(mode=0o711)
    server = Embedded(home, settings=LAX)
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "PG_VERSION").write_text("18\n")
    assert await fetchval(await server.start(), "select 1") == 1
    assert home not in server.socket_folder.parents
    await server.stop()
    shutil.rmtree(server.socket_folder)


async def test_a_name_taken_by_somebody_else_in_tmp_is_not_trusted(scratch: Path) -> None:
    server = Embedded(scratch / ("trap" * 30) / "postgres", settings=LAX)
    server.folder.parent.mkdir(mode=0o711)
    server.socket_folder.symlink_to(scratch)
    try:
        with pytest.raises(EmbeddedError, match="is not a folder of the account"):
            await server.start()
    finally:
        server.socket_folder.unlink()


def test_what_the_wheel_does_not_have_is_said() -> None:
    with pytest.raises(EmbeddedError, match="no embedded PostgreSQL 9: there are 16, 18"):
        Embedded(Path("x"), version=9)
    with pytest.raises(EmbeddedError, match="no postgres in"):
        Embedded(Path("x"), bin_dir=Path("/nonexistent"))


@as_root
async def test_under_root_it_runs_as_somebody_without_rights(server: Embedded) -> None:
    assert owner_of(Path(f"/proc/{server.pid}")) != 0


@as_root
async def test_an_installation_that_only_root_may_read_is_copied(scratch: Path, home: Path, server: Embedded) -> None:
    await server.stop()
    private = scratch / "private"
    shutil.copytree(wheel_bin_dir(18).parent, private / "installed", symlinks=True)
    private.chmod(0o700)
    copied = Embedded(home, bin_dir=private / "installed" / "bin", settings=LAX)
    assert await fetchval(await copied.start(), "select 1") == 1
    assert str(home / "installed") in os.readlink(f"/proc/{copied.pid}/exe")
    await copied.stop()
    await server.start()


@as_root
async def test_a_state_folder_that_only_root_may_enter_is_explained(scratch: Path) -> None:
    closed = scratch / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=f"chmod o\\+x {closed}"):
        await Embedded(closed / "postgres", settings=LAX).start()


@as_root
async def test_an_ordinary_user_runs_it_too(scratch: Path) -> None:
    state = scratch / "ordinary"
    state.mkdir()
    os.chown(state, 65534, 65534)
    owner = await spawn_owner(state / "postgres", "65534")
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    assert owner_of(Path(f"/proc/{pid}")) == 65534
    await owner.communicate(b"\n")
    assert owner.returncode == 0
    assert await gone(pid)
