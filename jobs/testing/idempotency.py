"""Whether a handler that runs again, beside itself, or after being killed leaves the world as one quiet run does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.testing.ran import Drained

PAUSES_MAX = 1000


class Bench(Protocol):
    """What a trial needs of a queue."""

    @property
    def pause_reached(self) -> bool: ...
    def beginning(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]: ...
    async def enqueue(self, kind: str, args: Any = None, **columns: Any) -> int: ...
    async def drain_all(self) -> Drained: ...
    def crash_next(self, kind: str, *, at: Any = ...) -> None: ...
    def duplicate(self, kind: str, *, at: int | None = ...) -> None: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One job, and what of the world it is about."""

    bench: Bench
    kind: str
    args: Any
    columns: Mapping[str, Any]
    state: Callable[[], Awaitable[Any]]

    async def run(self) -> tuple[Any, Drained]:
        """What the world is when nothing waits any more."""
        await self.bench.enqueue(self.kind, self.args, **self.columns)
        ran = await self.bench.drain_all()
        return await self.state(), ran


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What was tried: the state after one run, and in how many pauses."""

    state: Any
    pauses: int


async def check(trial: Trial, points: int) -> Idempotency:
    if not 0 <= points <= PAUSES_MAX:
        raise ValueError(f"points: {points} is not between 0 and {PAUSES_MAX}")
    bench, kind = trial.bench, trial.kind
    async with bench.beginning() as again:
        await again()
        once, ran = await trial.run()
        if [one.outcome for one in ran.of(kind)] != ["done"]:
            raise AssertionError(f"one quiet run of {kind!r} is not done at its first attempt:\n{ran}")
        ways: dict[str, Callable[[], None]] = {
            "run twice, one after the other": lambda: bench.duplicate(kind),
            "killed before it began, and run again": lambda: bench.crash_next(kind, at="start"),
            "killed when its work was done, and run again": lambda: bench.crash_next(kind, at="end"),
        }
        for words, spoil in ways.items():
            await again()
            spoil()
            await _same(trial, words, once)
        for pause in range(1, points + 1):
            await again()
            bench.crash_next(kind, at=pause)
            await _same(trial, f"killed in pause {pause}, and run again", once)
            if not bench.pause_reached:
                return Idempotency(once, pause - 1)
            await again()
            bench.duplicate(kind, at=pause)
            await _same(trial, f"run a second time while the first stands still in pause {pause}", once)
        return Idempotency(once, points)


async def _same(trial: Trial, words: str, once: Any) -> None:
    state, ran = await trial.run()
    if not ran.of(trial.kind) or ran.of(trial.kind)[-1].outcome != "done":
        raise AssertionError(f"{trial.kind!r} {words}: it does not come to be done\n{ran}")
    if state != once:
        raise AssertionError(f"{trial.kind!r} {words}: the state is\n  {state!r}\nand after one run\n  {once!r}\n{ran}")
