"""The job kind `dns_check`: look what a domain publishes and say whether it is what was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Annotated

import msgspec

from jobs.context import Context, Ledger
from jobs.dns import names
from jobs.dns.answer import Answer
from jobs.dns.expectation import Expectation, Name
from jobs.dns.finding import Finding
from jobs.dns.judge import judge
from jobs.dns.resolver import Resolver
from jobs.dns.verdict import gravest
from jobs.model import Done, Exponential, Job, Outcome, Retry
from jobs.registry import job

RECHECK = Exponential(base_s=300, max_s=3600, max_attempts=10)
"""When a check that could not tell is made again: after 5 minutes, doubled up to an hour, for some six hours in all."""

LEDGER = Ledger("domain_checks")


class DnsCheckArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`domain`, and one to twenty records that should be at or below it."""

    domain: Name
    expect: Annotated[tuple[Expectation, ...], msgspec.Meta(min_length=1, max_length=20)]

    def __post_init__(self) -> None:
        domain = names.normal(self.domain)
        for expectation in self.expect:
            expectation.at(domain)


@job("dns_check", args=DnsCheckArgs, retry=RECHECK, timeout="2m", lane=lambda args: names.normal(args.domain))
async def dns_check(args: DnsCheckArgs, ctx: Context) -> Outcome:
    """Match, mismatch and absent are what a check is for, so they are done.  Where no server could tell, it is made
    again later; the last attempt is done too and says "indeterminate", since that is then the answer: nothing is known.
    """
    started = time.perf_counter()
    domain = names.normal(args.domain)
    wanted = [expectation.at(domain) for expectation in args.expect]
    answers = await _ask_all(ctx.dns, {one.question: None for one in wanted})
    findings = [await judge(one, answers[one.question], ctx.dns.query) for one in wanted]
    verdict = gravest(finding.verdict for finding in findings if not finding.advice)
    records = [finding.as_row() for finding in findings]
    ctx.record(
        LEDGER,
        {
            "domain": domain,
            "verdict": verdict,
            "records": records,
            "servers": _said(answers.values()),
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        },
    )
    result = {"verdict": verdict, "records": records}
    if verdict != "indeterminate" or _is_last(ctx.job):
        return Done(result)
    return Retry(_doubt(findings), code="indeterminate", detail=result)


async def _ask_all(resolver: Resolver, questions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    """Each (name, type) once, all at a time: twenty silent names cost as long as one."""
    async with asyncio.TaskGroup() as group:
        tasks = {key: group.create_task(resolver.query(*key)) for key in questions}
    return {key: task.result() for key, task in tasks.items()}


def _said(answers: Iterable[Answer]) -> dict[str, str]:
    """server → what it said; a failure to one question outweighs its answers to the others."""
    said: dict[str, str] = {}
    for answer in answers:
        for server, word in answer.servers.items():
            if said.get(server) in (None, "answer", "nxdomain", "nodata"):
                said[server] = word
    return said


def _is_last(job: Job) -> bool:
    return job.attempt >= (job.max_attempts or RECHECK.max_attempts)


def _doubt(findings: list[Finding]) -> str:
    unknown = [f"{f.type} {f.name} ({f.reason})" for f in findings if f.verdict == "indeterminate"]
    return "no usable answer for " + ", ".join(unknown)
