"""Keep every queue's free slots filled with due jobs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from time import monotonic, perf_counter

import asyncpg

from daemon.admission import Admission
from daemon.attempt import Running
from daemon.crew import Crew
from daemon.lane_admission import LaneAdmission
from daemon.lanes import LANE_GATE, Lanes
from daemon.lender import Lender
from daemon.limits import GATE
from daemon.passed import Position
from daemon.scout import Scout
from daemon.settle import Transition, hand_back
from daemon.sources import (
    KIND_GATE,
    ORDER_GATE,
    RETRY_GATE,
    SUSPECT_GATE,
    Place,
    Slots,
    Sources,
    for_retries,
    origin,
)
from daemon.statements import AWAY
from daemon.store import Ask
from jobs.model import Job

BATCH_MAX = 250
"""Rows of one claim.  While it is on the wire the rows of the last one run, which larger ones leave no room for
(measured with 1,000 slots, rows/s: 22,700; 500: 21,800; 1,000: 16,400)."""

ECHO_S = 0.012
"""After a hint, look once more: producers send none while another's is younger than 5 ms, and may commit later."""

PUZZLED_S = 0.1
"""Hints that no known queue explains make us look for new queues, but not more often than this."""

KEPT = 16
"""One slot in so many is kept for organisations that run nothing, while several are about."""

RIPEN_MAX = 1000
"""Rows of a (queue, class) that come back from the gate `later` in one transaction."""

MET_MANY = 50
"""Rows of one place and class that claims had to move to the gates of lanes: there are most likely more like them."""

NO_CLAIM_S = 0.1
"""How long to wait while nothing may be claimed: no lease, or too many results that Postgres has not taken yet."""

AWAY_MAX_S = 0.8
"""The longest pause between two tries while Postgres is away: work goes on within a second of its return."""

UNCLAIMABLE = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
UNCLAIMABLE_S = 5.0
"""How long a (queue, gate) is left alone when a row in it cannot be claimed: a try costs a transaction and a line."""

LINGER_S = 0.002
"""With most slots taken, wait so long for more to come free: claims of one row cost as much as claims of many."""


class Claimer:
    """One loop: work out what to ask for, claim it, pass limits, start it, sleep until there is a reason to look."""

    def __init__(self, crew: Crew, lender: Lender, lanes: Lanes, beat: Callable[[], None]) -> None:
        self._store = crew.store
        self._runner = runner = crew.runner
        self._finisher = finisher = crew.finisher
        self._observer = crew.observer
        self._worker_id = crew.worker_id
        self._lanes = lanes
        self._beat = beat
        self._wake = asyncio.Event()
        self._closing = False
        self._echo_at: float | None = None
        self._puzzled = False  # a hint came, and the queues we know are empty: it may be for a new one
        self._puzzled_at = 0.0
        self._met: Counter[tuple[Place, int]] = Counter()  # rows of a place and class that claims moved to lanes' gates
        self._suspects: set[tuple[int, int]] = set()  # (id, fence) of rows that one more crash would bury
        config = runner.setup.config
        self._sources = Sources(config.daemon.queues, config.queues, runner.setup.kinds)
        self.scout = Scout(
            crew.store, self._sources, crew.observer, lambda: runner.setup.config.daemon.poll_interval, self._looked
        )
        self.admission = Admission(crew, lender, self._sources, self._wake.set)
        self._lane_admission = LaneAdmission(lanes, self.admission, runner, finisher, crew.terms)
        self._sources.lane_room = lanes.may_claim
        lanes.on_probe, lanes.on_open = self._probe, self._lane_opened
        lanes.sweep.on_arrived = self._arrived
        lanes.sweep.on_passed, lanes.sweep.on_end = self._passed, self._passed_no_more
        runner.on_said = lanes.saw
        crew.store.on_freed = self._sources.freed
        runner.on_free = self._freed
        finisher.on_room = self._wake.set
        finisher.on_written.append(self._written)

    def reload(self) -> None:
        """The runner has another setup: its queues, kinds and limits count from the next claim on."""
        config = self._runner.setup.config
        self.admission.reload()
        self._lanes.reload()
        self._sources.serve(config.daemon.queues, config.queues, self._runner.setup.kinds)
        self.look_again()

    @property
    def answered_at(self) -> float:
        """When Postgres last said where rows are, on the monotonic clock."""
        return self.scout.looked_at

    def hint(self) -> None:
        """A notification came: something was inserted."""
        self._ask_all()
        self._echo_at = monotonic() + ECHO_S
        self._puzzled = True
        self._wake.set()
        self.scout.wake()

    def look_again(self) -> None:
        """The listener was deaf for a while, or a lease is new: take nothing for granted."""
        self._ask_all()
        self._wake.set()
        self.scout.look_again()

    def close(self) -> None:
        """Claim nothing more; run() returns after the claim that is on the wire has been started or handed back."""
        self._closing = True
        self.admission.close()
        self._wake.set()
        self.scout.close()

    async def run(self) -> None:
        """Never cancelled: close() it, or the rows of a claim on the wire would wait for a rescue."""
        loop = asyncio.get_running_loop()
        parts = [loop.create_task(self._run()), loop.create_task(self.scout.run())]
        try:
            await asyncio.gather(*parts)
        finally:  # should one die, the other must not go on alone
            self.close()
            await asyncio.wait(parts)

    async def _run(self) -> None:
        pause_s = 0.05
        while not self._closing:
            self._wake.clear()
            try:
                sleep_s = await self.step()
                pause_s = 0.05
            except AWAY as error:
                self._observer.claim_failed(error)
                await self._nap(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads reconnects, no secret
                pause_s = min(pause_s * 2, AWAY_MAX_S)
                self.scout.look_again()
                self._beat()
                continue
            self._beat()
            if sleep_s > 0:
                await self._nap(sleep_s)

    async def step(self) -> float:
        """One round; returns the seconds until the next, 0 for at once."""
        worker_id = self._worker_id()
        if worker_id is None or self._finisher.full:
            return NO_CLAIM_S
        now = monotonic()
        if self._echo_at is not None and now >= self._echo_at:
            self._echo_at = None
            self._ask_all()
        if ripening := self._sources.ripening(now):
            self._sources.ripened(await self._store.ripen(ripening, RIPEN_MAX), monotonic(), RIPEN_MAX)
        self._sources.suspect_runs = self._suspect_runs()
        asks = self._sources.wanted(monotonic(), self._slots, BATCH_MAX)
        got = await self._claim(asks, worker_id) if asks else 0
        if got or self._sources.more:  # places that gave nothing are not asked again; those that were left out are next
            return 0.0
        if self._puzzled and now >= self._puzzled_at:
            self._puzzled, self._puzzled_at = False, now + PUZZLED_S
            self.scout.look_again()
        return self._sleep_s()

    def _ask_all(self) -> None:
        """Rows may stand in any queue."""
        if not self._sources.hinted():
            self.scout.look_soon()

    async def _claim(self, asks: Sequence[Ask], worker_id: int) -> int:
        started = perf_counter()
        served = self._runner.setup.kinds
        try:
            rows = await self._store.claim(asks, worker_id, list(served), self._lanes.full())
        except asyncpg.UniqueViolationError:
            await asyncio.sleep(LINGER_S)
            return 1  # two claimers saw an ordering key differently; the next claim sees what was committed
        except UNCLAIMABLE as error:
            return await self._claim_apart(asks, worker_id, error)
        self._observer.claimed(len(rows), perf_counter() - started)
        self._puzzled = self._puzzled and not rows
        self._sources.claimed(asks, rows)
        self.scout.wake()
        jobs = rows
        if any(job.worker_id is None for job in rows):
            jobs = [job for job in rows if job.worker_id is not None]
            self._moved([job for job in rows if job.worker_id is None])
        self._finisher.claims.taken(jobs)
        if self._closing or self._worker_id() != worker_id or self._runner.setup.kinds is not served:
            for job in jobs:  # a stop, a reload or the loss of the lease came while the claim was on the wire
                self._finisher.add(hand_back(job, gate=job.gate))
            return 0
        for job, buckets in await self._lane_admission.admit(self._apart(jobs), worker_id):
            self._runner.start(job, buckets)
        return len(rows)

    async def _claim_apart(self, asks: Sequence[Ask], worker_id: int, error: Exception) -> int:
        """Postgres refuses to update some row, one that came past the checks: its place waits, the others go on."""
        places: dict[Place, list[Ask]] = {}
        for ask in asks:
            places.setdefault((ask.queue, ask.gate), []).append(ask)
        if len(places) > 1:
            return sum([await self._claim(each, worker_id) for each in places.values()])
        self._observer.claim_failed(error)
        for place in places:
            self._sources.set_aside(place, monotonic() + UNCLAIMABLE_S)
        return 0

    def _moved(self, jobs: Sequence[Job]) -> None:
        """Rows that the claim had to move to a gate: say so, and have those like them moved before they are met."""
        served = self._runner.setup.kinds
        for (gate, queue), count in Counter((job.gate, job.queue) for job in jobs).items():
            kind = gate.removeprefix(KIND_GATE)
            if gate.startswith(KIND_GATE) and kind not in served:
                self._observer.parked(kind, queue, count)
            elif gate != ORDER_GATE:  # to wait for one's turn is nothing to be told of
                self._observer.held(gate, queue, count)
        self._met.update(((job.queue, origin(job)), job.priority) for job in jobs if job.gate.startswith(LANE_GATE))
        for place, priority in [way for way, count in self._met.items() if count >= MET_MANY]:
            del self._met[place, priority]
            self._lanes.met(place, priority)

    def _apart(self, jobs: list[Job]) -> list[Job]:
        """Those that may start.  A row that one more crash would bury goes to a gate of its own, and starts when it is
        claimed from there alone; were others of its sort claimed at that moment, its crash would bury them too."""
        last = self._runner.setup.config.daemon.crash_limit - 1
        suspects = [job for job in jobs if 0 < last <= job.crashes]
        if not suspects:
            return jobs
        own_gate = suspects[0].gate == SUSPECT_GATE or suspects[0].gate.startswith(LANE_GATE)  # else a probe never ran
        alone = len(suspects) == 1 and own_gate and not self._suspect_runs()
        self._suspects.update((job.id, job.fence) for job in suspects)
        if alone:
            return jobs
        for job in suspects:
            self._finisher.add(hand_back(job, gate=SUSPECT_GATE))
        return [job for job in jobs if not 0 < last <= job.crashes]

    def _suspect_runs(self) -> bool:
        """Until its outcome is written down: one in memory would die with the daemon."""
        if self._suspects:
            self._suspects &= self._runner.known() | self._finisher.known()
        return bool(self._suspects)

    def _looked(self) -> None:
        self._lanes.waits(self._sources.at_lanes())
        self._wake.set()

    def _written(self, batch: Sequence[Transition], _ours: Collection[int]) -> None:
        """Rows that went back, and successors of ordered rows, are claimed when they are due, not at the next poll."""
        news = False
        for t in batch:
            if t.state == "ready":
                news = True
                gate = t.gate
                if gate.startswith((GATE, SUSPECT_GATE, LANE_GATE)):
                    self._sources.opened(t.job.queue, gate)
                elif not gate and not t.delay_s and t.job.attempt - (not t.charged) > t.job.crashes:
                    gate = RETRY_GATE  # where the statement has put it
                self._sources.returned(t.job, gate, monotonic() + t.delay_s if t.delay_s else None)
            elif t.job.ordering_key is not None or t.job.crashes:
                news = True
        if news:
            self._wake.set()

    def _probe(self, queue: str, gate: str) -> None:
        self._sources.probe(queue, gate)
        self._wake.set()

    def _lane_opened(self, gate: str) -> None:
        self._sources.gate_opened(gate)
        self._wake.set()

    def _arrived(self, queue: str, gate: str, priority: int, run_at: float) -> None:
        self._sources.arrived(queue, gate, priority, run_at)
        self._wake.set()

    def _passed(self, place: Place, priority: int, position: Position) -> None:
        self._sources.passed(place, priority, position, monotonic())
        self._wake.set()

    def _passed_no_more(self, place: Place, priority: int, run_at: float | None) -> None:
        self._sources.passed_no_more(place, priority, run_at)
        self._wake.set()

    def _freed(self, running: Running) -> None:
        if running.buckets:
            self.admission.freed(running)
        self._wake.set()

    def _slots(self, queue: str) -> Slots:
        limit = self._runner.setup.config.queue(queue).concurrency
        orgs = self._runner.orgs  # rows that belong to nobody are nobody's first
        return Slots(
            max(0, limit - self._runner.busy[queue]),
            limit // KEPT,
            lambda org_id: org_id == "" or (queue, org_id) in orgs,
            max(0, for_retries(limit) - self._runner.retries[queue]),
        )

    def _sleep_s(self) -> float:
        now = monotonic()
        times = [now + 1.0, self._echo_at, self._sources.next_at(now)]
        times.append(max(self._puzzled_at, now) if self._puzzled else None)
        return max(0.001, min(at for at in times if at is not None) - now)

    async def _nap(self, seconds: float) -> None:
        if self._closing:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return  # nobody called; the clock did
        if len(self._runner) and not self._closing and self._echo_at is None:
            await asyncio.sleep(LINGER_S)
