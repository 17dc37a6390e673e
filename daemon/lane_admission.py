"""Past their destinations: which of the claimed rows the lanes let through, and which wait at the gates of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.admission import Admission, Admitted
from daemon.finisher import Finisher
from daemon.lanes import Lanes, gate_of
from daemon.runner import Runner
from daemon.settle import hand_back
from daemon.statements import AWAY
from daemon.terms import TermsBook
from jobs.model import Job
from jobs.registry import Kind


class LaneAdmission:
    """Before the limits, so that a row that must not go to its destination takes none of their tokens."""

    def __init__(self, lanes: Lanes, then: Admission, runner: Runner, finisher: Finisher, terms: TermsBook) -> None:
        self._lanes = lanes
        self._then = then
        self._runner = runner
        self._finisher = finisher
        self._terms = terms
        self._kinds: Mapping[str, Kind] = {}
        self._telling: frozenset[str] = frozenset()  # kinds whose handlers tell the lane

    async def admit(self, jobs: list[Job], worker_id: int) -> Admitted:
        """Who may start.  A row that its lane lets through and a limit holds back has not been to its destination."""
        self._learn(self._runner.setup.kinds)
        bound = [job for job in jobs if job.lane is not None or job.kind in self._telling]
        if not bound:
            return await self._then.admit(jobs, worker_id)
        shut = {job.id for job in bound if not self._passes(job)}
        admitted: Admitted = ()
        try:
            passing = [job for job in jobs if job.id not in shut]
            await self._learn_terms(passing)
            admitted = await self._then.admit(passing, worker_id)
        finally:
            start = {job.id for job, _buckets in admitted}
            for job in bound:
                if job.id not in shut and job.id not in start:
                    self._lanes.saw(job, None)
        return admitted

    async def _learn_terms(self, jobs: Sequence[Job]) -> None:
        """What their destinations bring themselves; if that cannot be read now, none of these has started."""
        try:
            await self._terms.learn(jobs)
        except AWAY:
            for job in jobs:
                self._finisher.add(hand_back(job, gate=job.gate))
            raise

    def _learn(self, kinds: Mapping[str, Kind]) -> None:
        if kinds is not self._kinds:
            self._kinds = kinds
            self._telling = frozenset(name for name, kind in kinds.items() if kind.lane is not None)

    def _passes(self, job: Job) -> bool:
        tell = self._kinds[job.kind].lane
        if job.lane is None and tell is not None:
            try:
                job.lane = tell(self._kinds[job.kind].decode(job.args_json))
            except Exception:  # whatever strangers' data does to a kind's type: running the row will say it
                return True
        if self._lanes.admit(job):
            return True
        self._finisher.add(hand_back(job, gate=gate_of(job.lane or "")))
        return False
