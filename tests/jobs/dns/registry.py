"""Registered domains in a test's database, checked by the real handler, with what a daemon does around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import asyncpg

import sql
from daemon.texts import json_text
from jobs.context import Context
from jobs.dns.domain_check import LEDGER, domain_check
from jobs.dns.resolver import Resolver
from jobs.model import Done, Job, Outcome
from jobs.registry import KINDS

_SAID = sql.load("ledgers.sql")[LEDGER]


@dataclass
class Registry:
    """`check` is one job from its claim to its end; `killed`: its daemon dies before the commit."""

    pool: asyncpg.Pool
    resolver: Resolver
    jobs: int = 0

    async def register(self, domain: str, org: str | None = "acme", **columns: Any) -> str:
        """Its token."""
        columns = {"org_id": org, "domain": domain, **columns}
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        statement = f"insert into domains ({', '.join(columns)}) values ({places}) returning token"
        token: str = await self.pool.fetchval(statement, *columns.values())
        return token

    async def check(
        self,
        domain: str,
        org: str | None = "acme",
        *,
        job: int | None = None,
        killed: bool = False,
        soon: bool = False,
        dry_run: bool = False,
        **args: Any,
    ) -> dict[str, Any]:
        """Its result.  Unless it comes too `soon`, the last check is some time ago."""
        outcome = await self.outcome(domain, org, job=job, killed=killed, soon=soon, dry_run=dry_run, **args)
        assert isinstance(outcome, Done), outcome
        result: dict[str, Any] = json.loads(json_text(outcome.result))
        return result

    async def outcome(
        self,
        domain: str,
        org: str | None = "acme",
        *,
        job: int | None = None,
        killed: bool = False,
        soon: bool = False,
        dry_run: bool = False,
        **args: Any,
    ) -> Outcome:
        if not soon:
            await self.pool.execute("update domains set asked_at = asked_at - interval '10 s'")
        self.jobs += 1
        ctx = self._context({"domain": domain, **args}, org, job or self.jobs, dry_run)
        outcome = await domain_check(KINDS["domain_check"].decode(ctx.job.args_json), ctx)
        rows = [{**row, "job_id": ctx.job.id, "attempt": 1} for _ledger, row in ctx.records]
        if rows and not killed:
            await self.pool.execute(_SAID, json_text(rows))
        assert isinstance(outcome, Outcome)
        return outcome

    async def row(self, domain: str, org: str | None = "acme") -> asyncpg.Record:
        query = "select * from domains where domain = $1 and org_id is not distinct from $2"
        [row] = await self.pool.fetch(query, domain, org)
        return row

    async def told(self, org: str = "acme") -> list[str]:
        """Events of one organisation, in their order."""
        return [event for (event,) in await self.pool.fetch("select event from webhook_events where org_id = $1", org)]

    def _context(self, args: dict[str, Any], org: str | None, job: int, dry_run: bool) -> Context:
        tools: Any = SimpleNamespace(dns=self.resolver, db=self.pool)
        row = Job(job, 1, "domain_check", "default", 2, 1, json.dumps(args), 0.0, org_id=org)
        unused: Any = None
        return Context(row, tools, log=unused, progress=unused, dry_run=dry_run)
