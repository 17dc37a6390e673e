"""What comes between a claim and the limits: each row's destination, told once, and accounted for whatever follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.lane_admission import LaneAdmission
from daemon.settle import Transition
from daemon.terms import TermsBook
from jobs.model import Job

WELL, SHUT = "well.example", "shut.example"


class Lab:
    """Lanes of which one is shut, and a limit that lets through what it is told to."""

    def __init__(self, limit: Callable[[Job], bool] = lambda job: True) -> None:
        self.seen: list[tuple[int, Any]] = []
        self.back: list[Transition] = []
        self.limit = limit
        self.kinds = {"told": _kind(lambda args: args["to"]), "mute": _kind(None)}
        runner = SimpleNamespace(setup=SimpleNamespace(kinds=self.kinds))
        finisher = SimpleNamespace(add=self.back.append)
        self.part = LaneAdmission(self, self, runner, finisher, TermsBook(self))  # type: ignore[arg-type]
        self.asked_of_lanes: list[int] = []

    async def started(self, *jobs: Job) -> list[int]:
        return [job.id for job, _buckets in await self.part.admit(list(jobs), 1)]

    def saw(self, job: Job, said: Any) -> None:
        self.seen.append((job.id, said))

    def admit(self, job: Job | list[Job], worker_id: int = 0) -> Any:
        if isinstance(job, Job):  # asked as the lanes
            self.asked_of_lanes.append(job.id)
            return job.lane != SHUT
        return self._limited(job)

    async def of_endpoints(self, ids: Sequence[int]) -> dict[int, Any]:
        return {}

    async def _limited(self, jobs: Sequence[Job]) -> list[tuple[Job, tuple[()]]]:
        return [(job, ()) for job in jobs if self.limit(job)]


def _kind(tell: Callable[[Any], str] | None) -> SimpleNamespace:
    return SimpleNamespace(lane=tell, decode=lambda text: {"to": text} if text else 1 / 0)


def row(n: int, kind: str = "mute", *, lane: str | None = None, args: str = WELL) -> Job:
    return Job(n, 1, kind, "q", 2, 1, args, 0.0, lane=lane, worker_id=1)


async def test_rows_without_a_destination_pass_unasked() -> None:
    lab = Lab()
    assert await lab.started(row(1), row(2)) == [1, 2]
    assert lab.asked_of_lanes == []


async def test_rows_of_a_shut_destination_go_to_its_gate_uncharged() -> None:
    lab = Lab()
    assert await lab.started(row(1, lane=SHUT), row(2, lane=WELL), row(3)) == [2, 3]
    (back,) = lab.back
    assert (back.job.id, back.gate, back.charged) == (1, f"lane:{SHUT}", False)
    assert lab.seen == []


async def test_what_only_the_handler_can_tell_is_told_before_it_starts() -> None:
    lab = Lab()
    assert await lab.started(row(1, "told", args=SHUT), row(2, "told")) == [2]
    assert lab.back[0].gate == f"lane:{SHUT}"


async def test_a_row_whose_destination_cannot_be_told_passes_and_dies_as_it_runs() -> None:
    lab = Lab()
    assert await lab.started(row(1, "told", args="")) == [1]


async def test_a_row_that_a_limit_holds_back_has_not_been_to_its_destination() -> None:
    lab = Lab(limit=lambda job: job.id != 1)
    assert await lab.started(row(1, lane=WELL), row(2, lane=WELL)) == [2]
    assert lab.seen == [(1, None)]


async def test_nor_has_any_when_postgres_does_not_answer_about_the_limits() -> None:
    def away(job: Job) -> bool:
        raise ConnectionResetError

    lab = Lab(limit=away)
    with pytest.raises(ConnectionResetError):
        await lab.started(row(1, lane=WELL), row(2, lane=SHUT), row(3))
    assert lab.seen == [(1, None)]
