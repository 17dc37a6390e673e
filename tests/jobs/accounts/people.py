"""Somebody's own tables with accounts in them, and every way in which a row can be an account's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from jobs.testing import Queue, queue

SCHEMA = """
create schema club;
create table club.members (
    id uuid primary key default gen_random_uuid(), email text not null, org text, gone_at timestamptz,
    invited_by uuid references club.members
);
create table club.logins (
    id bigint generated always as identity primary key, member_id uuid not null references club.members
);
create table club.orders (
    shop text not null, number int not null, member_id uuid not null references club.members, note text,
    primary key (shop, number)
);
create table club.lines (
    id bigint generated always as identity primary key, shop text not null, number int not null, said text,
    foreign key (shop, number) references club.orders
);
create table club.photos (
    id bigint generated always as identity primary key, line_id bigint references club.lines, raw bytea
);
create table club.friends (
    member_id uuid references club.members, with_id uuid references club.members, primary key (member_id, with_id)
);
create table club.folders (
    id bigint generated always as identity primary key, member_id uuid not null references club.members,
    above bigint references club.folders
);
create table club."Odd letters" ("the id" int primary key, "to" text not null, says text);
create table club.journal (
    id bigint generated always as identity primary key, member_id uuid references club.members, what text not null,
    detail jsonb not null default '{}'
);
create table club.partings (
    id bigint generated always as identity primary key, member_id uuid references club.members on delete set null,
    completed_at timestamptz, rows_deleted bigint
);
create table club.parcels (
    id bigint generated always as identity primary key, member_id uuid not null references club.members,
    state text not null default 'wanted', location text, size_bytes bigint, sha256 bytea,
    requested_at timestamptz not null default now(), ready_at timestamptz, expires_at timestamptz
);
create table club.prices (id int primary key, cents int not null);
create table club.marks (at date not null, member_id uuid not null references club.members, primary key (at, member_id))
    partition by range (at);
create table club.marks_old partition of club.marks for values from ('2000-01-01') to ('2026-01-01');
create table club.marks_new partition of club.marks for values from ('2026-01-01') to ('2100-01-01');
"""

LINKS = """links = { 'club."Odd letters".to' = "email" }\n"""

ERASURE = f"""
[jobs.parting]
verb = "erase_account"
table = "club.members"
deleted_column = "gone_at"
revoke = ["club.logins"]
blank = {{ "club.journal" = ["member_id", "detail"] }}
files = ["club.parcels.location"]
requests = "club.partings"
batch = 3
pause = "0"
{LINKS}"""

EXPORT = f"""
[storage]
public_url = "https://club.example"
link_secrets = ["a secret that is long enough"]

[jobs.parcel]
verb = "export_account"
table = "club.members"
deleted_column = "gone_at"
address_column = "email"
org_column = "org"
requests = "club.parcels"
mail_from = "Club <data@club.example>"
leave_out = ["club.photos.raw"]
{LINKS}"""

CONFIG = ERASURE + EXPORT

ANN, BOB = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
MAIL = {ANN: "ann@club.example", BOB: "bob@club.example"}


@asynccontextmanager
async def club(config: str = CONFIG, schema: str = SCHEMA) -> AsyncIterator[Queue]:
    async with queue(schema=schema, config=config, handlers=[]) as made:
        yield made


async def move_in(pool: asyncpg.Pool, member: str, *, rows: int = 7) -> None:
    """A member with rows everywhere."""
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute(
            "insert into club.members (id, email, org) values ($1, $2, 'club') on conflict do nothing",
            member,
            MAIL[member],
        )
        await conn.execute(
            "insert into club.logins (member_id) select $1::uuid from generate_series(1, $2::int)", member, rows
        )
        await conn.execute(
            "insert into club.orders select left($1::uuid::text, 4), n, $1::uuid, '=1+1' "
            "from generate_series(1, $2::int) n",
            member,
            rows,
        )
        await conn.execute(
            """with l as (insert into club.lines (shop, number, said) select shop, number, 'of ' || $1::uuid::text
                          from club.orders, generate_series(1, 3) where member_id = $1::uuid returning id)
               insert into club.photos (line_id, raw)
               select id, convert_to($1::uuid::text, 'UTF8') from l, generate_series(1, 2)""",
            member,
        )
        await conn.execute(
            "insert into club.folders (member_id) select $1::uuid from generate_series(1, $2::int)", member, rows
        )
        await conn.execute(
            """update club.folders f set above = (
                   select min(id) + (f.id * 7) % (max(id) - min(id) + 1) from club.folders where member_id = $1::uuid
               ) where member_id = $1::uuid""",
            member,
        )
        await conn.execute(
            """insert into club."Odd letters" select coalesce(max("the id"), 0) + 1, $1, 'dear you'
               from club."Odd letters" """,
            MAIL[member],
        )
        await conn.execute(
            "insert into club.journal (member_id, what, detail) "
            "select $1::uuid, 'came', jsonb_build_object('who', $2::text) from generate_series(1, $3::int)",
            member,
            MAIL[member],
            rows,
        )
        await conn.execute(
            "insert into club.marks select '2025-12-28'::date + n, $1::uuid from generate_series(1, $2::int) n",
            member,
            rows,
        )


async def befriend(pool: asyncpg.Pool) -> None:
    """Rows that are two members'."""
    await pool.execute("insert into club.friends values ($1, $2), ($2, $1)", ANN, BOB)
    await pool.execute("update club.members set invited_by = $1 where id = $2", ANN, BOB)


async def leave(pool: asyncpg.Pool, member: str) -> None:
    """What the application does."""
    await pool.execute("update club.members set gone_at = now() where id = $1", member)
    await pool.execute("insert into club.partings (member_id) values ($1)", member)


async def traces(pool: asyncpg.Pool, schema: str, *words: str) -> list[str]:
    """Every column of every table of `schema` that has one of these words in it, as text or as bytes."""
    columns = await pool.fetch(
        """select a.attrelid::regclass::text as table, quote_ident(a.attname) as column
           from pg_attribute a join pg_class c on c.oid = a.attrelid
           where c.relnamespace = $1::text::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped""",
        schema,
    )
    found = []
    for table, column in columns:
        for word in words:
            pattern = [f"%{word}%", f"%{word.encode().hex()}%", f"%{word.replace('-', '')}%"]
            if await pool.fetchval(
                f"select exists (select from {table} as t where t.{column}::text ilike any ($1::text[]))", pattern
            ):
                found.append(f"{table}.{column}: {word}")
    return found


async def rows_of(pool: asyncpg.Pool, schema: str = "club") -> dict[str, Any]:
    """All rows of all tables."""
    tables = await pool.fetch(
        "select oid::regclass::text as name from pg_class where relkind = 'r' "
        "and relnamespace = $1::text::regnamespace",
        schema,
    )
    found = {}
    for (name,) in tables:
        found[name] = sorted(row[0] for row in await pool.fetch(f"select to_jsonb(t)::text from {name} as t"))
    return found
