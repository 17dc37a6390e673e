"""The demo's second part: one event, three endpoints; one fails, is left alone, comes back, gets all once more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import asyncpg

import sql
from daemon.demo_rows import RECEIVER
from daemon.demo_teller import Teller
from daemon.demo_webhooks import SYSTEMS, WebhookSink

BROKEN = "stock"

ENDPOINTS = """insert into webhook_endpoints (org_id, name, url, events) values
  ('acme', 'crm', 'http://sink/crm', '{*}'),
  ('acme', 'ledger', 'http://sink/ledger', '{order.paid}'),
  ('acme', 'stock', 'http://sink/stock', '{order.*}')
on conflict (coalesce(org_id, ''), name) do update set url = excluded.url;"""

EVENT = """insert into webhook_events (org_id, event, payload)
  values ('acme', 'order.paid', '{"order": 3000, "total": "24.50"}');"""

EVENTS = """insert into webhook_events (org_id, event, payload)
  select 'acme', 'order.paid', json_build_object('order', n)
  from generate_series(3001, 3012) as n;"""

REPLAY = "jobsd endpoints replay stock --org acme --outcome ok --since -2m --rate 20/s"

_SQL = sql.load("demo.sql")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the deliveries to one endpoint stand, by the database: `untried` are those that no attempt was charged to,
    `held` those at the gate of its lane, `at_first` those that one attempt was enough for; `sent` counts attempts."""

    total: int
    done: int
    untried: int
    held: int
    at_first: int
    sent: int


Standings = Mapping[str, Standing]


class Story:
    """`muted` are lanes whose attempts need not be shown: the story tells how many there were."""

    def __init__(self, teller: Teller, pool: asyncpg.Pool, sink: WebhookSink, receiver: str) -> None:
        self._teller = teller
        self._pool = pool
        self._sink = sink
        self._receiver = receiver
        self._lanes: dict[str, str] = {}
        self.muted: set[str] = set()

    async def run(self) -> None:
        try:
            await self._endpoints()
            await self._fan_out()
            burst = await self._failure()
            await self._recovery(burst)
            await self._replay()
        finally:
            self._sink.broken.discard(BROKEN)
            self.muted.clear()

    async def _endpoints(self) -> None:
        self._tell("\nNow events. Three systems want to hear of acme's; each is an endpoint:", ENDPOINTS)
        await self._pool.execute(self._meant(ENDPOINTS))
        await self._pool.execute(_SQL["endpoint_secrets"])
        self._lanes = {row["name"]: row["lane"] for row in await self._pool.fetch(_SQL["endpoint_lanes"])}

    async def _fan_out(self) -> None:
        self._tell("An order is paid. One insert makes a delivery for each that wants to know:", EVENT)
        events, jobs = await self._emit(EVENT)
        await self._until("each endpoint has it", jobs, lambda found: all(s.done == s.total for s in found.values()))
        message = f"msg_e{events[0]}"
        known = _listed({name for name in SYSTEMS if message in self._sink.heard[name]})
        self._tell(f"1 event, {len(jobs)} deliveries; {known} have it, under the same webhook-id {message}")

    async def _failure(self) -> list[int]:
        """The deliveries of a burst of events while one endpoint is down."""
        self._sink.broken.add(BROKEN)
        self.muted |= {lane for name, lane in self._lanes.items() if name != BROKEN}
        self._tell(f"\n{BROKEN} breaks: from now on it answers 500. Twelve more orders are paid:", EVENTS)
        _, jobs = await self._emit(EVENTS)
        closings = await self._closed(0)
        found = await self._until(
            "the others have everything, and what was not tried waits",
            jobs,
            lambda found: (
                all(s.done == s.total or name == BROKEN for name, s in found.items())
                and found[BROKEN].untried == found[BROKEN].held > 0
            ),
        )
        others = " and ".join(f"{name} has {s.done} of {s.total}" for name, s in found.items() if name != BROKEN)
        theirs = found[BROKEN]
        self._tell(
            f"{others}, as if nothing had happened. {BROKEN} has none, and is left "
            f"alone after {theirs.sent} failures: {theirs.untried} of its {theirs.total} deliveries wait, untried"
        )
        await self._closed(closings)
        return jobs

    async def _recovery(self, jobs: list[int]) -> None:
        theirs = (await self._look(jobs))[BROKEN]
        self._tell(
            f"One delivery was sent to see whether {BROKEN} is well again. It is not, and is left alone for twice "
            f"as long. That makes {theirs.sent} attempts for {theirs.total} deliveries: waiting costs none"
        )
        self._sink.broken.discard(BROKEN)
        self._tell(f"\n{BROKEN} is repaired. Nobody tells the daemon; it sees by its next delivery:")
        found = await self._until("all is delivered", jobs, lambda found: found[BROKEN].done == found[BROKEN].total)
        theirs = found[BROKEN]
        self._tell(
            f"{BROKEN} has {theirs.done} of {theirs.total}. Of {theirs.sent} attempts "
            f"{theirs.sent - theirs.done} failed; {theirs.at_first} deliveries went well at the first"
        )

    async def _replay(self) -> None:
        lane = self._lanes[BROKEN]
        self.muted.add(lane)
        self._tell(f"\n{BROKEN} loses its disk. What it got in the last two minutes is sent once more:", REPLAY)
        job_id = int(await self._teller.jobsd(REPLAY))
        asked, well = await self._teller.seen(
            f"the deliveries of replay {job_id}",
            lambda: self._replayed(job_id, int(lane.partition(":")[2])),
            lambda found: found[0] == found[1],
        )
        known = sum(1 for times in self._sink.heard[BROKEN].values() if times > 1)
        self._tell(
            f"{well} of {asked} messages came, {known} of them under a webhook-id that {BROKEN} has seen. A receiver "
            "that keeps these ids with its data makes up for what it lost, and does nothing twice"
        )

    async def _replayed(self, job_id: int, endpoint: int) -> tuple[int | None, int]:
        """How many deliveries were asked for, once that is known, and how many went well."""
        (row,) = await self._pool.fetch(_SQL["replayed"], job_id, endpoint)
        return row["asked"], row["well"]

    async def _closed(self, times: int) -> int:
        """Wait until the lane was closed more often than that in a row; how often it was."""
        gate = f"lane:{self._lanes[BROKEN]}"
        found: int = await self._teller.seen(
            f"{BROKEN} is left alone", lambda: self._pool.fetchval(_SQL["closings"], gate), lambda found: found > times
        )
        return found

    async def _emit(self, statement: str) -> tuple[list[int], list[int]]:
        """The ids of the events that it inserts, and those of their deliveries."""
        async with self._pool.acquire() as conn, conn.transaction():
            newest = await conn.fetchval(_SQL["newest"])
            events = [row[0] for row in await conn.fetch(f"{statement.removesuffix(';')} returning id")]
            return events, [row[0] for row in await conn.fetch(_SQL["deliveries_of"], newest, events)]

    async def _until(self, what: str, jobs: list[int], true: Callable[[Standings], bool]) -> Standings:
        return await self._teller.seen(what, lambda: self._look(jobs), true)

    async def _look(self, jobs: list[int]) -> Standings:
        rows = await self._pool.fetch(_SQL["standing_of_endpoints"], jobs)
        return {row["name"]: Standing(**{key: row[key] for key in Standing.__slots__}) for row in rows}

    def _meant(self, statement: str) -> str:
        return statement.replace(RECEIVER, self._receiver)

    def _tell(self, text: str, shown: str = "") -> None:
        self._teller.say(text, self._meant(shown))


def _listed(names: Collection[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} and {last}" if first else last
