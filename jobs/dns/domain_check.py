"""The job kind `domain_check`: one check of a registered domain, and what follows from it.

Its row in table domains, the line in the log and the notices are written in the commit that ends the job.  A check that
is killed has changed nothing, and the same job makes it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

import sql
from jobs.context import Context, Ledger
from jobs.dns import names, notice, suffixes
from jobs.dns.expectation import Name
from jobs.dns.look import Look, look
from jobs.dns.policy import DomainPolicy
from jobs.dns.records.token import new_token
from jobs.dns.registered import Registered, registered, to_publish
from jobs.dns.state import IN_USE, Seen, Step, next_state
from jobs.model import Dead, Done, Fixed, Outcome, Snooze
from jobs.registry import job

_SQL = sql.load("domains.sql")

LEDGER = Ledger("domains")

TIMEOUT_S = 120.0
LOST_S = 150.0
"""A check that began so long ago has ended, or its daemon is no more."""

UNDER_WAY_S = 2.0


class DomainCheckArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A domain of this job's organisation.  `id`: its row in table domains, as the plan knows it."""

    domain: Name
    id: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        names.normal(self.domain)


@dataclass(frozen=True, slots=True)
class Told:
    """What a check comes to: the step, what the owner is told of it, and the token that counts from now on."""

    step: Step
    conclusion: str
    token: str


@job("domain_check", args=DomainCheckArgs, retry=Fixed(60.0, max_attempts=5), timeout=TIMEOUT_S)
async def domain_check(args: DomainCheckArgs, ctx: Context) -> Outcome:
    """Take its turn, look, and note the next step.  A check that could not tell is done too: the step says when to look
    again."""
    policy = ctx.dns.settings.domains
    row = await _turn(args, ctx, policy)
    if row is None:
        return _unknown(args, ctx)
    if not row["taken"]:
        return _answered(row)
    started = time.perf_counter()
    domain = registered(row)

    def clock() -> datetime:
        return domain.now + timedelta(seconds=time.perf_counter() - started)

    seen = await _look(domain, ctx, clock)
    told = concluded(domain, seen, clock(), policy)
    if not ctx.dry_run:
        spent_ms = round((time.perf_counter() - started) * 1000, 3)
        ctx.record(
            LEDGER, {**_said(domain, seen, told), "duration_ms": spent_ms, **_notices(domain, told, ctx, policy)}
        )
    return Done(
        {
            "domain": domain.domain,
            "asked": True,
            "state": told.step.memory.state,
            "state_before": domain.memory.state,
            "verdict": seen.verdict,
            "conclusion": told.conclusion,
            "records": seen.rows(),
            "next_check_at": told.step.next_check_at,
        }
    )


# --- whose turn it is -------------------------------------------------------------------------------------------------


async def _turn(args: DomainCheckArgs, ctx: Context, policy: DomainPolicy) -> Mapping[str, Any] | None:
    """A dry run takes nobody's turn."""
    given = (ctx.job.org_id, names.normal(args.domain), args.id, ctx.job.id, policy.check_gap, LOST_S)
    async with ctx.db.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            row = await conn.fetchrow(_SQL["turn"], *given)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if ctx.dry_run else transaction.commit())
        return None if row is None else dict(row)


async def _look(domain: Registered, ctx: Context, clock: Callable[[], datetime]) -> Look:
    try:
        wanted = domain.wanted()
    except ValueError as error:
        return Look(obstacle=str(error))
    if await suffixes.is_nobodys(domain.domain):
        return Look(
            obstacle=f"{domain.domain} is a public suffix: others register names under it, so it cannot be yours."
        )
    return await look(
        ctx.dns, domain.domain, wanted, clock, visible=not domain.is_new, careful=domain.memory.state in IN_USE
    )


def _unknown(args: DomainCheckArgs, ctx: Context) -> Outcome:
    if args.id is not None:
        return Done({"domain": args.domain, "asked": False, "why": "it is no longer registered"})
    whose = "of no organisation" if ctx.job.org_id is None else f"of organisation {ctx.job.org_id}"
    return Dead(f"{args.domain} is no registered domain {whose}: insert it into table domains", code="domain_unknown")


def _answered(row: Mapping[str, Any]) -> Outcome:
    """By the check that is under way, or was a moment ago."""
    if row["under_way"]:
        return Snooze("another check of it is under way", after=UNDER_WAY_S, code="under_way")
    return Done(
        {
            "domain": row["domain"],
            "asked": False,
            "why": f"it was checked {max(round(row['asked_s']), 0)} s ago; this is what was seen then",
            "state": row["state"],
            "verdict": row["verdict"],
            "conclusion": row["conclusion"],
            "records": json.loads(row["records"] or "null"),
            "next_check_at": row["next_check_at"],
        }
    )


# --- what follows -----------------------------------------------------------------------------------------------------


def concluded(domain: Registered, seen: Look, now: datetime, policy: DomainPolicy) -> Told:
    """The next step of its state; and what to make of name servers that are others than before.

    Only a check that found all well asks for a new token: one that could not tell may have lost its way, and where the
    records are gone they are what costs the domain its state.
    """
    step = next_state(domain.memory, Seen(word=seen.word, visible_by=seen.visible_by), now, policy)
    before, after = domain.name_servers, seen.name_servers
    if not before or not after or set(before) == set(after):
        return Told(step, seen.text, domain.token)
    said = f"{seen.text} Its name servers were {', '.join(before)}, and are {', '.join(after)}"
    if set(before) & set(after) or domain.memory.state not in IN_USE or seen.word not in ("good", "bad"):
        return Told(step, f"{said}.", domain.token)
    if policy.on_new_name_servers == "advise" or seen.word == "bad":
        return Told(step, f"{said}: the domain may have another owner.", domain.token)
    return Told(challenged(step, now, policy), f"{said}: please publish the new token.", new_token())


def challenged(step: Step, now: datetime, policy: DomainPolicy) -> Step:
    """A verified domain that is given a new token: in trouble until that is published; its owner is told at once."""
    memory = replace(
        step.memory,
        state="degraded",
        since=now,
        mismatch_since=now,
        noticed="degraded",
        noticed_at=now,
        warned_at=now,
    )
    first_s = policy.first_steps[0] if policy.first_steps else policy.step
    return Step(memory=memory, next_check_at=now + timedelta(seconds=first_s), notice="degraded")


def _said(domain: Registered, seen: Look, told: Told) -> dict[str, Any]:
    """As the function domains_said takes it.  Name servers of a domain in use are remembered from checks that found all
    well: those are what it is compared with, and neither an outage nor a move without the records changes that."""
    at_home = seen.word == "good" or domain.memory.state not in IN_USE
    columns = asdict(told.step.memory) | {
        "next_check_at": told.step.next_check_at,
        "name_servers": (seen.name_servers or None) if at_home else None,
        "token": told.token,
    }
    return {
        "domain_id": domain.id,
        "checks": domain.checks,
        "state_before": domain.memory.state,
        "verdict": seen.verdict,
        "conclusion": told.conclusion,
        "records": seen.rows(),
        "servers": seen.servers(),
        "step": columns,
    }


def _notices(domain: Registered, told: Told, ctx: Context, policy: DomainPolicy) -> dict[str, Any]:
    if told.step.notice is None:
        return {"domain": domain.domain}
    publish = _published(replace(domain, token=told.token))
    about = notice.About(domain.domain, ctx.job.org_id, domain.memory.state, told.step, told.conclusion, publish)
    said: dict[str, Any] = {"domain": domain.domain, "notice": told.step.notice}
    if "webhook" in policy.notify:
        said["payload"] = notice.event(about, policy)
    if "email" in policy.notify and domain.contact is not None:
        said["mail"] = notice.mail(about, domain.contact, policy)
    return said


def _published(domain: Registered) -> list[dict[str, str]]:
    try:
        return to_publish(domain.wanted())
    except ValueError:
        return []  # the conclusion says why
