"""One look at all that is expected of a domain, and what is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobs.dns.answer import Answer
from jobs.dns.conclusion import Conclusion, Overall, check, overall
from jobs.dns.expectation import Wanted
from jobs.dns.state import Word
from jobs.dns.verdict import Verdict

if TYPE_CHECKING:
    from jobs.dns.check import Check
    from jobs.dns.resolver import Resolver

_GRAVEST_FIRST: tuple[Word, ...] = ("bad", "unsure", "disagree", "spreading", "good")
_SETTLED = frozenset({"mismatch", "absent", "servers_disagree"})
"""Where the name servers themselves have said no, nothing that resolvers say would change that."""


@dataclass(frozen=True, slots=True)
class Look:
    """The conclusions, in the order of what was wanted; `name_servers`: of the zone of the first of them.  `obstacle`:
    why nobody could look."""

    conclusions: tuple[Conclusion, ...] = ()
    name_servers: tuple[str, ...] = ()
    obstacle: str | None = None

    @property
    def overall(self) -> Overall:
        return overall(self.conclusions)

    @property
    def verdict(self) -> Verdict:
        return "indeterminate" if self.obstacle else self.overall.verdict

    @property
    def word(self) -> Word:
        """The gravest, for the state of a domain.  Bad is only what its own name servers say."""
        if self.obstacle:
            return "unsure"
        words = {_word(conclusion) for conclusion in self.conclusions if not conclusion.advice}
        return next((word for word in _GRAVEST_FIRST if word in words), "good")

    @property
    def text(self) -> str:
        """What its owner reads: of all that is not as it should be; and then what is only advice."""
        if self.obstacle:
            return self.obstacle
        advice = [c.text for c in self.conclusions if c.advice and c.verdict != "match"]
        return " ".join([self.overall.text, *advice])

    @property
    def visible_by(self) -> datetime | None:
        return self.overall.visible_by

    def rows(self) -> list[dict[str, Any]]:
        """As JSON takes them."""
        return [dict(conclusion.as_row()) for conclusion in self.conclusions]

    def servers(self) -> dict[str, str]:
        """server → what it said, where it did not say the same to all questions the gravest first of these."""
        said: dict[str, str] = {}
        for conclusion in sorted(self.conclusions, key=lambda c: _GRAVEST_FIRST.index(_word(c))):
            for server, word in conclusion.servers.items():
                said.setdefault(server, word)
        return said


async def look(
    dns: Resolver, domain: str, wanted: Sequence[Wanted], clock: Callable[[], datetime], *, visible: bool
) -> Look:
    """All records at once; what several of them need is asked once.

    Name servers are asked first.  Resolvers are asked only for what is published, or when no name server can be
    reached: the question itself makes them remember for up to an hour that there is nothing.  Not `visible`: they are
    not asked.
    """
    async with dns.check(domain) as view, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_conclude(view, one, clock, visible=visible)) for one in wanted]
    found = [task.result() for task in tasks]
    return Look(tuple(conclusion for conclusion, _servers in found), found[0][1])


async def _conclude(
    view: Check, one: Wanted, clock: Callable[[], datetime], *, visible: bool
) -> tuple[Conclusion, tuple[str, ...]]:
    async def ask(name: str, rdtype: str) -> Answer:
        """What a record leads to is asked of its name servers too.  Where none can be reached resolvers are, and
        then only what they have counts: their "no" may be old, or false."""
        answer = await view.published(name, rdtype)
        if answer.outcome != "error" or not visible:
            return answer
        seen = await view.query(name, rdtype)
        return seen if seen.outcome == "answer" else answer

    sighting = await view.sight(*one.question, visible=False)
    conclusion = await check(one, sighting, ask, clock())
    if visible and conclusion.state not in _SETTLED:
        sighting = await view.sight(*one.question, visible=True)
        conclusion = await check(one, sighting, ask, clock())
    return conclusion, sighting.name_servers


def _word(conclusion: Conclusion) -> Word:
    match conclusion.state:
        case "mismatch" | "absent":
            return "bad"
        case "servers_disagree":
            return "disagree"
        case _ if conclusion.accept:
            return "good"
        case "spreading":
            return "spreading"
        case _:
            return "unsure"
