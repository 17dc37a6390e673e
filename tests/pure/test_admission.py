"""Claimed rows on their way past the limits: none is lost, none goes back twice, and without limits nobody asks."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import cast

import pytest

from daemon.admission import Admission
from daemon.config import parse
from daemon.crew import Crew
from daemon.finisher import Finisher
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from daemon.log import Logger
from daemon.observe import Observer
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.slices import Leased
from daemon.sources import Sources
from daemon.store import Store
from daemon.terms import TermsBook, TermsStore
from jobs.context import Tools
from jobs.model import Job

HOURLY = '[limits.slow]\nkind = "note"\nrate = "1/h"\n'


class Postgres(LimitStore):
    """One that lends so many hourly tokens of whatever it is asked for, the last from now on; or gives no answer."""

    def __init__(self, lends: int = 0, *, away: bool = False) -> None:
        self.lends, self.away, self.calls = lends, away, 0

    async def lease(
        self, worker_id: int, asks: Sequence[tuple[Bucket, tuple[int, int]]], ahead_s: float
    ) -> list[Leased]:
        self.calls += 1
        if self.away:
            raise ConnectionResetError
        first = 3600.0 * (1 - self.lends)
        return [Leased(0, 0, 0.0, (first,), (self.lends,), 86_400.0, None, 3600.0) for _ask in asks]


class Endpoints:
    """None has terms of its own."""

    async def of_endpoints(self, ids: Sequence[int]) -> dict[int, object]:
        return {}


def row(job_id: int, kind: str = "note") -> Job:
    return Job(job_id, 1, kind, "default", 2, 1, "{}", 0.0, worker_id=1)


@asynccontextmanager
async def admitting(limits: LimitStore, config: str) -> AsyncIterator[tuple[Admission, Finisher, Sources]]:
    with tempfile.TemporaryFile("w+b") as file, closing(Logger(file)) as log:
        observer = Observer(log)
        unused = cast(Store, None)
        finisher = Finisher(unused, observer, lambda: None)
        runner = Runner(Setup(parse(config), cast(Tools, None), {}), unused, finisher, observer)
        sources = Sources(["default"], (), ["note", "other"])
        crew = Crew(unused, runner, finisher, observer, lambda: 1, TermsBook(cast(TermsStore, Endpoints())))
        yield Admission(crew, Lender(limits, runner.places), sources, lambda: None), finisher, sources


async def test_without_limits_all_start_and_nobody_is_asked() -> None:
    store = Postgres(away=True)
    async with admitting(store, "") as (admission, finisher, _sources):
        jobs = [row(1), row(2, "other")]
        assert list(await admission.admit(jobs, 1)) == [(job, ()) for job in jobs]
        assert await admission.step() is None, "and nothing is to be done until a reload"
        assert (store.calls, finisher.backlog) == (0, 0)


async def test_the_first_ones_start_and_the_others_wait_at_the_gate() -> None:
    async with admitting(Postgres(2), HOURLY) as (admission, finisher, sources):
        jobs = [*map(row, range(3)), row(9, "other")]
        started = await admission.admit(jobs, 1)
        assert {job.id for job, _buckets in started} == {0, 1, 9}
        assert finisher.known() == {(2, 1)}
        assert sources.waiting("default", "limit:slow:")


async def test_newcomers_go_to_the_end_of_those_that_wait() -> None:
    async with admitting(Postgres(2), HOURLY) as (admission, finisher, sources):
        sources.opened("default", "limit:slow:")
        assert await admission.admit([row(1)], 1) == []
        assert finisher.known() == {(1, 1)}


async def test_when_the_answer_is_lost_each_row_of_the_claim_goes_back_once() -> None:
    """Were one counted twice, the receipt of its claim would go while others of it still run."""
    async with admitting(Postgres(away=True), HOURLY + '[limits.b]\nkind = "x"\nrate = "1/h"\n') as parts:
        admission, finisher, sources = parts
        sources.opened("default", "limit:slow:")
        with pytest.raises(ConnectionResetError):
            await admission.admit([row(1), row(2, "x"), row(3, "other")], 1)
        assert finisher.backlog == 3
        assert len(finisher.known()) == 3


async def test_what_stands_at_a_gate_is_leased_ahead_of_its_claim() -> None:
    store = Postgres(4)
    async with admitting(store, HOURLY) as (admission, _finisher, sources):
        assert admission.passing("limit:slow:") == 0
        sources.opened("default", "limit:slow:")
        await admission.step()
        assert admission.passing("limit:slow:") == 4
        assert admission.passing("limit:gone:") > 1000, "of a limit that is no more, any"


async def test_rows_at_the_gates_of_two_limits_do_not_send_each_other_to_and_fro() -> None:
    """One that was claimed from a gate has waited: it goes when both have a token."""
    config = HOURLY + '[limits.too]\nkind = "note"\nrate = "2/h"\n'
    async with admitting(Postgres(lends=2), config) as (admission, finisher, sources):
        for gate in ("limit:slow:", "limit:too:"):
            sources.opened("default", gate)
        jobs = [row(1), row(2), row(3)]
        jobs[0].gate, jobs[1].gate = "limit:slow:", "limit:too:"
        started = [job.id for job, _buckets in await admission.admit(jobs, 1)]
        assert started == [1, 2]
        assert finisher.backlog == 1, "the one that came last goes to a gate"
