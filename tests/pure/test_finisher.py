"""Results are kept until they are written, and one that cannot be written keeps nobody else's."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from daemon.finisher import BACKLOG_MAX, BATCH_MAX, Finisher
from daemon.log import Logger
from daemon.observe import Observer
from daemon.settle import Transition, settle
from daemon.store import Store
from jobs.model import DEFAULT_POLICY, Done, Job, Outcome, Retry


def transition(job_id: int, outcome: Outcome | None = None, *, claim: int | None = None) -> Transition:
    job = Job(job_id, 1, "noop", "default", 2, 1, "{}", 0.0, claim_id=claim)
    return settle(job, outcome or Done(), DEFAULT_POLICY, 3, 0.5)


class Memory(Store):
    """A store whose Postgres is a dict.  `trouble` may raise for a batch before anything is written."""

    def __init__(self) -> None:
        self.written: dict[int, Transition] = {}
        self.calls: list[tuple[int, bool]] = []
        self.ended: list[tuple[int, int]] = []  # claims, and how many results were written by then
        self.trouble: Callable[[Sequence[Transition]], None] = lambda batch: None

    async def write(
        self, batch: Sequence[Transition], ended_claims: Sequence[int] = (), *, again: bool = False
    ) -> set[int]:
        self.calls.append((len(batch), again))
        await asyncio.sleep(0)
        self.trouble(batch)
        new = {t.job.id: t for t in batch if t.job.id not in self.written}
        self.written.update(new)
        self.ended += [(claim, len(self.written)) for claim in ended_claims]
        return set(new)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110  its writes are what gives way
            await asyncio.sleep(0)


@asynccontextmanager
async def finishing(store: Store) -> AsyncIterator[Finisher]:
    """A finisher at work; closed in the end, when all it was given has to be written."""
    file = tempfile.TemporaryFile("w+b")  # noqa: SIM115  closed by the logger's end, below
    log = Logger(file, level="debug")
    finisher = Finisher(store, Observer(log), lambda: None)
    running = asyncio.get_running_loop().create_task(finisher.run())
    try:
        yield finisher
        finisher.close()
        async with asyncio.timeout(120):
            await running
    finally:
        running.cancel()
        log.close()
        file.close()


async def test_results_that_come_together_are_written_together() -> None:
    store = Memory()
    async with finishing(store) as finisher:
        for n in range(BATCH_MAX + 5):
            finisher.add(transition(n))
    assert [size for size, _again in store.calls] == [BATCH_MAX, 5]
    assert set(store.written) == set(range(BATCH_MAX + 5))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(), TimeoutError(), asyncpg.CannotConnectNowError("starting up"),
        asyncpg.AdminShutdownError("57P01"), asyncpg.TooManyConnectionsError("53300"), asyncpg.DiskFullError("53100"),
        asyncpg.DeadlockDetectedError("40P01"), asyncpg.SerializationError("40001"),
        asyncpg.QueryCanceledError("57014"),
        asyncpg.ReadOnlySQLTransactionError("25006"), asyncpg.LockNotAvailableError("55P03"),
        asyncpg.ConnectionDoesNotExistError("08003"), asyncpg.InterfaceError("connection is closed"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_while_postgres_is_away_results_are_kept_and_tried_again(error: Exception) -> None:
    store = Memory()
    tries = 0

    def away(batch: Sequence[Transition]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise error

    store.trouble = away
    async with finishing(store) as finisher:
        finisher.add(transition(1))
    assert set(store.written) == {1}
    assert store.calls == [(1, False), (1, True), (1, True)]  # the store knows that it may have been written already


async def test_an_answer_that_was_lost_is_no_harm() -> None:
    store = Memory()

    def lose_the_answer(batch: Sequence[Transition]) -> None:
        store.trouble = lambda batch: None
        store.written.update({t.job.id: t for t in batch})
        raise ConnectionResetError

    store.trouble = lose_the_answer
    async with finishing(store) as finisher:
        finisher.add(transition(1))
    assert set(store.written) == {1}
    assert len(store.calls) == 2


@pytest.mark.req("OR-09")
@pytest.mark.parametrize("poison", [{7}, {0, 99}, {3, 4, 5}])
@pytest.mark.parametrize("error", [asyncpg.CheckViolationError("23514"), asyncpg.DataError("22P02"), TypeError("no")])
async def test_a_result_that_cannot_be_stored_is_told_as_such_and_its_neighbours_are_written(
    poison: set[int], error: Exception
) -> None:
    store = Memory()

    def refuse(batch: Sequence[Transition]) -> None:
        if any(t.job.id in poison and t.code != "unwritable" for t in batch):
            raise error

    store.trouble = refuse
    async with finishing(store) as finisher:
        for n in range(100):
            finisher.add(transition(n, Done({"n": n}) if n % 2 else Retry("r")))
    assert set(store.written) == set(range(100))
    assert {n for n, t in store.written.items() if t.code == "unwritable"} == poison
    for n, t in store.written.items():  # what was done is done: to say otherwise would have it done twice
        assert t.state == ("done" if n % 2 else "ready")


async def test_what_cannot_be_written_at_all_stops_nobody() -> None:
    store = Memory()

    def refuse(batch: Sequence[Transition]) -> None:
        if any(t.job.id == 1 for t in batch):
            raise asyncpg.CheckViolationError("23514")

    store.trouble = refuse
    async with finishing(store) as finisher:
        for n in range(3):
            finisher.add(transition(n))
    assert set(store.written) == {0, 2}


async def test_it_says_when_it_is_full_and_when_there_is_room_again() -> None:
    store = Memory()
    rooms: list[bool] = []
    async with finishing(store) as finisher:
        finisher.on_room = lambda: rooms.append(finisher.full)
        for n in range(BACKLOG_MAX):
            finisher.add(transition(n))
        assert finisher.full
        assert finisher.backlog == BACKLOG_MAX
    assert rooms == [False]
    assert finisher.backlog == 0


@pytest.mark.parametrize("poison", [None, 3])
async def test_a_claim_ends_with_the_last_of_its_results_and_not_before(poison: int | None) -> None:
    """Also where one result has to be written apart from the others."""
    store = Memory()

    def refuse(batch: Sequence[Transition]) -> None:
        if any(t.job.id == poison and t.code != "unwritable" for t in batch):
            raise asyncpg.DataError("22P02")

    store.trouble = refuse
    async with finishing(store) as finisher:
        claimed = [transition(n, claim=7) for n in range(10)]
        finisher.claims.taken(t.job for t in claimed)
        for t in claimed[:9]:
            finisher.add(t)
        await until(lambda: not finisher.backlog)
        assert finisher.claims.known() == [7]
        finisher.add(claimed[9])
    assert store.ended == [(7, 10)]
    assert finisher.claims.known() == []


async def test_a_claim_whose_end_was_not_heard_of_is_ended_again() -> None:
    store = Memory()

    def lose_the_answer(batch: Sequence[Transition]) -> None:
        store.trouble = lambda batch: None
        raise ConnectionResetError

    store.trouble = lose_the_answer
    async with finishing(store) as finisher:
        last = transition(1, claim=7)
        finisher.claims.taken([last.job])
        finisher.add(last)
    assert store.ended == [(7, 1)]


async def test_closing_writes_what_is_there_and_nothing_twice() -> None:
    store = Memory()
    async with finishing(store):
        pass
    assert store.calls == []
