"""What earlier attempts of a job came to: nobody gets a message twice because somebody else got none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.email.address import Mailbox
from sql import load

if TYPE_CHECKING:
    import asyncpg


@dataclass(frozen=True, slots=True)
class Past:
    """Addresses by what came of them; `left_out`: the log says already that they were not written to; `unknown` counts
    how often a hand-over ended without an answer."""

    delivered: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    unknown: Counter[str] = field(default_factory=Counter)

    def pending(self, recipients: Sequence[Mailbox]) -> list[Mailbox]:
        """To whom the message should go now.  When nobody is left, somebody asked for the dead letter to be tried
        again: then it goes to all who do not have it."""
        without = [r for r in recipients if r.address not in self.delivered]
        return [r for r in without if r.address not in self.refused and self.unknown[r.address] < 2] or without


async def delivered(db: asyncpg.Pool, job_id: int) -> Past:
    """The past of a job, from `email_deliveries`."""
    rows = await db.fetch(load("email.sql")["delivered"], job_id)
    return past((row["recipient"], row["outcome"]) for row in rows)


def past(rows: Iterable[tuple[str, str]]) -> Past:
    """The past that (recipient, outcome) pairs tell."""
    rows = list(rows)
    return Past(
        frozenset(recipient for recipient, outcome in rows if outcome == "delivered"),
        frozenset(recipient for recipient, outcome in rows if outcome in ("hard", "bounced")),
        frozenset(recipient for recipient, outcome in rows if outcome == "suppressed"),
        Counter(recipient for recipient, outcome in rows if outcome == "unknown"),
    )
