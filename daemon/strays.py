"""Rows that Postgres says are ours and that we know nothing of: their claim was committed, but its answer was lost."""

from __future__ import annotations

from daemon.crew import Crew
from daemon.settle import hand_back
from jobs.model import Job


class Strays:
    """Hands such rows back.  While this worker lives nobody rescues them, so nobody else can find them."""

    def __init__(self, crew: Crew) -> None:
        self._store = crew.store
        self._runner = crew.runner
        self._finisher = crew.finisher
        self._worker_id = crew.worker_id
        self._suspects: set[tuple[int, int]] = set()

    async def check(self) -> int:
        """Hand back what was unknown at this check and the one before; how many rows.  Once could be a claim whose
        answer is being read at this moment, or a result that was just written."""
        worker_id = self._worker_id()
        if worker_id is None:
            return 0
        claims = self._finisher.claims.known()
        held, some_empty = await self._store.held(worker_id, claims)
        known = self._runner.known() | self._finisher.known()
        unknown = {(job.id, job.fence): job for job in held if (job.id, job.fence) not in known}
        found = [job for key, job in unknown.items() if key in self._suspects]
        self._suspects = set(unknown) - {_key(job) for job in found}
        self._finisher.claims.taken(found)
        for job in found:
            self._finisher.add(hand_back(job))
        if some_empty:
            await self._store.drop_claims(worker_id, claims)
        return len(found)


def _key(job: Job) -> tuple[int, int]:
    return job.id, job.fence
