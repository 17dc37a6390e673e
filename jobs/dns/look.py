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
_NO = frozenset({"mismatch", "absent"})
_SETTLED = _NO | {"servers_disagree"}
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
    dns: Resolver,
    domain: str,
    wanted: Sequence[Wanted],
    clock: Callable[[], datetime],
    *,
    visible: bool,
    careful: bool = True,
) -> Look:
    """All records at once; what several of them need is asked once.

    Name servers are asked first.  Resolvers are asked only for what is published, or when no name server can be
    reached: the question itself makes them remember for up to an hour that there is nothing.  Not `visible`: they are
    not asked.

    A "no" is looked at once more, thoroughly, and what is seen then counts: all of them if `careful`, which costs as
    much again, else those that come from what a record leads to, where one server's word was enough until then.
    """
    async with dns.check(domain) as view:
        seen = await _all(_Eye(view, clock, visible=visible), wanted)
        doubted = [at for at, one in enumerate(seen) if one.is_no and (careful or one.led_on)]
        if doubted:
            again = await _all(_Eye(view.thoroughly(), clock, visible=visible), [wanted[at] for at in doubted])
            seen = [dict(zip(doubted, again, strict=True)).get(at, one) for at, one in enumerate(seen)]
    return Look(tuple(one.conclusion for one in seen), seen[0].name_servers)


@dataclass(frozen=True, slots=True)
class _Seen:
    """`led_on`: more was asked than the record itself."""

    conclusion: Conclusion
    name_servers: tuple[str, ...]
    led_on: bool

    @property
    def is_no(self) -> bool:
        return self.conclusion.state in _NO and not self.conclusion.advice


class _Eye:
    """What looks at one record after the other in one view of the DNS."""

    def __init__(self, view: Check, clock: Callable[[], datetime], *, visible: bool) -> None:
        self._view = view
        self._clock = clock
        self._visible = visible

    async def see(self, one: Wanted) -> _Seen:
        led_on = False

        async def ask(name: str, rdtype: str) -> Answer:
            nonlocal led_on
            led_on = True
            return await self._ask(name, rdtype)

        sighting = await self._view.sight(*one.question, visible=False)
        conclusion = await check(one, sighting, ask, self._clock())
        if self._visible and conclusion.state not in _SETTLED:
            sighting = await self._view.sight(*one.question, visible=True)
            conclusion = await check(one, sighting, ask, self._clock())
        return _Seen(conclusion, sighting.name_servers, led_on)

    async def _ask(self, name: str, rdtype: str) -> Answer:
        """What a record leads to is asked of its name servers too.  Where one of them cannot be reached resolvers are,
        and then only what they have counts: their "no" may be old, or false.  Where they differ nobody decides."""
        answer = await self._view.published(name, rdtype)
        if answer.outcome != "error" or answer.reason == "disagree" or not self._visible:
            return answer
        seen = await self._view.query(name, rdtype)
        return seen if seen.outcome == "answer" else answer


async def _all(eye: _Eye, wanted: Sequence[Wanted]) -> list[_Seen]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(eye.see(one)) for one in wanted]
    return [task.result() for task in tasks]


def _word(conclusion: Conclusion) -> Word:
    match conclusion.state:
        case state if state in _NO:
            return "bad"
        case "servers_disagree":
            return "disagree"
        case _ if conclusion.accept:
            return "good"
        case "spreading":
            return "spreading"
        case _:
            return "unsure"
