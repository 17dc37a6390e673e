"""Run claimed jobs, each to its transition: whatever a handler does, one comes out."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

from daemon.config import Config
from daemon.finisher import Finisher
from daemon.limits import Bucket
from daemon.observe import Observer
from daemon.settle import Transition, hand_back, refuse, settle, unwanted
from daemon.store import AWAY, Store
from daemon.texts import plain
from jobs.context import Context, Tools
from jobs.model import Dead, Done, Job, Outcome, Policy, Retry
from jobs.registry import Kind

DONE = Done()
"""Of all handlers that return nothing."""

LEAK_GRACE_S = 5.0
"""A handler that goes on so long after it was told to stop is given up: its row is settled, its slot stays taken."""

SWEEP_S = 0.05
"""How late the end of an attempt's time may be noticed."""

FAULT_PAUSE_S = 60.0
"""A row whose attempt failed by a fault of the daemon itself goes back uncharged, and not at once."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything an attempt works with that a reload may replace; an attempt keeps the one it started with."""

    config: Config
    tools: Tools
    kinds: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the config and the handler together say about the jobs of one kind in one queue."""

    kind: Kind
    policy: Policy
    timeout_s: float
    keep_done: bool
    keep_dead: bool


_RULES_MAX = 10_000


class Running:
    """One attempt in its slot."""

    __slots__ = ("begun", "buckets", "deadline", "job", "settled", "started", "task", "why", "wish")

    def __init__(self, job: Job, buckets: tuple[Bucket, ...]) -> None:
        self.job = job
        self.buckets = buckets
        self.task: asyncio.Task[None] | None = None
        self.deadline = inf
        self.why: str | None = None
        self.wish: tuple[str | None, str | None] | None = None  # why nobody wants it any more, and who says so
        self.begun = False
        self.settled = False
        self.started = perf_counter()


class Runner:
    """Owns the running attempts: starts them, ends those that overstay, and counts the slots of each queue."""

    def __init__(self, setup: Setup, store: Store, finisher: Finisher, observer: Observer) -> None:
        self.setup = setup
        self._rules: dict[tuple[str, str], Rules] = {}
        self._rules_of = setup
        self.busy: Counter[str] = Counter()
        self.orgs: Counter[tuple[str, str]] = Counter()  # what runs by (queue, organisation)
        self.on_free: Callable[[Running], None] = lambda running: None
        self.on_said: Callable[[Job, Outcome | None], None] = lambda job, said: None
        self._store = store
        self._finisher = finisher
        self._observer = observer
        self._running: dict[tuple[int, int], Running] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeping = False
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._running)

    def known(self) -> set[tuple[int, int]]:
        """(id, fence) of the rows in a slot."""
        return set(self._running)

    def places(self) -> Counter[Bucket]:
        """How many places of each concurrency limit the running attempts hold."""
        return Counter(b for running in self._running.values() for b in running.buckets if b.places is not None)

    def start(self, job: Job, buckets: tuple[Bucket, ...] = ()) -> None:
        """Run `job` in a task of its own; `on_free` is called when its slot is.

        A claim that Postgres lost in a crash of its own and made again is the attempt that runs here already.
        """
        if (job.id, job.fence) in self._running:
            self._finisher.claims.written([job])  # its own claim stays until nothing of it runs here
            self.on_said(job, None)
            return
        running = Running(job, buckets)
        self.busy[job.queue] += 1
        if job.org_id is not None:
            self.orgs[job.queue, job.org_id] += 1
        self._running[job.id, job.fence] = running
        self._idle.clear()
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        running.task = self._loop.create_task(self._attempt(running))  # owned here, until _ended

    def cancel(self, why: str) -> int:
        """Stop every attempt; their rows are handed back untouched.  Returns how many there were."""
        stopped = list(self._running.values())
        for running in stopped:
            self._tell(running, why, perf_counter())
            if not running.begun:  # its first step will not be taken
                self._ended(running)
        return len(stopped)

    def stop_one(self, key: tuple[int, int], reason: str | None, actor: str | None) -> bool:
        """Stop the attempt (id, fence), which nobody wants any more: however it would go back, it ends as cancelled.
        False when it does not run here, or has been told already."""
        running = self._running.get(key)
        if running is None or running.settled or running.wish is not None:
            return False
        running.wish = (reason, actor)
        if running.why is None:  # else it is being stopped already
            self._tell(running, "unwanted", perf_counter())
            if not running.begun:  # its first step will not be taken
                self._ended(running)
        return True

    def abandon(self) -> int:
        """Hand back the rows of attempts that do not stop when told to; for a daemon that is about to end."""
        stubborn = [running for running in self._running.values() if not running.settled]
        for running in stubborn:
            self._observer.slot_leaked(running.job)
            self._settled(running, hand_back(running.job))
        return len(stubborn)

    async def wait_idle(self) -> None:
        """Until no attempt runs."""
        await self._idle.wait()

    async def wait_for_current(self) -> None:
        """Until every attempt that runs now has ended; later ones do not matter."""
        if tasks := {running.task for running in self._running.values() if running.task is not None}:
            await asyncio.wait(tasks)

    async def _attempt(self, running: Running) -> None:
        """From the first step to the free slot.  It frees the slot itself: a done-callback is a loop's turn dearer."""
        running.begun = True
        try:
            await self._run(running)
        except Exception as fault:  # ours, not the handler's: the row must not stay with us
            self._observer.task_died(f"attempt of job {running.job.id}", fault)
            if not running.settled:
                self._settled(running, hand_back(running.job, delay_s=FAULT_PAUSE_S))
        finally:
            self._ended(running)

    async def _run(self, running: Running) -> None:
        job, tools = running.job, self.setup.tools
        rules = self._rules_for(job)
        trace: str | None = None
        context: Context | None = None
        if job.max_attempts is None:  # resolved, so that a handler can see which attempt is its last
            job.max_attempts = rules.policy.max_attempts
        outcome = refuse(job, job.max_attempts)
        if outcome is None:
            outcome, args = _decode(rules.kind, job)
        if outcome is None:
            now = perf_counter()
            context = Context(job, tools, self._observer.log_for(job), _Progress(self._store, job))
            self._observer.started(job, job.claimed_at - job.run_at + now - running.started)
            running.deadline = now + rules.timeout_s
            outcome, trace = await self._call(rules.kind, args, context, running, rules.timeout_s)
        if running.settled:
            return
        if outcome is DONE:
            transition = Transition(job, "done", "done", keep=rules.keep_done)
        elif outcome is None:
            transition = hand_back(job)
        else:
            transition = settle(job, outcome, rules.policy, job.max_attempts, random.random())  # noqa: S311  jitter
            transition.trace = trace
            transition.keep = rules.keep_done if transition.state == "done" else rules.keep_dead
        if context is not None and context.records:
            transition.records = context.records
        self._settled(running, transition, outcome)

    def _rules_for(self, job: Job) -> Rules:
        setup = self.setup
        if self._rules_of is not setup or len(self._rules) > _RULES_MAX:
            self._rules, self._rules_of = {}, setup
        rules = self._rules.get((job.kind, job.queue))
        if rules is None:
            kind, queue = setup.kinds[job.kind], setup.config.queue(job.queue)
            rules = self._rules[job.kind, job.queue] = Rules(
                kind,
                setup.config.policy(job.kind, job.queue, kind.retry),
                setup.config.timeout_s(job.kind, job.queue, kind.timeout_s),
                queue.keep_done is None or queue.keep_done > 0,
                queue.keep_dead is None or queue.keep_dead > 0,
            )
        return rules

    async def _call(
        self, kind: Kind, args: Any, context: Context, running: Running, timeout_s: float
    ) -> tuple[Outcome | None, str | None]:
        """The handler's outcome, and the trace of what it raised; None when it was told to stop: the row goes back."""
        try:
            reply = await kind.handler(args, context)
        except Outcome as said:
            return said, None
        except asyncio.CancelledError:
            if running.why == "timeout":
                return Retry(f"no end within {timeout_s:g} s", code="timeout", lane_fault=True), None
            if running.why is None:  # not by us: something the handler waited for was cancelled under it
                return Retry("cancelled from inside", code="cancelled_inside"), None
            return None, None
        except (Exception, SystemExit) as error:  # a handler may raise anything; the daemon must not
            detail = {"class": type(error).__qualname__}
            return Retry(plain(error) or detail["class"], code="exception", detail=detail), traceback.format_exc()
        if reply is None:
            return DONE, None
        return (reply if isinstance(reply, Outcome) else Done(reply)), None

    def _sweep(self) -> None:
        """End the attempts whose time is over.  One timer for all: one for each is 7 % of what a no-op job costs."""
        now = perf_counter()
        for running in [running for running in self._running.values() if running.deadline <= now]:
            if running.why is None:
                self._tell(running, "timeout", now)
            else:
                running.deadline = inf
                self._leaked(running)
        self._sweeping = bool(self._running)
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)

    def _tell(self, running: Running, why: str, now: float) -> None:
        """Stop an attempt; a handler that does not listen is given up at the new deadline."""
        if running.why is None:
            running.why, running.deadline = why, now + LEAK_GRACE_S
        if running.task is not None:
            running.task.cancel()

    def _leaked(self, running: Running) -> None:
        """It swallows its cancellation: settle the row, so that it is tried elsewhere, but keep the slot counted."""
        if running.settled:
            return
        self._observer.slot_leaked(running.job)
        if running.why != "timeout":  # a stop, or a lost lease: nothing is held against the row
            self._settled(running, hand_back(running.job))
            return
        policy = self._rules_for(running.job).policy
        reason = Retry("did not stop when its time was over", code="timeout", lane_fault=True)
        most = running.job.max_attempts or policy.max_attempts
        self._settled(running, settle(running.job, reason, policy, most, random.random()), reason)  # noqa: S311  jitter

    def _settled(self, running: Running, transition: Transition, said: Outcome | None = None) -> None:
        running.settled = True
        if running.job.lane is not None:
            self.on_said(running.job, said)
        t = transition
        if running.wish is not None and t.state == "ready":
            t = unwanted(t, *running.wish)
            queue = self.setup.config.queue(t.job.queue)
            t.keep = queue.keep_dead is None or queue.keep_dead > 0
        if t.code == "invalid_args":
            self._observer.poison(t.job.id, t.job.kind, t.code)
        else:
            duration_s = perf_counter() - running.started
            self._observer.ended(t.job, t.outcome, duration_s, t.code, t.reason, t.delay_s, t.trace)
        self._finisher.add(t)

    def _ended(self, running: Running) -> None:
        """The slot is free.  An attempt that was cancelled before its first step has settled nothing."""
        if not running.settled:
            self._settled(running, hand_back(running.job))
        job = running.job
        self.busy[job.queue] -= 1
        if job.org_id is not None:
            self.orgs[job.queue, job.org_id] -= 1
            if not self.orgs[job.queue, job.org_id]:
                del self.orgs[job.queue, job.org_id]
        del self._running[running.job.id, running.job.fence]
        if not self._running:
            self._idle.set()
        self.on_free(running)


class _Progress:
    """ctx.progress of one attempt."""

    __slots__ = ("_job", "_store")

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job

    async def __call__(self, percent: float, **fields: Any) -> None:
        try:
            await self._store.progress(self._job, {"percent": percent, **fields})
        except AWAY:
            return  # nobody can read it now; the next call may get through


def _decode(kind: Kind, job: Job) -> tuple[Outcome | None, Any]:
    """The args as the kind's type; Dead when they do not fit or are no JSON that any parser here reads."""
    try:
        args = kind.decode(job.args_json)
        if job.lane is None and kind.lane is not None:
            job.lane = kind.lane(args)
    except Exception as error:  # the kind's type and its lane are strangers' code, on strangers' data
        return Dead(f"args: {plain(error)}", code="invalid_args"), None
    return None, args
