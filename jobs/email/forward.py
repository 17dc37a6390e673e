"""The job kind `email_forward`: one message on its way, byte for byte, until it is there or its time is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from jobs.context import Context, Ledger
from jobs.email.address import mailbox
from jobs.email.forward_settings import ForwardSettings
from jobs.email.forward_wire import Forwarded, Unforwardable, message_id_of, refuse_loops, smtp_form, trace
from jobs.email.logged import note
from jobs.email.past import Past, delivered
from jobs.email.relay import UnknownRelay
from jobs.email.settings import MAIN
from jobs.email.srs import Srs
from jobs.email.turns import Asker
from jobs.model import Dead, Done, Fixed, Outcome, Retry, Snooze
from jobs.registry import job
from jobs.secrets import SecretMissing
from jobs.webhook.endpoints import LANE as ENDPOINT_LANE
from sql import load

if TYPE_CHECKING:
    import asyncpg

_SQL = load("forwards.sql")

LEDGER = Ledger("email_forwards")

OURS_S = 60.0
"""Until a forward that waits for settings of ours is looked at again."""

POLICY = Fixed(60.0, max_attempts=200)
"""For what the ages of email.forward say nothing of: a deadline, a lost worker.  They end it long before."""

_NEARLY = 0.98
"""An age is reached this share of it early: clocks and waits are not exact."""

_SOON = ("greylisted", "unknown_after_dot")


class ForwardArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of email_forwards; whoever inserts one there gets this job with it."""

    forward: Annotated[int, msgspec.Meta(ge=1)]
    relay: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A row of email_forwards, without its bytes.  `failing_s`: since its first failure, None if there was none."""

    sender: str
    recipients: tuple[str, ...]
    smtputf8: bool
    size_bytes: int
    received_at: float
    failing_s: float | None


def lane(args: ForwardArgs) -> str | None:
    relay = args.relay or MAIN
    return None if relay.startswith(ENDPOINT_LANE) else relay


@job("email_forward", args=ForwardArgs, retry=POLICY, timeout="30m", lane=lane)
async def email_forward(args: ForwardArgs, ctx: Context) -> Outcome:
    """Load, hand over, note what came of it; the message's own row ends in the commit that ends the attempt."""
    settings, mail = ctx.mail.settings.forward, ctx.mail
    envelope = await _envelope(ctx.db, args.forward)
    if envelope is None:
        return Dead("its bytes are no longer kept: it was delivered or given up before", code="forward_gone")
    try:
        srs = mail.srs()
    except SecretMissing as error:
        return Snooze(f"no sender can be rewritten: {error.args[0]}", after=OURS_S, code="forward_not_set_up")
    async with mail.room.place(envelope.size_bytes):
        raw = await ctx.db.fetchval(_SQL["forward_raw"], args.forward)
        if raw is None:
            return Dead("its bytes are no longer kept: it was given up a moment ago", code="forward_gone")
        try:
            message = _forwarded(args.forward, envelope, raw, srs, settings)
        except Unforwardable as error:
            outcome: Outcome = Dead(str(error), code=error.code)
        else:
            if ctx.dry_run:
                return Done(_would_forward(message, args))
            outcome = await _sent(message, args, ctx, envelope)
    return outcome if ctx.dry_run else _noted(outcome, args, ctx, envelope)


async def _envelope(db: asyncpg.Pool, forward: int) -> Envelope | None:
    row = await db.fetchrow(_SQL["forward"], forward)
    if row is None or row["size_bytes"] is None:
        return None
    return Envelope(**{**row, "recipients": tuple(row["recipients"])})


def _forwarded(forward: int, envelope: Envelope, raw: bytes, srs: Srs, settings: ForwardSettings) -> Forwarded:
    try:
        recipients = tuple(mailbox(text) for text in envelope.recipients)
        sender = srs.forward(envelope.sender, envelope.received_at)
    except ValueError as error:
        raise Unforwardable("bad_address", str(error)) from error
    tokens = [srs.tokens(recipient.wire) for recipient in recipients]
    refuse_loops(raw, [token for each in tokens for token in each], settings.max_received)
    at = datetime.fromtimestamp(int(envelope.received_at), UTC)
    first = trace(srs.domain, forward, [each[0] for each in tokens], recipients, at)
    return Forwarded(first + smtp_form(raw), message_id_of(raw), sender, recipients, envelope.smtputf8)


async def _sent(message: Forwarded, args: ForwardArgs, ctx: Context, envelope: Envelope) -> Outcome:
    """What the hand-over came to, with the time of the next one by the ages of email.forward."""
    is_first = ctx.job.attempt == 1 and len(message.recipients) == 1
    past = Past() if is_first else await delivered(ctx.db, ctx.job.id)
    pending = past.pending(message.recipients)
    if not pending:
        return Done({"recipients": {r.address: "delivered" for r in message.recipients}})
    asker = Asker((ctx.job.id, ctx.job.fence))
    try:
        report = await ctx.mail.send(message, pending, message.sender, args.relay, asker)
    except UnknownRelay as error:
        return Snooze(str(error.args[0]), after=OURS_S, code="relay_unknown")
    outcome, _verdicts = note(ctx, message.message_id, message.recipients, report, past)
    return by_age(outcome, envelope.failing_s or 0.0, ctx.mail.settings.forward)


def by_age(outcome: Outcome, failing_s: float, settings: ForwardSettings) -> Outcome:
    """A retry at the next age since the first failure, `failing_s` ago; dead if there is none.  Others as they are."""
    if not isinstance(outcome, Retry):
        return outcome
    soon = settings.greylist_ages if outcome.code in _SOON else ()
    later = [age for age in sorted({*soon, *settings.ages}) if age * _NEARLY > failing_s]
    if not later:
        said = (outcome.code, outcome.detail, outcome.lane_fault)
        return Dead(outcome.reason, code=said[0], detail=said[1], result=said[1], lane_fault=said[2])
    return Retry(
        outcome.reason,
        after=later[0] - failing_s,
        code=outcome.code,
        detail=outcome.detail,
        lane_fault=outcome.lane_fault,
        lane_after=outcome.lane_after_s,
        lane_cause=outcome.lane_cause,
    )


def _noted(outcome: Outcome, args: ForwardArgs, ctx: Context, envelope: Envelope) -> Outcome:
    """Say it to the message's row."""
    said: dict[str, Any] = {"forward_id": args.forward}
    match outcome:
        case Done():
            ctx.record(LEDGER, said | {"word": "delivered"})
        case Dead(reason):
            failed = _without(outcome, envelope.recipients)
            ctx.record(LEDGER, said | {"word": "failed", "code": outcome.code, "reason": reason, "failed": failed})
        case Retry() if envelope.failing_s is None:
            ctx.record(LEDGER, said | {"word": "failing"})
    return outcome


def _without(outcome: Dead, recipients: Sequence[str]) -> list[str]:
    """The recipients who do not have it."""
    codes = (outcome.detail or {}).get("recipients", {})
    return [address for address in recipients if codes.get(address) != "delivered"]


def _would_forward(message: Forwarded, args: ForwardArgs) -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "from": "" if message.sender is None else message.sender.address,
        "recipients": [r.address for r in message.recipients],
        "relay": args.relay or MAIN,
        "bytes": len(message.wire),
    }
