"""What each job of the sample finds when it is measured: how its table is filled, and which of its rows are due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from daemon.sample import Filling, fill, install

ALL = "all tables"
GENERATED = 1_000_000
NOTHING: Mapping[str, str] = {}
HASH = {"token_hash": "sha256(token_hash || int4send(k))"}
ADDRESS = {"address": "k || address"}

STORAGE = """
[storage]
url = "file://{folder}"
public_url = "https://shop.example"
link_secrets = ["a secret that is long enough"]
"""


_COLUMNS = """
select column_name from information_schema.columns
where table_schema = 'app' and table_name = $1 order by ordinal_position"""
_INDEXES = """
select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition from pg_index
where indrelid = $1::text::regclass and not exists (select from pg_constraint where conindid = indexrelid)"""


@dataclass(frozen=True, slots=True)
class Ground:
    """`table`: the one that has so many rows, ALL for the whole sample.  `due`: a query that counts the rows which the
    job is to do something with.  `more`: statements after the generator's, where that alone gives the job no work.
    `fill`: the table that the generator fills, with `share` of the rows.  `days_ago`: the rows are so much older, or
    younger where it is negative, so that a part of them is due.
    `copied`: past a million each row of the generator's stands there ten times, which is faster; the columns that must
    differ beside `id`, and what they are in copy k."""

    table: str
    due: str
    more: tuple[str, ...] = ()
    fill: str | None = None
    share: float = 1.0
    days_ago: int = 0
    copied: Mapping[str, str] | None = None


def _older(
    table: str,
    column: str,
    age: str,
    rest: str = "",
    more: tuple[str, ...] = (),
    *,
    days_ago: int = 0,
    copied: Mapping[str, str] = NOTHING,
) -> Ground:
    due = f"select count(*) from app.{table} where {column} < now() - interval '{age}' {rest}"
    return Ground(table, due, more, days_ago=days_ago, copied=copied)


# most were dealt with already: of what is old enough and has not ended one in ten is left
ENDED = """
update app.failed_forwards set ended_at = first_failed_at + interval '3 minutes', outcome = 'sent'
where ended_at is null and id % 10 <> 0"""
# as after years: one name in a hundred is new
REGISTERED = """
set session_replication_role = replica;
insert into domains (org_id, domain, token, contact, registered_by, registered_key, next_check_at)
select a.org_id, d.name, translate(md5(d.name), '0189', 'abcd'), a.email, 'domain_sync', array[d.id::text],
       now() + interval '1 day'
from app.custom_domains d join app.accounts a on a.id = d.account_id where d.id % 100 <> 0;
reset session_replication_role"""
# one account in ten has used nearly all of its plan, the others have hardly begun
USAGE = """
insert into app.bandwidth_daily (account_id, day, bytes_used, emails)
select account_id, (starts_at + interval '1 day')::date, bytes * case when id % 20 < 2 then 0.9 else 0.01 end, 7
from app.billing_cycles where ends_at > now() and starts_at < now() - interval '3 days'
on conflict do nothing"""
TOLD = """
select count(*) from app.usage_cycles c
where ends_at > now() and starts_at < now() - interval '3 days' and id % 20 < 2"""
# every account has sixty days of traffic
DAYS = """
insert into app.bandwidth_daily (account_id, day, bytes_used, emails, computed_at)
select id, current_date - n, 1000 + n, 7, now() - interval '2 hours' from generate_series(1, 60) as n, app.accounts"""

HEADERS = """
insert into app.header_snapshots (message_id, headers, taken_at)
select id, concat('From: ', sender, E'\\r\\nTo: ', recipient), received_at from app.messages where id % 5 < 2"""

GROUNDS: Mapping[str, Ground] = {
    "forward_retry": _older(
        "failed_forwards", "first_failed_at", "1 hour", "and ended_at is null", (ENDED,)
    ),
    "domain_sync": Ground(
        "custom_domains", "select count(*) from app.custom_domains where id % 100 = 0", (REGISTERED,),
        copied={"name": "k || name"},
    ),
    "usage_thresholds": Ground("billing_cycles", TOLD, (USAGE,)),
    "account_export": Ground(ALL, "select count(*) from app.exports where state = 'wanted'"),
    "account_erasure": Ground(ALL, "select count(*) from app.accounts where deleted_at is not null"),
    "alias_expiry": _older("aliases", "expires_at", "0", "and active", copied=ADDRESS),
    "bandwidth_daily": Ground("bandwidth", "select count(*) from app.bandwidth"),
    "bandwidth_weekly": Ground(
        "bandwidth_daily", "select count(*) from app.bandwidth_daily", (DAYS,), fill="accounts", share=1 / 60
    ),
    "session_expiry": _older(
        "sessions", "expires_at", "0", "or last_seen_at < now() - interval '14 days'", days_ago=-25, copied=HASH
    ),
    "magic_link_expiry": _older("magic_links", "expires_at", "0", days_ago=-6, copied=HASH),
    "destination_token_expiry": _older("destination_tokens", "expires_at", "0", days_ago=-180, copied=HASH),
    "destination_expiry": _older("destinations", "created_at", "27 days", "and verified_at is null", copied=ADDRESS),
    "failed_email_expiry": _older("failed_emails", "failed_at", "7 days"),
    "failed_forward_expiry": _older("failed_forwards", "first_failed_at", "7 days"),
    "overflow_hold_expiry": _older("overflow_hold", "held_at", "29 days"),
    "spam_expiry": _older("spam_quarantine", "quarantined_at", "30 days"),
    "message_expiry": Ground(
        "messages",
        "select count(*) from app.messages m join app.accounts a on a.id = m.account_id "
        "where received_at < now() - coalesce(message_retention, interval '90 days')",
        (HEADERS,), copied=NOTHING,
    ),
    "bandwidth_expiry": Ground(
        "bandwidth", "select count(*) from app.bandwidth where recorded_at < now() - interval '101 days'", days_ago=55,
        copied=NOTHING,
    ),
    "audit_log_expiry": _older(
        "audit_log", "at", "365 days", "and not (critical and at >= now() - interval '2557 days')"
    ),
}  # fmt: skip
"""By job."""


async def prepare(conn: asyncpg.Connection, rows: int, ground: Ground | None) -> None:
    """The sample with so many rows in the ground's table; in all tables together when there is none."""
    await install(conn)
    if ground is None or ground.table == ALL:
        await fill(conn, Filling(rows))
    else:
        times = 10 if rows > GENERATED and ground.copied is not None else 1
        now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=ground.days_ago)
        await fill(conn, Filling(round(rows * ground.share / times), now=now, only=ground.fill or ground.table))
        if ground.copied is not None and times > 1:
            await _copy(conn, ground.table, times, ground.copied)
    await conn.execute("set statement_timeout = 0")
    for statement in () if ground is None else ground.more:
        await conn.execute(statement)
    await conn.execute("vacuum (analyze)")
    await conn.execute("checkpoint")


async def _copy(conn: asyncpg.Connection, table: str, times: int, differ: Mapping[str, str]) -> None:
    """Each row so many times, beside each other, as if they had come at the same moment."""
    given = {"id": f"id * {times} + k", **differ}
    columns = [row[0] for row in await conn.fetch(_COLUMNS, table)]
    indexes = await conn.fetch(_INDEXES, f"app.{table}")
    await conn.execute("set statement_timeout = 0; set session_replication_role = replica")
    await conn.execute(f"create temporary table base as select * from app.{table}; analyze base")
    await conn.execute(f"truncate app.{table} cascade")
    for index in indexes:
        await conn.execute(f"drop index {index['name']}")
    await conn.execute(
        f"insert into app.{table} ({', '.join(columns)}) select {', '.join(given.get(name, name) for name in columns)} "
        f"from base cross join generate_series(0, {times - 1}) as k"
    )
    for index in indexes:
        await conn.execute(index["definition"])
    await conn.execute("drop table base; reset session_replication_role")
