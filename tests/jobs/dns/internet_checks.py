"""Whole checks against the lab: what the kind `domain_check` does between reading its row and writing what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.dns.conclusion import Conclusion
from jobs.dns.expectation import Expectation
from jobs.dns.look import Look, look
from jobs.dns.policy import DomainPolicy
from jobs.dns.resolver import Resolver
from jobs.dns.state import Memory, Seen, Step, next_state
from tests.jobs.dns.internet import Internet, Zone

SHOP = "shop.test"
VALUE = "abcdefghijklmnopqrstuvwxyz234567"
CHALLENGE = f"_jobsd-challenge.{SHOP}"
TOKEN = Expectation(type="TOKEN", value=VALUE)
RECORD = f'{CHALLENGE} TXT "token={VALUE}"'
BEGAN = datetime(2026, 11, 22, 12, tzinfo=UTC)

SHORT = 0.4
"""Patience with servers that say nothing.  Those that answer take a millisecond; and what a busy machine makes late is
asked again."""


@dataclass(slots=True)
class Checks:
    """One domain that is checked again and again; `now` goes with the clock of the lab's caches."""

    internet: Internet
    zone: Zone
    settings: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    policy: DomainPolicy = field(default_factory=DomainPolicy)
    memory: Memory = field(default_factory=lambda: Memory(state="pending", since=BEGAN, slot=0.5))

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.internet.clock.now())

    async def look(self, *expect: Expectation, visible: bool = True, careful: bool = True) -> Look:
        resolver = Resolver(self.internet.settings(**self.settings))
        wanted = [one.at(self.zone.origin) for one in expect or (TOKEN,)]
        return await look(resolver, self.zone.origin, wanted, lambda: self.now, visible=visible, careful=careful)

    async def see(self, *expect: Expectation, visible: bool = True) -> Conclusion:
        """The conclusion about one record."""
        (conclusion,) = (await self.look(*expect, visible=visible)).conclusions
        return conclusion

    async def step(self, *expect: Expectation, visible: bool = True) -> Step:
        """One check, and what follows for the domain."""
        seen = await self.look(*expect, visible=visible)
        self.said = seen.text
        step = next_state(self.memory, Seen(word=seen.word, visible_by=seen.visible_by), self.now, self.policy)
        self.memory = step.memory
        return step

    async def steps(self, until: timedelta) -> Sequence[Step]:
        """One check after another, each when it is due, until that time has passed."""
        found = []
        end = self.now + until
        while self.now < end:
            step = await self.step()
            found.append(step)
            if step.next_check_at is None:
                break
            self.internet.clock.advance(wait_s(step, self.now))
        return found


def wait_s(step: Step, now: datetime) -> float:
    """How long after now the next check is."""
    assert step.next_check_at is not None
    return (step.next_check_at - now).total_seconds()
