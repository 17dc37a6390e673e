"""What a claim and a finish cost does not grow with what waits, lies in the future, runs and has ended.

Counted in 8 KiB pages, which are the same each time, and not in time.  JOBSD_LONG=1 compares with a million rows of
each sort instead of 20,000.  `-s` shows the figures.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

import sql
from daemon.embedded import Embedded
from tests.sql.plans import explain, scratch, seed

FEW = 1_000
LONG = bool(os.environ.get("JOBSD_LONG"))
MANY = 1_000_000 if LONG else 20_000
ORGS = 10_000 if LONG else 4_000
QUEUES = 4
ROWS = 100
FLAT = 1.2
"""Beyond the depth of the indexes: over twenty times as many entries, or a thousand, each is a level deeper, which is a
page more whenever somebody goes down it for a row or an entry.  It is felt where few rows are asked for, and where
each row goes to places of its own in several indexes."""

MODES = ("force_custom_plan", "force_generic_plan")
CLAIM = sql.load("queue.sql")["claim"]
FINISH = sql.load("queue.sql")["finish"]
PUT_BACK = sql.load("queue.sql")["put_back"]
WAITING = sql.load("queue.sql")["waiting"]

_BIG = f"""
insert into jobs (id, kind, queue, org_id, run_at) overriding system value
select n - {ROWS}, 'noop', 'q1', 'big', now() - interval '1 hour' from generate_series(1, {ROWS}) as n"""
_CROWD = """
insert into jobs (kind, queue, org_id, run_at)
select 'noop', 'crowd', 'o' || n % $1::int, now() - n * interval '1 ms' from generate_series(1, 10 * $1::int) as n"""


def claim(*asked: tuple[str, int]) -> tuple[str, ...]:
    """The arguments of a claim: of queue q1, or of the crowd's organisations; each with so many rows."""
    each = range(len(asked))
    queues = ", ".join("'q1'" if org in ("null", "'big'") else "'crowd'" for org, _rows in asked)
    fixed = [f"array[{', '.join(word for _ in each)}]" for word in ("''", "2::smallint", "'-infinity'::float8")]
    orgs, rows = (f"array[{', '.join(str(ask[n]) for ask in asked)}]" for n in (0, 1))
    return (
        f"array[{queues}]",
        fixed[0],
        f"{orgs}::text[]",
        fixed[1],
        rows,
        *[fixed[2]] * 4,
        "1",
        "'{noop}'",
        "'{}'",
        "null",
        fixed[1],
        f"array[{', '.join('0::bigint' for _ in each)}]",
    )


_IDS = "'{" + ",".join(str(14 + 21 * n) for n in range(ROWS)) + "}'"  # running rows of worker 1, in ascending order
_NOTHING = ("null",) * 7


def _each(value: str) -> str:
    return f"array_fill({value}, array[{ROWS}])"


_NO_TEXT = _each("null::text")
# statement, arguments, and how often it goes down an index for itself
CASES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "claim 100 rows, whosever": (CLAIM, claim(("null", ROWS)), 0),
    "claim 100 rows of one organisation": (CLAIM, claim(("'big'", ROWS)), 0),
    "claim 1 row": (CLAIM, claim(("null", 1)), 5),  # for the first of each class, and for the entry by id
    "finish 100 rows": (FINISH, (_IDS, _each("1"), *_NOTHING, "1", "'{1,2}'", "null", "false"), 0),
    "put 100 rows back": (
        PUT_BACK,
        (_IDS, _each("1"), _each("60.0::float8"), _each("true"), _each("''::text"), _NO_TEXT, _NO_TEXT, _NO_TEXT,
         _each("false"), "1", "'{1,2}'", _each("null::float8")),
        4 * ROWS,  # by id, and for the entries by id, of jobs_ready and of jobs_shares
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
async def few(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with scratch(embedded_server, template, "flat_few") as conn:
        await fill(conn, FEW, 100)
        yield conn


@pytest.fixture(scope="module")
async def many(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with scratch(embedded_server, template, "flat_many") as conn:
        await fill(conn, MANY, ORGS)
        yield conn


async def fill(conn: asyncpg.Connection, each: int, orgs: int) -> None:
    """So many rows ready, in the future, running and finished; so many organisations wait in the queue `crowd`."""
    await conn.execute(_BIG)  # side by side in either table, not in the gaps that the other rows leave
    await seed(conn, each, queues=QUEUES, finished=each, others=False)
    await conn.execute("set session_replication_role = replica")
    await conn.execute(_CROWD, orgs)
    await conn.execute("set session_replication_role = origin; analyze jobs")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
async def test_it_costs_the_same_whatever_there_is(
    few: asyncpg.Connection, many: asyncpg.Connection, case: str, mode: str, told: Callable[[str, int, int, int], float]
) -> None:
    statement, args, descents = CASES[case]
    small, large = [await cost(conn, statement, args, mode) for conn in (few, many)]
    assert told(f"{case}, {mode}", small, large, descents) <= FLAT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("each", [1, 10])
async def test_it_costs_the_same_however_many_organisations_wait(
    few: asyncpg.Connection, many: asyncpg.Connection, each: int, mode: str, told: Callable[[str, int, int, int], float]
) -> None:
    """100 rows, asked of 100 or of 10 of them: out of 100 that wait, and out of thousands among all the other rows."""
    args = claim(*((f"'o{n}'", each) for n in range(ROWS // each)))
    small, large = [await cost(conn, CLAIM, args, mode) for conn in (few, many)]
    assert told(f"claim of {ROWS // each} organisations, {mode}", small, large, ROWS // each + ROWS) <= FLAT


@pytest.mark.parametrize("mode", MODES)
async def test_to_see_who_waits_costs_so_much_for_each_that_is_told(many: asyncpg.Connection, mode: str) -> None:
    plan = await explain(many, WAITING, ("'crowd'", "''", "0", "''", "1000"), mode)
    assert plan.buffers <= 6 * 1000


async def cost(conn: asyncpg.Connection, statement: str, args: tuple[str, ...], mode: str) -> int:
    """Pages of an execution, when the catalogue's are known and what the ones before left behind is gone."""
    await conn.execute("vacuum jobs, job_claims, job_history")
    return min([(await explain(conn, statement, args, mode)).buffers for _ in range(3)])


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Callable[[str, int, int, int], float]:
    """Says what was measured, and gives the ratio but for depth."""

    def say(what: str, small: int, large: int, descents: int) -> float:
        record_property(what, (small, large))
        flat = (large - descents) / small
        pages = f"{small} pages beside {FEW:,} rows of each sort, {large} beside {MANY:,}"
        print(f"\n{what}: {pages}: {large / small:.2f}, {flat:.2f} but for depth")  # noqa: T201  for -s
        return flat

    return say
