"""`jobsd archive`: what was archived is listed, verified, and put back."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobs.archive.part import Part, Receipt
from jobs.archive.table import line, lossless, named
from jobs.secrets import Secrets
from jobs.storage.faults import StorageError
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from tests.life.cli_terminal import Terminal, opened

pytestmark = pytest.mark.req("BJ-09")

BASE = ("archive",)


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    for terminal in opened(capfd, monkeypatch, database, tmp_path):
        terminal.configure(f'[storage]\nurl = "file://{tmp_path}/kept"\n')
        yield terminal


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(StorageSettings(), tmp_path / "kept", Secrets((), {}))


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database)
    await conn.execute('create schema app; create table app."Odd log" (id int primary key, said text)')
    await conn.execute("""insert into app."Odd log" select n, 'line ' || n from generate_series(1, 30) n""")
    yield conn
    await conn.close()


async def archived(conn: asyncpg.Connection, storage: Storage, run: str = "7-1-abc") -> Receipt:
    table = await named(conn, 'app."Odd log"')
    part = Part(storage, table, job="odd_log", run=run, number=1, range={"id up to": "30"})
    async with part, conn.transaction():
        await lossless(conn)
        await part.add([row[0] for row in await conn.fetch(f"select {line(table)} from {table.sql} t order by id")])
    return part.receipt


async def test_an_archive_is_listed_verified_and_put_back(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection
) -> None:
    receipt = await archived(conn, storage)
    await conn.execute('delete from app."Odd log" where id > 5')
    row: dict[str, Any] = (await terminal.ok(*BASE, "list", "--json")).json[0]
    assert {name: row[name] for name in ("file", "table", "rows", "run", "range", "sha256")} == {
        "file": receipt.path,
        "table": "app.Odd log",
        "rows": 30,
        "run": "7-1-abc",
        "range": {"id up to": "30"},
        "sha256": receipt.sha256,
    }
    verified = await terminal.ok(*BASE, "verify")
    assert verified.out.split() == ["whole", receipt.path]
    assert "1 files, 30 rows, 0 damaged" in verified.err
    assert "would be added: 30 of 30 rows" in (await terminal.ok(*BASE, "restore", receipt.path, "--dry-run")).out
    assert await conn.fetchval('select count(*) from app."Odd log"') == 5
    assert (await terminal.ok(*BASE, "restore", receipt.path, "--yes")).out == (
        "added: 25 of 30 rows, into app.Odd log\n"
    )
    assert await conn.fetchval("""select count(*) from app."Odd log" where said = 'line ' || id""") == 30
    manifest = receipt.path.replace(".jsonl.zst", ".manifest.json")
    assert "added: 0 of 30" in (await terminal.ok(*BASE, "restore", manifest, "--yes")).out


async def test_rows_go_into_another_table_if_that_is_wanted(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection
) -> None:
    receipt = await archived(conn, storage)
    await conn.execute('create table public.looked_at (like app."Odd log")')
    said = await terminal.ok(*BASE, "restore", receipt.path, "--into", "looked_at", "--yes", "--json")
    assert said.json == {
        "file": receipt.path, "into": "public.looked_at", "rows": 30, "added": 30, "dry_run": False,
    }  # fmt: skip
    missing = await terminal(*BASE, "restore", receipt.path, "--into", "nothing", "--yes")
    assert (missing.code, "there is no table nothing" in missing.err) == (1, True)
    await conn.execute("alter table public.looked_at drop column said")
    unfit = await terminal(*BASE, "restore", receipt.path, "--into", "looked_at", "--yes")
    assert (unfit.code, "has no column said" in unfit.err) == (1, True)


async def test_what_is_damaged_or_incomplete_is_told_apart(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection, tmp_path: Path
) -> None:
    whole, damaged, lost = [await archived(conn, storage, run) for run in "abc"]
    await storage.put("archives/app.x/left.jsonl.zst", b"half of it")
    with (tmp_path / "kept" / damaged.path).open("r+b") as file:
        file.seek(20)
        file.write(b"\xff")
    os.unlink(tmp_path / "kept" / lost.path)
    said = await terminal(*BASE, "verify", "--json")
    assert said.code == 1
    assert {row["file"]: row["verdict"] for row in said.json} == {
        whole.path: "whole",
        damaged.path: "damaged",
        lost.path: "damaged",
        "archives/app.x/left.jsonl.zst": "incomplete",
    }
    assert (await terminal(*BASE, "verify", damaged.path)).code == 1
    assert (await terminal(*BASE, "verify", whole.path)).code == 0
    refused = await terminal(*BASE, "restore", damaged.path, "--yes")
    assert (refused.code, "is damaged" in refused.err) == (1, True)
    listed = (await terminal.ok(*BASE, "list", "archives/app.x", "--json")).json
    assert [(row["file"], row["rows"]) for row in listed] == [("archives/app.x/left.jsonl.zst", None)]


async def test_a_path_that_leads_nowhere_is_not_called_fine(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection
) -> None:
    assert "0 files" in (await terminal.ok(*BASE, "verify")).err, "nothing was archived yet"
    receipt = await archived(conn, storage)
    for path in ("archives/app.Odd-lgo", receipt.path.replace("00001", "00002"), "archives/x.manifest.json"):
        said = await terminal(*BASE, "verify", path)
        assert said.code == 1, path
        assert "there is no" in said.err + said.out
    manifest = receipt.path.replace(".jsonl.zst", ".manifest.json")
    assert "1 files, 30 rows, 0 damaged" in (await terminal.ok(*BASE, "verify", manifest)).err


async def test_a_manifest_vouches_for_the_file_beside_it_and_no_other(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection, tmp_path: Path
) -> None:
    receipt = await archived(conn, storage)
    copied = receipt.path.replace("/app.", "/copied.")
    (tmp_path / "kept" / copied).parent.mkdir(parents=True)
    (tmp_path / "kept" / copied).write_bytes(b"damaged")
    manifest = (tmp_path / "kept" / receipt.path.replace(".jsonl.zst", ".manifest.json")).read_bytes()
    (tmp_path / "kept" / copied.replace(".jsonl.zst", ".manifest.json")).write_bytes(manifest)
    said = await terminal(*BASE, "verify", "--json")
    assert {row["file"]: row["verdict"] for row in said.json} == {receipt.path: "whole", copied: "damaged"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("add by_whom text not null", 'null value in column "by_whom"'),
        ("add check (id < 20)", "this must hold: Odd log id check"),
        ("add column said2 text, add foreign key (id) references app.others", "violates foreign key constraint"),
    ],
)
async def test_a_table_that_refuses_a_row_takes_none(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection, change: str, said: str
) -> None:
    receipt = await archived(conn, storage)
    await conn.execute('delete from app."Odd log"; create table app.others (id int primary key)')
    await conn.execute(f'alter table app."Odd log" {change}')
    refused = await terminal(*BASE, "restore", receipt.path, "--yes")
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert await conn.fetchval('select count(*) from app."Odd log"') == 0


async def test_a_manifest_that_is_missing_is_named(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection
) -> None:
    receipt = await archived(conn, storage)
    manifest = receipt.path.replace(".jsonl.zst", ".manifest.json")
    await storage.delete([manifest])
    for verb in ("verify", "restore"):
        said = await terminal(*BASE, verb, receipt.path, *(["--yes"] if verb == "restore" else []))
        assert said.code == 1, "nobody can say whether it is whole"
        assert manifest in said.err + said.out


async def test_a_store_that_fails_makes_no_archive_damaged(
    terminal: Terminal, storage: Storage, conn: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in "ab":
        await archived(conn, storage, run)
    read = Storage.read

    async def failing(self: Storage, path: str) -> AsyncIterator[bytes]:
        if path.endswith("-a-00001.jsonl.zst"):
            raise StorageError("cannot read it", "here", "the store says: 500 Internal Server Error")
        async for piece in read(self, path):
            yield piece

    monkeypatch.setattr(Storage, "read", failing)
    said = await terminal(*BASE, "verify")
    assert said.code == 1
    assert [line.split()[0] for line in said.out.splitlines()] == ["unread", "whole"]
    assert "2 files, 30 rows, 0 damaged, 1 could not be read now" in said.err
