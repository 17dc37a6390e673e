"""Destinations: who of their rows may start here, what attempts tell of them, and when a closed one is tried."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from math import inf
from time import monotonic

from daemon.breaker import Breaker, open_s
from daemon.lane_store import Closing, Hold, LaneStore
from daemon.lane_sweep import Sweep
from daemon.observe import Observer
from daemon.statements import AWAY
from daemon.work_settings import LANE_PATTERN, LaneSettings
from jobs.model import Done, Failure, Job, Outcome, Retry, Snooze

LANE_GATE = "lane:"

LOOK_S = 0.9
"""Between two looks at the holds of lanes whose rows wait here."""

FORGET_S = 600.0
"""Between two looks for lanes that nobody wants any more."""

IDLE_S = 3600.0
"""A closed lane without rows is forgotten so long after it could have been tried: the next row finds it open."""

LANES_MAX = 10_000
"""Lanes known at once; beyond it those go first that were not used for the longest time."""

GATES_MAX = 1_000
"""Gates asked about in one look."""

PROBES_MAX = 20
"""Probes under way in one daemon: they come on top of what a queue may run, and may all hang."""

FULL_MAX = 100
"""Lanes that a claim is told of as being full."""

STUCK_S = 0.3
"""A lane is full for a moment whenever it is busy, and is passed by only when nothing has moved there for so long."""

UNUSED_S = 3.0
"""A probe that was given to us and finds no row by then is given up."""

PROLONGS_S = 1.0
"""A hundred rows that are told to come back later at the same time are worth one hold."""


def gate_of(lane: str) -> str:
    return LANE_GATE + lane


@dataclass(slots=True)
class _Probe:
    """One that was given to us; `row` is the (id, fence) that makes it."""

    given_at: float
    rung: int
    row: tuple[int, int] | None = None


class Lanes:
    """One per daemon.  `admit` and `saw` are called once for each attempt, in this order; neither waits."""

    def __init__(
        self,
        store: LaneStore,
        settings: Callable[[str], LaneSettings],
        worker_id: Callable[[], int | None],
        observer: Observer,
        *,
        clock: Callable[[], float] = monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._settings = settings
        self._worker_id = worker_id
        self._observer = observer
        self._clock = clock
        self._dice = dice
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()
        self._waiting: dict[str, str] = {}  # gate → a queue with rows at it
        self._probes: dict[str, _Probe] = {}
        self._tight: set[str] = set()
        self._stuck: set[str] = set()  # gates that the sweep was told of
        self._closings: dict[tuple[str, str], Closing] = {}
        self._openings: set[str] = set()
        self._given_up: set[str] = set()
        self._wake = asyncio.Event()
        self._look_at = 0.0
        self._forget_at = clock() + FORGET_S
        self.sweep = Sweep(store, self.full, self.stuck, observer, clock=clock)
        self.on_probe: Callable[[str, str], None] = lambda queue, gate: None
        """One row may be claimed from this (queue, gate), however busy the queue is."""
        self.on_open: Callable[[str], None] = lambda gate: None
        """Rows at this gate may be claimed again, as many as `may_claim` says."""

    # --- what the claimer asks --------------------------------------------------------------------------------------

    def waits(self, places: Iterable[tuple[str, str]]) -> None:
        """The (queue, gate) pairs with due rows that this daemon serves, as a look at the table saw them."""
        self._waiting = {gate: queue for queue, gate in places if gate.startswith(LANE_GATE)}
        if self._waiting:
            self._wake.set()

    def may_claim(self, gate: str) -> int | None:
        """How many rows of a gate lane:X may be claimed now: 0, it is closed or busy enough; None, any number."""
        return self._room(gate.removeprefix(LANE_GATE), self._clock())

    def full(self) -> list[str]:
        """Gates of lanes that have refused a row and still would: a claim need not bring more of them."""
        if not self._tight:
            return []
        now = self._clock()
        for lane in [lane for lane in self._tight if self._room(lane, now) != 0]:
            self._tight.discard(lane)
        return [gate_of(lane) for lane in islice(self._tight, FULL_MAX)]

    def stuck(self) -> list[str]:
        """Those of the full where nothing has begun or ended for a while: rows of the others behind theirs need not
        wait for them."""
        now = self._clock()
        return [gate for gate in self.full() if now - self._used_at(gate) > STUCK_S]

    def met(self, place: tuple[str, str], priority: int) -> None:
        """Claims had to move so many rows of this (queue, gate) and class that there are most likely more."""
        self.sweep.begin(place, priority)
        self._wake.set()

    def admit(self, job: Job) -> bool:
        """Whether this claimed row may start; if not, it belongs to the gate of its lane."""
        lane = job.lane
        if not isinstance(lane, str):  # none, or whatever a handler's function returned
            return True
        breaker = self._breakers.get(lane)
        now = self._clock()
        if breaker is None:
            if not LANE_PATTERN.fullmatch(lane):
                return True
            breaker = self._add(lane, now)
        if breaker.granted:
            probe = self._probes.get(lane)
            if probe is None or job.gate != gate_of(lane):
                return False
            probe.row, breaker.granted = (job.id, job.fence), False
        elif breaker.room(now) == 0:
            if len(self._tight) < LANES_MAX:
                self._tight.add(lane)
            return False
        breaker.started(now)
        self._breakers.move_to_end(lane)
        return True

    # --- what attempts tell -----------------------------------------------------------------------------------------

    def saw(self, job: Job, said: Outcome | None) -> None:
        """An admitted attempt has ended; None: it was stopped, and its row goes back."""
        if not isinstance(job.lane, str) or (breaker := self._breakers.get(job.lane)) is None:
            return
        lane, now = job.lane, self._clock()
        fault, after_s = _told(said)
        probe = self._probes.get(lane)
        if probe is not None and probe.row == (job.id, job.fence):
            breaker.ended(None, now, 0.0)
            del self._probes[lane]
            self._probed(lane, breaker, probe, said)
        elif after_s is not None and breaker.settings.enabled:
            breaker.ended(None, now, 0.0)
            breaker.throttle()
            left_s = (breaker.closed_until or now) - now
            if isinstance(said, Failure) and (not breaker.closed or after_s > left_s + PROLONGS_S):
                rung = max(0, breaker.rung - 1) if breaker.closed else 0
                self._close(lane, breaker, said.lane_cause, after_s, rung, f"{said.code}: {said.reason}")
        elif (seconds := breaker.ended(fault, now, self._dice())) is not None and isinstance(said, Failure):
            self._close(lane, breaker, "breaker", seconds, breaker.rung, f"{said.code}: {said.reason}")

    def _probed(self, lane: str, breaker: Breaker, probe: _Probe, said: Outcome | None) -> None:
        fault, after_s = _told(said)
        self._observer.lane_probed(lane, "unknown" if fault is None else "failed" if fault else "well")
        if fault is False:
            self._openings.add(lane)
            self._reopen(lane, breaker)
        elif fault and isinstance(said, Failure):
            cause = "breaker" if after_s is None else said.lane_cause
            seconds = open_s(breaker.settings, probe.rung + 1, self._dice()) if after_s is None else after_s
            self._close(lane, breaker, cause, seconds, probe.rung + 1, f"{said.code}: {said.reason}")
            self._given_up.add(lane)  # what is left of holds for other causes, after the new one is written
        elif isinstance(said, Retry | Snooze):  # it may have reached the destination, so not at once
            seconds = open_s(breaker.settings, 0, self._dice())
            self._close(lane, breaker, "breaker", seconds, probe.rung, f"its probe told nothing: {said.reason}")
            self._given_up.add(lane)
        else:
            self._given_up.add(lane)
            self._wake.set()

    def _close(self, lane: str, breaker: Breaker, cause: str, seconds: float, rung: int, reason: str) -> None:
        breaker.close(self._clock() + seconds, rung)
        self._closings[gate_of(lane), cause] = Closing(gate_of(lane), cause, seconds, rung, reason)
        self._observer.lane_closed(lane, cause, seconds, reason)
        self._wake.set()

    def _reopen(self, lane: str, breaker: Breaker) -> None:
        breaker.open(self._clock())
        self._observer.lane_opened(lane)
        self.sweep.again()
        self._wake.set()

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: write what was decided at once, and look at the holds while rows wait at a lane's gate."""
        while True:
            self._wake.clear()
            try:
                await self.step()
            except AWAY as error:
                self._observer.keeper_failed("lanes", error)
                await asyncio.sleep(LOOK_S)
            await self._nap()

    async def step(self) -> None:
        """One round."""
        worker_id, now = self._worker_id(), self._clock()
        if worker_id is None:
            return
        await self._write(worker_id)
        stuck = set(self.stuck())
        if self._stuck - stuck:
            self.sweep.again()
        self._stuck = stuck
        await self.sweep.step()
        if self._waiting and now >= self._look_at:
            self._look_at = now + LOOK_S * (1.0 + 0.2 * self._dice())
            await self._look(worker_id)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_S
            self._forget(now)
            await self._store.forget_lanes(IDLE_S, GATES_MAX)

    async def _write(self, worker_id: int) -> None:
        """What is not written when Postgres goes away is written when it is back."""
        if self._closings:
            closings = dict(self._closings)
            await self._store.close_lanes(list(closings.values()), worker_id)
            for key, closing in closings.items():
                if self._closings.get(key) is closing:
                    del self._closings[key]
        for lanes, write in (
            (self._openings, self._store.open_lanes),
            (self._given_up, self._store.give_up_probes),
        ):
            if lanes:
                written = set(lanes)
                await write([gate_of(lane) for lane in written], worker_id)
                lanes -= written
                for lane in written if lanes is self._openings else ():
                    self.on_open(gate_of(lane))

    async def _look(self, worker_id: int) -> None:
        now = self._clock()
        for lane, probe in list(self._probes.items()):
            if probe.row is None and now - probe.given_at > UNUSED_S:
                self._drop_probe(lane)
        gates = list(self._waiting)[:GATES_MAX]
        probe_s = {gate: self._settings(gate.removeprefix(LANE_GATE)).probe_timeout for gate in gates}
        holds: dict[str, list[Hold]] = {gate: [] for gate in gates}
        for hold in await self._store.holds(probe_s, worker_id, max(0, PROBES_MAX - len(self._probes))):
            holds[hold.gate].append(hold)
        for gate, found in holds.items():
            self._learn(gate, found)

    def _learn(self, gate: str, holds: list[Hold]) -> None:
        """What the database says about a lane is what counts, unless we are about to write something else."""
        lane, now = gate.removeprefix(LANE_GATE), self._clock()
        if lane in self._openings or any(key[0] == gate for key in self._closings):
            return
        breaker = self._breakers.get(lane)
        if not holds:
            if breaker is not None and breaker.closed:
                self._reopen(lane, breaker)
                self.on_open(gate)
            return
        breaker = breaker or self._add(lane, now)
        if any(hold.won for hold in holds):
            if gate not in self._waiting:
                self._given_up.add(lane)
                return
            rung = max(hold.rung for hold in holds)
            self._probes[lane] = _Probe(now, rung)
            breaker.close(now, rung)
            breaker.granted = True
            self.on_probe(self._waiting[gate], gate)
        elif lane not in self._probes:
            left_s = max(inf if hold.left_s is None else hold.left_s for hold in holds)
            breaker.close(now + left_s, max((hold.rung for hold in holds if hold.cause != "pause"), default=-1))

    def _drop_probe(self, lane: str) -> None:
        del self._probes[lane]
        self._given_up.add(lane)
        if (breaker := self._breakers.get(lane)) is not None:
            breaker.granted = False

    def _used_at(self, gate: str) -> float:
        breaker = self._breakers.get(gate.removeprefix(LANE_GATE))
        return -inf if breaker is None else breaker.used_at

    def _room(self, lane: str, now: float) -> int | None:
        return (self._breakers.get(lane) or Breaker.of(self._settings(lane), now)).room(now)

    def _add(self, lane: str, now: float) -> Breaker:
        if len(self._breakers) >= LANES_MAX:
            self._forget(now)
        while len(self._breakers) >= LANES_MAX:
            oldest, of = self._breakers.popitem(last=False)
            if oldest in self._probes:  # they are few
                self._breakers[oldest] = of
        breaker = self._breakers[lane] = Breaker.of(self._settings(lane), now)
        return breaker

    def _forget(self, now: float) -> None:
        for lane in [lane for lane, breaker in self._breakers.items() if breaker.forgettable(now)]:
            if lane not in self._probes:
                del self._breakers[lane]

    def reload(self) -> None:
        """Other settings: they count from now on, and what is known stays."""
        for lane, breaker in self._breakers.items():
            breaker.settings = self._settings(lane)

    async def _nap(self) -> None:
        now = self._clock()
        until = min(self._look_at, self._forget_at) if self._waiting else self._forget_at
        sweep_at = self.sweep.due_at
        if self._worker_id() is None:
            until = now + LOOK_S
        elif self._closings or self._openings or self._given_up or (sweep_at is not None and sweep_at <= now):
            return
        elif sweep_at is not None:
            until = min(until, sweep_at)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._wake.wait()
        except TimeoutError:
            return  # nobody called; the clock did


def _told(said: Outcome | None) -> tuple[bool | None, float | None]:
    """Whether the destination is to blame (None: it is not said), and for how long it asks to be left alone."""
    if isinstance(said, Done):
        return False, None
    if isinstance(said, Failure):
        return (said.lane_fault if said.lane_after_s is None else True), said.lane_after_s
    return None, None
