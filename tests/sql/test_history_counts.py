"""Numbers for people: exact where that is cheap, honest estimates beyond, and never dearer for a larger table."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import asyncpg
import pytest

import sql
from daemon import counts
from daemon.chores import Chores
from daemon.config import parse
from daemon.counts import EXACT, EXACT_DEAD, PAIRS, Number, Sample, Waiting, assemble, words
from daemon.embedded import Embedded
from daemon.observe import Observer
from daemon.settle import Transition
from daemon.store import Store
from daemon.tallies import HOUR_S, Tallies
from daemon.upkeep_store import UpkeepStore
from jobs.model import Job
from tests.sql.plans import QUEUES, explain, seed
from tests.sql.rows import Insert, Pool, Worker, claim, die

SQL = sql.load("history.sql")
LONG = bool(os.environ.get("JOBSD_LONG"))
SMALL, LARGE = 3_400, 334_000 if LONG else 30_000
"""Ready rows, future rows and running rows each: 10,000 in all, and 90,000; or a million in the long form."""

# The bounds are lower than those in use, so that the small table reaches them too.
ASKED = {
    "waiting": ("40", "1000"),
    "sample": ("100",),
    "others": (str(EXACT_DEAD), "86400"),
    "dead_about": (),
}
MANY_FINISHED = """
insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, finished_at)
select n, 'noop', '{}', 'q' || n % 20, 2, now(), now(), case n % 2 when 0 then 'dead' else 'done' end, 1, 0,
       now() - n * interval '1 ms'
from generate_series(1, $1::int) as n"""


@pytest.fixture(scope="module")
async def sizes(embedded_server: Embedded, template: str) -> AsyncIterator[dict[int, asyncpg.Connection]]:
    """Databases with so many rows of each, and as many finished ones as all of them."""
    admin = await asyncpg.connect(embedded_server.dsn("postgres"))
    found = {}
    for each in (SMALL, LARGE):
        name = f"counts_{each}"
        await admin.execute(f"create database {name} template {template}")
        conn = found[each] = await asyncpg.connect(embedded_server.dsn(name))
        await seed(conn, each, others=False)
        await conn.execute(MANY_FINISHED, each)
        await conn.execute("vacuum analyze jobs")
        await conn.execute("vacuum analyze job_history")
    yield found
    for each, conn in found.items():
        await conn.close()
        await admin.execute(f"drop database counts_{each} with (force)")
    await admin.close()


@pytest.mark.parametrize("name", ASKED)
async def test_a_number_costs_the_same_for_a_large_table(
    sizes: dict[int, asyncpg.Connection], name: str, record_property: Callable[[str, object], None]
) -> None:
    """Pages, not time.  The index of a million entries is a level deeper than that of 10,000: a page more for each of
    nine probes a queue; measured: 378 and 576 for 20 queues.  Six pages are the catalogue's."""
    few, many = [
        min([(await explain(sizes[each], SQL[name], ASKED[name], "force_custom_plan")).buffers for _ in range(3)])
        for each in (SMALL, LARGE)
    ]
    record_property("pages", (few, many))
    assert many <= 1.2 * few + (9 * QUEUES if name == "waiting" else 6)


async def test_estimates_are_near_the_truth(
    sizes: dict[int, asyncpg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ready rows and rows to come in each class of a queue than are counted; their sum, since the estimate of one
    queue scatters more."""
    if not LONG:
        monkeypatch.setattr(counts, "EXACT", 300)
    survey = await counts.take(sizes[LARGE])
    assert len(survey.queues) == QUEUES
    for name, true in (("ready", LARGE), ("scheduled", LARGE), ("dead", LARGE // 2)):
        numbers = [getattr(queue, name) for queue in survey.queues.values()]
        assert all(number.about for number in numbers if number.n), name
        assert 0.7 * true < sum(number.n for number in numbers) < 1.3 * true, name


async def test_small_numbers_are_exact(pool: Pool, store: Store, worker: Worker) -> None:
    await pool.execute(
        "insert into jobs (kind, queue, priority, run_at) select 'a', 'q', 1 + n % 2, now() - interval '1 h' "
        "from generate_series(1, 1990) as n; "
        "insert into jobs (kind, queue, run_at) values ('a', 'q', now() + interval '1 h'), ('b', 'q', now()), "
        "('b', 'r', now()); update jobs set gate = 'kind:b' where kind = 'b'"
    )
    await pool.execute('update job_workers set running = \'{"q": 3, "other": 1}\' where id = $1', await worker())
    gone = await worker()
    await pool.execute(
        "update job_workers set running = '{\"q\": 90}', lease_until = now() - interval '1 s' where id = $1", gone
    )
    async with pool.acquire() as conn:
        survey = await counts.take(conn)
    q = survey.queues["q"]
    assert (q.ready, q.scheduled, q.parked, q.running) == (Number(1990), Number(1), Number(1), Number(3))
    assert 3600 <= q.oldest_s < 4000
    assert survey.queues["other"].running == Number(1)
    assert survey.parked == {"b": 2}


def test_an_estimate_counts_only_where_counting_stopped() -> None:
    waiting = [
        Waiting("a", "", EXACT, 5, 1.0, more_ready=True, more_scheduled=False),
        Waiting("b", "", 7, 0, 1.0, more_ready=False, more_scheduled=False),
        Waiting("c", "", EXACT, 0, 1.0, more_ready=True, more_scheduled=False),
    ]
    sample = [Sample("a", "", 300, 900, 100.0), Sample("b", "", 1, 0, 100.0)]
    queues = assemble(waiting, sample, {}, {}, 0.0, []).queues
    assert queues["a"].ready == Number(30_000, about=True)
    assert queues["a"].scheduled == Number(5)
    assert queues["b"].ready == Number(7)
    assert queues["c"].ready == Number(EXACT, about=True)  # too rare for the sample: at least what was counted


def test_places_beyond_those_that_are_counted_are_estimated() -> None:
    waiting = [Waiting(f"a{n:04}", "", 1, 0, 1.0, more_ready=False, more_scheduled=False) for n in range(PAIRS)]
    sample = [Sample("a0007", "", 1, 0, 100.0), Sample("b", "", 30, 0, 100.0), Sample("b", "kind:k", 2, 1, 100.0)]
    survey = assemble(waiting, sample, {}, {}, 0.0, [])
    assert survey.cut
    assert survey.queues["a0007"].ready == Number(1)
    assert survey.queues["b"].ready == Number(3000, about=True)
    assert survey.parked == {"k": 300}
    assert not assemble(waiting[1:], sample, {}, {}, 0.0, []).cut


def test_dead_letters_beyond_the_bound_are_shared_out_as_the_newest_are() -> None:
    queues = assemble([], [], {}, {"a": EXACT_DEAD * 3 // 4, "b": EXACT_DEAD // 4}, 40_000.0, []).queues
    assert (queues["a"].dead, queues["b"].dead) == (Number(30_000, about=True), Number(10_000, about=True))
    queues = assemble([], [], {}, {"a": 7}, 0.0, []).queues
    assert queues["a"].dead == Number(7)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (Number(0), "0"),
        (Number(1999), "1999"),
        (Number(1999, about=True), "about 2 k"),
        (Number(1_234_567, about=True), "about 1.23 M"),
        (Number(950, about=True), "about 950"),
    ],
)
def test_what_people_read_says_when_it_is_an_estimate(number: Number, shown: str) -> None:
    assert words(number) == shown


# --- what ended -------------------------------------------------------------------------------------------------------


class Clock:
    at = 100 * HOUR_S + 5.0

    def __call__(self) -> float:
        return self.at


def a_job(n: int, queue: str = "q") -> Job:
    return Job(n, 1, "noop", queue, 2, 1, "{}", 0.0)


def transitions(*states: str) -> list[Transition]:
    return [Transition(a_job(n), state, "done") for n, state in enumerate(states)]  # type: ignore[arg-type]


async def tallied(pool: Pool) -> dict[tuple[int, str, str, int], int]:
    rows = await pool.fetch(
        "select extract(epoch from hour)::bigint as hour, queue, outcome, worker_id, n from job_tallies"
    )
    return {(row["hour"] // HOUR_S, row["queue"], row["outcome"], row["worker_id"]): row["n"] for row in rows}


@pytest.mark.req("JP-07")
async def test_ends_are_counted_by_hour_queue_and_outcome(pool: Pool, keeping: UpkeepStore) -> None:
    clock = Clock()
    tallies = Tallies(lambda: 7, clock=clock)
    tallies.ended(transitions("done", "done", "dead", "ready", "done"), {0, 1, 2, 3})  # 4 was refused
    await tallies.flush(keeping)
    tallies.ended(transitions("done"), {0})
    clock.at += HOUR_S
    await tallies.flush(keeping)
    await tallies.flush(keeping)
    assert await tallied(pool) == {(100, "q", "done", 7): 2, (100, "q", "dead", 7): 1, (101, "q", "done", 7): 1}


async def test_of_two_attempts_of_a_row_one_counts(pool: Pool, keeping: UpkeepStore) -> None:
    """A batch may have the late result of a row that the same daemon claimed again."""
    older, newer = (Transition(Job(1, fence, "noop", "q", 2, 1, "{}", 0.0), "dead", "dead") for fence in (1, 2))
    tallies = Tallies(lambda: 7, clock=Clock())
    tallies.ended([newer, older], {1})
    await tallies.flush(keeping)
    assert await tallied(pool) == {(100, "q", "dead", 7): 1}


async def test_a_flush_whose_answer_was_lost_counts_once(
    pool: Pool, keeping: UpkeepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallies = Tallies(lambda: 7, clock=Clock())
    tallies.ended(transitions("done", "done"), {0, 1})
    fetch = keeping.fetch

    async def lost(*args: object) -> None:
        await fetch(*args)  # type: ignore[arg-type]
        raise ConnectionError("no answer")

    monkeypatch.setattr(keeping, "fetch", lost)
    with pytest.raises(ConnectionError):
        await tallies.flush(keeping)
    monkeypatch.undo()
    tallies.ended(transitions("done"), {0})
    await tallies.flush(keeping)
    assert await tallied(pool) == {(100, "q", "done", 7): 3}


async def test_a_new_worker_begins_rows_of_its_own(pool: Pool, keeping: UpkeepStore) -> None:
    worker_id: list[int | None] = [7]
    tallies = Tallies(lambda: worker_id[0], clock=Clock())
    tallies.ended(transitions("done", "done"), {0, 1})
    await tallies.flush(keeping)
    worker_id[0] = None
    tallies.ended(transitions("done"), {0})
    await tallies.flush(keeping)
    worker_id[0] = 8
    await tallies.flush(keeping)
    assert await tallied(pool) == {(100, "q", "done", 7): 2, (100, "q", "done", 8): 1}


async def test_queues_that_rows_invent_do_not_fill_the_memory(pool: Pool, keeping: UpkeepStore) -> None:
    tallies = Tallies(lambda: 7, clock=Clock())
    tallies.add_all((f"q{n}", "done") for n in range(3000))
    await tallies.flush(keeping)
    assert await pool.fetchval("select count(*) from job_tallies") == 501
    assert await pool.fetchval("select sum(n) from job_tallies") == 3000


@pytest.mark.req("JP-07")
async def test_what_upkeep_buries_is_counted_too(
    pool: Pool, store: Store, keeping: UpkeepStore, observer: Observer, worker: Worker, insert: Insert
) -> None:
    lost, ms = await worker(), timedelta(milliseconds=1)
    await insert(2, queue="cursed")
    await claim(store, lost, queue="cursed")
    await die(pool, lost)
    await insert(queue="late", expires_at=await pool.fetchval("select now()") - ms)
    tallies = Tallies(lambda: 7, clock=Clock())
    config = parse("[daemon]\ncrash_limit = 1")
    chores = Chores(keeping, observer, lambda: config, lambda: None, tallies)
    for chore in chores.wanted(await chores.ask()):
        await chore.do()
    await tallies.flush(keeping)
    assert await tallied(pool) == {(100, "cursed", "dead", 7): 2, (100, "late", "dead", 7): 1}


async def test_hours_of_yesterday_are_folded_and_old_ones_go(pool: Pool, keeping: UpkeepStore) -> None:
    await pool.execute(
        "insert into job_tallies select now() - h * interval '1 h', 'q', 'done', w, 1 "
        "from generate_series(1, 48) as h, generate_series(1, 3) as w"
    )
    assert (await keeping.fetch(SQL["fold"], 1000))[0][0] == 3 * 24
    assert (await keeping.fetch(SQL["fold"], 1000))[0][0] == 0
    assert await pool.fetchval("select sum(n) from job_tallies") == 3 * 48
    assert await pool.fetchval("select count(*) from job_tallies where worker_id = 0 and n = 3") == 24
    assert len(await keeping.fetch(SQL["forget_tallies"], 24 * 3600.5, 1000)) == 24
