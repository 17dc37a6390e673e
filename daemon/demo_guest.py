"""The demo's guest: inserts rows as any program would, and waits to see what becomes of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import asyncpg

import sql
from daemon.config import Config
from daemon.database import Database
from daemon.demo_domains import Domains
from daemon.demo_hints import hints
from daemon.demo_home import Home, program_folder
from daemon.demo_letters import Letters
from daemon.demo_rows import SAMPLES, Sample, difference, script, trickle
from daemon.demo_screen import Foot, Screen
from daemon.demo_sinks import HOST, Ports, Sinks
from daemon.demo_story import Story
from daemon.demo_teller import Teller
from daemon.demo_upkeep import Upkeep
from daemon.embedded import DATABASE, PORT, SUPERUSER, Embedded
from daemon.pginstall import wheel_bin_dir
from daemon.statements import AWAY

TRICKLE_S = 5.0
BACKLOG_MAX = 100
"""With so many unfinished rows nothing is added: somebody has paused a queue."""

LOOK_S = 0.2

SETTLE_S = 30.0
"""How long somebody who stays waits for what is to be shown next."""

_SQL = sql.load("demo.sql")


class Guest:
    """`shows` says, by id, what the sample rows are there to show; whoever has said it takes it out.  `muted` are lanes
    whose attempts need not be shown just now."""

    def __init__(self, home: Home, ports: Ports, screen: Screen, config: Config, sinks: Sinks) -> None:
        self._home = home
        self._ports = ports
        self._screen = screen
        self._config = config
        self._sinks = sinks
        self._receiver = f"http://{HOST}:{ports.webhook}"
        self.shows: dict[int, str] = {}
        self.muted: set[str] = set()

    async def stay(self, status: Callable[[], str], *, trickles: bool) -> None:
        """Insert the samples, tell of events, then insert a row now and then, until cancelled; `status` is the first
        line of the foot."""
        async with await self._arrive() as pool:
            samples = await self._insert(pool)
            told = self._hint(samples)
            async with asyncio.TaskGroup() as tasks:
                shown = tasks.create_task(self._show(pool, samples))
                await self._stay(pool, told, status, shown if trickles else None)

    async def wait(self, deadline_s: float) -> bool:
        """Insert the samples and tell of events; whether all came to its end in time.  The screen says what did not."""
        async with await self._arrive() as pool:
            samples = await self._insert(pool)
            if wrong := await self._settle(pool, samples, deadline_s):
                for job_id, text in wrong.items():
                    self._screen.say(f"row {job_id} ({samples[job_id].shows}) {text}", "bad")
                return False
            self._screen.say(f"all {len(samples)} rows are as they must be")
            return await self._tell(pool, deadline_s)

    async def _arrive(self) -> asyncpg.Pool:
        """Find the daemon's database, and tell people where everything is."""
        server = Embedded(self._config.daemon.postgres_folder)
        dsn = await server.start()
        await server.stop()  # the daemon owns it; this only let go of it
        home, ports = self._home, self._ports
        home.write_env(server.socket_folder, PORT, SUPERUSER, DATABASE, program_folder(), wheel_bin_dir(server.version))
        self._screen.say(f"log {home.log}, settings {home.settings}")
        self._screen.say(
            f"receivers on {HOST}: webhook {ports.webhook}, mail {ports.mail} (kept in {home.mail}), dns {ports.dns}; "
            f"metrics {ports.admin}"
        )
        return await Database(dsn, self._config.database).handler_pool()

    async def _insert(self, pool: asyncpg.Pool) -> dict[int, Sample]:
        """All sample rows in one transaction; by id."""
        samples = [sample.at(self._receiver) for sample in SAMPLES]
        self._home.rows.write_text(script(samples))
        self._screen.say(f"\n{len(samples)} rows go in, all of them in {self._home.rows}; the first one:")
        self._screen.say("\n".join(f"  {line}" for line in samples[0].statement.splitlines()) + "\n", "quiet")
        found = {}
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute(_SQL["forget_suppressions"])
            for sample in samples:
                found[await conn.fetchval(f"{sample.statement.removesuffix(';')} returning id")] = sample
            self.shows |= {job_id: sample.shows for job_id, sample in found.items()}
        return found

    async def _show(self, pool: asyncpg.Pool, samples: dict[int, Sample]) -> None:
        """Whatever became of the samples: somebody may have paused a queue."""
        with suppress(*AWAY):  # the screen says so already
            await self._settle(pool, samples, SETTLE_S)
            await self._tell(pool, SETTLE_S)

    async def _tell(self, pool: asyncpg.Pool, deadline_s: float) -> bool:
        teller = Teller(self._screen, self._home.env)
        story = Story(teller, pool, self._sinks.webhook, self._receiver)
        self.muted = story.muted
        letters = Letters(teller, pool, self._sinks.mail, self._home.dkim())
        domains = Domains(teller, pool, self._sinks.dns.customer)
        return await teller.tell(story, letters, domains, Upkeep(teller, pool), deadline_s=deadline_s)

    async def _settle(self, pool: asyncpg.Pool, samples: dict[int, Sample], deadline_s: float) -> dict[int, str]:
        """How the samples are that have not come to their ends in time."""
        deadline = monotonic() + deadline_s
        while True:
            rows = {row["id"]: dict(row) for row in await pool.fetch(_SQL["standing"], list(samples))}
            found = {job_id: difference(sample, rows.get(job_id)) for job_id, sample in samples.items()}
            wrong = {job_id: text for job_id, text in found.items() if text}
            if not wrong or monotonic() >= deadline:
                return wrong
            await asyncio.sleep(LOOK_S)

    def _hint(self, samples: dict[int, Sample]) -> tuple[str, ...]:
        """What to try: in the foot or, where there is none, said once."""
        waiting = next(job_id for job_id, sample in samples.items() if sample.state == "ready")
        told = hints(self._home.env, self._ports, waiting, has_curl=shutil.which("curl") is not None)
        if not self._screen.lives:
            self._screen.say("\n".join(("", *told, "Ctrl-C stops everything.", "")))
        return told

    async def _stay(
        self, pool: asyncpg.Pool, told: tuple[str, ...], status: Callable[[], str], after: asyncio.Task[None] | None
    ) -> None:
        """A row now and then once `after` is over, none if it is None."""
        statements = trickle(self._receiver)
        next_at = monotonic() + 2 * TRICKLE_S
        while True:
            self._screen.foot(Foot(f"{status()}  ·  Ctrl-C stops everything", told))
            await asyncio.sleep(1.0)
            if after is None or not after.done() or monotonic() < next_at:
                continue
            next_at = monotonic() + TRICKLE_S
            with suppress(*AWAY):  # the screen says so already
                if await pool.fetchval(_SQL["backlog"], BACKLOG_MAX) < BACKLOG_MAX:
                    await pool.execute(next(statements))
