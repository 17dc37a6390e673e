"""Who of the claimed rows may start: what their limits lend is given out, and the others go to the limit's gate."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Any

import orjson

from daemon.attempt import Running
from daemon.crew import Crew
from daemon.hand_overs import HandOvers
from daemon.lender import Lender
from daemon.limits import GATE, Bucket, Limits, Verdict, share, spent
from daemon.settle import hand_back
from daemon.slices import MANY
from daemon.sources import Sources
from daemon.statements import AWAY
from jobs.model import Job

Admitted = Sequence[tuple[Job, tuple[Bucket, ...]]]

LOOK_S = 0.1
"""How often to see whether rows have come to a gate, and the longest nap while any limit is in use."""

TURN_S = 0.005
"""The shortest time between two turns: what comes free meanwhile goes back in one trip."""

AWAY_S = 0.2
"""The pause between two tries while Postgres is away."""


class Admission:
    """Spends tokens and places on claimed rows; `run` leases them ahead of need and gives back what is not used.

    A gate's rows are claimed only for what is in hand (`passing`), so few are claimed to be put back.
    """

    def __init__(self, crew: Crew, lender: Lender, sources: Sources, on_room: Callable[[], None]) -> None:
        self._runner = crew.runner
        self._finisher = crew.finisher
        self._observer = crew.observer
        self._worker_id = crew.worker_id
        self._lender = lender
        self._sources = sources
        self._on_room = on_room
        self._limits = Limits(crew.runner.setup.config.all_limits)
        self._terms = crew.terms
        self._wake = asyncio.Event()
        self._closing = False
        self._give_all = False
        self.hand_overs = HandOvers(lender, lambda: self._limits, self._wake.set, crew.observer)
        lender.on_leased = self.hand_overs.leased
        sources.passing = self.passing

    def reload(self) -> None:
        """The runner has another setup: its limits count from the next claim on, and what was leased goes back."""
        self._limits = Limits(self._runner.setup.config.all_limits)
        self.hand_overs.reload()
        self._give_all = True
        self._wake.set()

    def close(self) -> None:
        """Nothing more is claimed: give back what is in hand, and places as soon as their jobs end."""
        self._closing = True
        self._wake.set()

    async def admit(self, jobs: list[Job], worker_id: int) -> Admitted:
        """Who may start now; those whom a limit holds back go to its gate."""
        if not self._limits and not self._terms.limiting:
            return [(job, ()) for job in jobs]
        free: list[tuple[Job, tuple[Bucket, ...]]] = []
        bound: list[tuple[Job, tuple[Bucket, ...]]] = []
        for job in jobs:
            concerned = self._limits.concern(job.kind, job.queue)
            buckets = self._limits.buckets(job, self._args(job)) if concerned else ()
            if job.terms is not None and (own := self._terms.bucket_of(job.lane)) is not None:
                buckets = (*buckets, own)
            (bound if buckets else free).append((job, buckets))
        if not bound:
            return free
        wanting = []
        for job, buckets in bound:
            # one that comes from the gate of a bucket has waited, or rows at two gates would send each other to and fro
            waited = any(job.gate == bucket.gate for bucket in buckets)
            behind = None if waited else next((b for b in buckets if self._sources.waiting(job.queue, b.gate)), None)
            if behind is not None:  # others wait for this bucket already: no overtaking
                self._finisher.add(hand_back(job, gate=behind.gate))
            else:
                wanting.append((job, buckets))
        try:
            await self._lease_for(wanting, worker_id)
        except AWAY:
            for job, _buckets in (*free, *wanting):  # those without a limit too: none of this claim has started
                self._finisher.add(hand_back(job, gate=job.gate))
            raise
        return [*free, *self._give_out(wanting).start]

    def passing(self, gate: str) -> int:
        """How many rows of this limit's gate may be claimed now; of a limit that is no more, any."""
        return max(map(self._usable, self._buckets_at(gate)), default=MANY)

    def freed(self, running: Running) -> None:
        """A limited attempt has ended: its places are free, and what was kept for it."""
        self.hand_overs.drop((running.job.id, running.job.fence))
        if running.job.worker_id == self._worker_id():
            for bucket in running.buckets:
                self._lender.freed(bucket)
        else:  # of a lease that is silent or lost: what we hold now is to be said anew
            self._lender.doubt()
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled, which leaves nothing half done: what a lost answer was about is said anew, or void soon."""
        while True:
            pause_s = await self.step()
            await asyncio.sleep(TURN_S)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nobody called; the clock did
            self._wake.clear()

    async def step(self, rows: int = 0) -> float | None:
        """Give back, lease, let the claimer know; the seconds until there is something to do (None: until called).
        `rows`: how many of each gate are to start at once (0: an unknown number, ahead of need)."""
        worker_id = self._worker_id()
        if worker_id is None:
            return LOOK_S
        try:
            await self._terms.refresh(self._sources.standing(GATE))
        except AWAY as error:
            self._observer.claim_failed(error)
            return AWAY_S
        self.hand_overs.give()
        at_gates, calls = self._waited_for(), self.hand_overs.buckets()
        waited_for = at_gates | calls.keys()
        give_all, self._give_all = self._give_all or self._closing, False
        try:
            await self.hand_overs.slow_down()
            await self._lender.tidy(worker_id, waited_for, all_of_it=give_all)
            await self._lender.lease(worker_id, {**dict.fromkeys(at_gates, rows), **calls})
        except AWAY as error:
            self._observer.claim_failed(error)
            return AWAY_S
        self.hand_overs.give()
        if any(self._usable(bucket) for bucket in at_gates):
            self._on_room()
        next_at = self._lender.next_at(waited_for)
        if next_at == inf and not self._limits and not self._terms.limiting:
            return None
        return min(max(next_at - monotonic(), 0.0), LOOK_S)

    def _waited_for(self) -> set[Bucket]:
        """The buckets at whose gates rows stand."""
        if self._closing:
            return set()
        return {bucket for gate in self._sources.standing(GATE) for bucket in self._buckets_at(gate)}

    def _buckets_at(self, gate: str) -> tuple[Bucket, ...]:
        """What the rows at a gate wait for: of the config's limits, or of those that destinations bring themselves."""
        return self._limits.buckets_at(gate) + self._terms.buckets_at(gate)

    def _usable(self, bucket: Bucket) -> int:
        """How many attempts may start under it; tokens that others are about to take do not count."""
        usable = self._lender.usable(bucket)
        return max(0, usable - self.hand_overs.claims(bucket)) if bucket.at_call else usable

    async def _lease_for(self, wanting: Admitted, worker_id: int) -> None:
        """What is not in hand is asked for, unless it was refused a moment ago."""
        self._lender.serve(worker_id)
        wanted = spent(wanting)
        short = {
            bucket: count + (self.hand_overs.claims(bucket) if bucket.at_call else 0)
            for bucket, count in wanted.items()
            if self._usable(bucket) < count
        }
        if short:
            await self._lender.lease(worker_id, short)
            self._wake.set()

    def _give_out(self, wanting: Admitted) -> Verdict:
        verdict = share(wanting, {bucket: self._usable(bucket) for bucket in spent(wanting)})
        self._lender.spend({bucket: count for bucket, count in spent(verdict.start).items() if not bucket.at_call})
        for job, buckets in verdict.start:
            self.hand_overs.keep((job.id, job.fence), [bucket for bucket in buckets if bucket.at_call])
        for job, bucket in verdict.wait:
            self._sources.opened(job.queue, bucket.gate)
            self._finisher.add(hand_back(job, gate=bucket.gate))
        for bucket, count in Counter(bucket for _job, bucket in verdict.wait).items():
            self._observer.limited(bucket.name, count, self._lender.pause_s(bucket))
        if verdict.start or verdict.wait:
            self._wake.set()
        return verdict

    def _args(self, job: Job) -> dict[str, Any]:
        """The args for limits that go by them; also finds the lane.  An unreadable row passes and dies when run."""
        try:
            args = orjson.loads(job.args_json)
            kind = self._runner.setup.kinds[job.kind]
            if job.lane is None and kind.lane is not None:
                job.lane = kind.lane(kind.decode(job.args_json))
        except Exception:  # whatever strangers' data does to a kind's type: running the row will say it
            return {}
        return args if isinstance(args, dict) else {}
