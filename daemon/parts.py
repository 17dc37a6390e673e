"""The parts of one daemon, built and joined: who calls whom, and when."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from time import monotonic
from typing import Any

import asyncpg

from daemon import systemd
from daemon.claimer import Claimer
from daemon.controls import Controls
from daemon.crew import Crew
from daemon.database import Database
from daemon.deliveries import Deliveries
from daemon.domains import Domains
from daemon.endpoint_watch import EndpointStore, EndpointWatch
from daemon.finisher import Finisher
from daemon.keeper import Keeper
from daemon.lag import probe
from daemon.lane_store import LaneStore
from daemon.lanes import Lanes
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.listener import Listener
from daemon.membership import Membership
from daemon.observe import Observer, Slots
from daemon.parking import Parking
from daemon.reload import Reload
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.schedule_store import ScheduleStore
from daemon.scheduler import Scheduler
from daemon.settle import Transition
from daemon.store import Store
from daemon.strays import Strays
from daemon.tallies import Tallies
from daemon.terms import TermsBook, TermsStore
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore

QUIET_S = 2.0
"""Beyond its poll's interval: Postgres may take so long to answer before it counts as away."""


class Parts:
    """Everything that works, and nothing that runs yet: `loops` are run by whoever built this."""

    def __init__(
        self,
        database: Database,
        pool: asyncpg.Pool,
        conns: asyncpg.Pool,
        reload: Reload,
        setup: Setup,
        observer: Observer,
        watchdog: systemd.Watchdog,
    ) -> None:
        self._pool = pool
        self._reload = reload
        self._observer = observer
        self._watchdog = watchdog
        answer_s = database.answer_s
        store = Store(pool, timeout_s=answer_s)
        workers = WorkerStore(pool, timeout_s=answer_s)
        self.parking = Parking(pool, setup, observer, self._serve)
        self.finisher = Finisher(store, observer, lambda: watchdog.beat("finisher"))
        self.runner = Runner(self.parking.served, store, self.finisher, observer, conns)
        self.membership = Membership(
            database.connect,
            lambda: reload.config,
            workers,
            self.runner,
            observer,
            on_beat=self._skewed,
            on_try=lambda: watchdog.beat("heartbeat"),
            on_anew=lambda: self.claimer.look_again(),
        )
        worker_id = self.membership.worker_id
        lane_store = LaneStore(pool, timeout_s=answer_s)
        self._lanes = Lanes(lane_store, lambda lane: reload.config.lane(lane), worker_id, observer)
        self.terms = TermsBook(TermsStore(pool, timeout_s=answer_s))
        crew = Crew(store, self.runner, self.finisher, observer, worker_id, self.terms)
        lender = Lender(LimitStore(pool, timeout_s=answer_s), self.runner.places)
        self.claimer = Claimer(crew, lender, self._lanes, self._claimer_beat)
        setup.tools.turns.serve(self.claimer.admission.hand_overs)
        self._controls = Controls(workers, crew)
        self.listener = Listener(
            database.connect,
            database.channel,
            self.claimer.hint,
            self.claimer.look_again,
            observer,
            on_call=self._called,
        )
        tallies = Tallies(lambda: self.membership.lease.worker_id)
        self.finisher.on_written.append(tallies.ended)
        self.finisher.on_written.append(Deliveries(observer).written)
        self.finisher.on_written.append(Domains(observer).written)
        self.finisher.on_written.append(self._count_upkeep)
        self.keeper = Keeper(
            UpkeepStore(pool, timeout_s=answer_s),
            observer,
            lambda: reload.config,
            self.claimer.look_again,
            self._sample,
            Strays(crew).check,
            tallies,
        )
        self._scheduler = Scheduler(ScheduleStore(pool, timeout_s=answer_s), observer, setup.config.all_schedules)
        self.endpoint_watch = EndpointWatch(
            EndpointStore(pool, timeout_s=answer_s),
            setup.tools.health,
            lambda: reload.config.webhook.disable_after,
            observer,
        )
        observer.watch_slots(self._slots)

    def loops(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """What is cancelled when the daemon stops; claimer and finisher, which are closed, are not among them."""
        return [
            ("limits", self.claimer.admission.run()),
            ("listener", self.listener.run()),
            ("controls", self._controls.run()),
            ("keeper", self.keeper.run()),
            ("scheduler", self._scheduler.run()),
            ("parking", self.parking.run()),
            ("lanes", self._lanes.run()),
            ("endpoints", self.endpoint_watch.run()),
            ("watchdog", self._watchdog.run()),
            ("lag", probe(self._observer)),
            ("membership", self.membership.stay()),
        ]

    def apply(self, setup: Setup) -> None:
        """What a reload has prepared: attempts that start from now on go by it."""
        self.parking.reload(setup)
        self._scheduler.reload(setup.config.all_schedules)

    def _serve(self, setup: Setup) -> None:
        """These kinds from now on."""
        self.runner.setup = setup
        self.membership.lease.kinds = sorted(setup.kinds)
        self.claimer.reload()

    def database_trouble(self) -> str | None:
        """Postgres has not answered for too long."""
        quiet_s = monotonic() - self.claimer.answered_at
        allowed_s = self._reload.config.daemon.poll_interval + QUIET_S
        return None if quiet_s < allowed_s else f"no answer for {quiet_s:.0f} s"

    def _called(self) -> None:
        """An operator wants something: attempts stopped, pauses begun or ended, rows at another place or time."""
        self._controls.call()
        self._scheduler.look_again()
        self.keeper.look_again()
        self.claimer.look_again()

    def _skewed(self, skew_s: float) -> None:
        self._scheduler.skew_s = skew_s

    def _claimer_beat(self) -> None:
        self._watchdog.beat("claimer")
        if self.finisher.backlog == 0:
            self._watchdog.beat("finisher")

    def _count_upkeep(self, batch: Sequence[Transition], ours: Collection[int]) -> None:
        """What jobs of the config say they have done, in numbers."""
        jobs = self._reload.config.jobs
        for t in batch if jobs else ():
            if t.job.kind in jobs and t.state == "done" and t.job.id in ours and isinstance(t.result, dict):
                self._observer.upkeep.job_rows(t.job.kind, t.result)

    def _slots(self) -> dict[str, Slots]:
        config, busy = self._reload.config, self.runner.busy
        names = {*busy, *(name for name in config.queues if "*" not in name)}
        return {name: Slots(busy[name], config.queue(name).concurrency) for name in names}

    def _sample(self) -> None:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        self._observer.life.pool(size, idle)
        systemd.status(f"serving; {len(self.runner)} running, {self.finisher.backlog} results to write")
