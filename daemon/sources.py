"""The claimer's map: which (queue, gate) may have due rows, and how many to ask each for.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from daemon.lanes import LANE_GATE
from daemon.limits import GATE
from daemon.pattern import is_pattern, matches
from daemon.store import Source

KIND_GATE = "kind:"
SUSPECT_GATE = "suspect"
"""Where rows wait that one more crash would bury; a daemon runs them one at a time, so that a row is buried for its own
crashes and not for those of the rows beside it."""
MOST = 1000
"""(queue, gate) pairs known at once; the rest is found when these are empty."""

Place = tuple[str, str]


@dataclass(slots=True)
class _State:
    ripe: bool = True
    due_at: float | None = None  # when its next row is due
    shut_until: float = 0.0  # a limit's gate: not before a token can be there
    shut_at: float = 0.0
    token_s: float | None = None
    places: int = 0  # of a limit: that came free since it was shut, or twice as many as it let through last


class Sources:
    """Knows `places`; a place is ripe while a claim may find rows in it."""

    def __init__(self, patterns: Iterable[str], names: Iterable[str], kinds: Iterable[str]) -> None:
        self._patterns: tuple[str, ...] = ()
        self._kinds: frozenset[str] = frozenset()
        self._states: dict[Place, _State] = {}
        self.suspect_runs = False
        self.lane_room: Callable[[str], int | None] = lambda gate: None
        self._probes: set[Place] = set()
        self.serve(patterns, names, kinds)

    def serve(self, patterns: Iterable[str], names: Iterable[str], kinds: Iterable[str]) -> None:
        """What this daemon takes: queues that match `patterns`, some known by name before a row is seen in them.
        Places it no longer serves are forgotten; so are limits' gates, which the next look finds again: the limits may
        be others now, or gone."""
        self._patterns, self._kinds = tuple(patterns), frozenset(kinds)
        self._states = {
            place: state
            for place, state in self._states.items()
            if self._served(place) and not place[1].startswith(GATE)
        }
        for queue in {*self._patterns, *names}:
            if not is_pattern(queue) and self._served((queue, "")):
                self._states.setdefault((queue, ""), _State())

    def _served(self, place: Place) -> bool:
        queue, gate = place
        if gate.startswith(KIND_GATE) and gate.removeprefix(KIND_GATE) not in self._kinds:
            return False
        return any(matches(pattern, queue) for pattern in self._patterns)

    def hinted(self) -> None:
        """Somebody inserted something somewhere."""
        for (_queue, gate), state in self._states.items():
            state.ripe = state.ripe or gate == ""

    def found(self, sources: Iterable[Source], now: float) -> None:
        """What a look saw: the whole truth about ready rows at that moment."""
        seen: set[Place] = set()
        for source in sources:
            place = (source.queue, source.gate)
            if not self._served(place):
                continue
            seen.add(place)
            state = self._states.setdefault(place, _State(ripe=False))
            state.due_at = now + source.next_s
            state.ripe = state.ripe or source.next_s <= 0
        for place in [place for place in self._states if place not in seen]:
            if place[1] or len(self._states) > MOST:
                del self._states[place]
            else:
                self._states[place].due_at = None

    def claimed(self, asked: Mapping[Place, int], got: Mapping[Place, int]) -> None:
        """Fewer than asked for: there is nothing more for now."""
        for place, count in asked.items():
            state = self._states.get(place)
            if state is not None:
                state.ripe = got.get(place, 0) >= count
                state.places = max(state.places - count, 2 * count if state.ripe else 0)

    def shut(self, queue: str, gate: str, now: float, retry_s: float | None, token_s: float | None) -> None:
        """A limit refused a row, which now waits at `gate` of `queue`: no use to come back before a token has grown."""
        state = self._states.setdefault((queue, gate), _State())
        state.ripe = True
        state.shut_at, state.token_s, state.places = now, token_s, 0
        state.shut_until = now + max(retry_s or 0.0, 0.02) if retry_s is not None else now + 1.0

    def returned(self, queue: str, gate: str, due_at: float) -> None:
        """A row went back to its queue, due then; or one ended, and the next of its ordering key may go."""
        state = self._states.get((queue, gate))
        if state is not None and (state.due_at is None or due_at < state.due_at):
            state.due_at = due_at

    def opened(self, queue: str, gate: str) -> None:
        """Rows now stand at this gate and may be claimed."""
        self._states.setdefault((queue, gate), _State()).ripe = True

    def gate_opened(self, gate: str) -> None:
        """Rows at this gate of whatever queue may be claimed."""
        for (_queue, other), state in self._states.items():
            state.ripe = state.ripe or other == gate

    def probe(self, queue: str, gate: str) -> None:
        """One row is wanted from here, however busy the queue is."""
        self._probes.add((queue, gate))

    def set_aside(self, place: Place, until: float) -> None:
        """Ask this place for nothing until then."""
        state = self._states.setdefault(place, _State())
        state.ripe, state.shut_until = True, until

    def place_free(self, gate: str, count: int = 1) -> None:
        """So many places of a concurrency limit came free."""
        for (_queue, other), state in self._states.items():
            if other == gate:
                state.shut_until = 0.0
                state.places += count

    def waiting(self, queue: str, gate: str) -> bool:
        """Whether rows stand at this gate, so that a newcomer must queue behind them."""
        return (queue, gate) in self._states

    def wanted(self, now: float, free: Callable[[str], int], most: int) -> dict[Place, int]:
        """How many rows to ask each ripe place for.  `free` slots of a queue are shared by its gates, the gates first:
        their rows have waited longer."""
        asked: dict[Place, int] = {}
        room: dict[str, int] = {}
        suspects = 0 if self.suspect_runs else 1
        probes, self._probes = self._probes, set()
        asked.update((place, 1) for place in probes if self.lane_room(place[1]))
        lanes: dict[str, int | None] = {}
        for place, state in sorted(self._states.items(), key=lambda item: (item[0][1] == "", item[0])):
            queue, gate = place
            if state.due_at is not None and state.due_at <= now:
                state.ripe, state.due_at = True, None
            if not state.ripe or state.shut_until > now or most <= 0 or place in asked:
                continue
            left = room.setdefault(queue, free(queue))
            count = min(left, most)
            if gate.startswith(LANE_GATE):
                passing = lanes.setdefault(gate, self.lane_room(gate))
                if passing is not None:
                    count = min(count, passing)
                    lanes[gate] = passing - count
            elif gate == SUSPECT_GATE:
                count = min(count, suspects)
                suspects -= count
            elif gate.startswith(GATE):  # more than can pass would be claimed only to be put back
                count = min(count, _passing(state, now))
            if count > 0:
                asked[place] = count
                room[queue] -= count if gate else 0
                most -= count
        return asked

    def next_at(self, now: float) -> float | None:
        """When something that is known becomes claimable by the clock alone."""
        times = [state.due_at for state in self._states.values() if not state.ripe and state.due_at is not None]
        times += [state.shut_until for state in self._states.values() if state.ripe and state.shut_until > now]
        return min(times, default=None)


def _passing(state: _State, now: float) -> int:
    """How many of a gate's rows its limit may let through: the tokens that have grown, or the places that came free.
    Other daemons take and give too, so one row always tries."""
    if state.token_s is not None:
        return 1 + int((now - state.shut_at) / state.token_s)
    return max(1, state.places)
