"""What one check has learnt on its way and may still spend."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from jobs.dns.budget import Budget
from jobs.dns.delegation import Cut

TRAIL_MAX = 3
"""Name servers whose address is looked up to look up another's address …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """`cuts` are the delegations met, by zone; `silences` how often in a row an address did not answer.  `trail` are
    the hosts whose addresses are being looked for, each for the sake of the one before.  `thorough`: the word of one
    server of a parent zone is not enough."""

    domain: str
    budget: Budget
    cuts: dict[str, Cut] = field(default_factory=dict)
    silences: Counter[str] = field(default_factory=Counter)
    trail: tuple[str, ...] = ()
    thorough: bool = False

    def met(self, cut: Cut) -> Cut:
        """The delegation to go on with: the first that was met, or in a thorough check all of them together, since one
        server of the parent may be behind the others."""
        known = self.cuts.get(cut.zone)
        if known is not None:
            cut = known.beside(cut) if self.thorough else known
        self.cuts[cut.zone] = cut
        return cut

    def leads_to(self, host: str) -> Errand | None:
        """The errand of finding `host`; None if it runs in a circle or too far."""
        if host in self.trail or len(self.trail) >= TRAIL_MAX:
            return None
        return replace(self, trail=(*self.trail, host))
