"""What each job of the sample finds when it is measured: how its table is filled, and which of its rows are due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from daemon.sample import Filling, fill, install

ALL = "all tables"

STORAGE = """
[storage]
url = "file://{folder}"
public_url = "https://shop.example"
link_secrets = ["a secret that is long enough"]
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """`table`: the one that has so many rows, ALL for the whole sample.  `due`: a query that counts the rows which the
    job is to do something with.  `more`: statements after the generator's, where that alone gives the job no work.
    `fill`: the table that the generator fills, with `share` of the rows.  `days_ago`: the rows are so much older."""

    table: str
    due: str
    more: tuple[str, ...] = ()
    fill: str | None = None
    share: float = 1.0
    days_ago: int = 0


def _older(table: str, column: str, age: str, rest: str = "", more: tuple[str, ...] = ()) -> Ground:
    return Ground(table, f"select count(*) from app.{table} where {column} < now() - interval '{age}' {rest}", more)


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
select account_id, day::date, bytes / 3 * case when id % 20 < 2 then 0.9 else 0.01 end, 7
from app.billing_cycles,
     generate_series(date_trunc('day', starts_at) + interval '1 day', starts_at + interval '3 days', '1 day') as day
where ends_at > now() and starts_at < now() - interval '3 days'
on conflict do nothing"""
TOLD = """
select count(*) from app.usage_cycles c
where ends_at > now() and starts_at < now() - interval '3 days' and id % 20 < 2"""
# every account has sixty days of traffic
DAYS = """
insert into app.bandwidth_daily (account_id, day, bytes_used, emails)
select id, current_date - n, 1000 + n, 7 from generate_series(1, 60) as n, app.accounts"""

GROUNDS: Mapping[str, Ground] = {
    "forward_retry": _older(
        "failed_forwards", "first_failed_at", "1 hour", "and ended_at is null", (ENDED,)
    ),
    "domain_sync": Ground(
        "custom_domains", "select count(*) from app.custom_domains where id % 100 = 0", (REGISTERED,)
    ),
    "usage_thresholds": Ground("billing_cycles", TOLD, (USAGE,)),
    "account_export": Ground(ALL, "select count(*) from app.exports where state = 'wanted'"),
    "account_erasure": Ground(ALL, "select count(*) from app.accounts where deleted_at is not null"),
    "alias_expiry": _older("aliases", "expires_at", "0", "and active"),
    "bandwidth_daily": Ground("bandwidth", "select count(*) from app.bandwidth"),
    "bandwidth_weekly": Ground(
        "bandwidth_daily", "select count(*) from app.bandwidth_daily", (DAYS,), fill="accounts", share=1 / 60
    ),
    "session_expiry": _older("sessions", "expires_at", "0", "or last_seen_at < now() - interval '14 days'"),
    "magic_link_expiry": _older("magic_links", "expires_at", "0"),
    "destination_token_expiry": _older("destination_tokens", "expires_at", "0"),
    "destination_expiry": _older("destinations", "created_at", "27 days", "and verified_at is null"),
    "failed_email_expiry": _older("failed_emails", "failed_at", "7 days"),
    "failed_forward_expiry": _older("failed_forwards", "first_failed_at", "7 days"),
    "overflow_hold_expiry": _older("overflow_hold", "held_at", "29 days"),
    "spam_expiry": _older("spam_quarantine", "quarantined_at", "30 days"),
    "message_expiry": Ground(
        "messages",
        "select count(*) from app.messages m join app.accounts a on a.id = m.account_id "
        "where received_at < now() - coalesce(message_retention, interval '90 days')",
    ),
    "bandwidth_expiry": Ground(
        "bandwidth", "select count(*) from app.bandwidth where recorded_at < now() - interval '101 days'", days_ago=55
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
        wanted = Filling(rows)
    else:
        now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=ground.days_ago)
        wanted = Filling(max(round(rows * ground.share), 10), now=now, only=ground.fill or ground.table)
    await fill(conn, wanted)
    await conn.execute("set statement_timeout = 0")
    for statement in () if ground is None else ground.more:
        await conn.execute(statement)
    await conn.execute("vacuum (analyze)")
    await conn.execute("checkpoint")
