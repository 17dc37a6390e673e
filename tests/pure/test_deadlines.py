"""One timer for many: each block ends in its own time, and as asyncio.timeout would end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jobs.deadlines import Deadlines

LONG_S = 600.0


@asynccontextmanager
async def deadlines() -> AsyncIterator[Deadlines]:
    made = Deadlines()
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        made.close()


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    async with deadlines() as within:
        with pytest.raises(TimeoutError), within.within(0.01):
            await asyncio.Event().wait()
        current = asyncio.current_task()
        assert current is not None
        assert not current.cancelling()


async def test_a_block_that_ends_in_time_is_left_alone_ever_after() -> None:
    async with deadlines() as within:
        with within.within(0.01):
            pass
        await asyncio.sleep(0.03)


async def test_each_ends_at_its_own_time_whoever_came_first() -> None:
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        try:
            with many.within(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(seconds)

    async with deadlines() as many:
        stays = asyncio.create_task(wait(LONG_S))
        await asyncio.gather(*(wait(seconds) for seconds in (0.06, 0.02, 0.04)))
        assert ended == [0.02, 0.04, 0.06]
        assert not stays.done()
        stays.cancel()


async def test_who_is_cancelled_by_somebody_else_is_cancelled_and_not_late() -> None:
    async with deadlines() as within:

        async def wait() -> None:
            with within.within(LONG_S):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_who_is_late_and_cancelled_too_is_cancelled() -> None:
    async with deadlines() as within:

        async def wait() -> None:
            with within.within(0.0):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    task.cancel()
                    raise

        task = asyncio.create_task(wait())
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_another_end_of_a_block_whose_time_is_over_is_not_hidden() -> None:
    async def fail_when_stopped() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError

    async with deadlines() as within:
        with pytest.raises(KeyError), within.within(0.0):
            await fail_when_stopped()


async def test_blocks_may_stand_in_each_other() -> None:
    async with deadlines() as within:
        with pytest.raises(TimeoutError), within.within(0.01), within.within(LONG_S):
            await asyncio.Event().wait()
        with within.within(LONG_S):
            with pytest.raises(TimeoutError), within.within(0.01):
                await asyncio.Event().wait()
            await asyncio.sleep(0)
