"""Who is not written to any more, and what an attempt says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import sql
from jobs.context import Ledger
from jobs.email.address import Mailbox
from jobs.email.judge import UNSUBSCRIBED, Verdict
from jobs.loads import Loads

if TYPE_CHECKING:
    import asyncpg

_SQL = sql.load("email.sql")

LEDGER = Ledger("email_suppressions")

KEYS_MAX = 10_000
"""Answers that are remembered, for nobody: each mail asks anew, many at once in one question."""

Said = Literal["bounced", "full", "delivered"]


@dataclass(frozen=True, slots=True)
class Key:
    """`org_id` and `list_` are "" where there is none; `recipient` is as `canonical` has it."""

    org_id: str
    recipient: str
    list_: str


@dataclass(frozen=True, slots=True)
class Suppression:
    """What the table has of a recipient.  `reason`: why he is not written to now, if so; `heals`: mail that is
    delivered takes something back, be it a bounce that only makes the next one count for more."""

    reason: str | None
    heals: bool


def open_suppressions(db: asyncpg.Pool) -> Loads[Key, Suppression]:
    async def load(keys: Sequence[Key]) -> Mapping[Key, Suppression]:
        asked = [key.org_id for key in keys], [key.recipient for key in keys], [key.list_ for key in keys]
        rows = await db.fetch(_SQL["suppressed"], *asked)
        return {
            Key(row["org_id"], row["recipient"], row["list"]): Suppression(row["reason"], row["heals"]) for row in rows
        }

    return Loads(load, most=KEYS_MAX, stale_s=0.0)


def canonical(address: str) -> str:
    """As the table has it: mailboxes that differ in their letters' case alone are one, to all who give them away."""
    return address.lower()


def key_of(mailbox: Mailbox, org_id: str | None, list_: str | None) -> Key:
    return Key(org_id or "", canonical(mailbox.wire), list_ or "")


def verdict_of(suppression: Suppression) -> Verdict:
    code = UNSUBSCRIBED if suppression.reason == "unsubscribed" else "suppressed"
    return Verdict("suppressed", code, why=f"he is not written to: {suppression.reason}")


def said_by(verdict: Verdict, known: Suppression | None) -> Said | None:
    """What a verdict says of the recipient himself.  Refusals of what was said, or of its size, say nothing of him.
    `full` counts only if there is no further attempt, which is for the statement that writes it to see."""
    match verdict.code:
        case "bad_recipient" | "mailbox_disabled":
            return "bounced"
        case "mailbox_full":
            return "full"
        case "delivered" if known is not None and known.heals:
            return "delivered"
    return None


def row(recipient: str, said: Said, why: str, *, is_final: bool) -> dict[str, Any]:
    """For the ledger; `recipient` is canonical.  `is_final`: nobody is going to try him again, whatever becomes of the
    others."""
    return {"recipient": recipient, "said": said, "detail": why.replace("\0", " ")[:1024], "is_final": is_final}
