"""The demo's fifth part: upkeep that is nothing but config, on the sample application."""

from __future__ import annotations

import json
import re
from typing import Any

import asyncpg

import sql
from daemon.demo_teller import Teller

JOBS = ("spam_expiry", "message_expiry", "bandwidth_daily", "usage_thresholds")

INSTALL = "jobsd sample install"
FILL = "jobsd sample fill --size 20000 --again"

CLEAN = """insert into jobs (kind) values ('spam_expiry'), ('message_expiry');"""
SUMS = """insert into jobs (kind, args) values ('bandwidth_daily', '{"anew": true}');"""
USAGE = """insert into jobs (kind) values ('usage_thresholds');"""

_SECTION = re.compile(r"^\[jobs\.(\w+)\]\n(?:(?!\[|#).*\n)+", re.MULTILINE)
_SLOWLY = {"spam_expiry": "batch = 1\n"}
"""In small steps, so that there is something to see: else it is over in a moment."""

_LEFT_OUT = re.compile(r"^(?:schedule|email_\w+|org_column) = .*\n", re.MULTILINE)
_SQL = sql.load("demo.sql")


def sections() -> str:
    """Some jobs of the sample, for the demo's settings: they come when they are told of, and write to nobody."""
    found = {match[1]: match[0] for match in _SECTION.finditer(sql.text("reference/jobs.toml"))}
    return "\n".join(_LEFT_OUT.sub("", found[name]).rstrip("\n") + "\n" + _SLOWLY.get(name, "") for name in JOBS)


class Upkeep:
    """What the jobs come to is their own results, as anybody finds them in the history."""

    def __init__(self, teller: Teller, pool: asyncpg.Pool) -> None:
        self._teller = teller
        self._pool = pool
        self._told: dict[str, float] = {}  # how far each kind was when that was said last

    async def run(self) -> None:
        self._teller.say("\nAnd upkeep. A small application's tables, with rows of all ages:", f"{INSTALL}\n{FILL}")
        await self._teller.jobsd(INSTALL)
        await self._teller.jobsd(FILL)
        await self._clean()
        await self._sums()
        await self._usage()

    async def _clean(self) -> None:
        self._teller.say("Jobs that are a dozen lines of the settings each, and no code, tidy up:", CLEAN)
        found = await self._done(CLEAN)
        spam, messages = found["spam_expiry"], found["message_expiry"]
        self._teller.say(
            f"{spam['deleted']} messages past 30 days are out of quarantine; {messages['deleted']} past 90 days, or "
            "what their account says, are gone, their headers with them, and what they add up to is kept"
        )

    async def _sums(self) -> None:
        self._teller.say("Traffic is added up by account and day, whatever comes late:", SUMS)
        said = (await self._done(SUMS))["bandwidth_daily"]
        self._teller.say(f"{said['read']} reports are {said['computed']} sums; the next run reads what is new")

    async def _usage(self) -> None:
        self._teller.say("Whoever uses up his plan too soon is told, once for each threshold:", USAGE)
        first = (await self._done(USAGE))["usage_thresholds"]
        again = (await self._done(USAGE))["usage_thresholds"]
        self._teller.say(f"{first['events']} events the first time, {again['events']} the second")

    async def _done(self, statement: str) -> dict[str, Any]:
        """What each job that the statement inserts comes to, by its kind."""
        rows = await self._pool.fetch(f"{statement.removesuffix(';')} returning id")
        ids = [row["id"] for row in rows]
        ended = await self._teller.seen(
            "the jobs have run", lambda: self._ended(ids), lambda found: len(found) == len(ids)
        )
        return {row["kind"]: json.loads(row["result"]) for row in ended}

    async def _ended(self, ids: list[int]) -> list[asyncpg.Record]:
        """Those that have; of the others is told how far they are, as anybody can read it."""
        for kind, text in await self._pool.fetch(_SQL["progress"], ids):
            said = json.loads(text)
            if said["percent"] > self._told.get(kind, 0.0):
                self._told[kind] = said["percent"]
                gone = f": {said['deleted']} rows are gone" if "deleted" in said else ""
                self._teller.say(f"{kind} has come to {said['percent']:.0f} %{gone}")
        return await self._pool.fetch(_SQL["results"], ids)
