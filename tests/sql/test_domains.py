"""Table domains: one insert registers, each organisation has a token of its own, and what a check says is said once."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.domains import SAID, TURN, one_row, register, said, turn
from tests.sql.rows import Pool, waits_for_lock

pytestmark = pytest.mark.req("BJ-20")


async def test_one_insert_registers_a_domain_and_brings_its_first_check(pool: Pool) -> None:
    made = "insert into domains (org_id, domain) values ('acme', 'Example.COM.') returning "
    domain_id, *named, token = await one_row(pool, made + "id, domain, challenge, state, token")
    assert named == ["example.com", "_jobsd-challenge", "pending"]
    assert re.fullmatch("[a-z2-7]{32}", token)
    [job] = await pool.fetch("select kind, args::text, org_id, unique_key, run_at <= now() as due from jobs")
    assert tuple(job) == (
        "domain_check",
        f'{{"id": {domain_id}, "domain": "example.com"}}',
        "acme",
        str(domain_id),
        True,
    )


async def test_a_transaction_that_fails_leaves_neither_domain_nor_check(pool: Pool) -> None:
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("insert into domains (domain) values ('example.com')")
        await transaction.rollback()
        assert await conn.fetchval("select count(*) from jobs") == 0


async def test_each_organisation_has_a_token_of_its_own(pool: Pool) -> None:
    for org in ("acme", "globex", None):
        await register(pool, org=org)
    tokens = await pool.fetch("select token from domains")
    assert len({token for (token,) in tokens}) == 3
    with pytest.raises(asyncpg.UniqueViolationError):
        await register(pool, org="acme")
    with pytest.raises(asyncpg.UniqueViolationError):  # nor can it be brought along
        await register(pool, org="evil", token=tokens[0][0])


async def test_tokens_are_drawn_evenly(pool: Pool) -> None:
    """160 bits: 32 letters, each of them as likely as any other at each place."""
    letters = await pool.fetch(
        """select letter, count(*) as n
           from (select domain_token() as token from generate_series(1, 1000)) as made,
                string_to_table(token, null) as letter
           group by letter"""
    )
    assert len(letters) == 32
    assert all(800 < n < 1200 for _letter, n in letters)  # 1,000 each, ±31


async def test_a_crowd_is_checked_a_thousand_a_minute(pool: Pool) -> None:
    await pool.execute("insert into domains (domain) select 'd' || n || '.example' from generate_series(1, 400) as n")
    counted = (
        "select count(*) filter (where run_at = created_at), date_part('epoch', max(run_at - created_at)) from jobs"
    )
    at_once, within_s = await one_row(pool, counted)
    assert (at_once, round(within_s)) == (100, 18)


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("domain", "münchen.de", "domains_domain_is_in_a_labels"),
        ("domain", "a b.example", "domains_domain_is_in_a_labels"),
        ("domain", "a..example", "domains_domain_is_in_a_labels"),
        ("domain", "a" * 64 + ".example", "domains_domain_is_in_a_labels"),
        ("domain", ".".join(["a" * 60] * 4), "domains_domain_is_in_a_labels"),
        ("challenge", "jobsd", "domains_challenge_is_a_label_with_an_underscore"),
        ("contact", "nobody", "domains_contact_is_an_address"),
        ("token", "abc", "domains_token_check"),
        ("expect", '{"type": "MX"}', "domains_expect_is_a_list_of_records"),
        ("expect", '[{"type": "MX"}]', "domains_expect_is_a_list_of_records"),
        ("expect", "[1]", "domains_expect_is_a_list_of_records"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(pool: Pool, column: str, value: str, named: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=named):
        await register(pool, **{"domain": "example.com", column: value})


async def test_other_expectations_are_looked_at_at_once_and_an_expired_domain_lives_again(pool: Pool) -> None:
    domain = await register(pool)
    await pool.execute("update domains set state = 'expired', next_check_at = null where id = $1", domain)
    await pool.execute("""update domains set expect = '[{"type": "A", "value": "192.0.2.1"}]' where id = $1""", domain)
    found = await one_row(pool, "select state, next_check_at <= now() as due, checks from domains")
    assert found == ("pending", True, 1)
    with pytest.raises(asyncpg.CheckViolationError, match="a domain stays what it is"):
        await pool.execute("update domains set domain = 'example.net'")


# --- one check at a time ----------------------------------------------------------------------------------------------


async def test_there_is_one_check_at_a_time_and_one_in_ten_seconds(pool: Pool) -> None:
    await register(pool)
    assert (await turn(pool, job=1))["taken"]
    other = await turn(pool, job=2)
    assert (other["taken"], other["under_way"]) == (False, True)
    assert (await turn(pool, job=1))["taken"]  # begun again after a crash
    await pool.execute(SAID, said(await turn(pool, job=1), "bad"))
    soon = await turn(pool, job=2)
    assert (soon["taken"], soon["under_way"], soon["conclusion"]) == (False, False, "it is bad")
    assert 0 <= soon["asked_s"] < 10
    await pool.execute("update domains set asked_at = now() - interval '11 s'")
    assert (await turn(pool, job=2))["taken"]
    await pool.execute("update domains set asked_at = now() - interval '151 s'")
    assert (await turn(pool, job=3))["taken"]  # job 2 is lost


@pytest.mark.parametrize("asked_at", [None, "2020-01-01"])
async def test_of_two_that_begin_in_the_same_moment_one_waits_for_the_other(pool: Pool, asked_at: str | None) -> None:
    """What the second sees of the row is from before the first one's turn: no old answer is given for a new one."""
    await register(pool)
    await pool.execute("update domains set asked_at = $1::text::timestamptz", asked_at)
    async with pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        begun = await first.fetchrow(TURN, "acme", "example.com", None, 1, 10.0, 150.0)
        assert begun is not None
        assert begun["taken"]
        second = asyncio.create_task(turn(pool, job=2))
        await waits_for_lock(pool, "update domains as d set asked_at")
        await transaction.commit()
    row = await second
    assert (row["taken"], row["under_way"]) == (False, True)


async def test_a_domain_is_found_by_its_organisation_only(pool: Pool) -> None:
    await register(pool)
    assert await turn(pool, org="globex") is None
    assert await turn(pool, org=None) is None
    assert await turn(pool, domain="example.net") is None


# --- what checks say --------------------------------------------------------------------------------------------------


async def test_what_a_check_says_is_written_once_and_told_once(pool: Pool) -> None:
    """Its job may be run twice, and its commit may be made twice."""
    domain = await register(pool)
    row = await turn(pool)
    for _ in range(3):
        await pool.execute(SAID, said(row, "good"))
    columns = "state, checks, verdict, conclusion, verified_at, noticed, asked_by"
    found = await one_row(pool, f"select {columns} from domains")
    assert found == ("verified", 1, "match", "it is good", row["now"], "verified", None)
    events = await pool.fetch("select org_id, event, payload::text from webhook_events order by org_id")
    assert [tuple(event) for event in events] == [
        ("acme", "domain.verified", '{"domain": "example.com"}'),
        (None, "domain.verified", '{"domain": "example.com"}'),
    ]
    [mail] = await pool.fetch("select org_id, args ->> 'to' from jobs where kind = 'email'")
    assert tuple(mail) == ("acme", "ann@example.com")
    log = await pool.fetch("select domain_id, state_before, state_after, verdict from domain_checks order by ended_at")
    assert {tuple(line) for line in log} == {
        (domain, "pending", "verified", "match"),
        (domain, "verified", "verified", "match"),
    }
    assert await pool.fetchval("select next_check_at - now() < interval '27 h' from domains")


async def test_a_check_that_began_before_another_had_ended_is_only_noted(pool: Pool) -> None:
    await register(pool)
    row = await turn(pool)
    await pool.execute(SAID, said(row, "good"))
    await pool.execute(SAID, said(row, "bad", job=2))
    assert await pool.fetchval("select state from domains") == "verified"
    log = await one_row(pool, "select state_before, state_after, verdict from domain_checks where job_id = 2")
    assert log == ("verified", "verified", "absent")


async def test_what_was_seen_while_the_expectations_changed_does_not_count(pool: Pool) -> None:
    await register(pool)
    row = await turn(pool)
    await pool.execute("""update domains set expect = '[{"type": "A", "value": "192.0.2.1"}]'""")
    await pool.execute(SAID, said(row, "good"))
    assert await one_row(pool, "select state, asked_by from domains") == ("pending", None)


async def test_a_domain_that_was_removed_meanwhile_is_nothing(pool: Pool) -> None:
    await register(pool)
    row = await turn(pool)
    await pool.execute("delete from domains")
    await pool.execute(SAID, said(row, "good"))
    assert await pool.fetchval("select count(*) from domain_checks") == 0


async def test_five_days_of_absence_end_a_verification_and_a_hiccup_does_not(pool: Pool) -> None:
    await register(pool, state="verified")
    now = await pool.fetchval("select now()")
    for word in ("bad", "unsure", *["bad"] * 122):
        await pool.execute("update domains set asked_at = null")
        await pool.execute(SAID, said(await turn(pool), word, now))  # type: ignore[arg-type]
        now += timedelta(hours=1)
    assert await pool.fetchval("select state from domains") == "failed"
    told = await pool.fetch("select event from webhook_events where org_id = 'acme' order by id")
    assert [event for (event,) in told] == ["domain.degraded", "domain.failed"]
    history = await pool.fetch(
        "select state_after, count(*) from domain_checks group by state_after order by state_after"
    )
    assert {tuple(row) for row in history} == {("degraded", 122), ("failed", 2)}
