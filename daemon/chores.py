"""What only the tables can tell is to be done: rows of lost workers, pauses that are over, rows that are too late,
orders that stand still, batches that nobody ended, domains to be checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import NamedTuple

from daemon.config import Config
from daemon.observe import Observer
from daemon.tallies import Tallies
from daemon.upkeep_store import Found, UpkeepStore

BATCH = 1000
PAGES = 10
"""So many times BATCH open batches are looked at in a turn; the next goes on after them."""

CLAIMS = 20
"""Claims of a lost worker whose rows go back in one transaction; each has up to a few hundred rows."""

LOST_MAX = 100
"""Lost workers whose rows go back in a turn."""

EVERY_S = 2.0
"""A fleet asks so often what there is to do, as long as it has no more than two or three daemons."""

EVERY_MAX_S = 5.0
"""And each daemon at least so often, however many there are."""

SPREAD_S = 0.3
"""So long after a lease or a pause has ended somebody has asked; and not all at the same moment."""

SOONEST_S = 0.2
REST_S = 5.0
"""Rows in an order, and open batches, are nothing unusual; looking through them is done no more often than this."""


class Chore(NamedTuple):
    """A piece of upkeep that is to be done now."""

    name: str
    do: Callable[[], Awaitable[None]]


def pause_s(found: Found, dice: float) -> float:
    """Seconds until the next question; `dice`: 0 to 1.  The more daemons there are, the less often each asks.  A lease
    that nobody prolongs and a pause are waited for to the moment: in good health leases have two thirds left."""
    usual_s = min(EVERY_S * max(found.alive, 1), EVERY_MAX_S) * (0.9 + 0.2 * dice)
    if found.soon_s is None:
        return usual_s
    return max(SOONEST_S, min(usual_s, found.soon_s + SPREAD_S * dice))


class Chores:
    """Turns what was found into what is to be done.  `on_due`: rows may be claimed that a moment ago were not; `rest_s`
    between two looks at what is often there."""

    def __init__(
        self,
        store: UpkeepStore,
        observer: Observer,
        config: Callable[[], Config],
        on_due: Callable[[], None],
        tallies: Tallies,
        *,
        rest_s: float = REST_S,
    ) -> None:
        self._store = store
        self._observer = observer
        self._config = config
        self._on_due = on_due
        self._tallies = tallies
        self._rest_s = rest_s
        self._order_at = self._children_at = 0.0
        self._order_seen: tuple[str, str] = ("", "")
        self._batch_after = 0
        self._paused: set[str] = set()
        self._domains_were_due = False

    async def ask(self) -> Found:
        """Everything in one question."""
        return await self._store.found(LOST_MAX, BATCH)

    def wanted(self, found: Found) -> list[Chore]:
        """What is to be done, in this order."""
        now = monotonic()
        chores = (
            (found.lost, Chore("rescue", partial(self.rescue, found.lost))),
            (found.over or found.paused.keys() != self._paused, Chore("pauses", partial(self.pauses, found))),
            (found.unwanted, Chore("cancel", self.cancel)),
            (found.late, Chore("expire", self.expire)),
            (found.ordered and self._order_at <= now, Chore("order", self.order)),
            (found.children and self._children_at <= now, Chore("batches", self.batches)),
            (found.domains or self._domains_were_due, Chore("domains", self.domains)),
        )
        return [chore for there, chore in chores if there]

    async def rescue(self, lost: list[int]) -> None:
        """Return the rows of workers that no longer live."""
        for worker_id in lost:
            back_total = dead_total = 0
            while True:
                back, dead, claims = await self._store.rescue(worker_id, self._config().daemon.crash_limit, CLAIMS)
                back_total, dead_total = back_total + back, dead_total + len(dead)
                self._tallies.add_all((queue, "dead") for queue in dead)
                if claims == 0:
                    break
                if await self._store.drop_lost_claims(worker_id, CLAIMS) + back + len(dead) == 0:
                    break  # another daemon is at it, or somebody holds a lock on a row: again in a moment
            await self._store.forget(worker_id)
            if back_total + dead_total:
                self._observer.upkeep.rescued(worker_id, back_total, dead_total)
                await self._store.hint()
                self._on_due()
                await self.cancel()  # what somebody wanted stopped is among what came back

    async def pauses(self, found: Found) -> None:
        """Pauses end when their time is over; and what is paused, and no longer, is said."""
        if found.over and await self._store.end_pauses(BATCH):
            await self._store.call()
            self._on_due()
        for gate in found.paused.keys() - self._paused:
            self._observer.upkeep.paused(gate, *found.paused[gate])
        for gate in self._paused - found.paused.keys():
            self._observer.upkeep.resumed(gate)
            self._on_due()
        self._paused = set(found.paused)

    async def cancel(self) -> None:
        """Rows that came back although somebody wants them stopped end here."""
        while queues := await self._store.end_asked(BATCH):
            self._tallies.add_all((queue, "cancelled") for queue in queues)
            self._observer.upkeep.cancelled_rows(len(queues))

    async def expire(self) -> None:
        """Rows that are too late are dead."""
        while queues := await self._store.expire(BATCH):
            self._tallies.add_all((queue, "dead") for queue in queues)
            self._observer.upkeep.expired(len(queues))
            if len(queues) < BATCH:
                break

    async def order(self) -> None:
        """Rows behind one that blocks for too long, and those that an end could not open: some keys each time."""
        stepped = await self._store.step_aside(BATCH)
        seen, opened = await self._store.open_heads(self._order_seen, BATCH)
        self._order_seen = seen or ("", "")
        self._order_at = monotonic() + self._rest_s
        if stepped + opened:
            self._on_due()

    async def batches(self) -> None:
        """Batches whose last children went by another way than an end, or ended while somebody was joining."""
        after: int | None = self._batch_after
        for _ in range(PAGES):
            after, over = await self._store.settle_batches(after or 0, BATCH)
            if over:
                self._on_due()  # callbacks are due
            if after is None:
                break
        self._batch_after = after or 0
        self._children_at = monotonic() + self._rest_s

    async def domains(self) -> None:
        """Checks of domains that are due; what is over the rate stays due, and is found again."""
        planned, late_s = await self._store.plan_domains(self._config().dns.domains.per_minute)
        self._domains_were_due = planned > 0
        self._observer.upkeep.domains_planned(planned, late_s)
        if planned:
            self._on_due()
