"""One attempt: its place in a slot, and the call of its handler."""

from __future__ import annotations

import asyncio
import traceback
from math import inf
from time import perf_counter
from typing import Any

from daemon.batch_calls import BatchCalls
from daemon.limits import Bucket
from daemon.notes import Notes
from daemon.replies import CANCELLED_INSIDE, failed, meant
from jobs.context import Context
from jobs.many import Many, Row
from jobs.model import Job, Outcome, Retry
from jobs.registry import Kind


class Running:
    """One attempt in its slot."""

    __slots__ = ("begun", "buckets", "deadline", "job", "said", "settled", "started", "task", "why", "wish")

    def __init__(self, job: Job, buckets: tuple[Bucket, ...]) -> None:
        self.job = job
        self.buckets = buckets
        self.task: asyncio.Task[None] | None = None
        self.deadline = inf
        self.why: str | None = None
        self.said: Outcome | None = None  # what the handler, or its timeout, says of the destination
        self.wish: tuple[str | None, str | None] | None = None  # why nobody wants it any more, and who says so
        self.begun = False
        self.settled = False
        self.started = perf_counter()


class Progress:
    """ctx.progress of one attempt."""

    __slots__ = ("_job", "_notes")

    def __init__(self, notes: Notes, job: Job) -> None:
        self._notes = notes
        self._job = job

    async def __call__(self, percent: float, **fields: Any) -> None:
        self._notes.progress(self._job, {"percent": percent, **fields})


class Handling:
    """Calls handlers, each alone or with others of its kind and queue; whatever one does, an outcome comes out."""

    def __init__(self) -> None:
        self._calls = BatchCalls()

    async def call(
        self, kind: Kind, args: Any, context: Context, running: Running, timeout_s: float
    ) -> tuple[Outcome | None, str | None]:
        """The handler's outcome, and the trace of what it raised; None when it was told to stop: the row goes back."""
        try:
            if kind.many is not None:
                return await self._together(kind.many, args, context, running, timeout_s)
            return meant(await kind.handler(args, context)), None
        except Outcome as said:
            return said, None
        except asyncio.CancelledError:
            if running.why == "timeout":
                return Retry(f"no end within {timeout_s:g} s", code="timeout", lane_fault=True), None
            if running.why is None:  # not by us: something the handler waited for was cancelled under it
                return CANCELLED_INSIDE, None
            return None, None
        except (Exception, SystemExit) as error:  # a handler may raise anything; the daemon must not
            return failed(error), traceback.format_exc()

    async def _together(
        self, many: Many, args: Any, context: Context, running: Running, timeout_s: float
    ) -> tuple[Outcome, str | None]:
        """In a call with others of its kind and queue; its time begins with the call.  A row that failed before is
        called alone: one that breaks every call it is in must not take its neighbours along each time."""
        job = running.job
        running.deadline = inf

        def begin() -> None:
            running.deadline = perf_counter() + timeout_s

        return await self._calls.join(many, job.queue, Row(args, context), begin, alone=job.attempt > 1)
