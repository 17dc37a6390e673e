"""One job now, in this process: a row is inserted, claimed, run and finished as any other, under a lock of its kind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from socket import gethostname
from time import monotonic
from typing import Any

import asyncpg
import orjson

import sql
from daemon.config import Config
from daemon.controls import Controls
from daemon.crew import Crew
from daemon.database import Database
from daemon.endpoint_watch import EndpointStore, EndpointWatch
from daemon.finisher import WRITE_S, Finisher
from daemon.hand_overs import HandOvers
from daemon.lease import Lease
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.limits import Bucket, Limits
from daemon.observe import Observer
from daemon.operator_store import NewRow, OperatorStore
from daemon.outfit import secret_folders, wanted
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.settle import Transition, hand_back
from daemon.statements import AWAY
from daemon.store import Store
from daemon.terms import TermsBook, TermsStore
from daemon.worker_store import WorkerStore
from jobs.clients import Clients, open_clients
from jobs.model import Job
from jobs.registry import Kind
from jobs.secrets import Secrets

_SQL = sql.load("operator.sql")
LIMIT_LOOK_S = 0.5
"""How often to ask again for a place that somebody else holds."""


class Locked(Exception):
    """Another run of this kind is going on."""


class LockLost(Exception):
    """The connection that held the lock broke: another run may have begun, so this one was stopped."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the run came to; `late`: the row had gone to somebody else, so nothing of it was written."""

    transition: Transition
    late: bool


class _LastWord(Finisher):
    """Writes what the one attempt came to, and remembers it."""

    def __init__(self, store: Store, observer: Observer) -> None:
        super().__init__(store, observer, lambda: None)
        self.transition: Transition | None = None
        self.said = asyncio.Event()

    def add(self, transition: Transition) -> None:
        self.transition = self.transition or transition
        super().add(transition)
        self.said.set()

    def committed(self, transition: Transition, seconds: float, *, late: bool) -> None:
        self.transition = self.transition or transition
        super().committed(transition, seconds, late=late)
        self.said.set()


class _Ear(Observer):
    """Hears whether the result came too late."""

    late = False

    def late_result(self, job_id: int, kind: str, fence: int) -> None:
        self.late = True
        super().late_result(job_id, kind, fence)


class OneShot:
    """One `jobsd run`.  `stop()` hands the row back; `on_start` hears the handler's timeout when it begins."""

    def __init__(
        self,
        config: Config,
        database: Database,
        kind: Kind,
        observer: Observer,
        on_start: Callable[[float], None] = lambda timeout_s: None,
    ) -> None:
        self._config = config
        self._database = database
        self._kind = kind
        self._observer = _Ear(observer.log)
        self._on_start = on_start
        self._timeout_s = 0.0
        self._runner: Runner | None = None
        self._stopping = asyncio.Event()
        self._lock_lost = False

    def stop(self) -> None:
        """End the run; the second call does not wait for a handler that will not stop."""
        if self._stopping.is_set() and self._runner is not None:
            self._runner.abandon()
        self._stopping.set()
        if self._runner is not None:
            self._runner.cancel("drain")

    async def run(self, row: NewRow) -> Ending:
        """Insert `row` and run it to its end.  Locked when another run of its kind is going on."""
        async with (
            self._locked() as conn,
            self._pool() as pool,
            self._clients() as clients,
            self._worker(WorkerStore(pool)) as worker_id,
        ):
            job = await _claim_new(conn, row, worker_id)
            self._timeout_s = self._config.timeout_s(job.kind, job.queue, self._kind.timeout_s)
            ending = await self._attempt(pool, clients, job, worker_id)
        if self._lock_lost and ending.transition.outcome == "handed_back":
            raise LockLost
        return ending

    # --- what the run stands on -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[asyncpg.Connection]:
        conn = await self._database.connect()
        try:
            await conn.execute(_SQL["stay"])
            if not await conn.fetchval(_SQL["lock"], self._kind.name):
                raise Locked
            conn.add_termination_listener(self._on_lock_lost)
            yield conn
        finally:
            conn.remove_termination_listener(self._on_lock_lost)
            with suppress(*AWAY):  # then it is free already
                await conn.execute(_SQL["unlock"], timeout=5)
                await conn.close(timeout=5)

    def _on_lock_lost(self, _conn: Any) -> None:
        self._lock_lost = True
        self._fence()

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[asyncpg.Pool]:
        pool = await self._database.engine_pool()
        try:
            yield pool
        finally:
            pool.terminate()  # nothing is on the wire any more, unless Postgres does not answer

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[Clients]:
        async with await self._database.handler_pool() as pool:
            clients = open_clients(wanted(self._config), pool, Secrets(secret_folders(self._config)))
            try:
                yield clients
            finally:
                await clients.close()

    @asynccontextmanager
    async def _worker(self, workers: WorkerStore) -> AsyncIterator[int]:
        """A worker that serves no queue, so that no row but ours is its business; rescued like any when we die."""
        lease_s = self._config.daemon.lease
        lease = Lease(
            self._database.connect,
            lease_s,
            on_beat=self._observer.life.heartbeat,
            on_failure=self._observer.life.heartbeat_failed,
            on_silence=self._fence,
            on_lost=self._fence,
        )
        name, sent = f"jobsd run on {gethostname()}:{os.getpid()}", monotonic()
        worker_id = await workers.register(name, version("jobsd"), [self._kind.name], [], lease_s)
        lease.kinds = [self._kind.name]
        lease.hold(worker_id, sent)
        try:
            yield worker_id
        finally:
            await asyncio.get_running_loop().run_in_executor(None, lease.close)
            with suppress(*AWAY):  # its lease ends without us
                await workers.leave(worker_id)

    def _fence(self) -> None:
        if self._runner is not None:
            self._runner.cancel("fence")

    # --- the attempt ------------------------------------------------------------------------------------------------

    async def _attempt(self, pool: asyncpg.Pool, clients: Clients, job: Job, worker_id: int) -> Ending:
        store = Store(pool)
        finisher = _LastWord(store, self._observer)
        setup = Setup(self._config, clients, {self._kind.name: self._kind})
        self._runner = Runner(setup, store, finisher, self._observer)
        terms = TermsBook(TermsStore(pool))
        crew = Crew(store, self._runner, finisher, self._observer, lambda: worker_id, terms)
        controls = Controls(WorkerStore(pool), crew)
        limits = Limits(self._config.all_limits)
        hand_overs = HandOvers(Lender(LimitStore(pool), dict), lambda: limits, lambda: None, self._observer)
        clients.turns.serve(hand_overs)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(finisher.run())
            asking = group.create_task(controls.run())
            turns = group.create_task(hand_overs.alone(worker_id))
            gate = await self._gate(LimitStore(pool), terms, job, worker_id)
            if gate is not None:
                finisher.add(hand_back(job, gate=gate))
            else:
                self._on_start(self._timeout_s)
                self._runner.start(job)
            await finisher.said.wait()
            asking.cancel()
            turns.cancel()
            finisher.close()
            await asyncio.wait({writing}, timeout=WRITE_S)
            written = writing.done()
            await self._runner.notes.aclose()
            writing.cancel()
        await self._tell_of_endpoints(pool, clients)
        if finisher.transition is None or not written:
            raise TimeoutError("the database did not take the result in time; its lease ends, and the row is rescued")
        return Ending(finisher.transition, self._observer.late)

    async def _tell_of_endpoints(self, pool: asyncpg.Pool, clients: Clients) -> None:
        store, patience_s = EndpointStore(pool), self._config.webhook.disable_after
        try:
            await EndpointWatch(store, clients.health, lambda: patience_s, self._observer).flush()
        except AWAY as error:
            self._observer.keeper_failed("endpoints", error)

    async def _gate(self, limits: LimitStore, terms: TermsBook, job: Job, worker_id: int) -> str | None:
        """Where the row goes instead of being run; None when it may run."""
        try:
            short = await self._admit(limits, terms, job, worker_id)
        except AWAY as error:
            self._observer.claim_failed(error)
            return ""
        if short is not None:
            return short.gate
        return "" if self._stopping.is_set() or self._lock_lost else None

    async def _admit(self, limits: LimitStore, terms: TermsBook, job: Job, worker_id: int) -> Bucket | None:
        """Wait for the limits it falls under, as long as it may run; the one that was not to be had.  What is taken is
        given back when the worker leaves."""
        args = self._kind.decode(job.args_json)
        if job.lane is None and self._kind.lane is not None:
            job.lane = self._kind.lane(args)
        await terms.learn([job])
        own = terms.bucket_of(job.lane)
        buckets = Limits(self._config.limits).buckets(job, _object(job)) + (() if own is None else (own,))
        give_up_at = monotonic() + self._timeout_s
        lender = Lender(limits, dict)
        while buckets:
            await lender.lease(worker_id, dict.fromkeys(buckets, 1))
            short = next((bucket for bucket in buckets if not lender.usable(bucket)), None)
            if short is None:
                lender.spend(dict.fromkeys(buckets, 1))
            over = self._stopping.is_set() or (short and monotonic() + lender.pause_s(short) > give_up_at)
            await lender.tidy(worker_id, buckets, all_of_it=short is None or bool(over))
            if short is None or over:
                return short
            await self._stopped_within(min(max(lender.next_at(buckets) - monotonic(), 0.01), LIMIT_LOOK_S))
        return None

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


async def _claim_new(conn: asyncpg.Connection, row: NewRow, worker_id: int) -> Job:
    """Insert and claim in one commit, so that no daemon sees the row in between."""
    async with conn.transaction():
        job_id, _added = await OperatorStore(conn).enqueue(row)
        claimed = await conn.fetchrow(_SQL["claim_one"], job_id, worker_id)
    if claimed is None:
        raise TimeoutError("the lease of this run was over before it began")
    return Job(*claimed)


def _object(job: Job) -> dict[str, Any]:
    """The args for limits that go by one of them."""
    found = orjson.loads(job.args_json)
    return found if isinstance(found, dict) else {}
