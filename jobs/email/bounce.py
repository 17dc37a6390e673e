"""The kind `email_bounce`: what came back is noted, once, and whom it came back from is not written to for a while."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

import sql
from jobs.context import Context
from jobs.email import report
from jobs.email.address import mailbox
from jobs.email.judge import Verdict, judge
from jobs.email.keyring import NoKeys, tokens
from jobs.email.reply import Answer, Reply, reply_text
from jobs.email.report import Failure, NoReport
from jobs.email.suppressions import canonical, row, said_by
from jobs.email.tokens import Tokens
from jobs.model import Done, Ladder, Outcome, Retry
from jobs.registry import job

_SQL = sql.load("email.sql")
_LEDGERS = sql.load("ledgers.sql")

PATIENCE = Ladder("1m", "10m", "1h")

_SAID = re.compile(r"(?P<code>[45]\d\d)[ -]+(?P<rest>.*)", re.DOTALL)
_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")


class Bounced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One recipient, as a service that reads bounces by itself tells of him; `status` as RFC 3463 has it."""

    recipient: Annotated[str, msgspec.Meta(max_length=320)]
    status: Annotated[str, msgspec.Meta(max_length=20)] = "5.0.0"
    action: Literal["failed", "delayed", "delivered", "relayed", "expanded"] = "failed"
    text: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class EmailBounceArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`message`: the bounce itself, Base64 in JSON; its first 128 KiB are enough.  `to`: the address it came to, if
    that is known; or else `to` and `recipients`."""

    message: bytes | None = None
    to: Annotated[str, msgspec.Meta(max_length=320)] | None = None
    recipients: Annotated[tuple[Bounced, ...], msgspec.Meta(max_length=500)] = ()

    def __post_init__(self) -> None:
        if (self.message is None) == (not self.recipients):
            raise ValueError("give either `message` or `recipients`")
        if self.message is None and self.to is None:
            raise ValueError("there is no `to`: the address that the bounce came to says which mail it is about")


class _Ignored(Exception):
    """It is not for us; the text says why."""


@job("email_bounce", args=EmailBounceArgs, retry=PATIENCE, timeout="1m", transactional=True)
async def email_bounce(args: EmailBounceArgs, ctx: Context) -> Outcome:
    """Everything or nothing, with the row's end.  What is forged, or no bounce, changes nothing and says so."""
    try:
        job_id = _job_id(args, tokens(ctx))
        failures = _failures(args)
        mail = await _handed_over(ctx, job_id)
    except NoKeys as nothing:
        return nothing.outcome
    except (_Ignored, NoReport) as reason:
        ctx.log.warning("email_bounce_ignored", reason=str(reason))
        return Done({"ignored": str(reason)})
    if mail is None:  # it may have come back before the log was written
        return Retry(f"nothing is known of a mail of job {job_id}", code="delivery_unknown")
    return Done({"job": job_id, "recipients": await _note(ctx, mail, failures)})


def _job_id(args: EmailBounceArgs, secrets: Tokens | None) -> int:
    if secrets is None:
        raise _Ignored("there is no secret in email.token_secrets, so nothing that comes back can be ours")
    addresses = (args.to,) if args.to is not None else report.came_to(args.message or b"")
    for address in addresses:
        if (job_id := secrets.job_of(address.rpartition("@")[0])) is not None:
            return job_id
    raise _Ignored("it came to no address that we have signed")


def _failures(args: EmailBounceArgs) -> Sequence[Failure]:
    if args.message is not None:
        return report.read(args.message)
    return [Failure(each.recipient, each.action, each.status, each.text) for each in args.recipients]


@dataclass(frozen=True, slots=True)
class _Mail:
    """What the log has of it; `recipients` as the log has them, by themselves in lower case."""

    job_id: int
    org_id: str | None
    recipients: Mapping[str, str]


async def _handed_over(ctx: Context, job_id: int) -> _Mail | None:
    rows = await ctx.conn.fetch(_SQL["handed_over"], job_id)
    if not rows and ctx.job.attempt > len(PATIENCE.delays_s):
        raise _Ignored(f"the log has no mail of job {job_id}")
    if rows and ctx.job.org_id not in (None, rows[0]["org_id"]):
        raise _Ignored("it is about another organisation's mail")
    if not rows:
        return None
    return _Mail(job_id, rows[0]["org_id"], {canonical(mailbox(r["recipient"]).wire): r["recipient"] for r in rows})


async def _note(ctx: Context, mail: _Mail, failures: Sequence[Failure]) -> dict[str, str]:
    """What came of each recipient that is named."""
    handed, found = mail.recipients, dict[str, str]()
    verdicts: dict[str, tuple[Failure, Verdict]] = {}
    for failure in failures:
        recipient = _whose(failure, handed)
        if recipient is None:
            found[failure.recipient or "?"] = "no recipient of this mail"
        elif failure.action != "failed":
            found[recipient] = failure.action
        else:
            verdicts[recipient] = failure, _judged(failure)
    columns = [(handed[r], v.code, f.status[:20], v.why[:1024]) for r, (f, v) in verdicts.items()]
    given = zip(*columns, strict=True) if columns else ((), (), (), ())
    news = {row["recipient"] for row in await ctx.conn.fetch(_SQL["bounced"], mail.job_id, *map(list, given))}
    rows = []
    for recipient, (_failure, verdict) in verdicts.items():
        is_news = handed[recipient] in news
        found[recipient] = verdict.code if is_news else "known before"
        if is_news and (said := said_by(verdict, None)) is not None:
            rows.append(row(recipient, said, verdict.why, is_final=True))
    if rows:
        text = msgspec.json.encode([{**each, "org_id": mail.org_id} for each in rows]).decode()
        await ctx.conn.execute(_LEDGERS["email_suppressions"], text)
    return found


def _whose(failure: Failure, handed: Mapping[str, str]) -> str | None:
    if failure.recipient is None:
        return next(iter(handed)) if len(handed) == 1 else None
    return recipient if (recipient := canonical(failure.recipient)) in handed else None


def _judged(failure: Failure) -> Verdict:
    """As if the relay had said it at once."""
    match = _SAID.match(failure.words)
    status = failure.status if _STATUS.fullmatch(failure.status) else "5.0.0"
    words = match["rest"] if match else failure.words
    code = int(match["code"]) if match else int(status[0]) * 100 + 50
    text = words if words.startswith(status) else f"{status} {words}"
    return judge(Answer(failure.recipient or "", "rcpt", Reply(code, reply_text(text.encode(errors="replace")))))
