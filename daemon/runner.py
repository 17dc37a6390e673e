"""Run claimed jobs, each to its transition: whatever a handler does, one comes out."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Any

import asyncpg

from daemon.attempt import Handling, Progress, Running
from daemon.finisher import Finisher
from daemon.hands import Hands
from daemon.limits import Bucket
from daemon.notes import Notes
from daemon.observe import Observer
from daemon.ordering import own_order_wait_s
from daemon.rules import RuleBook, Rules, Setup
from daemon.settle import Transition, hand_back, refuse, settle, unwanted
from daemon.store import Store
from daemon.transactions import Transactions
from daemon.verdict import decode, transition
from jobs.context import Context
from jobs.model import Job, Outcome, Retry

LEAK_GRACE_S = 5.0
"""A handler that goes on so long after it was told to stop is given up: its row is settled, its slot stays taken."""

SWEEP_S = 0.05
"""How late the end of an attempt's time may be noticed."""

FAULT_PAUSE_S = 60.0
"""A row whose attempt failed by a fault of the daemon itself goes back uncharged, and not at once."""


class Runner:
    """Owns the running attempts: starts them, ends those that overstay, and counts the slots of each queue."""

    def __init__(
        self, setup: Setup, store: Store, finisher: Finisher, observer: Observer, conns: asyncpg.Pool | None = None
    ) -> None:
        """`conns`: for transactional handlers; those of all handlers, if there are no others."""
        self.setup = setup
        self._transactions = Transactions(store, lambda: conns or self.setup.tools.db)
        self._book = RuleBook(observer.profile_unknown)
        self.busy: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()  # of these: rows that have failed before
        self.orgs: Counter[tuple[str, str]] = Counter()  # what runs by (queue, organisation)
        self.on_free: Callable[[Running], None] = lambda running: None
        self.on_said: Callable[[Job, Outcome | None], None] = lambda job, said: None
        self._finisher = finisher
        self._observer = observer
        self.notes = Notes(store, observer, lambda: self.setup.config.log.job_lines)
        self._keep_line = self.notes.line
        self._running: dict[tuple[int, int], Running] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeping = False
        self._loop = asyncio.get_running_loop()
        self._handling = Handling()
        self._hands = Hands(self._attempt)

    def __len__(self) -> int:
        return len(self._running)

    def known(self) -> set[tuple[int, int]]:
        """(id, fence) of the rows in a slot."""
        return set(self._running)

    def places(self) -> Counter[Bucket]:
        """How many places of each concurrency limit the running attempts hold."""
        return Counter(b for running in self._running.values() for b in running.buckets if b.places is not None)

    def start(self, job: Job, buckets: tuple[Bucket, ...] = ()) -> None:
        """Run `job`; `on_free` is called when its slot is free.

        A claim that Postgres lost in a crash of its own and made again is the attempt that runs here already.
        """
        if (job.id, job.fence) in self._running:
            self._finisher.claims.written([job])  # its own claim stays until nothing of it runs here
            self.on_said(job, None)
            return
        running = Running(job, buckets)
        self.busy[job.queue] += 1
        if job.attempt > 1 and job.is_retry:
            self.retries[job.queue] += 1
        if job.org_id is not None:
            self.orgs[job.queue, job.org_id] += 1
        self._running[job.id, job.fence] = running
        self._idle.clear()
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        kind = self.setup.kinds.get(job.kind)
        self._hands.take(running, waits=kind is not None and (kind.many is not None or kind.transactional))

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
        current = list(self._running.values())
        while any(not (running.begun or running.settled) for running in current):  # noqa: ASYNC110  as the loop turns
            await asyncio.sleep(0)
        if tasks := {running.task for running in current if running.task is not None}:
            await asyncio.wait(tasks)

    async def _attempt(self, running: Running) -> None:
        """From the first step to the free slot.  It frees the slot itself: a done-callback is a loop's turn dearer."""
        running.begun = True
        try:
            job, context, trace = running.job, None, None
            rules = self._book.rules(self.setup, job)
            if job.max_attempts is None:  # resolved, so that a handler can see which attempt is its last
                job.max_attempts = rules.policy.max_attempts
            outcome, args = refuse(job, job.max_attempts), None
            if outcome is None:
                outcome, args = decode(rules.kind, job)
            if outcome is None:
                context = self._context(running)
                if rules.kind.transactional:
                    await self._in_transaction(running, rules, args, context)
                    return
                running.deadline = perf_counter() + rules.timeout_s
                outcome, trace = await self._handling.call(rules.kind, args, context, running, rules.timeout_s)
                running.said = outcome
            if not running.settled:
                self._settled(running, transition(job, rules, context, outcome, trace))
        except Exception as fault:  # ours, not the handler's: the row must not stay with us
            self._observer.task_died(f"attempt of job {running.job.id}", fault)
            if not running.settled:
                self._settled(running, hand_back(running.job, delay_s=FAULT_PAUSE_S))
        finally:
            self._ended(running)

    def _context(self, running: Running) -> Context:
        """What its handler gets; it starts now."""
        job = running.job
        self._observer.started(job, job.claimed_at - job.run_at + perf_counter() - running.started)
        return Context(job, self.setup.tools, self._observer.log_for(job, self._keep_line), Progress(self.notes, job))

    async def _in_transaction(self, running: Running, rules: Rules, args: Any, context: Context) -> None:
        """The handler's work and the row's end in one commit, or neither."""
        job, written = running.job, perf_counter()
        timeout_s = min(rules.timeout_s, self.setup.config.database.transaction_timeout)

        async def call(conn: asyncpg.Connection) -> Transition:
            nonlocal written
            context.lend(conn)
            running.deadline = perf_counter() + timeout_s
            outcome, trace = await self._handling.call(rules.kind, args, context, running, timeout_s)
            running.said = outcome
            context.lend(None)
            if running.settled:  # given up meanwhile
                return hand_back(job)
            if running.why is None:
                running.deadline = inf
            t, written = transition(job, rules, context, outcome, trace), perf_counter()
            if t.state == "done":
                self.notes.close_with(t)
            return t

        def instead(outcome: Outcome | None, delay_s: float | None) -> Transition:
            running.said = outcome
            if outcome is None:
                return hand_back(job, delay_s=delay_s)
            return transition(job, rules, context, outcome, None)

        t, fate = await self._transactions.run(call, instead, lambda: self._finisher.claims.ending([job]))
        if running.settled:
            return
        if fate == "open":
            self._settled(running, t)
        else:
            self._said(running, t)
            self._finisher.committed(t, perf_counter() - written, late=fate == "late")

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
        policy = self._book.rules(self.setup, running.job).policy
        reason = Retry("did not stop when its time was over", code="timeout", lane_fault=True)
        most = running.job.max_attempts or policy.max_attempts
        running.said = reason
        self._settled(running, settle(running.job, reason, policy, most, random.random()))  # noqa: S311  jitter

    def _settled(self, running: Running, t: Transition) -> None:
        self._finisher.add(self._said(running, t))

    def _said(self, running: Running, t: Transition) -> Transition:
        """Tell what comes of the attempt; with all that is to be written of it."""
        running.settled = True
        if running.job.lane is not None:
            self.on_said(running.job, running.said)
        if running.wish is not None and t.state == "ready":
            t = unwanted(t, *running.wish)
            queue = self.setup.config.queue(t.job.queue)
            t.keep = queue.keep_dead is None or queue.keep_dead > 0
        if self.notes.open:
            self.notes.close_with(t)
        if t.code == "invalid_args":
            self._observer.poison(t.job.id, t.job.kind, t.code)
        else:
            duration_s = perf_counter() - running.started
            self._observer.ended(t.job, t.outcome, duration_s, t.code, t.reason, t.delay_s, t.trace)
        if t.failed and t.job.ordering_key is not None:
            wait_s = self.setup.config.order_wait_s(t.job.kind, t.job.queue)
            t.order_wait_s = wait_s if t.job.terms is None else own_order_wait_s(t.job.terms.ordering, wait_s)
        return t

    def _ended(self, running: Running) -> None:
        """The slot is free.  An attempt that was cancelled before its first step has settled nothing."""
        if not running.settled:
            self._settled(running, hand_back(running.job))
        job = running.job
        self.busy[job.queue] -= 1
        if job.attempt > 1 and job.is_retry:
            self.retries[job.queue] -= 1
        if job.org_id is not None:
            self.orgs[job.queue, job.org_id] -= 1
            if not self.orgs[job.queue, job.org_id]:
                del self.orgs[job.queue, job.org_id]
        del self._running[running.job.id, running.job.fence]
        if not self._running:
            self._idle.set()
        self.on_free(running)
