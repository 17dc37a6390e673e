"""What all servers' answers together say of one record, and what its owner is told.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from jobs.dns import sentences
from jobs.dns.evidence import Evidence, weigh
from jobs.dns.expectation import Type, Wanted
from jobs.dns.finding import Finding
from jobs.dns.judge import judge_all
from jobs.dns.sighting import Sighting
from jobs.dns.verdict import Ask, Verdict, gravest

State = Literal[
    "match",
    "spreading",
    "servers_disagree",
    "mismatch",
    "absent",
    "authority_unreachable",
    "dnssec_broken",
    "indeterminate",
]

SOON_S = 600.0
"""Name servers that disagree, and broken DNSSEC, are looked at again after ten minutes."""
UNKNOWN_S = 300.0
LATEST_S = 3600.0
"""What is not known is looked at again within the hour, whatever resolvers remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """One record's verdict.

    `state` is the row of the table in `conclude` that led to it, `text` the sentence for the domain's owner.
    `visible_by`: when the last resolver will have forgotten an older answer.  `recheck_s`: in so many seconds the
    answer may be another; None where the schedule of the domain decides alone.  `servers`: server → what it said, in a
    word.  `found`, `reason`, `chain`, `ttl_s`, `notes` and `facts` are those of the finding that shows best what the
    verdict is about.
    """

    type: Type
    name: str
    verdict: Verdict
    state: State
    text: str
    expected: str
    found: tuple[str, ...]
    reason: str
    chain: tuple[str, ...]
    ttl_s: int | None
    visible_by: datetime | None
    recheck_s: float | None
    servers: Mapping[str, str]
    notes: tuple[str, ...]
    facts: Mapping[str, Any]
    advice: bool

    def as_row(self) -> Mapping[str, Any]:
        return asdict(self)

    @property
    def accept(self) -> bool:
        """Good enough to verify a domain by.  No other conclusion than a match is, and every match is: one that would
        not be, since a name server was silent and nobody vouches for it, is called indeterminate."""
        return self.verdict == "match"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """All records of a domain in one: the gravest conclusion decides, advice apart."""

    verdict: Verdict
    state: State
    text: str
    accept: bool
    visible_by: datetime | None
    recheck_s: float | None


async def check(wanted: Wanted, sighting: Sighting, ask: Ask, now: datetime) -> Conclusion:
    """All servers' answers to `wanted.question` judged, and what follows."""
    return conclude(wanted, sighting, await judge_all(wanted, sighting, ask), now)


def conclude(wanted: Wanted, sighting: Sighting, findings: Mapping[str, Finding], now: datetime) -> Conclusion:
    """The conclusion by this table; the first row that fits is taken.  `findings`: server → what `judge` made of it.

    A *name server* is reached when one of its addresses gave an answer that could be judged; it is silent when none did
    (timeout, SERVFAIL, REFUSED, lame, blocked, truncated …), so a machine without IPv6 finds nobody silent for it who
    has an IPv4 address too.  One whose name has no address, as somebody says, counts as silent only against a "no".
    *Quorum*: so many resolvers say the same as the sighting asks for, or all of them where there are fewer, and more
    than say anything else.

    | name servers reached        | silent | resolvers                 | verdict       | state                 |
    |-----------------------------|--------|---------------------------|---------------|-----------------------|
    | some match, others do not   | any    | any                       | indeterminate | servers_disagree      |
    | all match                   | any    | DNSSEC is broken          | indeterminate | dnssec_broken         |
    | all match                   | any    | quorum matches            | match         | match                 |
    | all match                   | none   | some show something else  | match         | spreading             |
    | all match                   | none   | none can tell, none asked | match         | match                 |
    | all match                   | some   | a validating one matches  | match         | match, spreading      |
    | all match                   | some   | some show something else  | indeterminate | spreading             |
    | all match                   | some   | none can tell, none asked | indeterminate | authority_unreachable |
    | none matches                | none   | any                       | the gravest   | mismatch, absent      |
    | none matches                | some   | quorum, not on a match;   | the gravest   | mismatch, absent      |
    |                             |        | none validates a match    |               |                       |
    | none matches                | some   | anything else             | indeterminate | authority_unreachable |
    | none reached                | all    | DNSSEC is broken          | indeterminate | dnssec_broken         |
    | none reached                | all    | quorum; for a "no", none  | the quorum's  | authority_unreachable |
    |                             |        | that validates a match    |               |                       |
    | none reached                | all    | one validates a match,    | match         | authority_unreachable |
    |                             |        | and nobody contradicts    |               |                       |
    | none reached                | all    | anything else             | indeterminate | indeterminate         |

    Why, where rows overlap.  Name servers that differ are never a mismatch: one that is behind, or wrong, would else
    cost a good domain its state; nor a match, while one of them contradicts, whatever resolvers remember.  Silence is
    not consent: with one server silent the others' match is believed only if resolvers, or one that validates, saw it
    too; and the others' "no" only if resolvers say so too, for the silent one may hold the record and be known to
    resolvers.  With all reached, what resolvers still say is memory, and changes nothing but the time by which it is
    seen.  Broken DNSSEC takes a match's worth, since answers without valid signatures may be anybody's (unless another
    resolver has validated the match: then the first one had a hiccup); a "no" stays one.  Verdicts come from what
    servers said: an error counts neither as absent nor as a match.
    """
    evidence = weigh(sighting, findings, now)
    verdict, state = _decide(sighting, evidence)
    shown = evidence.shown(verdict)
    return Conclusion(
        type=wanted.type,
        name=wanted.name,
        verdict=verdict,
        state=state,
        text=sentences.tell(wanted, sighting, evidence, verdict, state),
        expected=wanted.value,
        found=shown.found if shown else (),
        visible_by=evidence.visible_by if verdict == "match" or state == "spreading" else None,
        recheck_s=_recheck_s(evidence, verdict, state, now),
        servers={server: sentences.said(finding) for server, finding in findings.items()},
        notes=(*(shown.notes if shown else ()), *sentences.delegation(sighting)),
        facts=shown.facts if shown else {},
        reason=(shown.reason if shown else "") or ("" if verdict == "match" else state),
        chain=shown.chain if shown else (),
        ttl_s=shown.ttl_s if shown else None,
        advice=wanted.advice,
    )


def overall(conclusions: Sequence[Conclusion]) -> Overall:
    """The gravest verdict of those that are not advice, with its sentences; a match where there is no other.

    Its state is that of the first of the gravest; the next look is as early as the earliest of them asks for.
    """
    deciding = [conclusion for conclusion in conclusions if not conclusion.advice]
    verdict = gravest(conclusion.verdict for conclusion in deciding)
    those = [conclusion for conclusion in deciding if conclusion.verdict == verdict]
    times = [conclusion.visible_by for conclusion in deciding if conclusion.visible_by is not None]
    rechecks = [conclusion.recheck_s for conclusion in deciding if conclusion.recheck_s is not None]
    return Overall(
        verdict=verdict,
        state=_first_notable(those),
        text=" ".join(conclusion.text for conclusion in those),
        accept=verdict == "match",
        visible_by=max(times, default=None),
        recheck_s=min(rechecks, default=None),
    )


def _first_notable(conclusions: Iterable[Conclusion]) -> State:
    return next((conclusion.state for conclusion in conclusions if conclusion.state != "match"), "match")


def _decide(sighting: Sighting, evidence: Evidence) -> tuple[Verdict, State]:
    if evidence.matching and evidence.contradicting:
        return "indeterminate", "servers_disagree"
    if evidence.matching:
        return _published(sighting, evidence)
    if evidence.contradicting:
        return _not_published(evidence)
    return _by_resolvers(sighting, evidence)


def _published(sighting: Sighting, evidence: Evidence) -> tuple[Verdict, State]:
    """Every name server that answered has it."""
    if sighting.bogus and not evidence.vouched:
        return "indeterminate", "dnssec_broken"
    if evidence.quorum == "match":
        return "match", "match"
    if evidence.complete:
        return "match", "spreading" if evidence.stale else "match"
    if evidence.vouched:
        return "match", "spreading" if evidence.stale else "match"
    return "indeterminate", "spreading" if evidence.stale else "authority_unreachable"


def _not_published(evidence: Evidence) -> tuple[Verdict, State]:
    """No name server that answered has it."""
    if not evidence.silent or (evidence.quorum in ("mismatch", "absent") and not evidence.vouched):
        verdict: Verdict = "mismatch" if "mismatch" in evidence.contradicting.values() else "absent"
        return verdict, verdict
    return "indeterminate", "authority_unreachable"


def _by_resolvers(sighting: Sighting, evidence: Evidence) -> tuple[Verdict, State]:
    """No name server answered: what resolvers say is all there is."""
    if sighting.bogus and not evidence.vouched:
        return "indeterminate", "dnssec_broken"
    if evidence.quorum == "match" or (evidence.vouched and not evidence.stale):
        return "match", "authority_unreachable"
    if evidence.quorum in ("mismatch", "absent") and not evidence.vouched:
        return evidence.quorum, "authority_unreachable"
    return "indeterminate", "indeterminate"


def _recheck_s(evidence: Evidence, verdict: Verdict, state: State, now: datetime) -> float | None:
    """Never before another answer is possible: a wrong one that resolvers remember stays until its time is up."""
    remembered_s = (evidence.visible_by - now) / timedelta(seconds=1) if evidence.visible_by else 0.0
    match state, verdict:
        case "spreading", "match":
            return remembered_s
        case (("servers_disagree" | "dnssec_broken" | "spreading"), _):
            return SOON_S
        case (("indeterminate" | "authority_unreachable"), "indeterminate"):
            return min(max(remembered_s, UNKNOWN_S), LATEST_S)
        case "authority_unreachable", ("mismatch" | "absent"):
            return min(remembered_s, LATEST_S)
    return None
