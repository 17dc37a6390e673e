"""The demo's second part: one event, three endpoints; one fails, is left alone, comes back, gets all once more."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

import sql
from daemon.demo_rows import RECEIVER
from daemon.demo_screen import Screen
from daemon.demo_webhooks import SYSTEMS, WebhookSink

BROKEN = "stock"

LOOK_S = 0.1

T = TypeVar("T")

ENDPOINTS = """insert into webhook_endpoints (org_id, name, url, events) values
  ('acme', 'crm', 'http://sink/crm', '{*}'),
  ('acme', 'ledger', 'http://sink/ledger', '{order.paid}'),
  ('acme', 'stock', 'http://sink/stock', '{order.*}')
on conflict (coalesce(org_id, ''), name) do update set url = excluded.url;"""

EVENT = """insert into webhook_events (org_id, event, payload)
  values ('acme', 'order.paid', '{"order": 3000, "total": "24.50"}');"""

EVENTS = """insert into webhook_events (org_id, event, payload)
  select 'acme', 'order.paid', json_build_object('order', n) from generate_series(3001, 3012) as n;"""

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


class CommandFailed(Exception):
    """With what it said."""


class Story:
    """`muted` are lanes whose attempts need not be shown: the story tells how many there were.  `env` is the file that
    makes a shell's `jobsd` mean this demo."""

    def __init__(self, pool: asyncpg.Pool, screen: Screen, sink: WebhookSink, receiver: str, env: Path) -> None:
        self._pool = pool
        self._screen = screen
        self._sink = sink
        self._receiver = receiver
        self._env = env
        self._lanes: dict[str, str] = {}
        self._awaited = ""
        self.muted: set[str] = set()

    async def tell(self, deadline_s: float) -> bool:
        """Whether it came to its end in time; the screen says where it did not."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._endpoints()
                await self._fan_out()
                burst = await self._failure()
                await self._recovery(burst)
                await self._replay()
        except TimeoutError:
            self._screen.say(f"this did not come in time: {self._awaited}", "bad")
            return False
        except CommandFailed as error:
            self._screen.say(str(error), "bad")
            return False
        finally:
            self._sink.broken.discard(BROKEN)
            self.muted.clear()
        return True

    async def _endpoints(self) -> None:
        self._tell("\nNow events. Three systems want to hear of what happens at acme; each is an endpoint:", ENDPOINTS)
        await self._pool.execute(self._meant(ENDPOINTS))
        await self._pool.execute(_SQL["endpoint_secrets"])
        self._lanes = {row["name"]: row["lane"] for row in await self._pool.fetch(_SQL["endpoint_lanes"])}

    async def _fan_out(self) -> None:
        self._tell("An order is paid. One insert makes a delivery for each endpoint that wants to know:", EVENT)
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
            f"{others}, as if nothing had happened. {BROKEN} has none, and is left\n"
            f"alone after {theirs.sent} failures: {theirs.untried} of its {theirs.total} deliveries wait, untried"
        )
        await self._closed(closings)
        return jobs

    async def _recovery(self, jobs: list[int]) -> None:
        theirs = (await self._look(jobs))[BROKEN]
        self._tell(
            f"One delivery was sent to see whether {BROKEN} is well again. It is not, and is left alone for twice\n"
            f"as long. That makes {theirs.sent} attempts for {theirs.total} deliveries: waiting costs none"
        )
        self._sink.broken.discard(BROKEN)
        self._tell(f"\n{BROKEN} is repaired. Nobody tells the daemon; the next delivery that it tries will:")
        found = await self._until("all is delivered", jobs, lambda found: found[BROKEN].done == found[BROKEN].total)
        theirs = found[BROKEN]
        self._tell(
            f"{BROKEN} has {theirs.done} of {theirs.total}. Of {theirs.sent} attempts "
            f"{theirs.sent - theirs.done} failed; {theirs.at_first} deliveries went well at the first"
        )

    async def _replay(self) -> None:
        lane = self._lanes[BROKEN]
        self.muted.add(lane)
        self._tell(
            f"\n{BROKEN} loses its disk. Whatever it got in the last two minutes is sent there once more:", REPLAY
        )
        job_id = int(await self._jobsd(REPLAY))
        asked, well = await self._polled(
            f"the deliveries of replay {job_id}",
            lambda: self._replayed(job_id, int(lane.partition(":")[2])),
            lambda found: found[0] == found[1],
        )
        known = sum(1 for times in self._sink.heard[BROKEN].values() if times > 1)
        self._tell(
            f"{well} of {asked} messages came, {known} of them under a webhook-id that {BROKEN} has seen. A receiver\n"
            "that keeps these ids with its data makes up for what it lost, and does nothing twice"
        )

    async def _replayed(self, job_id: int, endpoint: int) -> tuple[int | None, int]:
        """How many deliveries were asked for, once that is known, and how many went well."""
        (row,) = await self._pool.fetch(_SQL["replayed"], job_id, endpoint)
        return row["asked"], row["well"]

    async def _jobsd(self, command: str) -> str:
        """What it prints, in a shell that has read `env`, as the reader would type it."""
        self._awaited = command
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", f". {shlex.quote(str(self._env))}\n{command}",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await shell.communicate()
        finally:
            if shell.returncode is None:
                shell.kill()
                await shell.wait()
        if shell.returncode:
            raise CommandFailed(f"{command}: {err.decode(errors='replace').strip()}")
        return out.decode()

    async def _closed(self, times: int) -> int:
        """Wait until the lane was closed more often than that in a row; how often it was."""
        gate = f"lane:{self._lanes[BROKEN]}"
        found: int = await self._polled(
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
        return await self._polled(what, lambda: self._look(jobs), true)

    async def _polled(self, what: str, look: Callable[[], Awaitable[T]], true: Callable[[T], bool]) -> T:
        """What was seen when it was true first."""
        self._awaited = what
        while True:
            found = await look()
            if true(found):
                return found
            await asyncio.sleep(LOOK_S)

    async def _look(self, jobs: list[int]) -> Standings:
        rows = await self._pool.fetch(_SQL["standing_of_endpoints"], jobs)
        return {row["name"]: Standing(**{key: row[key] for key in Standing.__slots__}) for row in rows}

    def _meant(self, statement: str) -> str:
        return statement.replace(RECEIVER, self._receiver)

    def _tell(self, text: str, statement: str = "") -> None:
        self._screen.say(text, "told")
        if statement:
            self._screen.say("\n".join(f"  {line}" for line in self._meant(statement).splitlines()), "quiet")


def _listed(names: Collection[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} and {last}" if first else last
