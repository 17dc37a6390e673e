"""`export_account`: every row of an account and nobody else's, in one file, behind a link that its owner gets once."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
import zipfile
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobs.accounts.bundle import csv_text, file_names
from jobs.accounts.export import Exporting
from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.accounts.people import (
    ANN,
    BOB,
    CONFIG,
    EXPORT,
    LINKS,
    MAIL,
    SCHEMA,
    befriend,
    club,
    leave,
    move_in,
    rows_of,
    traces,
)
from tests.jobs.catalogue.house import killed_everywhere, rehearsed, whole

pytestmark = pytest.mark.req("BJ-17")

FOLDER = "exports/parcel/"


async def exported(queue: Queue) -> Any:
    await queue.enqueue("parcel")
    ran = (await queue.drain(raise_errors=True)).of("parcel").one()
    assert ran.outcome == "done", ran
    return ran.result


async def asked(pool: asyncpg.Pool, member: str) -> None:
    await pool.execute("insert into club.parcels (member_id) values ($1)", member)


async def unpacked(queue: Queue, path: str | None = None) -> zipfile.ZipFile:
    """The only one there is."""
    if path is None:
        (path,) = [stored.path async for stored in queue.storage.list(FOLDER)]
    file = zipfile.ZipFile(io.BytesIO(await queue.storage.get(path, most=1 << 24)))
    assert file.testzip() is None
    return file


def canonical(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def plain(table: str) -> str:
    return table.replace('"', "")


async def test_every_row_of_an_account_is_in_it_and_nobody_elses() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        hers = {name: rows for name, rows in (await rows_of(queue.pool)).items() if rows}
        hers["club.marks"] = sorted(hers.pop("club.marks_old") + hers.pop("club.marks_new"))
        await move_in(queue.pool, BOB)
        await befriend(queue.pool)
        hers["club.friends"] = [
            json.dumps({"member_id": one, "with_id": other}) for one, other in ((ANN, BOB), (BOB, ANN))
        ]
        await asked(queue.pool, ANN)
        assert (await exported(queue))["exported"] == 1
        file = await unpacked(queue)
        rows = {name: json.loads(file.read(f"json/{plain(name)}.json")) for name in hers}
        for name, found in hers.items():
            wanted = [json.loads(row) for row in found]
            for row in wanted if name == "club.photos" else ():
                del row["raw"]
            assert sorted(map(canonical, rows[name])) == sorted(map(canonical, wanted)), name
        others = [name for name in file.namelist() if name.startswith("json/") and name[5:-5] not in map(plain, hers)]
        assert [name for name in others if json.loads(file.read(name))] == ["json/club.parcels.json"]
        assert len(json.loads(file.read("json/club.parcels.json"))) == 1
        everything = b"".join(file.read(name) for name in file.namelist())
        assert MAIL[BOB].encode() not in everything
        assert BOB.encode() in everything, "her friends are hers"
        about = json.loads(file.read("export.json"))
        assert about["account"] == ANN
        assert about["rows"]["club.photos"] == 42


async def test_the_tables_as_csv_say_the_same() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        await exported(queue)
        file = await unpacked(queue)
        for name in file.namelist():
            if not name.startswith("csv/"):
                continue
            header, *lines = list(csv.reader(io.StringIO(file.read(name).decode())))
            rows = json.loads(file.read(f"json{name[3:-4]}.json"))
            assert len(lines) == len(rows), name
            if rows:
                assert header == list(rows[0])
        orders = list(csv.DictReader(io.StringIO(file.read("csv/club.orders.csv").decode())))
        assert orders[0]["note"] == "'=1+1", "no spreadsheet runs what a stranger wrote"
        assert orders[0]["number"] == "1"


def test_every_table_has_a_file_of_its_own_on_any_disk() -> None:
    names = ["app.a", 'app."A"', 'app."a""b"', "app.ab", 'app."../../x"', 'app."con\x01:"', "app.a-2"]
    assert file_names(names) == ["app.a", "app.A-2", "app.ab", "app.ab-2", "app..._.._x", "app.con__", "app.a-2-2"]


@pytest.mark.parametrize("letter", [*"=+-@\t\r\n", *"＝＋－＠"])
def test_a_text_that_a_spreadsheet_would_run_is_none(letter: str) -> None:
    assert next(csv.reader(io.StringIO(csv_text([[f"{letter}1+1"]], [True]), newline=""))) == [f"'{letter}1+1"]


def test_numbers_are_numbers_in_a_spreadsheet_and_texts_are_texts() -> None:
    rows: list[list[str | None]] = [
        ["-5", "=cmd|' /C calc'!A1"],
        [None, "@x"],
        ["+1", 'plain, with "quotes"\nand lines'],
    ]
    read = list(csv.reader(io.StringIO(csv_text(rows, [False, True]))))
    assert read == [["-5", "'=cmd|' /C calc'!A1"], ["", "'@x"], ["+1", 'plain, with "quotes"\nand lines']]


async def test_its_owner_gets_a_link_once_that_leads_to_the_file() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        assert await exported(queue) == {"exported": 1, "rows": 101, "refused": 0, "expired": 0}
        assert (await exported(queue))["exported"] == 0
        rows = await queue.pool.fetch(
            "select args::text from jobs where kind = 'email' "
            "union all select args::text from job_history where kind = 'email'"
        )
        mails = [json.loads(row[0]) for row in rows]
        assert [(mail["to"], mail["subject"]) for mail in mails] == [(MAIL[ANN], "Your data is ready")]
        url = re.search(r"https://club\.example/files/\S+", mails[0]["text"])
        assert url is not None
        found = queue.storage.linked(urlsplit(url[0]).path.split("/")[-2])
        assert found is not None
        assert found[0].read_bytes()[:2] == b"PK"
        (row,) = await queue.pool.fetch(
            "select state, location, size_bytes, encode(sha256, 'hex') as sha256, expires_at - ready_at as valid "
            "from club.parcels"
        )
        assert (row["state"], row["location"], row["size_bytes"]) == ("ready", found[1].path, found[0].stat().st_size)
        assert row["valid"].days == 7
        assert row["sha256"] == sha256(found[0].read_bytes()).hexdigest()


async def test_no_link_ever_leads_to_anothers_file() -> None:
    schema = SCHEMA.replace(
        "create table club.parcels (\n    id bigint generated always as identity primary key",
        "create table club.parcels (\n    id text primary key",
    )
    async with club(schema=schema) as queue:
        for member, request in ((ANN, "a/b"), (BOB, "a-b")):
            await move_in(queue.pool, member, rows=1)
            await queue.pool.execute("insert into club.parcels (id, member_id) values ($1, $2)", request, member)
        assert (await exported(queue))["exported"] == 2
        files = [stored.path async for stored in queue.storage.list(FOLDER)]
        assert len(files) == 2, "whatever their ids look like in a path"
        hers = await queue.pool.fetchval("delete from club.parcels where id = 'a/b' returning location")
        await queue.pool.execute("insert into club.parcels (id, member_id) values ('a/b', $1)", BOB)
        assert (await exported(queue))["exported"] == 1
        about = json.loads((await unpacked(queue, hers)).read("export.json"))
        assert about["account"] == ANN, "nor is an old one overwritten when a table counts anew"


@pytest.mark.parametrize("location", ["archives/x", "exports/other/x", "../x", "", None])
async def test_a_request_that_names_another_file_takes_none_and_stops_nobody(location: str | None) -> None:
    async with club() as queue:
        for path in ("archives/x", "exports/other/x"):
            await queue.storage.put(path, b".")
        await move_in(queue.pool, ANN, rows=1)
        await queue.pool.execute(
            "insert into club.parcels (member_id, state, location, expires_at) values ($1, 'ready', $2, now())",
            ANN,
            location,
        )
        await queue.pool.execute(
            "insert into club.parcels (member_id, state, location) values ($1, 'running', $2)", ANN, location
        )
        said = await exported(queue)
        assert (said["expired"], said["exported"]) == (1, 1)
        assert len([stored async for stored in queue.storage.list()]) == 3


async def test_a_file_that_was_promised_for_a_week_stays_for_it_whatever_is_promised_today() -> None:
    async with club(CONFIG.replace('requests = "club.parcels"', 'requests = "club.parcels"\nkeep = "1h"')) as queue:
        path = f"{FOLDER}1-old.zip"
        for days, there in ((6, [path]), (9, [])):
            await queue.storage.put(path, b"of last week")
            os.utime(Path(queue.storage.where) / path, (time.time() - days * 86400,) * 2)
            await exported(queue)
            assert [stored.path async for stored in queue.storage.list(FOLDER)] == there


async def test_an_export_that_cannot_be_made_keeps_nobody_waiting() -> None:
    config = CONFIG.replace(LINKS, LINKS.replace(" }", ', "club.badges.code" = "org" }'))
    schema = SCHEMA + "create table club.badges (id int primary key, code int not null);"
    async with club(config, schema) as queue:
        for member, org in ((ANN, "club"), (BOB, "5")):
            await move_in(queue.pool, member, rows=1)
            await queue.pool.execute("update club.members set org = $2 where id = $1", member, org)
            await asked(queue.pool, member)
        await queue.enqueue("parcel")
        ran = (await queue.drain()).of("parcel").one()
        assert (ran.outcome, ran.code) == ("retry", "not_exported")
        assert "1 exports could not be made" in str(ran.reason)
        assert json.loads((await unpacked(queue)).read("export.json"))["account"] == BOB
        states = await queue.pool.fetch("select state from club.parcels order by id")
        assert [row[0] for row in states] == ["running", "ready"], "it is tried again"


async def test_large_rows_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN, rows=1)
        await queue.pool.execute("insert into club.folders (member_id) select $1 from generate_series(1, 2000)", ANN)
        await queue.pool.execute(
            "insert into club.orders select 'x', n, $1, repeat('x', 1 << 20) from generate_series(1, 40) n", ANN
        )
        await asked(queue.pool, ANN)
        pages: list[tuple[int, int]] = []
        rows = Exporting._rows

        async def noted(self: Exporting, *args: Any) -> AsyncIterator[list[Any]]:
            async for page in rows(self, *args):
                pages.append((len(page), sum(len(str(row[0])) for row in page)))
                yield page

        monkeypatch.setattr(Exporting, "_rows", noted)
        await exported(queue)
        assert max(size for _, size in pages) < 11 << 20
        assert max(count for count, _ in pages) == 500


async def test_how_far_it_is_can_be_read() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        await exported(queue)
        said = await queue.pool.fetchval("select progress from job_history where kind = 'parcel'")
        assert json.loads(said)["rows"] == 101


@pytest.mark.req("BJ-27")
async def test_killed_in_any_pause_it_goes_on_and_tells_once() -> None:
    async with club(EXPORT) as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate club.members, club.parcels restart identity cascade; delete from jobs")
            await queue.pool.execute("delete from job_history; delete from job_keys")
            await queue.storage.delete([stored.path async for stored in queue.storage.list()])
            await move_in(queue.pool, ANN, rows=1)
            await asked(queue.pool, ANN)

        async def state() -> Any:
            mails = await queue.pool.fetchval(
                "select (select count(*) from jobs where kind = 'email') "
                "+ (select count(*) from job_history where kind = 'email')"
            )
            file = await unpacked(queue)
            rows = await queue.pool.fetch("select state, location is not null from club.parcels")
            return mails, [tuple(row) for row in rows], sorted(file.namelist())

        pauses = await killed_everywhere(queue, "parcel", seed, state, step=41, most=400)
        assert pauses > 50
        assert (await state())[0] == 1


async def test_a_deleted_account_gets_none() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        await leave(queue.pool, ANN)
        assert await exported(queue) == {"exported": 0, "rows": 0, "refused": 1, "expired": 0}
        assert await queue.pool.fetchval("select state from club.parcels") == "failed"
        assert [stored async for stored in queue.storage.list()] == []
        assert await queue.pool.fetchval("select count(*) from jobs where kind = 'email'") == 0


async def test_nor_one_that_is_deleted_while_its_export_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        verify = queue.storage.verify

        async def verified(written: Any) -> None:
            await verify(written)
            await leave(queue.pool, ANN)

        monkeypatch.setattr(queue.storage, "verify", verified)
        assert (await exported(queue))["refused"] == 1
        assert [stored async for stored in queue.storage.list()] == []
        assert await queue.pool.fetchval("select count(*) from jobs where kind = 'email'") == 0


async def test_a_file_goes_when_its_time_is_over() -> None:
    async with club() as queue:
        for member in (ANN, BOB):
            await move_in(queue.pool, member, rows=1)
            await asked(queue.pool, member)
            await exported(queue)
            await queue.clock.advance("4d")
        assert len([stored async for stored in queue.storage.list()]) == 2
        await queue.clock.advance("1h")
        assert (await exported(queue))["expired"] == 1
        (left,) = [stored.path async for stored in queue.storage.list()]
        rows = await queue.pool.fetch("select state, location from club.parcels order by id")
        assert [tuple(row) for row in rows] == [("expired", None), ("ready", left)]


async def test_what_was_exported_goes_with_the_account() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        await exported(queue)
        await leave(queue.pool, ANN)
        await queue.enqueue("parting")
        await queue.drain(raise_errors=True)
        assert [stored async for stored in queue.storage.list()] == []
        assert await traces(queue.pool, "club", ANN, MAIL[ANN]) == []


async def test_without_a_way_to_link_it_nothing_is_read() -> None:
    async with club(CONFIG.replace('public_url = "https://club.example"\n', "")) as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        await queue.enqueue("parcel")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("retry", "storage")
        assert "storage.public_url is not set" in str(ran.reason)
        assert [stored async for stored in queue.storage.list()] == []


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_says_what_is_asked_for_and_changes_nothing() -> None:
    async with club() as queue:
        await move_in(queue.pool, ANN)
        await asked(queue.pool, ANN)
        before = await whole(queue.pool)
        said = await rehearsed(queue, CONFIG, "parcel")
        assert isinstance(said, Done)
        assert (said.result["would_export"], said.result["would_expire"]) == (1, 0)
        assert said.result["tables"][0] == "club.members"
        assert await whole(queue.pool) == before
