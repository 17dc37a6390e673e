"""Lanes over all daemons: closed by one they are closed for all, and exactly one row finds out how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import lanes as module
from daemon.lane_store import Closing, LaneStore
from daemon.lanes import Lanes, gate_of
from daemon.work_settings import LaneSettings
from jobs.model import Cancelled, Dead, Done, Job, Outcome, Retry, Snooze
from tests.life.fleet import observer_to
from tests.sql.rows import Pool

FAULT = Retry("refused", code="connection_refused", lane_fault=True)
X = "dead.example.com"


class Member:
    """One daemon's lanes, on a clock that the test moves."""

    def __init__(self, pool: Pool, worker_id: int, settings: LaneSettings, log: Path) -> None:
        self.now = 1000.0
        self.asked: list[tuple[str, str]] = []
        self.opened: list[str] = []
        self._voice = observer_to(log)
        self.lanes = Lanes(
            LaneStore(pool),
            lambda lane: settings,
            lambda: worker_id,
            self._voice.__enter__(),
            clock=lambda: self.now,
            dice=lambda: 0.5,
        )
        self.lanes.on_probe = lambda queue, gate: self.asked.append((queue, gate))
        self.lanes.on_open = self.opened.append
        self._ids = iter(range(worker_id * 1000, worker_id * 1000 + 999))

    def close(self) -> None:
        self._voice.__exit__(None, None, None)

    def job(self, lane: str = X, gate: str = "") -> Job:
        return Job(next(self._ids), 1, "webhook", "default", 2, 1, "{}", 0.0, lane=lane, gate=gate)

    def attempt(self, said: Outcome | None, job: Job | None = None) -> bool:
        """One row, admitted and ended; false when it was not let in."""
        job = job or self.job()
        admitted = self.lanes.admit(job)
        if admitted:
            self.lanes.saw(job, said)
        return admitted

    async def look(self) -> None:
        """A round, some seconds later, with a row waiting at the lane's gate."""
        self.now += 5.0
        self.lanes.waits([("default", gate_of(X)), ("default", "")])
        await self.lanes.step()

    async def probe(self, said: Outcome | None) -> bool:
        """Make the probe if this daemon was given it."""
        made = self.attempt(said, self.job(gate=gate_of(X)))
        await self.lanes.step()
        return made


Fleet = Callable[..., list[Member]]


@pytest.fixture
def fleet(pool: Pool, tmp_path: Path) -> Iterator[Fleet]:
    members: list[Member] = []

    def make(count: int = 1, **settings: Any) -> list[Member]:
        chosen = LaneSettings(**{"failures": 2, **settings})
        members.extend(Member(pool, n + 1, chosen, tmp_path / f"{n}.log") for n in range(count))
        return members

    yield make
    for member in members:
        member.close()


async def hold(pool: Pool) -> tuple[str, float, int, int | None] | None:
    """(cause, seconds left, rung, who probes) of the lane's only hold."""
    rows = await pool.fetch(
        """select cause, date_part('epoch', until - now()), (detail ->> 'rung')::int, (detail ->> 'probe')::bigint
           from job_holds where gate = $1""",
        gate_of(X),
    )
    assert len(rows) <= 1
    return tuple(rows[0]) if rows else None


async def due(pool: Pool) -> None:
    """Let the time pass for which it was closed."""
    await pool.execute("update job_holds set until = now() where until is not null")


async def closed(member: Member) -> None:
    assert [member.attempt(FAULT) for _ in range(2)] == [True, True]
    await member.lanes.step()


async def test_one_that_fails_is_closed_for_all_daemons(pool: Pool, fleet: Fleet) -> None:
    a, b = fleet(2)
    await closed(a)
    found = await hold(pool)
    assert found is not None
    assert (found[0], found[2], found[3]) == ("breaker", 0, None)
    assert 20 < found[1] <= 30
    assert not a.attempt(FAULT), "at once, before any look"
    await b.look()
    assert (b.lanes.may_claim(gate_of(X)), b.attempt(FAULT), b.asked) == (0, False, [])


async def test_others_are_not_held_and_rows_without_a_lane_go_through(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    assert a.attempt(FAULT, a.job("other.example.com"))
    assert all(a.attempt(FAULT, Job(n, 1, "noop", "default", 2, 1, "{}", 0.0)) for n in range(99))
    assert await pool.fetchval("select array_agg(gate) from job_holds") == [gate_of(X)]


async def test_a_hold_is_only_prolonged(pool: Pool) -> None:
    store = LaneStore(pool)
    for seconds in (100.0, 10.0, 50.0):
        await store.close_lanes([Closing(gate_of(X), "breaker", seconds, 0, f"{seconds}")], 1)
    found = await hold(pool)
    assert found is not None
    assert 90 < found[1] <= 100


async def test_of_many_daemons_one_probes(pool: Pool, fleet: Fleet) -> None:
    members = fleet(8)
    await closed(members[0])
    await LaneStore(pool).close_lanes([Closing(gate_of(X), "retry_after", 60.0, 0, "it said so")], 9)
    await asyncio.gather(*(member.look() for member in members))
    assert [member.asked for member in members] == [[]] * 8, "not before its time"
    await due(pool)
    await asyncio.gather(*(member.look() for member in members))
    (prober,) = [member for member in members if member.asked]
    assert prober.asked == [("default", gate_of(X))]
    assert prober.lanes.may_claim(gate_of(X)) == 1
    assert sum(member.attempt(FAULT) for member in members) == 0, "a row that came another way is no probe"
    found = await hold(pool)
    assert found is not None
    assert (found[0], found[3]) == ("breaker", members.index(prober) + 1)
    job = prober.job(gate=gate_of(X))
    assert prober.lanes.admit(job)
    assert not prober.lanes.admit(prober.job(gate=gate_of(X))), "one, and no more"


async def test_a_probe_that_goes_well_opens_it_for_all_at_first_a_little(pool: Pool, fleet: Fleet) -> None:
    a, b = fleet(2)
    await closed(a)
    await b.look()
    await due(pool)
    await a.look()
    assert await a.probe(Done())
    assert await hold(pool) is None
    assert a.opened == [gate_of(X)]
    await b.look()
    assert b.opened == [gate_of(X)]
    assert (a.lanes.may_claim(gate_of(X)), b.lanes.may_claim(gate_of(X))) == (1, 1)
    assert b.attempt(Done())
    assert b.lanes.may_claim(gate_of(X)) == 2


async def test_a_row_that_fails_by_itself_shows_that_its_destination_is_well(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    await due(pool)
    await a.look()
    assert await a.probe(Retry("not found", code="http_404", lane_fault=False))
    assert await hold(pool) is None


async def test_a_probe_that_fails_closes_it_for_longer(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    for rung, seconds in ((1, 60), (2, 120), (3, 240)):
        await due(pool)
        await a.look()
        assert await a.probe(FAULT)
        found = await hold(pool)
        assert found is not None
        assert (found[0], found[2], found[3]) == ("breaker", rung, None)
        assert seconds - 10 < found[1] <= seconds


async def test_when_the_prober_dies_another_probes_after_the_timeout(pool: Pool, fleet: Fleet) -> None:
    a, b = fleet(2, probe_timeout=60.0)
    await closed(a)
    await due(pool)
    await a.look()
    await b.look()
    assert (len(a.asked), len(b.asked)) == (1, 0)
    late = a.job(gate=gate_of(X))
    assert a.lanes.admit(late)
    found = await hold(pool)
    assert found is not None
    assert 50 < found[1] <= 60
    await due(pool)
    await b.look()
    assert len(b.asked) == 1
    a.lanes.saw(late, Done())
    await a.lanes.step()
    found = await hold(pool)
    assert found is not None
    assert found[3] == 2, "the probe is another's now, and a late one's word does not count"
    assert await b.probe(Done())
    assert await hold(pool) is None


@pytest.mark.parametrize("said", [None, Dead("args: no", code="invalid_args"), Cancelled()])
async def test_a_probe_that_was_not_made_is_made_by_the_next(pool: Pool, fleet: Fleet, said: Outcome | None) -> None:
    a, b = fleet(2)
    await closed(a)
    await due(pool)
    await a.look()
    assert await a.probe(said)
    await b.look()
    assert len(b.asked) == 1


async def test_a_probe_that_told_nothing_though_it_ran_is_not_made_again_at_once(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    await due(pool)
    await a.look()
    assert await a.probe(Retry("boom", code="exception"))
    found = await hold(pool)
    assert found is not None
    assert (found[2], found[3]) == (0, None)
    assert 20 < found[1] <= 30


async def test_a_probe_that_finds_no_row_is_given_up(pool: Pool, fleet: Fleet) -> None:
    a, b = fleet(2)
    await closed(a)
    await due(pool)
    await a.look()
    assert len(a.asked) == 1
    a.now += module.UNUSED_S
    a.lanes.waits([])
    await a.look()
    await a.lanes.step()
    await b.look()
    assert len(b.asked) == 1
    assert not a.attempt(Done(), a.job(gate=gate_of(X)))


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (Retry("slow down", code="http_429", lane_fault=True, lane_after="90s"), "retry_after"),
        (Snooze("used up", code="relay_quota", after="90s", lane_after="90s", lane_cause="quota"), "quota"),
    ],
)
async def test_one_that_asks_to_be_left_alone_is_at_once(pool: Pool, fleet: Fleet, said: Outcome, cause: str) -> None:
    (a,) = fleet(failures=100)
    siblings = [a.job() for _ in range(5)]
    assert all(a.lanes.admit(job) for job in siblings)
    for job in siblings:
        a.lanes.saw(job, said)
    await a.lanes.step()
    found = await hold(pool)
    assert found is not None
    assert found[0] == cause
    assert 80 < found[1] <= 90
    assert not a.attempt(Done())


async def test_a_time_asked_for_by_a_probe_counts(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    await due(pool)
    await a.look()
    assert await a.probe(Retry("slow down", code="http_503", lane_fault=True, lane_after="1h"))
    rows = await pool.fetch(
        """select cause from job_holds
           where gate = $1 and until > now() + interval '50 min' and detail ->> 'probe' is null""",
        gate_of(X),
    )
    assert [row[0] for row in rows] == ["retry_after"]
    await a.look()
    assert len(a.asked) == 1


async def test_a_paused_lane_is_not_probed(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    await pool.execute("insert into job_holds (gate, cause) values ($1, 'pause')", gate_of(X))
    await pool.execute("update job_holds set until = now() where cause = 'breaker'")
    await a.look()
    assert (a.asked, a.lanes.may_claim(gate_of(X))) == ([], 0)
    await pool.execute("delete from job_holds where cause = 'pause'")
    await a.look()
    assert len(a.asked) == 1


async def test_a_reset_by_hand_is_noticed(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    await closed(a)
    await pool.execute("delete from job_holds")
    await a.look()
    assert a.opened == [gate_of(X)]
    assert a.lanes.may_claim(gate_of(X)) == 1


async def test_what_was_decided_while_postgres_was_away_is_written_later(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    assert [a.attempt(FAULT) for _ in range(2)] == [True, True]
    await pool.execute("alter table job_holds rename to away")
    with pytest.raises(Exception, match="job_holds"):
        await a.lanes.step()
    await pool.execute("alter table away rename to job_holds")
    await a.lanes.step()
    assert await hold(pool) is not None


async def test_as_many_probes_at_once_as_a_daemon_can_bear(
    pool: Pool, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBES_MAX", 2)
    (a,) = fleet()
    lanes = [f"dead-{n}" for n in range(5)]
    await LaneStore(pool).close_lanes([Closing(gate_of(lane), "breaker", 0.0, 0, "") for lane in lanes], 9)
    a.lanes.waits([("default", gate_of(lane)) for lane in lanes])
    await a.lanes.step()
    assert len(a.asked) == 2


async def test_lanes_that_nobody_uses_are_forgotten(pool: Pool, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LANES_MAX", 100)
    (a,) = fleet()
    await closed(a)
    for n in range(500):
        assert a.attempt(Done(), a.job(f"host-{n}"))
    assert len(a.lanes._breakers) <= 100
    await pool.execute("update job_holds set until = now() - interval '2 hours'")
    a.now += module.FORGET_S + module.IDLE_S
    await a.lanes.step()
    assert await hold(pool) is None
    assert a.lanes._breakers == {}


async def test_a_claim_is_told_which_lanes_have_enough(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet(start=3)
    jobs = [a.job() for _ in range(4)]
    assert [a.lanes.admit(job) for job in jobs] == [True, True, True, False]
    assert a.lanes.full() == [gate_of(X)]
    a.lanes.saw(jobs[0], Done())
    assert a.lanes.full() == []
    assert a.lanes.may_claim(gate_of(X)) == 2


async def test_a_lane_that_no_table_would_take_is_none(pool: Pool, fleet: Fleet) -> None:
    (a,) = fleet()
    for lane in ("", "x" * 256, "a\nb", "\ud800"):
        assert all(a.attempt(FAULT, a.job(lane)) for _ in range(5))
    await a.lanes.step()
    assert await pool.fetchval("select count(*) from job_holds") == 0
