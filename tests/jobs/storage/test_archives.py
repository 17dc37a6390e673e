"""Archives: what goes in comes out the same, of any type; what is damaged is found; no receipt before its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from backports import zstd

from jobs.archive.manifest import Manifest, files, manifest_path, read_manifest
from jobs.archive.part import Part, Receipt, run_of
from jobs.archive.reading import check, lines
from jobs.archive.restore import Unfit, restore
from jobs.archive.squeeze import PIECE_BYTES, Decompressor, compressor
from jobs.archive.table import NoTable, line, lossless, named, table_of
from jobs.model import Job
from jobs.storage.faults import Changed, NotThere, StorageError
from jobs.storage.storage import Storage
from tests.jobs.storage.bucket import S3

pytestmark = pytest.mark.req("BJ-09")

TYPES = """
create type app.mood as enum ('sad', 'so so', 'happy, "very"');
create type app.pair as (a int, b text);
create domain app.percent as numeric(5,2) check (value between 0 and 100);
create table app.everything (
    id bigint generated always as identity primary key,
    small smallint, flag boolean, exact numeric, money_like numeric(12,2), approximate double precision, half real,
    words text, short varchar(20), fixed char(6), "Odd ""name""; --" text, bytes bytea, uid uuid,
    at timestamptz, local timestamp, day date, clock time, zoned timetz, span interval,
    document jsonb, raw json, numbers int[], grid text[][], from_zero int[],
    host inet, network cidr, mac macaddr, bits bit varying, feeling app.mood, couple app.pair, share app.percent,
    period tstzrange, spot point, lexemes tsvector, ident oid, letter "char",
    doubled numeric generated always as (exact * 2) stored
);
create table app.again (like app.everything including all);
"""

COLUMNS = (
    'small, flag, exact, money_like, approximate, half, words, short, fixed, "Odd ""name""; --", bytes, uid, at, '
    "local, day, clock, zoned, span, document, raw, numbers, grid, from_zero, host, network, mac, bits, feeling, "
    "couple, share, period, spot, lexemes, ident, letter"
)

ROWS = [
    r"""(-32768, true, 1.10, 12.50, 0.1, 1e-40, E'line\nbreak\ttab "q" \\ \u2028 \U0001F600', 'ä', 'ab', E'\\N',
        '\x00ff0a',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-03-29 01:30:00.123456+02', '1999-12-31 23:59:59.999999',
        '0044-03-15 BC', '24:00:00', '12:00:00.5+05:45:30', '-1 year -2 mons +3 days 04:05:06.789',
        '{"b": [1, null, 1.10], "a": {"é": "\u0001"}}', '{"b":  1,
  "b": 2}', '{1,NULL,-3}', '{{a,"b,c"},{"d\"e",NULL}}', '[0:2]={7,8,9}', '10.0.0.1/8', '10.0.0.0/8',
        '08:00:2b:01:02:03', B'10110', 'happy, "very"', row(1, 'x,"y'), 99.99, '[2026-01-01 00:00+00,)', '(1.5,-0)',
        'a:1 fat:2,4', 4294967295, 'z')""",
    """(32767, false, 'NaN', -0.01, 'Infinity', '-Infinity', '', '', '', 'null', '', null, 'infinity', '-infinity',
        'infinity', '00:00', '00:00-15:59', '0', 'null', 'null', '{}', '{}', null, '::1', '2001:db8::/32', null, B'',
        'sad', row(null, ''), 0, 'empty', '(Infinity,NaN)', '', 0, '')""",
    "(" + ", ".join(["null"] * 35) + ")",
    "(" + ", ".join(["null"] * 2)
    + ", 12345678901234567890123456789012345678901234567890.123456789000, null, 1.7976931348623157e308, 3.4028235e38"
    + ", null" * 29 + ")",
]  # fmt: skip


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database)
    await conn.execute(f"create schema app; {TYPES}")
    for row in ROWS:
        await conn.execute(f"insert into app.everything ({COLUMNS}) values {row}")
    yield conn
    await conn.close()


def attempt(fence: int = 1) -> Job:
    return Job(7, fence, "audit_log_purge", "default", 2, 1, "{}", 0.0)


async def archived(conn: asyncpg.Connection, storage: Storage, table: str = "app.everything", **more: Any) -> Receipt:
    """As a purge does it."""
    found = await named(conn, table)
    part = Part(storage, found, job="audit_log_purge", run=run_of(attempt()), number=1, **more)
    async with part, conn.transaction():
        await lossless(conn)
        for start in range(0, len(ROWS), 2):
            query = f"select {line(found)} from {found.sql} as t order by t.id offset {start} limit 2"
            await part.add([row[0] for row in await conn.fetch(query)])
    return part.receipt


async def manifest_of(storage: Storage, receipt: Receipt) -> Manifest:
    return await read_manifest(storage, manifest_path(receipt.path))


async def test_every_type_comes_back_as_it_was(conn: asyncpg.Connection, storage: Storage) -> None:
    receipt = await archived(conn, storage)
    manifest = await manifest_of(storage, receipt)
    added = await restore(conn, storage, manifest, await table_of(conn, "app", "again"), lambda _read: None)
    assert added == receipt.rows == len(ROWS)
    for one, other in (("everything", "again"), ("again", "everything")):
        # json and point have no equality; their text has
        assert await conn.fetch(f"select t::text from app.{one} t except select t::text from app.{other} t") == []


@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'German, DMY'",
        "bytea_output = 'escape'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -5",
        "timezone = 'America/Sao_Paulo'",
    ],
)
async def test_no_setting_of_a_database_makes_it_lose_anything(
    conn: asyncpg.Connection, local: Storage, setting: str
) -> None:
    await conn.execute(f"set {setting}")
    manifest = await manifest_of(local, await archived(conn, local))
    await conn.execute("reset all")
    await restore(conn, local, manifest, await table_of(conn, "app", "again"), lambda _read: None)
    assert await conn.fetch("select t::text from app.everything t except select t::text from app.again t") == []


async def test_the_manifest_says_what_is_in_the_file(conn: asyncpg.Connection, local: Storage, tmp_path: Path) -> None:
    receipt = await archived(conn, local, range={"at before": "2026-01-01T00:00:00+00:00"})
    folder = tmp_path / "storage"
    plain = json.loads((folder / manifest_path(receipt.path)).read_text())
    assert plain["format"] == "jobsd-archive-1"
    assert (plain["table"]["schema"], plain["table"]["name"], plain["table"]["key"]) == ("app", "everything", ["id"])
    assert plain["table"]["columns"][:3] == [
        {"name": "id", "type": "bigint"}, {"name": "small", "type": "smallint"}, {"name": "flag", "type": "boolean"},
    ]  # fmt: skip
    assert {"name": "doubled", "type": "numeric", "generated": True} in plain["table"]["columns"]
    assert (plain["rows"], plain["first"], plain["last"]) == (len(ROWS), {"id": "1"}, {"id": str(len(ROWS))})
    assert (plain["range"], plain["job"]) == ({"at before": "2026-01-01T00:00:00+00:00"}, "audit_log_purge")
    assert plain["tool"] == f"jobsd {version('jobsd')}"
    assert (plain["sha256"], plain["size_bytes"]) == (receipt.sha256, receipt.size_bytes)
    # and a reader who has nothing of ours
    content = zstd.decompress((folder / receipt.path).read_bytes()).decode()
    rows = [json.loads(text) for text in content.splitlines()] if "\u2028" not in content else [
        json.loads(text) for text in content.split("\n") if text
    ]  # fmt: skip
    assert len(rows) == len(ROWS)
    assert rows[0]["exact"] == "1.10"
    assert rows[0]["bytes"] == "\\x00ff0a"
    assert rows[1]["document"] == "null"
    assert rows[2]["document"] is None


async def test_any_damage_is_found(conn: asyncpg.Connection, local: Storage, tmp_path: Path) -> None:
    receipt = await archived(conn, local)
    manifest = await manifest_of(local, receipt)
    file = tmp_path / "storage" / receipt.path
    whole = file.read_bytes()
    await check(local, manifest)
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Changed, match="is damaged"):
            await check(local, manifest)
    for other in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\0", whole + whole):
        file.write_bytes(other)
        with pytest.raises(Changed, match="is damaged"):
            await check(local, manifest)
        with pytest.raises(Changed, match="is damaged"):
            await restore(conn, local, manifest, await table_of(conn, "app", "again"), lambda _read: None)
    file.unlink()
    with pytest.raises(NotThere):
        await check(local, manifest)
    assert await conn.fetchval("select count(*) from app.again") == 0


async def test_there_is_no_receipt_for_what_was_stored_wrong(
    conn: asyncpg.Connection, s3: S3, secrets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(s3.settings(), tmp_path, secrets)
    read = storage.read

    async def bad_disk(path: str) -> AsyncIterator[bytes]:
        async for piece in read(path):
            yield piece[:-1] + bytes([piece[-1] ^ 1])

    monkeypatch.setattr(storage, "read", bad_disk)
    table = await named(conn, "app.everything")
    part = Part(storage, table, job="j", run="r", number=1)
    with pytest.raises(Changed, match="is damaged"):
        await _one_line(part)
    with pytest.raises(RuntimeError, match="nothing in it may be deleted"):
        assert part.receipt
    monkeypatch.undo()
    assert [has async for _file, has in files(storage)] == [False], "its file is there, and says itself not whole"


async def _one_line(part: Part) -> None:
    async with part:
        await part.add(['{"id": "1"}'])


@pytest.mark.parametrize("when", ["while it is written", "between the file and its manifest"])
async def test_a_kill_leaves_no_archive_that_pretends_to_be_one(
    conn: asyncpg.Connection, local: Storage, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    table = await named(conn, "app.everything")
    reached, killed = asyncio.Event(), asyncio.Event()

    async def stuck(*_args: Any, **_options: Any) -> None:
        reached.set()
        await killed.wait()

    part = Part(local, table, job="j", run="r", number=1)
    if when.startswith("between"):
        monkeypatch.setattr(local, "put", stuck)
    else:
        monkeypatch.setattr(part, "add", stuck)
    task = asyncio.get_running_loop().create_task(_one_line(part))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [has for _file, has in [found async for found in files(local)] if has] == []
    with pytest.raises(RuntimeError, match="nothing in it may be deleted"):
        assert part.receipt


async def test_two_runs_never_write_the_same_file(conn: asyncpg.Connection, local: Storage) -> None:
    receipts = [await archived(conn, local) for _ in range(3)]
    assert len({receipt.path for receipt in receipts}) == 3
    runs = {(await manifest_of(local, receipt)).run for receipt in receipts}
    assert len(runs) == 3
    assert all(run.startswith("7-1-") for run in runs)


async def test_what_was_archived_twice_is_put_back_once(conn: asyncpg.Connection, local: Storage) -> None:
    first, second = [await manifest_of(local, await archived(conn, local)) for _ in range(2)]
    into = await table_of(conn, "app", "again")
    assert await restore(conn, local, first, into, lambda _read: None) == len(ROWS)
    assert await restore(conn, local, second, into, lambda _read: None) == 0
    assert await conn.fetchval("select count(*) from app.again") == len(ROWS)


async def test_rows_go_back_into_the_table_that_they_were_deleted_from(
    conn: asyncpg.Connection, local: Storage
) -> None:
    before = await conn.fetch("select t::text from app.everything t order by id")
    manifest = await manifest_of(local, await archived(conn, local))
    await conn.execute("delete from app.everything")
    read: list[int] = []
    await restore(conn, local, manifest, await table_of(conn, "app", "everything"), read.append)
    assert await conn.fetch("select t::text from app.everything t order by id") == before
    assert sum(read) == len(ROWS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("alter table app.again drop column span", "app.again has no column span"),
        ("alter table app.again alter small type int", "app.again.small is integer, and was smallint"),
    ],
)
async def test_a_table_that_has_changed_is_not_filled_with_half_of_it(
    conn: asyncpg.Connection, local: Storage, change: str, said: str
) -> None:
    manifest = await manifest_of(local, await archived(conn, local))
    await conn.execute(change)
    with pytest.raises(Unfit, match=said):
        await restore(conn, local, manifest, await table_of(conn, "app", "again"), lambda _read: None)


async def test_a_table_that_is_not_there_is_named(conn: asyncpg.Connection) -> None:
    with pytest.raises(NoTable, match=r"there is no table app\.nothing"):
        await named(conn, "app.nothing")


async def test_lines_come_in_their_order_whatever_the_pieces(conn: asyncpg.Connection, local: Storage) -> None:
    table = await named(conn, "app.everything")
    written = [json.dumps({"id": str(number), "words": "ä" * (number % 97)}) for number in range(5000)]
    async with Part(local, table, job="j", run="r", number=1) as part:
        for start in range(0, 5000, 333):
            await part.add(written[start : start + 333])
    manifest = await manifest_of(local, part.receipt)
    read = [some async for some in lines(local, manifest, at_once=100)]
    assert [text for some in read for text in some] == written
    assert max(map(len, read)) == 100


def test_what_grows_a_thousandfold_comes_out_in_small_pieces() -> None:
    squeezed = compressor()
    data = squeezed.compress(bytes(50 << 20)) + squeezed.flush()
    assert len(data) < 10_000
    reader = Decompressor()
    sizes = [len(piece) for piece in reader.pieces(data)]
    reader.end()
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= PIECE_BYTES


async def test_a_manifest_of_another_version_is_not_guessed_at(local: Storage) -> None:
    await local.put("archives/a.manifest.json", b'{"format": "jobsd-archive-2"}')
    with pytest.raises(StorageError, match="is no manifest of this version"):
        await read_manifest(local, "archives/a.manifest.json")
