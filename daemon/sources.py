"""The claimer's map: which (queue, gate) may have due rows, and how many to ask each for.  Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import NamedTuple

from daemon.lanes import LANE_GATE
from daemon.limits import GATE
from daemon.low_water import LowWater
from daemon.passed import Passed, Position
from daemon.pattern import is_pattern, matches
from daemon.shares import Ageing, Shares
from daemon.store import Ask, Freed, Head, Mark, Ripe, Waiting
from jobs.model import Job

KIND_GATE = "kind:"
LATER_GATE = "later"
"""Where rows of the open queue wait for their time, off the path of those that may run now."""
RETRY_GATE = "retry"
"""Where rows are due that have failed before: claims take a share of the slots for them while first attempts wait."""
ORDER_GATE = "order"
"""Where rows wait behind an earlier one of their ordering key, until that has ended: nobody claims from there."""
SUSPECT_GATE = "suspect"
"""Where rows wait that one more crash would bury; a daemon runs them one at a time, so that a row is buried for its own
crashes and not for those of the rows beside it."""
CANCEL_GATE = "cancel"
"""Where rows end that came back although somebody wants them stopped; nobody claims from it."""
MOST = 1000
"""Places of one page of a look.  Those of the last two pages are known: all have their turn as the pages go by."""

HINTED_MAX = 50
"""A hint does not say where a row was inserted.  So many open queues are simply asked; beyond, a look is cheaper."""

RIPENING_MAX = 100
"""Queues and classes whose rows are brought back by one statement; the others by the next."""

FEW = 10
"""Rows asked of a place at least where very many are ripe, and one claim has no room for all."""

LATER_MAX = 2000
"""Queues and classes whose next time is known, the soonest; the others are found again by the looks."""

SURVEY_S = 0.25
"""How often to ask who waits at a place with more rows than slots, when nobody inserts; hints make it sooner."""

COMPANY_S = 10.0
"""So long after several organisations were last seen at a place, slots are kept for the next that comes."""

ABOUT_S = 10.0
"""So long after a first attempt was claimed retries leave the slots alone that are kept: the next starts at once."""

Place = tuple[str, str]

ANYWHERE = "?"
"""No gate: of a row whose place is not known."""


def for_retries(limit: int) -> int:
    """How many of a queue's slots retries may hold while first attempts wait: 30 %."""
    return -(-limit * 3 // 10)


class Slots(NamedTuple):
    """Of one queue: how many are free, and how many of all are kept for organisations that run nothing while others
    would fill them all: who comes with one row does not wait for somebody's long job to end.  `retries`: how many more
    of these may start while first attempts wait."""

    free: int
    kept: int = 0
    runs: Callable[[str], bool] = lambda org_id: True
    retries: int = MOST


@dataclass(slots=True)
class _State:
    ripe: bool = True
    due_at: float | None = None  # when its next row is due
    shut_until: float = 0.0  # set aside until then
    full: bool = False  # the last claim gave all it was asked for: others may wait
    marks: LowWater = field(default_factory=LowWater)
    passed: Passed = field(default_factory=Passed)
    classes: set[int] = field(default_factory=set)  # that the last look saw
    ageing: Ageing = field(default_factory=Ageing)
    shares: Shares | None = None
    survey_at: float = 0.0  # not before
    company_until: float = 0.0  # several organisations are about
    asked_at: float = 0.0
    about_until: float = 0.0  # rows come here now and then
    fails: bool = False  # the last claim from here gave retries

    def lower(self, priority: int, run_at: float) -> None:
        """A row that is so old is ready."""
        self.marks.lower(priority, run_at)
        self.passed.lowered(priority, run_at)

    def asks(self, place: Place, count: int, slots: Slots, now: float) -> list[Ask]:
        """For `count` rows, most times behind those that need not be met."""
        self.asked_at = now
        asks = self._in_order(place, count, slots, now)
        if not self.passed.due(now):
            return asks
        return [ask._replace(start=self.passed.over(ask.start)) for ask in asks]

    def _in_order(self, place: Place, count: int, slots: Slots, now: float) -> list[Ask]:
        """For `count` rows, organisation by organisation where several wait, else in order of class and time."""
        kept = 0
        if self.company_until > now and place[1] == "":  # what stays free beyond `count` is kept already
            kept = max(0, slots.kept - (slots.free - count))
        if self.shares is not None:
            if asks := self.shares.ask(*place, count, kept, slots.runs, now):
                return asks
            if len(self.shares):  # all of them run something, and what is left is kept for others
                return []
            self.shares = None
        if self.full:
            count -= kept
        start = self.marks.start(now, full=self.full)
        aged, lower = self.ageing.due(count, self.classes) if self.full else (0, 1)
        asks = [Ask(*place, count - aged, 1, None, start)] if count > aged else []
        return [*asks, Ask(*place, aged, lower, None, start)] if aged else asks


class Sources:
    """Knows `places`; a place is ripe while a claim may find rows in it."""

    def __init__(self, patterns: Iterable[str], names: Iterable[str], kinds: Iterable[str]) -> None:
        self._patterns: tuple[str, ...] = ()
        self._kinds: frozenset[str] = frozenset()
        self._states: dict[Place, _State] = {}
        self._later: dict[tuple[str, int], float] = {}  # when the next row of (queue, class) is due
        self._served_names: dict[Place, bool] = {}
        self._turn = 0  # whose turn it is to be first, of the queues
        self._gate_turns: Counter[str] = Counter()  # and of each queue's gates; where nothing is free nobody has a turn
        self._probes: set[Place] = set()
        self.lane_room: Callable[[str], int | None] = lambda gate: None
        self.suspect_runs = False
        self.passing: Callable[[str], int] = lambda gate: MOST
        """How many rows of a limit's gate may be claimed now; more would be claimed only to be put back."""
        self.more = False  # a ripe place was not asked, since the claim had no room for it
        self.serve(patterns, names, kinds)

    def serve(self, patterns: Iterable[str], names: Iterable[str], kinds: Iterable[str]) -> None:
        """What this daemon takes: queues that match `patterns`, some known by name before a row is seen in them.
        Places it no longer serves are forgotten; so are limits' gates, which the next look finds again: the limits may
        be others now, or gone."""
        self._patterns, self._kinds = tuple(patterns), frozenset(kinds)
        self._served_names = {}
        self._states = {
            place: state
            for place, state in self._states.items()
            if self._served(place) and not place[1].startswith(GATE)
        }
        self._later = {key: at for key, at in self._later.items() if self._served((key[0], LATER_GATE))}
        for queue in {*self._patterns, *names}:
            if not is_pattern(queue) and self._served((queue, "")):
                self._states.setdefault((queue, ""), _State())

    def _served(self, place: Place) -> bool:
        known = self._served_names.get(place)
        if known is None:
            if len(self._served_names) > 10 * MOST:
                self._served_names.clear()
            queue, gate = place
            unserved = gate == CANCEL_GATE or (
                gate.startswith(KIND_GATE) and gate.removeprefix(KIND_GATE) not in self._kinds
            )
            known = not unserved and any(matches(pattern, queue) for pattern in self._patterns)
            self._served_names[place] = known
        return known

    def hinted(self) -> bool:
        """Somebody inserted something somewhere.  False: there are so many places that a look must say where."""
        opened = [state for (_queue, gate), state in self._states.items() if gate == ""]
        for state in opened:
            state.survey_at = 0.0
            state.ripe = state.ripe or len(opened) <= HINTED_MAX
        return len(opened) <= HINTED_MAX

    def found(self, heads: Sequence[Head], now: float, after: tuple[str, str, int], *, to_the_end: bool) -> None:
        """What a look saw: all ready rows at that moment, from `after` to its last head or to the end."""
        seen: set[Place] = set()
        for head in heads:
            place = (head.queue, head.gate)
            if not self._served(place):
                continue
            due_s = head.run_at - head.now
            if head.gate == LATER_GATE:
                self._later[head.queue, head.priority] = now + due_s
                continue
            if head.gate == ORDER_GATE:
                continue
            state = self._states.setdefault(place, _State(ripe=False))
            if place not in seen and place != after[:2]:
                state.classes.clear()
            state.classes.add(head.priority)
            state.lower(head.priority, head.run_at)
            if due_s <= 0:
                state.ripe = True
            elif state.due_at is None or now + due_s < state.due_at:
                state.due_at = now + due_s
            seen.add(place)
        last = None if to_the_end or not heads else (heads[-1].queue, heads[-1].gate)
        for place in [place for place in self._states if place not in seen]:
            if place <= after[:2] or (last is not None and place > last):
                continue
            if place[1] or len(self._states) > MOST:
                del self._states[place]
            else:
                self._states[place].due_at = None
        self._forget(seen)

    def _forget(self, seen: set[Place]) -> None:
        """Of too many places those go that were seen longest ago; of too many waits, the longest."""
        if len(self._states) > 2 * MOST:
            older = [place for place in self._states if place not in seen]
            kept = [*older[len(self._states) - 2 * MOST :], *(place for place in self._states if place in seen)]
            self._states = {place: self._states[place] for place in kept}
        if len(self._gate_turns) > 2 * MOST:
            known = {queue for queue, _gate in self._states}
            self._gate_turns = Counter({queue: turn for queue, turn in self._gate_turns.items() if queue in known})
        if len(self._later) > 2 * LATER_MAX:
            self._later = dict(nsmallest(LATER_MAX, self._later.items(), key=itemgetter(1)))

    def marks(self) -> list[Mark]:
        """Below what time nothing is ready, unless it was inserted by a long transaction."""
        return [Mark(*place, priority, mark) for place, state in self._states.items() for priority, mark in state.marks]

    # --- claims -----------------------------------------------------------------------------------------------------

    def wanted(self, now: float, slots: Callable[[str], Slots], most: int) -> list[Ask]:
        """What to ask of the ripe places.  The free `slots` of a queue are shared by its gates.  Queues take turns to
        be first: a claim may have no room for all."""
        asks = self._probing()
        probed = {(ask.queue, ask.gate) for ask in asks}
        most -= len(asks)
        room: dict[str, int] = {}
        had_turn: set[str] = set()
        lanes: dict[str, int | None] = {}
        passing: dict[str, int] = {}
        suspects = 0 if self.suspect_runs else 1
        self.more = False
        ripe = self._in_turn(now)
        share = max(FEW, most // max(1, len(ripe)))
        retries = _Retries({queue for (queue, gate), _state in ripe if gate == ""}, self._states)
        for place, state in ripe:
            queue, gate = place
            of_queue = slots(queue)
            left = room.setdefault(queue, of_queue.free)
            if left > 0 >= most:
                self.more = True
                break
            count = min(left, most, share)
            if gate == RETRY_GATE or state.fails:
                count = retries.bound(queue, count, left, of_queue, now)
            if gate == SUSPECT_GATE:
                count = min(count, suspects)
                suspects -= count
            elif gate.startswith(GATE):  # rows of several queues may stand at one limit
                count = min(count, passing.setdefault(gate, self.passing(gate)))
                passing[gate] -= count
            elif gate.startswith(LANE_GATE):
                count = 0 if place in probed else self._through(gate, count, lanes)
            if count > 0:
                asks += state.asks(place, count, of_queue, now)
                if not _few(gate):
                    had_turn.add(queue)
                room[queue] -= count
                most -= count
            elif left <= 0 < of_queue.free:  # others of its queue come first; should they have no rows, it is next
                self.more = True
        if retries.held_back and any(ask.queue in retries.held_back for ask in asks):
            self.more = True  # should there be no rows where others were asked for, they are next
        self._turn += bool(had_turn)
        self._gate_turns.update(had_turn)
        return asks

    def _probing(self) -> list[Ask]:
        """One row of each destination that is to be tried, however busy its queue is."""
        probes, self._probes = self._probes, set()
        return [Ask(*place, 1) for place in sorted(probes) if self.lane_room(place[1])]

    def _through(self, gate: str, count: int, lanes: dict[str, int | None]) -> int:
        """How many of `count` rows at the gate of a lane may start; `lanes`: what is left of each, over all queues."""
        passing = lanes[gate] if gate in lanes else self.lane_room(gate)
        if passing is not None:
            count = min(count, passing)
            passing -= count
        lanes[gate] = passing
        return count

    def _in_turn(self, now: float) -> list[tuple[Place, _State]]:
        ripe: dict[str, list[Place]] = {}
        for place, state in self._states.items():
            if state.due_at is not None and state.due_at <= now:
                state.ripe, state.due_at = True, None
            if state.ripe and state.shut_until <= now:
                ripe.setdefault(place[0], []).append(place)
        if not ripe:
            return []
        turn = self._turn % len(ripe)
        queues = sorted(ripe)
        turns = self._gate_turns
        places = [p for queue in queues[turn:] + queues[:turn] for p in _gates_in_turn(ripe[queue], turns[queue])]
        return [(place, self._states[place]) for place in places]

    def claimed(self, asked: Sequence[Ask], rows: Sequence[Job]) -> None:
        """What came of a claim: a place that gave less than it was asked for has no more for now."""
        asks: dict[Place, list[Ask]] = {}
        for ask in asked:
            asks.setdefault((ask.queue, ask.gate), []).append(ask)
        got: dict[Place, list[Job]] = {place: [] for place in asks}
        moved: defaultdict[Place, list[Job]] = defaultdict(list)  # to another gate: they count as given
        for job in rows:
            if job.worker_id is None:
                moved[_left(job, asks)].append(job)
                if job.gate.startswith(LANE_GATE):
                    self.arrived(job.queue, job.gate, job.priority, job.run_at)
            else:
                got.setdefault((job.queue, job.gate), []).append(job)
        for place, each in asks.items():
            state = self._states.get(place)
            if state is None:
                continue
            jobs = got[place]
            given = len(jobs) + len(moved[place]) + len(moved[place[0], ANYWHERE])
            if place[1] == "" and jobs:
                state.about_until = state.asked_at + ABOUT_S
            elif place[1] not in ("", RETRY_GATE) and jobs:
                state.fails = any(job.is_retry for job in jobs)
            state.full = given >= max(ask.slots for ask in each)  # of one place some may have asked for the same rows
            if each[0].org_id is None:
                state.ripe = state.full
                state.marks.claimed(jobs)
                if not state.full and state.marks.narrow:  # a row of a longer transaction may stand before these
                    state.due_at = min(state.marks.wide_at, state.due_at or inf)
            elif state.shares is not None:
                _claimed_shares(state.shares, each, jobs, moved[place] + moved[place[0], ANYWHERE])
                state.ripe, state.full = True, True  # until nobody is left; then it is asked as a whole again

    # --- fairness ---------------------------------------------------------------------------------------------------

    def to_survey(self, now: float) -> Place | None:
        """A place that has more rows than slots, so that it matters whose they are."""
        for place, state in self._states.items():
            if state.full and state.survey_at <= now:
                return place
        return None

    def next_survey(self) -> float | None:
        """When the next of them may be asked about again."""
        return min((state.survey_at for state in self._states.values() if state.full), default=None)

    def surveyed(self, place: Place, waiting: Sequence[Waiting], again_at: float) -> None:
        """Who waits there; ask again at `again_at`, or when somebody has inserted."""
        state = self._states.get(place)
        if state is None:
            return
        state.survey_at = again_at
        shares = state.shares or Shares()
        shares.found(waiting)
        if len({one.org_id for one in waiting}) > 1:
            state.company_until = again_at + COMPANY_S
        if state.shares is None and shares.compete:
            state.shares = shares

    # --- limits, returns, time --------------------------------------------------------------------------------------

    def returned(self, job: Job, gate: str, due_at: float | None) -> None:
        """A row went back to its queue, due then (None: as before)."""
        if due_at is not None and gate == "":
            self.later(job.queue, job.priority, due_at)
            return
        if gate == RETRY_GATE:
            self.opened(job.queue, gate)
        state = self._states.get((job.queue, gate))
        if state is None:
            return
        state.lower(job.priority, job.run_at)
        if state.shares is not None:
            state.shares.returned(job.priority, job.org_id or "", job.run_at)
        if due_at is None:
            state.ripe = True
        elif state.due_at is None or due_at < state.due_at:
            state.due_at = due_at

    def freed(self, rows: Iterable[Freed]) -> None:
        """It is these rows' turn in their ordering key, and they stand in the open queue."""
        for queue, priority, run_at in rows:
            if self._served((queue, "")):
                self.arrived(queue, "", priority, run_at)

    def later(self, queue: str, priority: int, due_at: float) -> None:
        """A row waits for its time."""
        at = self._later.get((queue, priority))
        if at is None or due_at < at:
            self._later[queue, priority] = due_at

    def ripening(self, now: float) -> list[tuple[str, int]]:
        """The (queue, class) of rows whose time has come."""
        due = [key for key, at in self._later.items() if at <= now]
        return due[:RIPENING_MAX]

    def ripened(self, ripe: Iterable[Ripe], now: float, most: int) -> None:
        """Rows went back to their queue."""
        for queue, priority, count, run_at, retry_at, next_s in ripe:
            if count >= most:
                self._later[queue, priority] = now
            elif next_s is not None:
                self._later[queue, priority] = now + next_s
            else:
                self._later.pop((queue, priority), None)
            for gate, at in (("", run_at), (RETRY_GATE, retry_at)):
                if at is not None:
                    self.arrived(queue, gate, priority, at)

    def opened(self, queue: str, gate: str) -> None:
        """Rows now stand at this gate and may be claimed."""
        self._states.setdefault((queue, gate), _State()).ripe = True

    def arrived(self, queue: str, gate: str, priority: int, run_at: float) -> None:
        """A row that is so old now stands at this gate."""
        self.opened(queue, gate)
        self._states[queue, gate].lower(priority, run_at)

    def passed(self, place: Place, priority: int, position: Position, now: float) -> None:
        """All ready rows of this place and class up to there are of destinations that are shut."""
        state = self._states.get(place)
        if state is not None:
            state.passed.to(priority, position, now)
            state.ripe = True

    def passed_no_more(self, place: Place, priority: int, run_at: float | None) -> None:
        """They were moved, or the destinations of some have opened: then rows as old as that may run."""
        state = self._states.get(place)
        if state is None:
            return
        state.passed.end(priority)
        if run_at is not None:
            state.lower(priority, run_at)
            state.ripe = True

    def at_lanes(self) -> list[Place]:
        """Where rows wait for their destination."""
        return [place for place in self._states if place[1].startswith(LANE_GATE)]

    def gate_opened(self, gate: str) -> None:
        """Rows at this gate of whatever queue may be claimed."""
        for (_queue, other), state in self._states.items():
            state.ripe = state.ripe or other == gate

    def probe(self, queue: str, gate: str) -> None:
        """One row is wanted from here."""
        self._probes.add((queue, gate))

    def set_aside(self, place: Place, until: float) -> None:
        """Ask this place for nothing until then."""
        state = self._states.setdefault(place, _State())
        state.ripe, state.shut_until = True, until

    def waiting(self, queue: str, gate: str) -> bool:
        """Whether rows stand at this gate, so that a newcomer must queue behind them."""
        state = self._states.get((queue, gate))
        return state is not None and state.ripe

    def standing(self, prefix: str) -> set[str]:
        """The gates of this prefix at which rows may stand that are due."""
        return {gate for (_queue, gate), state in self._states.items() if state.ripe and gate.startswith(prefix)}

    def next_at(self, now: float) -> float | None:
        """When something that is known becomes claimable by the clock alone."""
        times = [state.due_at for state in self._states.values() if not state.ripe and state.due_at is not None]
        times += [state.shut_until for state in self._states.values() if state.ripe and state.shut_until > now]
        times += self._later.values()
        return min(times, default=None)


class _Retries:
    """What one claim leaves of the slots for rows that have failed before: a crowd of them must not keep first attempts
    of others waiting.  `waits`: queues where first attempts may wait."""

    def __init__(self, waits: Collection[str], states: Mapping[Place, _State]) -> None:
        self._waits = waits
        self._states = states
        self._left: dict[str, int] = {}
        self.held_back: set[str] = set()

    def bound(self, queue: str, count: int, free: int, slots: Slots, now: float) -> int:
        """How many of `count` rows may be claimed, of a place that has retries."""
        bound = count
        if queue in self._waits:
            bound = min(count, self._left.get(queue, slots.retries))
            self._left[queue] = self._left.get(queue, slots.retries) - bound
        elif (opened := self._states.get((queue, ""))) is not None and opened.about_until > now:
            bound = max(0, min(count, free - slots.kept))
        if bound < count:
            self.held_back.add(queue)
        return bound


def origin(job: Job) -> str:
    """The gate that a row which a claim has moved to another most likely stood at: its attempt was not counted."""
    return RETRY_GATE if job.attempt > job.crashes else ""


def _left(job: Job, asks: Collection[Place]) -> Place:
    """The place that a claim has moved this row from; if that was not asked, any of those that were."""
    place = job.queue, origin(job)
    return place if place in asks else (job.queue, ANYWHERE)


def _claimed_shares(shares: Shares, asks: Sequence[Ask], jobs: Sequence[Job], moved: Sequence[Job]) -> None:
    got: Counter[tuple[int, str]] = Counter()
    newest: dict[tuple[int, str], tuple[float, int]] = {}
    for job in (*jobs, *moved):
        who = (job.priority, job.org_id or "")
        got[who] += 1
        newest[who] = max(newest.get(who, (-inf, 0)), (job.run_at, job.id))
    shares.claimed(asks, got, newest)


def _few(gate: str) -> bool:
    """Whether few rows pass there, one after another."""
    return gate.startswith((GATE, SUSPECT_GATE))


def _gates_in_turn(places: Iterable[Place], turn: int) -> list[Place]:
    """The gates of one queue: of a limit or suspect, where few rows pass and have waited, first; the others in turn,
    every second one the open queue's: what gathered for many destinations that are back must not starve new rows."""
    ranked = sorted(places, key=lambda place: (not _few(place[1]), place[1]))
    few = sum(_few(gate) for _queue, gate in ranked)
    others = [place for place in ranked[few:] if place[1]]
    opened = [place for place in ranked[few:] if not place[1]]
    if opened and turn % 2 == 0:
        return [*ranked[:few], *opened, *others]
    first = turn // (len(opened) + 1) % max(1, len(others))
    return [*ranked[:few], *others[first:], *others[:first], *opened]
