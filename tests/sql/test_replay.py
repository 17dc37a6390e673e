"""A replay sends the right events once more, each once, at its rate, whatever becomes of whoever does it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec
import pytest

import jobs.webhook.replay
import jobs.webhook.selection
from daemon.endpoint_orders import Deliveries, EndpointOrders
from daemon.operator_store import Order
from jobs.model import Dead, Done, Snooze
from jobs.webhook.replay import State, count
from jobs.webhook.selection import ReplayArgs, TooManyWait, find, waiting
from tests.sql.logins import as_login, roles_in
from tests.sql.replays import KIND, LONG_AGO, begin, delivered
from tests.sql.rows import Pool
from tests.sql.test_webhook_events import emit, endpoint

pytestmark = pytest.mark.req("BJ-15", "BJ-16")


async def events(pool: Pool, count: int, **columns: Any) -> list[int]:
    return [event for _ in range(count) if (event := await emit(pool, **columns))]


async def failures(pool: Pool, of: int, made: Sequence[int]) -> None:
    """All attempts at these failed, the last one for good."""
    for event in made:
        await delivered(pool, of, event, "retry", "unknown", "dead")


# --- which events -----------------------------------------------------------------------------------------------------


async def test_failed_are_those_of_which_no_attempt_went_well_and_none_is_under_way(pool: Pool) -> None:
    of = await endpoint(pool)
    lost, late, well, under_way, untried = await events(pool, 5)
    await delivered(pool, of, lost, "retry", "retry", "dead")
    await delivered(pool, of, late, "retry", "unknown")
    await delivered(pool, of, well, "retry", "ok")
    await delivered(pool, of, under_way, "retry", ended=False)
    replay = await begin(pool, of, what="failed")
    assert await replay.finish() == {"enqueued": 2, "passed": 0}
    assert await replay.sent() == [lost, late]
    assert untried in [args[1] for args in await _live(pool)]


async def test_missing_are_those_it_wants_and_never_got_whether_they_were_tried_or_not(pool: Pool) -> None:
    await _log_since_yesterday(pool)
    before = await events(pool, 3, event="invoice.paid")
    await pool.execute("update webhook_events set created_at = now() - interval '1 hour'")
    of = await endpoint(pool, events=["invoice.*"])
    unwanted = await emit(pool, "user.made")
    failed, well, under_way, waits, cancelled = await events(pool, 5, event="invoice.sent")
    await delivered(pool, of, failed, "dead")
    await delivered(pool, of, well, "retry", "ok")
    await delivered(pool, of, under_way, "retry", ended=False)
    await pool.execute("delete from jobs where args ->> 'event_id' = $1", str(cancelled))
    replay = await begin(pool, of, what="missing")
    assert await replay.finish() == {"enqueued": 5, "passed": 0}
    assert await replay.sent() == [*before, failed, cancelled]
    assert {unwanted, waits, well} & set(await replay.sent()) == set()
    only = await begin(pool, of, what="missing", event="invoice.paid", since=_ago(minutes=10))
    assert await only.finish() == {"enqueued": 0, "passed": 0}, "the older ones were made before"


async def test_logged_are_those_whose_last_attempt_came_to_what_is_asked_for(pool: Pool) -> None:
    of, other = await endpoint(pool), await endpoint(pool, "other")
    first, second, third = await events(pool, 3)
    await delivered(pool, of, first, "unknown", "ok")
    await delivered(pool, of, second, "unknown")
    await delivered(pool, other, third, "ok")
    replay = await begin(pool, of, what="logged", outcomes=["ok"])
    await replay.finish()
    assert await replay.sent() == [first]
    replay = await begin(pool, of, what="logged", outcomes=["unknown", "dead"])
    await replay.finish()
    assert await replay.sent() == [second]


async def test_a_time_and_a_pattern_narrow_it(pool: Pool) -> None:
    of = await endpoint(pool)
    old, late = await events(pool, 2, event="a.b")
    other = await emit(pool, "a.c")
    assert other is not None
    await failures(pool, of, [old, late, other])
    await pool.execute("update webhook_deliveries set ended_at = ended_at - interval '1 hour' where event_id = $1", old)
    replay = await begin(pool, of, what="failed", since=_ago(minutes=30), event="a.b")
    await replay.finish()
    assert await replay.sent() == [late]
    replay = await begin(pool, of, what="failed", since=_ago(hours=2), until=_ago(minutes=30))
    await replay.finish()
    assert await replay.sent() == [old]


async def test_events_that_are_named_are_sent_whatever_came_of_them(pool: Pool) -> None:
    of = await endpoint(pool, events=["never"])
    first, second, _third = await events(pool, 3)
    foreign = await emit(pool, org_id="acme")
    await delivered(pool, of, second, "ok")
    replay = await begin(pool, of, what="events", events=[second, first, first, foreign, 999_999])
    assert await replay.finish() == {"enqueued": 2, "passed": 0}
    assert await replay.sent() == [first, second]


async def test_it_sends_no_more_than_asked(pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 10)
    await failures(pool, of, made)
    replay = await begin(pool, of, what="failed", most=3, rate="1/s")
    await replay.finish()
    assert await replay.sent() == made[:3]


@pytest.mark.parametrize("look", [1, 2, 3, 500])
async def test_pages_of_any_size_find_the_same(look: int, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.webhook.selection, "LOOK", look)
    of = await endpoint(pool)
    made = await events(pool, 7)
    await failures(pool, of, made[:5])
    await delivered(pool, of, made[5], "ok")
    at_once = "update webhook_deliveries set ended_at = (select max(ended_at) from webhook_deliveries)"
    await pool.execute(at_once)
    for what in ("failed", "missing"):
        replay = await begin(pool, of, what=what)
        await replay.finish()
        assert sorted(await replay.sent()) == made[:5], what
        await pool.execute("delete from jobs where args ? 'replay'")


async def test_what_waited_for_long_is_not_missing_however_many_rows_there_are(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.webhook.selection, "LIVE_LOOK", 2)
    of = await endpoint(pool, state="disabled")
    await events(pool, 7)
    await pool.execute("insert into jobs (kind, args) values ('webhook', $1)",
                       json.dumps({"endpoint": of, "event_id": 1e300}))  # fmt: skip
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    replay = await begin(pool, of, what="missing")
    assert await replay.finish() == {"enqueued": 0, "passed": 0}
    with pytest.raises(TooManyWait):
        await waiting(pool, of, most=6)


async def test_what_is_missing_is_not_asked_of_a_time_whose_log_is_gone(pool: Pool) -> None:
    (event,) = await events(pool, 1)
    await pool.execute("update webhook_events set created_at = now() - interval '2 days'")
    of = await endpoint(pool)
    replay = await begin(pool, of, what="missing")
    assert await replay.finish() == {"enqueued": 0, "passed": 0}, "who knows whether it was delivered"
    named = await begin(pool, of, what="events", events=[event])
    assert await named.finish() == {"enqueued": 1, "passed": 0}


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_delivery_is_as_the_fan_out_made_it(pool: Pool) -> None:
    of = await endpoint(pool, org_id="acme", ordering="block")
    event = await emit(pool, org_id="acme", ordering_key="k", queue="bulk", priority=3, correlation_id="c",
                       expires_at=datetime.now(UTC) + timedelta(hours=1))  # fmt: skip
    columns = "kind, queue, org_id, priority, expires_at, ordering_key, lane, correlation_id"
    made = await pool.fetchrow(f"select {columns} from jobs")
    assert event is not None
    await failures(pool, of, [event])
    replay = await begin(pool, of, org_id="acme", what="failed")
    await replay.finish()
    again = await pool.fetchrow(f"select {columns}, args::text as args from jobs where kind = 'webhook'")
    assert made is not None
    assert again is not None
    assert {name: again[name] for name in dict(made)} == dict(made)
    assert json.loads(again["args"]) == {"endpoint": of, "event_id": event, "replay": replay.id}


async def test_an_event_that_was_to_be_sent_by_a_time_that_has_passed_is_sent_all_the_same(pool: Pool) -> None:
    of = await endpoint(pool)
    (event,) = await events(pool, 1, expires_at=datetime.now(UTC) - timedelta(hours=1))
    await delivered(pool, of, event, "dead")
    await (await begin(pool, of, what="failed")).finish()
    assert await pool.fetchval("select expires_at from jobs where args ? 'replay'") is None


# --- how often, and how fast ------------------------------------------------------------------------------------------


async def test_a_second_replay_leaves_alone_what_the_first_has_under_way_or_delivered(pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 4)
    await failures(pool, of, made)
    first = await begin(pool, of, what="failed")
    assert await first.finish() == {"enqueued": 4, "passed": 0}
    second = await begin(pool, of, what="failed")
    assert await second.finish() == {"enqueued": 0, "passed": 4}
    for event in made:
        await delivered(pool, of, event, "ok")
    third = await begin(pool, of, what="failed")
    assert await third.finish() == {"enqueued": 0, "passed": 0}


async def test_one_that_ends_and_is_run_again_adds_nothing(pool: Pool) -> None:
    """The daemon was killed after the last commit and before the row had ended."""
    of = await endpoint(pool)
    await failures(pool, of, await events(pool, 3))
    replay = await begin(pool, of, what="failed")
    await replay.finish()
    again = await replay.rescued()
    assert await again.finish() == {"enqueued": 3, "passed": 0}
    assert len(await again.sent()) == 3


@pytest.mark.parametrize("what", ["failed", "missing", "events"])
async def test_killed_after_any_step_it_goes_on_where_it_was(what: str, pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 12)
    await failures(pool, of, made)
    named: dict[str, Any] = {"events": made} if what == "events" else {}
    replay = await begin(pool, of, what=what, rate="1/s", **named)
    kills = 0
    while not isinstance(await replay.step(), Done):
        await _deliver_all(pool, of)  # what it sent on fails or works meanwhile, which must not make it look again
        replay, kills = await replay.rescued(), kills + 1
    assert kills == 2
    sent = [row[0] for row in await pool.fetch("select event_id from webhook_deliveries where replay_id is not null")]
    assert sorted([*sent, *await replay.sent()]) == made, "each once"


async def test_killed_in_the_middle_of_a_step_it_has_sent_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    of = await endpoint(pool)
    made = await events(pool, 3)
    await failures(pool, of, made)
    replay = await begin(pool, of, what="failed")
    broken = {**jobs.webhook.replay._SQL, "note": "select 1 / 0, $1::int8, $2::int4, $3::int8, $4::text"}
    with monkeypatch.context() as patch:
        patch.setattr(jobs.webhook.replay, "_SQL", broken)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await replay.step()
    assert await replay.sent() == []
    await replay.finish()
    assert await replay.sent() == made


async def test_an_attempt_that_has_lost_its_row_sends_nothing(pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 3)
    await failures(pool, of, made)
    late = await begin(pool, of, what="failed")
    replay = await late.rescued()
    outcome = await late.step()
    assert isinstance(outcome, Snooze)
    assert outcome.code == "row_lost"
    assert await replay.sent() == []
    await replay.finish()
    assert isinstance(await late.step(), Snooze)
    assert await replay.sent() == made


async def test_cancelled_it_leaves_what_was_not_sent_on(pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 12)
    await failures(pool, of, made)
    replay = await begin(pool, of, what="failed", rate="1/s")
    assert isinstance(await replay.step(), Snooze)
    await pool.execute("delete from jobs where id = $1", replay.id)  # as jobs cancel does
    assert isinstance(await replay.step(), Snooze)
    assert await replay.sent() == made[:5], "five seconds' worth"


async def test_its_deliveries_become_due_no_faster_than_its_rate_through_kills_and_pauses(pool: Pool) -> None:
    of = await endpoint(pool)
    await failures(pool, of, await events(pool, 30))
    replay = await begin(pool, of, what="failed", rate="2/s")
    for _ in range(STEPS):
        outcome = await replay.step()  # at once, and not when it is due: a daemon may do what it likes
        if isinstance(outcome, Done):
            break
        assert isinstance(outcome, Snooze)
        assert outcome.after_s > 3.5
        replay = await replay.rescued()
    due = await replay.due()
    assert len(due) == 30
    assert min((b - a).total_seconds() for a, b in pairwise(due)) >= 0.4999
    assert (due[-1] - due[0]).total_seconds() < 15


async def test_after_a_pause_it_does_not_catch_up(pool: Pool) -> None:
    of = await endpoint(pool)
    await failures(pool, of, await events(pool, 10))
    replay = await begin(pool, of, what="failed", rate="1/s")
    await replay.step()
    state = msgspec.convert(await replay.progress(), State, strict=False)
    past = msgspec.structs.replace(state, next_at=datetime.now(UTC) - timedelta(hours=1))
    await pool.execute("update jobs set progress = $2 where id = $1", replay.id, msgspec.json.encode(past).decode())
    await replay.step()
    rows = await pool.fetch("select run_at from jobs where args ? 'replay' order by id")
    due = [row[0] for row in rows]
    assert due[5] >= due[0]
    assert min((b - a).total_seconds() for a, b in pairwise(due[5:])) >= 0.999


async def test_it_says_how_far_it_is(pool: Pool) -> None:
    of = await endpoint(pool)
    await failures(pool, of, await events(pool, 12))
    replay = await begin(pool, of, what="failed", rate="1/s", since=_ago(minutes=1))
    percents = []
    while not isinstance(await replay.step(), Done):
        percents.append((await replay.progress())["percent"])
    said = await replay.progress()
    assert (said["percent"], said["enqueued"]) == (100.0, 12)
    assert percents == sorted(percents)
    assert percents[0] > 0


async def test_a_disabled_endpoint_is_waited_for(pool: Pool) -> None:
    of = await endpoint(pool)
    made = await events(pool, 2)
    await failures(pool, of, made)
    await pool.execute("update webhook_endpoints set state = 'disabled'")
    replay = await begin(pool, of, what="failed")
    outcome = await replay.step()
    assert isinstance(outcome, Snooze)
    assert outcome.code == "endpoint_disabled"
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    await replay.finish()
    assert await replay.sent() == made


# --- dry, and whose ---------------------------------------------------------------------------------------------------


async def test_a_dry_run_touches_nothing(pool: Pool) -> None:
    of = await endpoint(pool)
    await failures(pool, of, await events(pool, 3))
    replay = await begin(pool, of, what="failed")
    before = [await pool.fetch(f"select * from {table}") for table in ("jobs", "webhook_deliveries")]
    outcome = await replay.step(dry_run=True)
    assert isinstance(outcome, Done)
    assert outcome.result == {"would": f"send 3 events to endpoint {of} once more", "exact": True}
    assert [await pool.fetch(f"select * from {table}") for table in ("jobs", "webhook_deliveries")] == before


@pytest.mark.req("OR-01")
async def test_an_organisation_replays_to_its_own_endpoints_only(pool: Pool) -> None:
    of = await endpoint(pool, org_id="globex")
    (theirs,) = await events(pool, 1, org_id="globex")
    await failures(pool, of, [theirs])
    for whom in (of, "main"):
        for org_id in ("acme", None):
            outcome = await (await begin(pool, whom, org_id=org_id, what="failed")).step()
            assert isinstance(outcome, Dead)
            assert outcome.code == "endpoint_unknown"
    by_name = await begin(pool, "main", org_id="globex", what="failed")
    await by_name.finish()
    assert await by_name.sent() == [theirs]
    assert await pool.fetchval("select unique_key from jobs where args ? 'replay'") == f"globex:replay:{of}:{theirs}"


async def test_the_events_of_another_organisation_are_not_missing(pool: Pool) -> None:
    await _log_since_yesterday(pool)
    for org_id in ("globex", None, "acme"):
        await emit(pool, org_id=org_id)
    await pool.execute("update webhook_events set created_at = created_at - interval '10 minutes'")
    for org_id in (None, "acme"):
        of = await endpoint(pool, org_id=org_id)
        replay = await begin(pool, of, org_id=org_id, what="missing")
        await replay.finish()
        (event,) = await replay.sent()
        assert await pool.fetchval("select org_id from webhook_events where id = $1", event) == org_id


@pytest.fixture
async def roles(database: str) -> AsyncIterator[str]:
    async with roles_in(database):
        yield database


@pytest.mark.req("OR-01", "OR-13")
async def test_an_operator_of_an_organisation_replays_what_is_its_own_and_the_daemons_role_is_enough(
    roles: str, pool: Pool
) -> None:
    acme, globex = [await endpoint(pool, org_id=org) for org in ("acme", "globex")]
    mine, theirs = [event for org in ("acme", "globex") for event in await events(pool, 1, org_id=org)]
    await failures(pool, acme, [mine])
    await failures(pool, globex, [theirs])
    conn = await asyncpg.connect(as_login(roles, "acme_operator"))
    order = Order("ann", "endpoints.replay", "endpoint")
    args = ReplayArgs(endpoint=acme, what="failed", since=datetime(2001, 1, 1, tzinfo=UTC))
    text = msgspec.json.encode(args).decode()
    try:
        orders = EndpointOrders(conn)
        whom = await find(conn, acme, None)
        assert whom is not None
        assert (await count(conn, args, whom)).events == 1
        assert await find(conn, globex, None) is None
        assert await orders.deliveries(globex, Deliveries(), 10) == []
        assert len(await orders.deliveries(acme, Deliveries(), 10)) == 3
        insert = "insert into jobs (kind, args, org_id) values ('webhook_replay', $1, $2)"
        await conn.execute(insert, text, "acme")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(insert, text, "globex")
    finally:
        await conn.close()
    ann = await asyncpg.connect(as_login(roles, "jobsd_ann"))
    try:
        orders = EndpointOrders(ann)
        job_id = await orders.replay(acme, text, order)
        assert await orders.replay(acme, text, order) is None
        assert await orders.replaying(acme) == job_id
    finally:
        await ann.close()
    daemon = await asyncpg.create_pool(as_login(roles, "jobsd_serve"), min_size=1, max_size=2)
    try:
        replay = await begin(pool, acme, org_id="acme", what="failed")
        replay.pool = daemon
        await replay.finish()
        assert await replay.sent() == [mine]
    finally:
        await daemon.close()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"what": "failed"}, "since: is needed"),
        ({"what": "events"}, "events: goes with"),
        ({"what": "failed", "since": LONG_AGO, "events": [1]}, "events: goes with"),
        ({"what": "logged", "since": LONG_AGO}, "outcomes: goes with"),
        ({"what": "missing", "since": LONG_AGO, "outcomes": ["ok"]}, "outcomes: goes with"),
        ({"what": "events", "events": [1], "event": "a"}, "leave out until and event"),
        ({"what": "failed", "since": "2026-01-01T00:00:00"}, "timezone"),
        ({"what": "failed", "since": LONG_AGO, "rate": "fast"}, "is not a rate"),
        ({"what": "failed", "since": LONG_AGO, "rate": "9999/s"}, "1000/s at most"),
        ({"what": "everything", "since": LONG_AGO}, "everything"),
    ],
)
def test_args_that_make_no_sense_are_refused(args: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        KIND.decode(json.dumps({"endpoint": 1, **args}))


def test_args_are_as_they_are_given() -> None:
    args = KIND.decode('{"endpoint": "crm", "what": "failed", "since": "2026-01-01T00:00:00+02:00"}')
    assert isinstance(args, ReplayArgs)
    assert args.per_second == 10.0


STEPS = 20


def _ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


async def _log_since_yesterday(pool: Pool) -> None:
    """As if there had been one, so that an hour ago is never before the log."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    await pool.execute(
        f"create table webhook_deliveries_{day:%Y%m%d} partition of webhook_deliveries "
        f"for values from ('{day}') to ('{day + timedelta(days=1)}')"
    )


async def _live(pool: Pool) -> list[tuple[int, int]]:
    rows = await pool.fetch("select args from jobs where kind = 'webhook' order by id")
    found = [json.loads(row[0]) for row in rows]
    return [(args["endpoint"], args["event_id"]) for args in found]


async def _deliver_all(pool: Pool, of: int) -> None:
    """All that a replay sent on is tried: every other one goes well."""
    await pool.execute(
        """with gone as (delete from jobs where args ? 'replay' returning id, args)
           insert into webhook_deliveries (job_id, attempt, endpoint_id, event_id, replay_id, url, outcome, ended_at)
           select id, 1, $1, (args ->> 'event_id')::bigint, (args ->> 'replay')::bigint, '',
                  case when id % 2 = 0 then 'ok' else 'dead' end, clock_timestamp() from gone""",
        of,
    )
