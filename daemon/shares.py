"""Fair shares: who of the organisations that wait at one place is served next.  Pure.

Stride scheduling inside each class: the organisation that has been served least, for its weight, is next; one that
comes new stands where the others are, so that nobody saves up turns while away.  What one does not use, others get.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice

from daemon.low_water import CLASSES, MARGIN_S, NEAR_S, WIDE_IN_BACKLOG_S, Start
from daemon.store import Ask, Waiting

AGED = 16
"""One row in so many is taken from the lower classes in turn while higher ones wait too, so that none is starved."""

FIRST_ASK = 16
"""Rows asked of an organisation that was just found; twice as many each time it gives as many as asked."""

MARKS_MAX = 20_000

Who = tuple[int, str]
"""Class and organisation."""


@dataclass(slots=True)
class _Mark:
    """The newest claimed row of an organisation."""

    run_at: float
    row_id: int
    full: bool  # more rows may follow it at once
    wide_at: float = 0.0  # when a claim goes back by the whole margin again

    def start(self, priority: int, now: float) -> Start:
        """As of the marks of a whole place."""
        if now >= self.wide_at:
            self.wide_at = now + WIDE_IN_BACKLOG_S
            return self._less(MARGIN_S)
        if self.full:
            return Start((self.run_at,) * 4, priority, self.row_id)
        return self._less(NEAR_S)

    def _less(self, margin_s: float) -> Start:
        return Start((self.run_at - margin_s,) * 4)


@dataclass(slots=True)
class _Share:
    weight: float
    passed: float  # turns taken, for its weight
    queued: float  # where it stands in the heap: never behind `passed`
    limit: int = FIRST_ASK


class _Class:
    """The organisations of one class, the one that is next at hand however many there are."""

    __slots__ = ("_heap", "shares")

    def __init__(self) -> None:
        self.shares: dict[str, _Share] = {}
        self._heap: list[tuple[float, str]] = []  # with entries that no longer count, which are passed over

    def found(self, org_id: str, weight: float, least: float) -> None:
        share = self.shares.get(org_id)
        if share is None:
            self.shares[org_id] = _Share(weight, least, least)
            heappush(self._heap, (least, org_id))
        else:
            share.weight = weight

    def least(self) -> float:
        """Where one that comes new stands."""
        return min((share.passed for share in self.shares.values()), default=0.0)

    def next(self) -> tuple[str, _Share] | None:
        """Take out who has been served least; `back` puts it in again."""
        heap = self._heap
        while heap:
            queued, org_id = heappop(heap)
            share = self.shares.get(org_id)
            if share is None or share.queued != queued:
                continue
            if share.passed == queued:
                return org_id, share
            share.queued = share.passed
            heappush(heap, (share.passed, org_id))
        return None

    def back(self, org_id: str, share: _Share) -> None:
        share.queued = share.passed
        heappush(self._heap, (share.passed, org_id))
        if len(self._heap) > 2 * len(self.shares) + 100:
            self._heap = [(each.queued, name) for name, each in self.shares.items()]
            heapify(self._heap)


class Ageing:
    """How many of the next rows go to the lower classes first, and to which."""

    __slots__ = ("_credit", "_turn")

    def __init__(self) -> None:
        self._credit = 0.0
        self._turn = 0

    def due(self, count: int, waiting: Collection[int]) -> tuple[int, int]:
        """(rows, class): so many of the next `count` go to that class first, one of those `waiting` below the best."""
        lower = sorted(waiting)[1:]
        if not lower:
            return 0, CLASSES[0]
        self._credit += count / AGED
        rows = int(self._credit)
        self._credit -= rows
        self._turn += rows > 0
        return rows, lower[self._turn % len(lower)]


class Shares:
    """The organisations that wait at one (queue, gate)."""

    def __init__(self) -> None:
        self._classes = {priority: _Class() for priority in CLASSES}
        self._marks: OrderedDict[Who, _Mark] = OrderedDict()
        self._ageing = Ageing()

    def __len__(self) -> int:
        return sum(len(each.shares) for each in self._classes.values())

    @property
    def compete(self) -> bool:
        """Whether in some class more than one waits."""
        return any(len(each.shares) > 1 for each in self._classes.values())

    def found(self, waiting: Iterable[Waiting]) -> None:
        """What a survey saw."""
        least = {priority: each.least() for priority, each in self._classes.items()}
        for priority, org_id, weight in waiting:
            self._classes[priority].found(org_id, weight, least[priority])

    def ask(self, queue: str, gate: str, count: int, kept: int, runs: Callable[[str], bool], now: float) -> list[Ask]:
        """Whom to ask for how many of the next `count` rows, of which `kept` are for organisations that run nothing."""
        given: Counter[Who] = Counter()
        for priority in CLASSES if kept else ():
            shares = self._classes[priority].shares
            for org_id in islice((org_id for org_id in shares if not runs(org_id)), min(kept, count)):
                self._serve(priority, org_id, shares[org_id], given)
                count, kept = count - 1, kept - 1
        count = max(0, count - kept)
        aged, lower = self._ageing.due(count, [priority for priority, each in self._classes.items() if each.shares])
        count -= self._give(lower, aged, given)
        for priority in CLASSES:
            count -= self._give(priority, count, given)
        return [
            Ask(queue, gate, rows, priority, org_id, self._start((priority, org_id), now))
            for (priority, org_id), rows in given.items()
        ]

    def _serve(self, priority: int, org_id: str, share: _Share, given: Counter[Who]) -> None:
        share.passed += 1.0 / share.weight
        given[priority, org_id] += 1

    def _give(self, priority: int, count: int, given: Counter[Who]) -> int:
        """Share out up to `count` rows of one class; how many were."""
        each, done = self._classes[priority], 0
        full: list[tuple[str, _Share]] = []
        while done < count and (who := each.next()) is not None:
            org_id, share = who
            if given[priority, org_id] >= share.limit:
                full.append(who)
                continue
            self._serve(priority, org_id, share, given)
            done += 1
            each.back(org_id, share)
        if full and done == count and (who := each.next()) is not None:
            # What was left over is not held against those who took it: who was asked for all it may give stands beside.
            each.back(*who)
            for _org_id, share in full:
                share.passed = max(share.passed, who[1].passed)
        for org_id, share in full:
            each.back(org_id, share)
        return done

    def claimed(self, asked: Iterable[Ask], got: Mapping[Who, int], newest: Mapping[Who, tuple[float, int]]) -> None:
        """What the claim gave: who gave less than asked has no more.  `newest`: (run_at, id) of the last of each."""
        for ask in asked:
            who = (ask.first, ask.org_id or "")
            rows = got.get(who, 0)
            of_class = self._classes[ask.first]
            share = of_class.shares.get(who[1])
            if share is None:
                continue
            if rows < ask.slots:
                share.passed -= (ask.slots - rows) / share.weight
                of_class.back(who[1], share)
            if rows >= ask.slots:
                share.limit = min(2 * share.limit, 100_000)
            elif rows or who not in self._marks:
                del of_class.shares[who[1]]
            if rows:
                self._mark(who, newest[who], full=rows >= ask.slots)
            else:  # a row that was committed late may be older than the mark: look from the start, once
                self._marks.pop(who, None)

    def _mark(self, who: Who, newest: tuple[float, int], *, full: bool) -> None:
        """After a `full` claim the next goes on at the very row, even if that is an old one that was found late."""
        mark = self._marks.setdefault(who, _Mark(*newest, full))
        mark.run_at, mark.row_id = newest if full else max(newest, (mark.run_at, mark.row_id))
        mark.full = full
        self._marks.move_to_end(who)
        if len(self._marks) > MARKS_MAX:
            self._marks.popitem(last=False)

    def returned(self, priority: int, org_id: str, run_at: float) -> None:
        """A row of this organisation that is so old may be claimed again."""
        mark = self._marks.get((priority, org_id))
        if mark is not None and run_at <= mark.run_at:
            mark.run_at, mark.row_id = run_at, 0

    def _start(self, who: Who, now: float) -> Start:
        mark = self._marks.get(who)
        return Start() if mark is None else mark.start(who[0], now)
