"""The job kind `dns_check`: look what a domain publishes and say whether it is what was asked for."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from jobs.context import Context, Ledger
from jobs.dns import names
from jobs.dns.expectation import Expectation, Name
from jobs.dns.look import look
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
    seen = await look(ctx.dns, domain, wanted, lambda: datetime.now(UTC), visible=True)
    records = seen.rows()
    ctx.record(
        LEDGER,
        {
            "domain": domain,
            "verdict": seen.verdict,
            "records": records,
            "servers": seen.servers(),
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        },
    )
    result = {"verdict": seen.verdict, "conclusion": seen.text, "records": records}
    if seen.verdict != "indeterminate" or _is_last(ctx.job):
        return Done(result)
    return Retry(seen.text, code="indeterminate", detail=result)


def _is_last(job: Job) -> bool:
    return job.attempt >= (job.max_attempts or RECHECK.max_attempts)
