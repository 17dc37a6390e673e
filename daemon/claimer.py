"""Keep every queue's free slots filled with due jobs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter

import asyncpg

from daemon.admission import Admission, Admitted
from daemon.finisher import Finisher
from daemon.lanes import LANE_GATE, Lanes, gate_of
from daemon.observe import Observer
from daemon.runner import Runner, Running
from daemon.settle import Transition, hand_back
from daemon.sources import MOST, SUSPECT_GATE, Place, Sources
from daemon.store import AWAY, Store
from jobs.model import Job

BATCH_MAX = 250
"""Rows of one claim.  While it is on the wire the rows of the last one run, which larger ones leave no room for
(measured with 1,000 slots, rows/s: 22,700; 500: 21,800; 1,000: 16,400)."""

ECHO_S = 0.012
"""After a hint, look once more: producers send none while another's is younger than 5 ms, and may commit later."""

PUZZLED_S = 0.1
"""Hints that no known queue explains make us look for new queues, but not more often than this."""

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

    def __init__(
        self,
        store: Store,
        runner: Runner,
        finisher: Finisher,
        observer: Observer,
        beat: Callable[[], None],
        worker_id: Callable[[], int | None],
        lanes: Lanes,
    ) -> None:
        self._store = store
        self._runner = runner
        self._finisher = finisher
        self._observer = observer
        self._beat = beat
        self._worker_id = worker_id
        self._wake = asyncio.Event()
        self._closing = False
        self._look_at = 0.0
        self._echo_at: float | None = None
        self._puzzled = False  # a hint came, and the queues we know are empty: it may be for a new one
        self._puzzled_at = 0.0
        self._suspects: set[tuple[int, int]] = set()  # (id, fence) of rows that one more crash would bury
        self.answered_at = monotonic()
        config = runner.setup.config
        self._sources = Sources(config.daemon.queues, config.queues, runner.setup.kinds)
        self._admission = Admission(store, runner, finisher, observer, self._sources, worker_id)
        self._lanes = lanes
        self._sources.lane_room = lanes.may_claim
        lanes.on_probe, lanes.on_open = self._probe, self._lane_opened
        runner.on_said = lanes.saw
        runner.on_free = self._freed
        finisher.on_room = self._wake.set
        finisher.on_written = self._written

    def reload(self) -> None:
        """The runner has another setup: its queues, kinds and limits count from the next claim on."""
        config = self._runner.setup.config
        self._admission.reload()
        self._lanes.reload()
        self._sources.serve(config.daemon.queues, config.queues, self._runner.setup.kinds)
        self._look_at = 0.0
        self._wake.set()

    def hint(self) -> None:
        """A notification came: something was inserted."""
        self._sources.hinted()
        self._echo_at = monotonic() + ECHO_S
        self._puzzled = True
        self._wake.set()

    def look_again(self) -> None:
        """The listener was deaf for a while, or a lease is new: take nothing for granted."""
        self._look_at = 0.0
        self._sources.hinted()
        self._wake.set()

    def close(self) -> None:
        """Claim nothing more; run() returns after the claim that is on the wire has been started or handed back."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Never cancelled: close() it, or the rows of a claim on the wire would wait for a rescue."""
        pause_s = 0.05
        while not self._closing:
            self._wake.clear()
            try:
                sleep_s = await self._step()
                pause_s = 0.05
            except AWAY as error:
                self._observer.claim_failed(error)
                await self._nap(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads reconnects, no secret
                pause_s = min(pause_s * 2, AWAY_MAX_S)
                self._look_at = 0.0
                self._beat()
                continue
            self._beat()
            if sleep_s > 0:
                await self._nap(sleep_s)  # places still held go when the worker leaves

    async def _step(self) -> float:
        """One round; returns the seconds until the next, 0 for at once."""
        await self._admission.give_back()
        worker_id = self._worker_id()
        if worker_id is None or self._finisher.full:
            return NO_CLAIM_S
        now = monotonic()
        if self._echo_at is not None and now >= self._echo_at:
            self._echo_at = None
            self._sources.hinted()
        if now >= self._look_at:
            await self._look()
        self._sources.suspect_runs = self._suspect_runs()
        asked = self._sources.wanted(monotonic(), self._free, BATCH_MAX)
        got = await self._claim(asked, worker_id) if asked else 0
        if got:
            return 0.0
        if self._puzzled and now >= self._puzzled_at:
            self._puzzled, self._puzzled_at = False, now + PUZZLED_S
            await self._look()
            return 0.0
        return self._sleep_s()

    async def _look(self) -> None:
        poll_s = self._runner.setup.config.daemon.poll_interval
        sources = await self._store.look(MOST)
        self._sources.found(sources, monotonic())
        due = [(s.queue, s.gate) for s in sources if s.next_s <= 0]
        self._lanes.waits([place for place in due if self._sources.waiting(*place)])
        self._look_at = monotonic() + poll_s
        self.answered_at = monotonic()

    async def _claim(self, asked: dict[Place, int], worker_id: int) -> int:
        started = perf_counter()
        served = self._runner.setup.kinds
        try:
            rows = await self._store.claim(asked, worker_id, list(served), self._lanes.full())
        except asyncpg.UniqueViolationError:
            await asyncio.sleep(LINGER_S)
            return 1  # two claimers saw an ordering key differently; the next claim sees what was committed
        except UNCLAIMABLE as error:
            return await self._claim_apart(asked, worker_id, error)
        self._observer.claimed(len(rows), perf_counter() - started)
        self._puzzled = self._puzzled and not rows
        jobs = [job for job in rows if job.worker_id is not None]
        self._sources.claimed(asked, Counter((job.queue, _source_gate(job)) for job in rows))
        for queue, gate in {(job.queue, job.gate) for job in rows if job.worker_id is None and job.kind in served}:
            self._sources.opened(queue, gate)
        for (kind, queue), count in Counter((job.kind, job.queue) for job in rows if job.kind not in served).items():
            self._observer.parked(kind, queue, count)
        if self._closing or self._worker_id() != worker_id or self._runner.setup.kinds is not served:
            for job in jobs:  # a stop, a reload or the loss of the lease came while the claim was on the wire
                self._finisher.add(hand_back(job, gate=job.gate))
            return 0
        for job, buckets in await self._admit(self._apart(jobs), worker_id):
            self._runner.start(job, buckets)
        return len(rows)

    async def _admit(self, jobs: list[Job], worker_id: int) -> Admitted:
        """Past their lanes and their limits; a row whose lane lets it through and whose limit does not has not been."""
        through = [job for job in jobs if self._lane_admits(job)]
        admitted: Admitted = ()
        try:
            admitted = await self._admission.admit(through, worker_id)
        finally:
            start = {job.id for job, _buckets in admitted}
            for job in through:
                if job.id not in start:
                    self._lanes.saw(job, None)
        return admitted

    def _lane_admits(self, job: Job) -> bool:
        kind = self._runner.setup.kinds[job.kind]
        if job.lane is None and kind.lane is not None:
            try:
                job.lane = kind.lane(kind.decode(job.args_json))
            except Exception:  # whatever strangers' data does to a kind's type: running the row will say it
                return True
        if self._lanes.admit(job):
            return True
        self._finisher.add(hand_back(job, gate=gate_of(job.lane or "")))
        return False

    def _probe(self, queue: str, gate: str) -> None:
        self._sources.probe(queue, gate)
        self._wake.set()

    def _lane_opened(self, gate: str) -> None:
        self._sources.gate_opened(gate)
        self._wake.set()

    async def _claim_apart(self, asked: dict[Place, int], worker_id: int, error: Exception) -> int:
        """Postgres refuses to update some row, one that came past the checks: its place waits, the others go on."""
        if len(asked) > 1:
            return sum([await self._claim({place: count}, worker_id) for place, count in asked.items()])
        self._observer.claim_failed(error)
        for place in asked:
            self._sources.set_aside(place, monotonic() + UNCLAIMABLE_S)
        return 0

    def _apart(self, jobs: list[Job]) -> list[Job]:
        """Those that may start.  A row that one more crash would bury goes to a gate of its own, and starts when it is
        claimed from there alone; were others of its sort claimed at that moment, its crash would bury them too."""
        last = self._runner.setup.config.daemon.crash_limit - 1
        suspects = [job for job in jobs if 0 < last <= job.crashes]
        if not suspects:
            return jobs
        alone = len(suspects) == 1 and suspects[0].gate == SUSPECT_GATE and not self._suspect_runs()
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

    def _written(self, batch: Sequence[Transition]) -> None:
        """Rows that went back, and successors of ordered rows, are claimed when they are due, not at the next poll."""
        now, news = monotonic(), False
        for t in batch:
            if t.gate == SUSPECT_GATE or t.gate.startswith(LANE_GATE):
                self._sources.opened(t.job.queue, t.gate)
            news = news or t.job.crashes > 0
            if t.state == "ready" and t.delay_s is not None:
                self._sources.returned(t.job.queue, t.gate, now + t.delay_s)
                news = True
            elif t.job.ordering_key is not None:
                self._sources.returned(t.job.queue, t.job.gate, now)
                news = True
        if news:
            self._wake.set()

    def _freed(self, running: Running) -> None:
        self._admission.freed(running)
        self._wake.set()

    def _free(self, queue: str) -> int:
        return max(0, self._runner.setup.config.queue(queue).concurrency - self._runner.busy[queue])

    def _sleep_s(self) -> float:
        now = monotonic()
        times = [self._look_at, self._echo_at, self._sources.next_at(now)]
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


def _source_gate(job: Job) -> str:
    """The gate a claimed row came through; one that was parked came from the open queue."""
    return "" if job.worker_id is None else job.gate
