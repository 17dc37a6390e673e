"""Archive first: nothing is deleted that its archive does not hold, read back and hashed."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.archive.manifest import files, manifest_path, read_manifest
from jobs.archive.reading import check, lines
from jobs.cleanup import archived
from jobs.model import Done
from jobs.storage.faults import StorageError
from jobs.storage.storage import Storage
from jobs.testing import Queue
from tests.jobs.catalogue.house import rehearsed, zoo

pytestmark = pytest.mark.req("BJ-09")

SCHEMA = """
create schema zoo;
create table zoo.log (
    org text not null default 'o', id int generated always as identity, at timestamptz not null,
    what text default 'x"\\n', critical boolean default false, primary key (org, id)
);
create index on zoo.log (at);
create table zoo.events (at timestamptz default now(), detail jsonb);
"""
CONFIG = """
[jobs.log]
verb = "purge"
table = "zoo.log"
age_column = "at"
retention = "365d"
longer_where = { critical = true }
longer_retention = "2557d"
archive = true
batch = 5
pause = "0"
"""


async def logged(queue: Queue, days: float, count: int, critical: bool = False) -> None:
    await queue.pool.execute(
        "insert into zoo.log (at, critical) select now() - $1::float8 * interval '1 day' - n * interval '1 s', $3 "
        "from generate_series(1, $2::int) as n",
        days,
        count,
        critical,
    )


async def in_archives(storage: Storage) -> Counter[int]:
    """How often each row stands in complete files, all of which are whole."""
    found: Counter[int] = Counter()
    async for file, complete in files(storage):
        if complete:
            manifest = await read_manifest(storage, manifest_path(file))
            await check(storage, manifest)
            async for some in lines(storage, manifest):
                found.update(int(json.loads(line)["id"]) for line in some)
    return found


async def there(queue: Queue) -> set[int]:
    return {row[0] for row in await queue.pool.fetch("select id from zoo.log")}


async def test_rows_are_archived_and_then_they_go() -> None:
    async with zoo(CONFIG, SCHEMA) as queue:
        await logged(queue, 400, 12)
        await logged(queue, 400, 3, critical=True)
        await logged(queue, 3000, 2, critical=True)
        await logged(queue, 10, 4)
        said = await rehearsed(queue, CONFIG, "log")
        assert isinstance(said, Done)
        assert (said.result["would_delete"], said.result["would_archive"]) == (14, 14)
        await queue.enqueue("log")
        assert (await queue.drain(raise_errors=True)).one().result == {"deleted": 14, "archived": 14}
        storage = queue._tools.storage
        assert await in_archives(storage) == Counter([*range(1, 13), 16, 17])
        assert await there(queue) == {13, 14, 15, 18, 19, 20, 21}
        await queue.enqueue("log")
        assert (await queue.drain()).one().result == {"deleted": 0, "archived": 0}
        assert len([1 async for _ in files(storage)]) == 1, "nothing to archive makes no file"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators whose run was cut off
async def test_killed_anywhere_no_row_is_gone_that_no_archive_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived, "PART_ROWS", 6)
    async with zoo(CONFIG, SCHEMA) as queue:
        storage = queue._tools.storage
        for pause in range(1, 120, 13):
            await queue.pool.execute("truncate zoo.log restart identity")
            await storage.delete([stored.path async for stored in storage.list()])
            await logged(queue, 400, 14)
            await logged(queue, 10, 2)
            await queue.enqueue("log")
            queue.crash_next("log", at=pause)
            await queue.drain(max_jobs=1)
            assert set(range(1, 17)) - await there(queue) <= set(await in_archives(storage)), f"killed in pause {pause}"
            await queue.drain_all()
            assert await there(queue) == {15, 16}
            assert set(await in_archives(storage)) == set(range(1, 15))
            if not queue.pause_reached:
                break
        assert pause > 13, "it was killed at several places"


async def test_a_row_that_changed_after_it_was_archived_stays_until_its_new_self_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with zoo(CONFIG, SCHEMA) as queue:
        await logged(queue, 400, 4)
        fill = archived.Archiving._fill

        async def slow(self: Any, *rest: Any) -> None:
            await fill(self, *rest)
            await queue.pool.execute("update zoo.log set what = 'new' where id = 2")

        monkeypatch.setattr(archived.Archiving, "_fill", slow)
        await queue.enqueue("log")
        assert (await queue.drain(raise_errors=True)).one().result == {"deleted": 3, "archived": 4}
        assert await there(queue) == {2}
        monkeypatch.undo()
        await queue.enqueue("log")
        assert (await queue.drain()).one().result == {"deleted": 1, "archived": 1}
        assert (await in_archives(queue._tools.storage))[2] == 2


async def test_without_its_storage_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with zoo(CONFIG, SCHEMA) as queue:
        await logged(queue, 400, 4)

        async def broken(*_: Any) -> None:
            raise StorageError("the disk is full", "here", "make room")

        monkeypatch.setattr("jobs.archive.part.check", broken)
        await queue.enqueue("log")
        assert (await queue.drain()).one().outcome == "retry"
        assert len(await there(queue)) == 4
        monkeypatch.undo()
        await queue.clock.advance(timedelta(hours=1))
        assert [one.outcome for one in await queue.drain_all()] == ["done"]
        assert await there(queue) == set()


async def test_what_a_killed_run_had_begun_goes_with_the_next_run_a_day_later() -> None:
    async with zoo(CONFIG, SCHEMA) as queue:
        storage = queue._tools.storage
        await logged(queue, 400, 1)
        await queue.enqueue("log")
        await queue.drain(raise_errors=True)
        (folder,) = {Path(file).parent async for file, _ in files(storage)}
        left, under_way = (Path(storage.where) / folder / name for name in ("a.jsonl.zst#1", "b.jsonl.zst#1"))
        for path in (left, under_way):
            path.write_bytes(b"half of it")
        os.utime(left, (0, 0))
        await queue.enqueue("log")
        await queue.drain(raise_errors=True)
        assert (left.exists(), under_way.exists()) == (False, True)


async def test_what_a_foreign_key_would_delete_beside_them_parks_the_job() -> None:
    """It would be gone, and in no archive."""
    notes = "create table zoo.notes (org text, id int, foreign key (org, id) references zoo.log on delete {}, n int)"
    async with zoo(CONFIG, SCHEMA) as queue:
        await logged(queue, 400, 4)
        await queue.pool.execute(notes.format("cascade"))
        await queue.pool.execute("insert into zoo.notes select org, id, 7 from zoo.log")
        await queue.enqueue("log")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("snooze", "parked")
        assert "jobs.log.archive: rows of zoo.notes would go with those that they point to" in str(ran.reason)
        assert len(await there(queue)) == await queue.pool.fetchval("select count(*) from zoo.notes") == 4
        await queue.pool.execute("drop table zoo.notes; " + notes.format("set null"))
        assert [one.outcome for one in await queue.drain_all()] == ["done"]
        assert await there(queue) == set()


async def test_large_rows_make_more_files_and_not_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived, "PART_BYTES", 1000)
    async with zoo(CONFIG, SCHEMA) as queue:
        await logged(queue, 400, 20)
        await queue.pool.execute("update zoo.log set what = repeat('x', 400)")
        await queue.enqueue("log")
        assert (await queue.drain(raise_errors=True)).one().result == {"deleted": 20, "archived": 20}
        assert len([1 async for _ in files(queue._tools.storage)]) == 4, "a page of five rows each"
        assert await in_archives(queue._tools.storage) == Counter(range(1, 21))
