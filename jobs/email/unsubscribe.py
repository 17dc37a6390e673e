"""Leaving a list: a link in each of its mails, and the kind `email_unsubscribe` that obeys it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import msgspec

import sql
from jobs.context import Context
from jobs.email.address import mailbox
from jobs.email.keyring import NoKeys, tokens
from jobs.email.message import EmailArgs, Unsendable
from jobs.email.suppressions import canonical
from jobs.email.tokens import Subscription
from jobs.model import Done, Exponential, Outcome
from jobs.registry import job
from jobs.signed import LONGEST_TOKEN

if TYPE_CHECKING:
    from jobs.email.tokens import Tokens

_SQL = sql.load("email.sql")

LONGEST_URL = 880
"""A line of a header has no room for more that cannot be broken (RFC 5322, 2.1.1)."""


class EmailUnsubscribeArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a link of ours had after `?token=`."""

    token: Annotated[str, msgspec.Meta(max_length=LONGEST_TOKEN)]


@job(
    "email_unsubscribe", args=EmailUnsubscribeArgs, retry=Exponential(max_attempts=20), timeout="1m", transactional=True
)
async def email_unsubscribe(args: EmailUnsubscribeArgs, ctx: Context) -> Outcome:
    """Twice is once.  A token that we have not made changes nothing, and says so."""
    try:
        secrets = tokens(ctx)
    except NoKeys as nothing:
        return nothing.outcome
    who = secrets.subscription(args.token) if secrets else None
    if who is None or ctx.job.org_id not in (None, who.org_id):
        ctx.log.warning("email_unsubscribe_ignored", reason="the token is none of ours")
        return Done({"ignored": "the token is none of ours"})
    await ctx.conn.execute(_SQL["unsubscribe"], who.org_id, who.recipient, who.list_)
    return Done({"recipient": who.recipient, "list": who.list_, "org_id": who.org_id})


def link(args: EmailArgs, org_id: str | None, url: str | None, secrets: Tokens | None) -> str | None:
    """Where the recipient of this mail leaves its list; None for one of no list, where nobody says where to, or
    where the row says it itself.  Unsendable: it is one recipient's, so the mail can have no other."""
    has_own = any(name.lower() == "list-unsubscribe" for name in args.headers)
    if args.list_ is None or url is None or secrets is None or has_own:
        return None
    to = [args.to] if isinstance(args.to, str) else args.to
    if len(to) != 1 or args.cc or args.bcc:
        raise Unsendable("a mail of a `list` has one recipient, who may leave it: insert a row for each")
    try:
        recipient = canonical(mailbox(to[0]).wire)
    except ValueError as error:
        raise Unsendable(str(error)) from error
    found = f"{url}?token={secrets.unsubscribe(Subscription(org_id, args.list_, recipient))}"
    if len(found) > LONGEST_URL:
        raise Unsendable(f"the link to unsubscribe has {len(found)} characters; at most {LONGEST_URL}")
    return found


def headers(link: str | None) -> Mapping[str, str]:
    """RFC 8058: a mail program shows a button, and posts to the link.  Whoever signs the mail signs these too."""
    if link is None:
        return {}
    return {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
