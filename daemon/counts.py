"""The tables in numbers, at a cost that does not grow with them: exact up to a bound, an honest estimate beyond it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sql
from daemon.lanes import LANE_GATE
from daemon.sources import KIND_GATE

_SQL = sql.load("history.sql")

EXACT = 1000
"""Rows of a queue that wait at one gate in one class of priority are counted up to this."""

EXACT_DEAD = 1000
"""So many dead letters, the newest, are told apart by queue."""

PAIRS = 1000
"""Pairs of queue and gate that are counted one by one; the rest are estimated, if the sample has seen them."""

SAMPLE_PAGES = 300
"""Pages looked at for an estimate: 2.4 MB.  A tenth of 400,000 rows was estimated within 2 % in each of 40 tries."""

WINDOW_S = 24 * 3600.0


class Number(NamedTuple):
    """How many; `about`: an estimate, or a bound that was reached."""

    n: int
    about: bool = False


ZERO = Number(0)


@dataclass(slots=True)
class Queue:
    """One queue's rows."""

    ready: Number = ZERO
    scheduled: Number = ZERO
    parked: Number = ZERO
    running: Number = ZERO
    dead: Number = ZERO
    oldest_s: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)  # by outcome, in the last 24 hours


@dataclass(frozen=True, slots=True)
class Survey:
    """All queues that have a number, rows parked for want of a handler by kind, and rows at the gates of lanes; `cut`:
    there are more pairs of queue and gate than are counted one by one."""

    queues: dict[str, Queue]
    parked: dict[str, int]
    lanes: dict[str, Number]
    cut: bool = False


class Waiting(NamedTuple):
    """What `waiting` counted at one (queue, gate)."""

    queue: str
    gate: str
    ready: int
    scheduled: int
    oldest_s: float
    more_ready: bool
    more_scheduled: bool


class Sample(NamedTuple):
    """What `sample` found of one (queue, gate); each row stands for `each`."""

    queue: str
    gate: str
    ready: int
    scheduled: int
    each: float


async def take(conn: Any) -> Survey:
    """Ask everything, in one session."""
    waiting = [Waiting(*row) for row in await conn.fetch(_SQL["waiting"], EXACT, PAIRS)]
    sample: list[Sample] = []
    if len(waiting) >= PAIRS or any(row.more_ready or row.more_scheduled for row in waiting):
        sample = [Sample(*row) for row in await conn.fetch(_SQL["sample"], SAMPLE_PAGES)]
    others = await conn.fetch(_SQL["others"], EXACT_DEAD, WINDOW_S)
    running = {queue: n for what, queue, _outcome, n in others if what == "running"}
    dead = {queue: n for what, queue, _outcome, n in others if what == "dead"}
    ended = [(queue, outcome, n) for what, queue, outcome, n in others if what == "ended"]
    dead_about = await conn.fetchval(_SQL["dead_about"]) if sum(dead.values()) >= EXACT_DEAD else 0.0
    return assemble(waiting, sample, running, dead, dead_about, ended)


def assemble(
    waiting: Sequence[Waiting],
    sample: Iterable[Sample],
    running: Mapping[str, int],
    dead: Mapping[str, int],
    dead_about: float,
    ended: Iterable[tuple[str, str, int]],
) -> Survey:
    """What was asked, by queue.  Pure."""
    queues: defaultdict[str, Queue] = defaultdict(Queue)
    parked: defaultdict[str, int] = defaultdict(int)
    lanes: dict[str, Number] = {}
    seen = {(found.queue, found.gate): found for found in sample}
    cut = len(waiting) >= PAIRS
    for row in (*waiting, *_beyond(waiting, seen)) if cut else waiting:
        found = seen.get((row.queue, row.gate), Sample(row.queue, row.gate, 0, 0, 0.0))
        ready = _number(row.ready, row.more_ready, found.ready * found.each)
        scheduled = _number(row.scheduled, row.more_scheduled, found.scheduled * found.each)
        queue = queues[row.queue]
        if row.gate.startswith(KIND_GATE):
            both = _sum(ready, scheduled)
            queue.parked = _sum(queue.parked, both)
            parked[row.gate.removeprefix(KIND_GATE)] += both.n
            continue
        if row.gate.startswith(LANE_GATE):
            lane = row.gate.removeprefix(LANE_GATE)
            lanes[lane] = _sum(lanes.get(lane, ZERO), ready)
        queue.ready, queue.scheduled = _sum(queue.ready, ready), _sum(queue.scheduled, scheduled)
        queue.oldest_s = max(queue.oldest_s, row.oldest_s)
    for name, n in running.items():
        queues[name].running = Number(n)
    newest = sum(dead.values())
    for name, n in dead.items():
        queues[name].dead = _number(n, newest >= EXACT_DEAD, n / newest * dead_about)
    for name, outcome, n in ended:
        queues[name].ended[outcome] = n
    return Survey(dict(queues), dict(parked), lanes, cut)


def _beyond(waiting: Sequence[Waiting], seen: Iterable[tuple[str, str]]) -> list[Waiting]:
    """Places that only the sample knows, as if counting had stopped at once."""
    counted = {(row.queue, row.gate) for row in waiting}
    return [Waiting(*place, 0, 0, 0.0, True, True) for place in seen if place not in counted]


def _number(counted: int, more: bool, estimate: float) -> Number:
    """What was counted is there for certain; an estimate counts only where counting stopped."""
    return Number(max(counted, round(estimate)), about=True) if more else Number(counted)


def _sum(a: Number, b: Number) -> Number:
    return Number(a.n + b.n, a.about or b.about)


def words(number: Number) -> str:
    """For people: "950", or "about 1.2 M" where it is an estimate."""
    if not number.about:
        return str(number.n)
    for size, unit in ((10**9, " G"), (10**6, " M"), (1000, " k")):
        if number.n >= size:
            return f"about {number.n / size:.3g}{unit}"
    return f"about {number.n}"
