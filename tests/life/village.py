"""A village with work for every verb of the catalogue, a place in the midst of each where a run can be held, and what
all of it must have come to in the end."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from jobs.archive.manifest import files, manifest_path, read_manifest
from jobs.archive.reading import check, lines
from jobs.secrets import Secrets
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from tests.jobs.accounts.people import ANN, BOB, ERASURE, EXPORT, SCHEMA, leave, move_in, rows_of

ROWS = 40
"""Of each table that are to go or to change; as many others are to stay."""

GATE = 4711
"""The advisory lock that whoever passes a hold asks for."""

HERE = Path(__file__).parent
BATCHES = 'batch = 5\npause = "0"\nlock_timeout = "10s"\n'
ACCOUNTS = ERASURE.replace('batch = 3\npause = "0"\n', BATCHES) + EXPORT + BATCHES

JOBS = ("notes", "records", "passes", "links", "daily", "usage", "sites", "letters", "parting", "parcel")
"""Every verb that goes through tables, and a purge with an archive."""

HOLDS = {
    "notes": "before delete on town.notes",
    "records": "before delete on town.records",
    "passes": "before update on town.passes",
    "links": "before delete on town.links",
    "daily": "after insert on town.daily",
    "usage": "after insert on town.alarms",
    "sites": "after insert on domains",
    "letters": "before update on town.letters",
    "parting": "before delete on club.lines",
    "parcel": "before update on club.parcels",
}
"""By job: what is held after so many rows."""

_FOUND = {
    "notes": "select id, warned_at is null from town.notes order by id",
    "details": "select * from town.details order by note",
    "sums": "select notes, bytes from town.sums order by notes, bytes",
    "events": "select actor, subject, count(*) from town.events group by 1, 2 order by 1, 2",
    "records": "select id from town.records order by id",
    "passes": "select id, active from town.passes order by id",
    "links": "select hash from town.links order by hash",
    "daily": "select * from town.daily order by who, day",
    "alarms": "select * from town.alarms order by cycle, threshold",
    "bell": "select who, kind, count(*) from town.bell group by 1, 2 order by 1, 2",
    "sites": "select id, dns from town.sites order by id",
    "domains": "select domain, registered_by, registered_key from domains order by domain",
    "letters": "select id, forward is null, over_at is null from town.letters order by id",
    "forwards": "select l.id, f.sender, f.raw from email_forwards f left join town.letters l on l.forward = f.id "
    "order by l.id, f.id",
    "parcels": "select id, member_id, state, location is null from club.parcels order by id",
    "partings": "select member_id, completed_at is null, rows_deleted from club.partings",
    "asked for": "select kind, coalesce(args ->> 'to', args ->> 'domain'), args ->> 'subject', count(*) from jobs "
    "where kind in ('email', 'domain_check', 'email_forward') group by 1, 2, 3 order by 1, 2, 3",
}


_LEFT = {
    "notes": "select count(*) from town.notes where at < now() - interval '31 days'",
    "records": "select count(*) from town.records where at < now() - interval '366 days'",
    "passes": "select count(*) from town.passes where active and ends_at < now()",
    "links": "select count(*) from town.links where expires_at < now()",
    "daily": "select (select count(distinct (who, at::date)) from town.calls) - (select count(*) from town.daily)",
    "usage": "select count(*) from town.cycles where id not in (select cycle from town.alarms)",
    "sites": "select count(*) from town.sites where host not in (select domain from domains)",
    "letters": "select count(*) from town.letters where forward is null and over_at is null",
    "parting": f"select count(*) from club.lines where shop = '{ANN[:4]}'",
    "parcel": "select count(*) from club.parcels where state <> 'ready'",
}
"""By job: what there is still to do, of that which it is held at."""


@dataclass(frozen=True, slots=True)
class Village:
    """One database and one storage of its own."""

    pool: asyncpg.Pool
    storage: Path

    @property
    def config(self) -> str:
        storage = f'[storage]\nurl = "file://{self.storage}"\n'
        return (HERE / "village.toml").read_text() + ACCOUNTS.replace("[storage]\n", storage)

    async def settle(self) -> None:
        self.storage.mkdir()
        await self.pool.execute((HERE / "village.sql").read_text())
        await self.pool.execute(SCHEMA)
        await move_in(self.pool, ANN)
        await move_in(self.pool, BOB, rows=1)
        for _ in range(4):
            await self.pool.execute("insert into club.parcels (member_id) values ($1)", BOB)
        await leave(self.pool, ANN)

    async def enqueue(self) -> list[int]:
        rows = await self.pool.fetch("insert into jobs (kind) select unnest($1::text[]) returning id", list(JOBS))
        return [row[0] for row in rows]

    async def build_holds(self) -> None:
        """Nobody is held yet: the gate is open."""
        for name, place in HOLDS.items():
            when = "when (new.state = 'ready')" if name == "parcel" else ""
            await self.pool.execute(
                f"create sequence town.at_{name}; insert into town.holds values ('{name}', 0); "
                f"create trigger aaa_held {place} for each row {when} execute function town.hold('{name}')"
            )

    async def hold(self, passed: dict[str, int]) -> None:
        """From now on so many rows of each job may pass, while the gate is shut."""
        for name, count in passed.items():
            await self.pool.execute(f"select setval('town.at_{name}', 1, false)")
            await self.pool.execute("update town.holds set passed = $2 where name = $1", name, count)

    async def left(self) -> dict[str, int]:
        """Rows that each job has still to do."""
        return {name: await self.pool.fetchval(rows) for name, rows in _LEFT.items()}

    async def everything(self) -> dict[str, Any]:
        """What must be the same however often a run was killed."""
        found: dict[str, Any] = {
            name: [tuple(row) for row in await self.pool.fetch(rows)] for name, rows in _FOUND.items()
        }
        people = await rows_of(self.pool)
        return {
            **found,
            **{name: rows for name, rows in people.items() if name not in ("club.parcels", "club.partings")},
            "archived": sorted(await self._archived()),
            "exported": await self._exported(),
        }

    async def _archived(self) -> set[int]:
        """Rows in complete files, all of which are whole; a row may stand in the files of two runs."""
        storage, found = Storage(StorageSettings(url=f"file://{self.storage}"), self.storage, Secrets(())), set[int]()
        async for file, complete in files(storage):
            if complete:
                manifest = await read_manifest(storage, manifest_path(file))
                await check(storage, manifest)
                async for some in lines(storage, manifest):
                    found.update(int(json.loads(line)["id"]) for line in some)
        return found

    async def _exported(self) -> list[list[str]]:
        """What is in the file of each request; there are no others."""
        places = [row[0] for row in await self.pool.fetch("select location from club.parcels order by id")]
        assert {str(path.relative_to(self.storage)) for path in self.storage.glob("exports/**/*.zip")} == set(places)
        bundles = [zipfile.ZipFile(io.BytesIO((self.storage / place).read_bytes())) for place in places]
        assert [bundle.testzip() for bundle in bundles] == [None] * len(bundles)
        return [sorted(bundle.namelist()) for bundle in bundles]
