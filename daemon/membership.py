"""This daemon among the workers: it registers, keeps its lease, and begins anew when it has lost it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import version
from socket import gethostname
from time import monotonic

from daemon.config import Config
from daemon.database import until_there
from daemon.lease import Connect, Lease
from daemon.observe import Observer
from daemon.runner import Runner
from daemon.statements import AWAY
from daemon.worker_store import WorkerStore

REGISTER_S = 10.0
"""A registration not answered by then is tried again on another connection; its row, if there is one, runs out."""


class Membership:
    """`on_beat(skew_s)`: a heartbeat was answered, and the database's clock is so far ahead of ours; `on_try`: one was
    tried; `on_anew`: this daemon is registered again."""

    def __init__(
        self,
        connect: Connect,
        config: Callable[[], Config],
        store: WorkerStore,
        runner: Runner,
        observer: Observer,
        *,
        on_beat: Callable[[float], None],
        on_try: Callable[[], None],
        on_anew: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._runner = runner
        self._observer = observer
        self._on_beat = on_beat
        self._on_try = on_try
        self._on_anew = on_anew
        self._unregistered = asyncio.Event()
        self.lease = Lease(
            connect,
            config().daemon.lease,
            on_beat=self._heard_back,
            on_failure=self._not_heard_back,
            on_silence=self._fence,
            on_lost=self._lost,
        )
        self.lease.running = lambda: self._runner.busy

    def worker_id(self) -> int | None:
        """Whose rows may be claimed here; None while heartbeats go unanswered."""
        return None if self.lease.silent else self.lease.worker_id

    async def register(self) -> None:
        """As a new worker."""
        daemon, kinds = self._config().daemon, sorted(self._runner.setup.kinds)
        sent = monotonic()
        name = daemon.name or f"{gethostname()}:{os.getpid()}"
        async with asyncio.timeout(REGISTER_S):
            worker_id = await self._store.register(name, version("jobsd"), kinds, daemon.queues, daemon.lease)
        self.lease.kinds = kinds
        self.lease.hold(worker_id, sent)
        self._observer.life.worker_registered(worker_id)

    async def stay(self) -> None:
        """A lost lease is never had again: its rows may be others' by now.  Begin anew, as somebody else."""
        while True:
            await self._unregistered.wait()
            self._unregistered.clear()
            await until_there(self.register, self._observer.life.heartbeat_failed)
            self._on_anew()

    async def leave(self, worker_id: int) -> None:
        """Say that this daemon goes; should nobody hear it, its lease runs out."""
        try:
            await self._store.leave(worker_id)
        except AWAY as error:
            self._observer.life.heartbeat_failed(error)

    def _heard_back(self, seconds: float, skew_s: float) -> None:
        self._on_try()
        self._on_beat(skew_s)
        self._observer.life.heartbeat(seconds, skew_s)

    def _not_heard_back(self, error: BaseException) -> None:
        self._on_try()  # it tries: a database that is away is no reason to be killed
        self._observer.life.heartbeat_failed(error)

    def _fence(self) -> None:
        self._observer.life.worker_fenced(self.lease.worker_id, self._runner.cancel("fence"))

    def _lost(self) -> None:
        self._observer.life.worker_lost("its lease ran out before a heartbeat reached the database")
        self._runner.cancel("fence")
        self._unregistered.set()
