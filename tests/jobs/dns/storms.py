"""Lives of a domain among servers that fail at random: what they say, made up; and what must follow, by the policy.

The wire is left out: what each server says to each check is an `Answer` drawn by lot.  What the check makes of it is
the real thing, from the answers to the domain's next state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

from jobs.dns.answer import Answer, failed
from jobs.dns.conclusion import check
from jobs.dns.expectation import Expectation
from jobs.dns.look import Look
from jobs.dns.policy import DomainPolicy
from jobs.dns.sighting import Sighting
from jobs.dns.state import Memory, Notice, Seen, Step, next_state
from jobs.values import duration

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
VALUE = "abcdefghijklmnopqrstuvwxyz234567"
WANTED = Expectation(type="TOKEN", value=VALUE).at("shop.test")
HOUR_S = 3600.0

SILENT = tuple(
    failed(reason)
    for reason in (
        "servfail", "refused", "timeout", "lame", "unreachable", "truncated", "malformed", "cname_loop", "notimp",
        "formerr", "blocked", "budget",
    )
)  # fmt: skip
"""What servers say that say nothing; an alias that goes in a circle among them, and TCP that fails after truncation."""

RIGHT = Answer(outcome="answer", values=(f"token={VALUE}",), ttl_s=300)
SIGNED = replace(RIGHT, authentic=True)
OTHER = Answer(outcome="answer", values=("token=somebodyelses",), ttl_s=300)
NXDOMAIN, NODATA = (Answer(outcome=said, ttl_s=60) for said in ("nxdomain", "nodata"))
NO = (NXDOMAIN, NODATA, OTHER)


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely it is that an address of a name server fails, and that a resolver fails or tells something false."""

    servers: float
    resolvers: float
    lies: float


CALM = Weather(0.0, 0.0, 0.0)
KINDS = (
    CALM,
    Weather(0.1, 0.1, 0.05),
    Weather(0.5, 0.3, 0.3),
    Weather(0.9, 0.5, 0.5),
    Weather(1.0, 0.0, 1.0),  # nobody reaches the name servers, and every resolver denies the record
    Weather(1.0, 1.0, 0.0),
    Weather(0.0, 0.0, 1.0),
)
"""Drawn anew every few checks, so that a sequence has storms and quiet times."""


@dataclass(slots=True)
class Life:
    """One domain, verified at first, with its own dice.  `truth` is what its name servers hold; without `changes` the
    weather stays as it is, and each check is made when it is due."""

    dice: Random
    policy: DomainPolicy
    truth: Answer = RIGHT
    now: datetime = BEGAN
    weather: Weather = CALM
    changes: bool = True
    told: list[Notice] = field(default_factory=list)
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(state="verified", since=BEGAN, slot=self.dice.random(), verified_at=BEGAN)
        self.hosts = {
            f"ns{n}": [f"ns{n} (192.0.2.{n})", f"ns{n} (2001:db8::{n})"][: self.dice.choice((1, 1, 2))]
            for n in range(1, self.dice.randint(1, 4) + 1)
        }

    async def check(self) -> tuple[Sighting, Step]:
        """The next check: what was seen, and what came of it."""
        if self.changes and self.dice.random() < 0.3:
            self.weather = self.dice.choice(KINDS)
        seen = self.sighting()
        conclusion = await check(WANTED, seen, _nobody, self.now)
        look = Look((conclusion,), ())
        step = next_state(self.memory, Seen(word=look.word, visible_by=look.visible_by), self.now, self.policy)
        self.memory = step.memory
        if step.notice:
            self.told.append(step.notice)
        return seen, step

    def wait(self, step: Step) -> None:
        """Until the next check is due; somebody asks for it sooner; or nobody looks for days, in an outage of ours."""
        assert step.next_check_at is not None
        assert step.next_check_at > self.now
        gap = step.next_check_at - self.now
        dice = self.dice.random() if self.changes else 1.0
        if dice < 0.05:
            gap *= self.dice.random()
        elif dice < 0.08:
            gap += timedelta(hours=self.dice.uniform(1, 60))
        self.now += gap

    def sighting(self) -> Sighting:
        dice, weather = self.dice, self.weather
        answers = {
            place: dice.choice(SILENT) if dice.random() < weather.servers else self.truth
            for places in self.hosts.values()
            for place in places
        }
        answers |= self._one_that_is_behind(answers)
        resolvers = (
            {f"r{n}": self._resolver(n == 3) for n in (1, 2, 3)} if not self.changes or dice.random() > 0.05 else {}
        )
        return Sighting(
            name=WANTED.name,
            type="TXT",
            zone="shop.test",
            authorities=answers,
            resolvers=resolvers,
            authentic=any(answer.authentic for answer in resolvers.values()),
            bogus=bool(resolvers) and resolvers["r3"].reason == "bogus",
            quorum=2,
        )

    def _resolver(self, validates: bool) -> Answer:
        dice, weather = self.dice, self.weather
        if dice.random() < weather.resolvers:
            return failed("bogus") if validates and dice.random() < 0.5 else dice.choice(SILENT)
        if dice.random() < weather.lies:
            return dice.choice((*NO, RIGHT))
        return SIGNED if validates and self.truth == RIGHT and dice.random() < 0.3 else self.truth

    def _one_that_is_behind(self, answers: Mapping[str, Answer]) -> Mapping[str, Answer]:
        """Sometimes one name server of a good domain lacks the record, while another that has it answers."""
        good = [host for host, places in self.hosts.items() if any(answers[place] == RIGHT for place in places)]
        if len(good) < 2 or self.dice.random() > 0.2:
            return {}
        no = self.dice.choice(NO)
        return dict.fromkeys(self.hosts[good[0]], no)


@dataclass(slots=True)
class Rule:
    """The policy, told once more: degraded at the first check that saw so; failed when the time between checks in a
    row that saw so (two hours of each gap, should nobody have looked) is `fail_after`; expired after `give_up_after`
    more.  A check that cannot tell stops the clock and changes nothing; good is verified."""

    policy: DomainPolicy
    state: Literal["verified", "degraded", "failed", "expired"] = "verified"
    spent_s: float = 0.0
    last: datetime | None = None
    told: list[Notice] = field(default_factory=list)
    warned_at: datetime | None = None
    failed_at: datetime | None = None

    def sees(self, sighting: Sighting, now: datetime) -> None:
        word = _plain(sighting)
        if self.failed_at and word != "good" and now - self.failed_at >= timedelta(seconds=self.policy.give_up_after):
            self.state, self.failed_at = "expired", None
            self.told.append("expired")
            return
        match word:
            case "good":
                self.failed_at = None
                if self.state == "failed" or (self.told and self.told[-1] in ("degraded", "failed")):
                    self.told.append("verified")
                self.state, self.spent_s, self.last = "verified", 0.0, None
            case "unsure":
                self.last = None
            case "bad":
                self._bad(now)

    def _bad(self, now: datetime) -> None:
        if self.last is not None:
            self.spent_s += min((now - self.last).total_seconds(), 2 * HOUR_S)
        self.last = now
        match self.state:
            case "verified":
                self.state = "degraded"
            case "degraded" if self.spent_s >= self.policy.fail_after:
                self.state, self.failed_at = "failed", now
                self.told.append("failed")
            case "degraded" if self.spent_s >= self.policy.warn_after and self._may_warn(now):
                self.warned_at = now
                self.told.append("degraded")

    def _may_warn(self, now: datetime) -> bool:
        lately = self.warned_at and now - self.warned_at < timedelta(seconds=self.policy.notice_every)
        return not lately and (not self.told or self.told[-1] != "degraded")


def _plain(sighting: Sighting) -> Literal["good", "bad", "unsure"]:
    """By the table, for a domain whose name servers all hold the same: of hosts by their addresses, then resolvers."""
    said: dict[str, set[str]] = {}
    for place, answer in sighting.authorities.items():
        said.setdefault(place.partition(" ")[0], set()).add(_verdict(answer))
    match = any("match" in words for words in said.values())
    no = any(words & {"mismatch", "absent"} for words in said.values())
    silent = any(words == {"error"} for words in said.values())
    votes = Counter(_verdict(answer) for answer in sighting.resolvers.values())
    del votes["error"]
    best = votes.most_common(2)
    needed = min(2, len(sighting.resolvers)) or 1
    agreed = best and best[0][1] >= needed and (len(best) == 1 or best[0][1] > best[1][1])
    quorum = best[0][0] if agreed else None
    vouched = sighting.authentic
    stale = bool(votes["mismatch"] or votes["absent"])
    if match and no:
        return "unsure"
    if match:
        return "unsure" if sighting.bogus or not (quorum == "match" or not silent or vouched) else "good"
    if no:
        return "bad" if not silent or quorum in ("mismatch", "absent") else "unsure"
    if sighting.bogus:
        return "unsure"
    return "good" if quorum == "match" or (vouched and not stale) else "unsure"


def _verdict(answer: Answer) -> str:
    if answer.outcome == "error":
        return "error"
    if answer.outcome == "answer":
        return "match" if answer.values == RIGHT.values else "mismatch"
    return "absent"


async def _nobody(name: str, rdtype: str) -> Answer:
    raise AssertionError(f"a token leads nowhere, and {rdtype} {name} is asked for")


def policy(dice: Random) -> DomainPolicy:
    """The default one, or one with a shorter patience."""
    fail = dice.choice(("5d", "2d", "1d", "1d", "12h", "12h", "6h"))
    return DomainPolicy(fail_after=duration(fail), warn_after=duration(dice.choice(("1h", "3h", "6h"))))
