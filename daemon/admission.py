"""Who of the claimed rows may start: their limits are asked, and those that must wait go to the limit's gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import orjson

from daemon.finisher import Finisher
from daemon.limits import Bucket, Limits, Verdict, share
from daemon.observe import Observer
from daemon.runner import Runner, Running
from daemon.settle import hand_back
from daemon.sources import Sources
from daemon.store import AWAY, Store
from jobs.model import Job

Admitted = Sequence[tuple[Job, tuple[Bucket, ...]]]


class Admission:
    """Takes tokens and places for claimed rows, and gives back what came free."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        finisher: Finisher,
        observer: Observer,
        sources: Sources,
        worker_id: Callable[[], int | None],
    ) -> None:
        self._store = store
        self._runner = runner
        self._finisher = finisher
        self._observer = observer
        self._sources = sources
        self._worker_id = worker_id
        self._held: Counter[Bucket] = Counter()  # places that came free and are to be given back
        self._in_doubt = False  # an answer was lost: what we hold is to be said anew
        self._limits = Limits(runner.setup.config.all_limits)

    def reload(self) -> None:
        """The runner has another setup: its limits count from the next claim on."""
        self._limits = Limits(self._runner.setup.config.all_limits)

    async def admit(self, jobs: list[Job], worker_id: int) -> Admitted:
        """Who may start now; those whom a limit holds back go to its gate."""
        if not self._limits:
            return [(job, ()) for job in jobs]
        free: list[tuple[Job, tuple[Bucket, ...]]] = []
        bound: list[tuple[Job, tuple[Bucket, ...]]] = []
        for job in jobs:
            buckets = self._limits.buckets(job, self._args(job))
            (bound if buckets else free).append((job, buckets))
        if not bound:
            return free
        wanting = []
        for job, buckets in bound:
            behind = next((b for b in buckets if job.gate != b.gate and self._sources.waiting(job.queue, b.gate)), None)
            if behind is not None:  # others wait for this bucket already: no overtaking
                self._finisher.add(hand_back(job, gate=behind.gate))
            else:
                wanting.append((job, buckets))
        try:
            verdict = await self._take(wanting, worker_id)
        except AWAY:
            for job in jobs:  # those without a limit too: none of this claim has started
                self._finisher.add(hand_back(job, gate=job.gate))
            raise
        return [*free, *verdict.start]

    def freed(self, running: Running) -> None:
        """An attempt has ended: its places are free."""
        if running.buckets and running.job.worker_id == self._worker_id():
            self._held.update(bucket for bucket in running.buckets if bucket.places is not None)
        elif running.buckets:  # of a lease that is silent or lost: what we hold now is to be said anew
            self._in_doubt = True

    async def give_back(self) -> None:
        """Places of concurrency limits that came free, in one statement for all."""
        worker_id = self._worker_id()
        if worker_id is None or not (self._held or self._in_doubt):
            return
        held, self._held = self._held, Counter()
        in_doubt, self._in_doubt = self._in_doubt, True
        if in_doubt:  # an answer was lost: what we hold is what runs
            await self._store.true_up(worker_id, self._runner.places())
        else:
            await self._store.give(worker_id, held, {})
        self._in_doubt = False
        for bucket, count in held.items():
            self._sources.place_free(bucket.gate, count)

    async def _take(self, wanting: list[tuple[Job, tuple[Bucket, ...]]], worker_id: int) -> Verdict:
        wanted = Counter(bucket for _job, buckets in wanting for bucket in buckets)
        if not wanted:
            return Verdict([], [], Counter())
        self._in_doubt = True
        grants = await self._store.take(worker_id, wanted)
        self._in_doubt = False
        verdict = share(wanting, grants)
        now = monotonic()
        for job, bucket in verdict.wait:
            self._sources.shut(job.queue, bucket.gate, now, grants[bucket].retry_s, bucket.token_s)
            self._finisher.add(hand_back(job, gate=bucket.gate))
        for bucket, count in Counter(bucket for _job, bucket in verdict.wait).items():
            self._observer.limited(bucket.name, count, grants[bucket].retry_s or 0.0)
        if verdict.unused:
            held = Counter({bucket: count for bucket, count in verdict.unused.items() if bucket.places is not None})
            self._in_doubt = True
            await self._store.give(worker_id, held, verdict.unused)
            self._in_doubt = False
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
