"""The job kind `email`: one message to each of its recipients, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.context import Context
from jobs.email.address import Mailbox, mailbox, wire_domain
from jobs.email.digest import LEDGER as ITEMS
from jobs.email.digest import Items, taken
from jobs.email.dkim import NoKey
from jobs.email.dkim_keys import SigningKey
from jobs.email.draft import AGAIN_S, AWAY, NoDraft, drafted
from jobs.email.judge import Verdict
from jobs.email.keyring import NoKeys, tokens
from jobs.email.logged import note
from jobs.email.message import EmailArgs, Message, Unsendable, compose
from jobs.email.past import Past, delivered
from jobs.email.relay import UnknownRelay
from jobs.email.reply import DeliveryReport
from jobs.email.settings import MAIN
from jobs.email.suppressions import LEDGER as SUPPRESSIONS
from jobs.email.suppressions import Suppression, canonical, key_of, row, said_by, verdict_of
from jobs.email.turns import Asker
from jobs.email.unsubscribe import headers, link
from jobs.model import Dead, Done, Job, Ladder, Outcome, Retry, Snooze
from jobs.registry import job
from jobs.webhook.endpoints import LANE as ENDPOINT_LANE

RETRY = Ladder("1m", "5m", "15m", "1h", "4h", "12h", "24h")
"""Eight attempts over some 41 hours; RFC 5321 4.5.4.1 asks for patience of days, readers of a notification do not."""

NOTHING = DeliveryReport("", ())

KEY_S = 60.0
"""Until mail that cannot be signed is looked at again: the fault is ours."""


def lane(args: EmailArgs) -> str | None:
    """The relay's name.  None for one that would stand in the lane of somebody's endpoint: there is no such relay."""
    relay = args.relay or MAIN
    return None if relay.startswith(ENDPOINT_LANE) else relay


@job("email", args=EmailArgs, retry=RETRY, timeout="30m", lane=lane)
async def email(args: EmailArgs, ctx: Context) -> Outcome:
    """Compose, hand over to the relay, note one row for each recipient, and say what the row comes to."""
    try:
        items = Items() if args.digest is None else await taken(args.digest, ctx)
        message, sender = await _written(args, ctx, items)
    except (NoDraft, NoKeys) as nothing:
        return nothing.outcome
    except Unsendable as error:
        return Dead(str(error), code="unsendable")
    except NoKey as error:
        return Snooze(f"it cannot be signed: {error.args[0]}", after=KEY_S, code="dkim_key_missing")
    if ctx.dry_run:
        return Done(_would_send(message, args, ctx.mail.signer.keys(wire_domain(message.sender.domain))))
    past = await _past(ctx, message)
    pending = past.pending(message.recipients)
    if not pending:
        _give_up(ctx, items)
        return Done({"recipients": {r.address: "delivered" for r in message.recipients}})
    try:
        known = await _known(ctx, args, pending)
    except AWAY as error:
        ctx.log.warning("email_suppressions_unread", error=repr(error))
        return Snooze("who is not to be written to could not be looked up", after=AGAIN_S, code="database_away")
    left_out = {} if args.security else _left_out(pending, known)
    going = [r for r in pending if r.address not in left_out]
    asker = Asker((ctx.job.id, ctx.job.fence), args.security)
    try:
        report = await ctx.mail.send(message, going, sender, args.relay, asker) if going else NOTHING
    except UnknownRelay as error:
        return Retry(str(error.args[0]), code="relay_unknown")
    outcome, verdicts = note(ctx, message.message_id, message.recipients, report, past, left_out)
    _record_said(ctx, going, verdicts, known)
    if isinstance(outcome, Done):
        _give_up(ctx, items)
    return outcome


def _give_up(ctx: Context, items: Items) -> None:
    """What was told of is told; of a dead letter it is kept, in case that somebody retries it."""
    if items.ids:
        ctx.record(ITEMS, {"ids": items.ids})


async def _written(args: EmailArgs, ctx: Context, items: Items) -> tuple[Message, Mailbox]:
    """The message, and the sender of its envelope, to whom it comes back if it cannot be delivered."""
    settings, org_id = ctx.mail.settings, ctx.job.org_id
    secrets = tokens(ctx) if settings.bounce_domain or args.list_ else None
    leave = link(args, org_id, settings.unsubscribe_url, secrets)
    said: dict[str, Any] = {} if leave is None else {"unsubscribe_url": leave}
    draft = await drafted(args, ctx, said if args.digest is None else {**said, **items.data})
    now, more = datetime.now(UTC), headers(leave)
    message = _signed(compose(draft, settings, identity=_identity(ctx.job), now=now, more=more), ctx)
    if settings.bounce_domain is None or secrets is None:
        return message, message.sender
    return message, mailbox(f"{secrets.bounce_name(ctx.job.id)}@{settings.bounce_domain}")


async def _known(ctx: Context, args: EmailArgs, pending: Sequence[Mailbox]) -> dict[str, Suppression]:
    """What there is about recipients, by their address."""
    keys = [key_of(mailbox, ctx.job.org_id, args.list_) for mailbox in pending]
    found = await asyncio.gather(*map(ctx.tools.suppressions.get, keys))
    return {mailbox.address: one for mailbox, one in zip(pending, found, strict=True) if one is not None}


def _left_out(pending: Sequence[Mailbox], known: Mapping[str, Suppression]) -> dict[str, Verdict]:
    found = {m.address: known[m.address] for m in pending if m.address in known}
    return {address: verdict_of(one) for address, one in found.items() if one.reason is not None}


def _signed(message: Message, ctx: Context) -> Message:
    """With its DKIM signatures, if there is a key for the domain of From."""
    return replace(
        message, wire=ctx.mail.signer.signed(message.wire, wire_domain(message.sender.domain), datetime.now(UTC))
    )


def _identity(job: Job) -> str:
    """The same for every attempt of a row.  The args are part of it, since a database made anew counts from 1 again."""
    return f"{job.id}\n{job.args_json}"


async def _past(ctx: Context, message: Message) -> Past:
    """Asked for only where there can be one: a first attempt for one recipient has none that matters."""
    if ctx.job.attempt == 1 and len(message.recipients) == 1:
        return Past()
    return await delivered(ctx.db, ctx.job.id)


def _record_said(
    ctx: Context, going: Sequence[Mailbox], verdicts: Mapping[str, Verdict], known: Mapping[str, Suppression]
) -> None:
    """What the answers say of the recipients themselves, in the commit of the attempt."""
    for recipient in going:
        verdict = verdicts[recipient.address]
        if (said := said_by(verdict, known.get(recipient.address))) is not None:
            one = row(canonical(recipient.wire), said, verdict.why, is_final=verdict.result == "hard")
            ctx.record(SUPPRESSIONS, one)


def _would_send(message: Message, args: EmailArgs, keys: Sequence[SigningKey]) -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "from": message.sender.address,
        "recipients": [r.address for r in message.recipients],
        "relay": args.relay or MAIN,
        "bytes": len(message.wire),
        "dkim": [key.host for key in keys],
    }
