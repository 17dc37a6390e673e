"""Attempts share a task only where none of them could tell."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest

from daemon.attempt import Running
from daemon.hands import BEGIN_A_TURN, Hands
from jobs.model import Job

TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")

Body = Callable[[Running], Awaitable[None]]


class Bench:
    """Rows with bodies; in which task each ran, and in which order they ended."""

    def __init__(self) -> None:
        self.hands = Hands(self._attempt)
        self.tasks: dict[int, str] = {}
        self.ended: list[int] = []
        self._bodies: dict[int, Body] = {}
        self._alive: list[asyncio.Task[Any]] = []

    def row(self, body: Body, kind: str = "work", *, known: bool = False) -> Running:
        number = len(self._bodies) + 1
        self._bodies[number] = body
        running = Running(Job(number, 1, kind, "default", 2, 1, "{}", 0.0), ())
        self.hands.take(running, waits=known)
        return running

    async def until(self, count: int) -> None:
        """So many have ended, and the loop has come round once more."""
        await turns(lambda: len(self.ended) >= count)
        await asyncio.sleep(0)

    async def _attempt(self, running: Running) -> None:
        self.tasks[running.job.id] = hex(id(asyncio.current_task()))
        try:
            await self._bodies[running.job.id](running)
        except asyncio.CancelledError:
            assert running.why == "unwanted", "cancelled by nobody"
        finally:
            self.ended.append(running.job.id)


async def turns(until: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110  what is tested is what happens as the loop turns
            await asyncio.sleep(0)


async def nothing(running: Running) -> None:
    """Ends at once."""


def waits(gate: asyncio.Event) -> Body:
    async def body(running: Running) -> None:
        await gate.wait()

    return body


async def test_rows_that_wait_for_nothing_share_a_task_and_keep_their_order() -> None:
    bench = Bench()
    for _ in range(5):
        bench.row(nothing)
    await bench.until(5)
    assert bench.ended == [1, 2, 3, 4, 5]
    assert len(set(bench.tasks.values())) == 1


async def test_a_row_that_waits_keeps_its_task_and_the_others_go_on() -> None:
    bench, gate = Bench(), asyncio.Event()
    waiting = bench.row(waits(gate), kind="slow")
    for _ in range(3):
        bench.row(nothing)
    await bench.until(3)
    assert bench.ended == [2, 3, 4]
    assert waiting.task is not None
    assert bench.tasks[1] not in {bench.tasks[n] for n in (2, 3, 4)}
    gate.set()
    await bench.until(4)
    assert waiting.task is None


async def test_once_a_kind_has_waited_its_rows_begin_in_the_same_turn_of_the_loop() -> None:
    bench, gate = Bench(), asyncio.Event()
    bench.row(waits(gate))
    await turns(lambda: bool(bench.tasks))
    await asyncio.sleep(0)
    for _ in range(20):
        bench.row(waits(gate))
    await asyncio.sleep(0)
    assert len(bench.tasks) == 21
    gate.set()
    await bench.until(21)


async def test_rows_that_are_known_to_wait_begin_together() -> None:
    bench, gate = Bench(), asyncio.Event()
    for _ in range(20):
        bench.row(waits(gate), known=True)
    await asyncio.sleep(0)
    assert len(bench.tasks) == 20
    gate.set()
    await bench.until(20)


async def test_of_many_that_are_known_to_wait_a_few_begin_in_a_turn_of_the_loop_and_in_their_order() -> None:
    bench, gate, counts = Bench(), asyncio.Event(), [0]
    for _ in range(250):
        bench.row(waits(gate), known=True)
    bench.row(nothing, kind="quick")
    while len(bench.tasks) < 251:
        await asyncio.sleep(0)
        counts.append(len(bench.tasks))
    assert max(after - before for before, after in pairwise(counts)) <= BEGIN_A_TURN + 1
    assert bench.ended == [251], "which had to wait for none of them"
    assert [number for number in bench.tasks if number != 251] == list(range(1, 251))
    gate.set()
    await bench.until(251)


async def test_rows_behind_one_that_waits_begin_together_in_the_next_turn() -> None:
    bench, gate = Bench(), asyncio.Event()
    for _ in range(20):
        bench.row(waits(gate))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(bench.tasks) == 20
    gate.set()
    await bench.until(20)


async def test_to_stop_a_row_that_waits_stops_no_other() -> None:
    bench, gate = Bench(), asyncio.Event()
    first, second = bench.row(waits(gate)), bench.row(waits(gate))
    await turns(lambda: len(bench.tasks) == 2)
    first.why = "unwanted"
    assert first.task is not None
    assert second.task is not None
    first.task.cancel()
    await bench.until(1)
    assert bench.ended == [1]
    assert not second.task.cancelling()
    gate.set()
    await bench.until(2)


async def test_a_row_that_was_stopped_before_its_first_step_is_left_out() -> None:
    bench = Bench()
    bench.row(nothing)
    bench.row(nothing).settled = True
    bench.row(nothing)
    await bench.until(2)
    assert bench.ended == [1, 3]


async def test_a_context_variable_of_one_row_is_not_seen_by_the_next() -> None:
    bench, seen = Bench(), []

    async def tells(running: Running) -> None:
        seen.append(TENANT.get())
        TENANT.set(f"tenant of {running.job.id}")

    for _ in range(4):
        bench.row(tells)
    await bench.until(4)
    assert seen == ["nobody"] * 4


async def cancels_itself(running: Running) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def renames_itself(running: Running) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name("mine")


KEPT: list[Any] = []


async def keeps_its_task(running: Running) -> None:
    KEPT.append(asyncio.current_task())


async def watches_its_task(running: Running) -> None:
    task = asyncio.current_task()
    assert task is not None
    KEPT.append(weakref.ref(task, lambda _gone: None))


async def waits_for_its_task(running: Running) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _task: KEPT.append("called"))


@pytest.mark.parametrize("body", [cancels_itself, renames_itself, keeps_its_task, watches_its_task, waits_for_its_task])
async def test_what_a_handler_does_to_its_task_ends_with_its_row(body: Body) -> None:
    bench, gate = Bench(), asyncio.Event()
    bench.row(body)
    bench.row(waits(gate), kind="other")
    await turns(lambda: 2 in bench.tasks)
    assert bench.ended == [1]
    if body is keeps_its_task:
        assert KEPT[-1].done(), "whoever cancels it later means nobody"
    if body is watches_its_task:
        assert KEPT[-1]() is None, "what was kept for it goes with it"
    if body is waits_for_its_task:
        await asyncio.sleep(0)
        assert KEPT[-1] == "called"
    await asyncio.sleep(0)
    gate.set()
    await bench.until(2)
    assert bench.ended == [1, 2]
    KEPT.clear()


async def test_rows_given_by_a_row_that_runs_are_taken_up() -> None:
    bench = Bench()

    async def gives(running: Running) -> None:
        bench.row(nothing)

    bench.row(gives)
    await bench.until(2)
    assert bench.ended == [1, 2]
