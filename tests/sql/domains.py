"""What the tests of registered domains do with them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sql
from jobs.dns.policy import DomainPolicy
from jobs.dns.state import Notice, Seen, Word, memory_of, next_state
from tests.sql.rows import Pool

SAID = sql.load("ledgers.sql")["domains"]
TURN = sql.load("domains.sql")["turn"]
PLAN = sql.load("domains.sql")["plan"]
POLICY = DomainPolicy()


async def register(pool: Pool, domain: str = "example.com", org: str | None = "acme", **columns: Any) -> int:
    columns = {"org_id": org, "domain": domain, **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    statement = f"insert into domains ({', '.join(columns)}) values ({places}) returning id"
    found: int = await pool.fetchval(statement, *columns.values())
    return found


async def one_row(pool: Pool, query: str) -> tuple[Any, ...]:
    """The only one."""
    [row] = await pool.fetch(query)
    return tuple(row)


async def turn(pool: Pool, domain: str = "example.com", org: str | None = "acme", job: int = 1) -> Any:
    return await pool.fetchrow(TURN, org, domain, None, job, 10.0, 150.0)


def said(row: Any, word: Word, now: datetime | None = None, *, job: int = 1, notice: Notice | None = None) -> str:
    """What a check that saw `word` writes."""
    step = next_state(memory_of(row), Seen(word=word), now or row["now"], POLICY)
    notice = notice or step.notice
    one = {
        "domain_id": row["id"],
        "checks": row["checks"],
        "job_id": job,
        "attempt": 1,
        "verdict": {"good": "match", "bad": "absent"}.get(word, "indeterminate"),
        "records": [],
        "conclusion": f"it is {word}",
        "step": asdict(replace(step.memory)) | {"next_check_at": step.next_check_at},
    }
    if notice:
        one |= {"notice": notice, "payload": {"domain": row["domain"]}}
        one |= {"mail": {"to": "ann@example.com", "subject": "s", "text": "t"}}
    return json.dumps([one], default=str)
