"""Who says what about one record: name servers and resolvers sorted by what they are worth to a conclusion.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.dns.finding import Finding
from jobs.dns.sighting import Sighting, host
from jobs.dns.verdict import Verdict

NEGATIVE_MAX_S = 3600
"""No resolver need keep a "no" for longer (RFC 2308, 5: one to three hours); one without a TTL gets it all."""
POSITIVE_MAX_S = 7 * 86400
"""Resolvers keep nothing for longer than a week, whatever the TTL says (RFC 8767, 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Name servers go by their names: `matching`, `contradicting` (host → its verdict, the graver of two addresses')
    and `silent` (host → reason).  Of resolvers `agreeing` match, `stale` say something else and `mute` could not tell.

    `quorum` is what enough resolvers say, None where no verdict has enough.  `vouched`: a validating resolver answers,
    validated, and that answer matches.  `visible_by`: when the last of the stale will have forgotten.
    """

    matching: tuple[str, ...]
    contradicting: Mapping[str, Verdict]
    silent: Mapping[str, str]
    agreeing: tuple[str, ...]
    stale: Mapping[str, Finding]
    mute: Mapping[str, str]
    quorum: Verdict | None
    vouched: bool
    visible_by: datetime | None
    findings: tuple[Finding, ...]

    @property
    def complete(self) -> bool:
        """A name server whose name has no address is silent to everybody, so it holds nothing that others could see.
        That it has none is what one server says, so it is good enough for a yes, which needs no more than what all who
        answered say, and not for a no."""
        return all(reason == "no_address" for reason in self.silent.values())

    def shown(self, verdict: Verdict) -> Finding | None:
        """The finding that shows best what the verdict is about; those of name servers come first.  What is wrong is
        shown where nothing is decided."""
        order: tuple[Verdict, ...] = ("mismatch", "absent", "match", "indeterminate")
        if verdict != "indeterminate":
            order = (verdict,)
        for wanted in order:
            for finding in self.findings:
                if finding.verdict == wanted:
                    return finding
        return None


def weigh(sighting: Sighting, findings: Mapping[str, Finding], now: datetime) -> Evidence:
    """The same for any order of servers.  One without a finding is an error: KeyError."""
    authorities = {server: findings[server] for server in sorted(sighting.authorities)}
    resolvers = {server: findings[server] for server in sorted(sighting.resolvers)}
    matching, contradicting, silent = _by_host(authorities)
    stale = {server: finding for server, finding in resolvers.items() if finding.verdict in ("mismatch", "absent")}
    agreeing = tuple(server for server, finding in resolvers.items() if finding.verdict == "match")
    return Evidence(
        matching=matching,
        contradicting=contradicting,
        silent=silent,
        agreeing=agreeing,
        stale=stale,
        mute={server: finding.reason for server, finding in resolvers.items() if finding.verdict == "indeterminate"},
        quorum=_quorum(resolvers, sighting.quorum),
        vouched=_vouched(sighting, agreeing),
        visible_by=_forgotten_by(stale, now),
        findings=(*authorities.values(), *resolvers.values()),
    )


def _by_host(
    authorities: Mapping[str, Finding],
) -> tuple[tuple[str, ...], dict[str, Verdict], dict[str, str]]:
    """A server with several addresses is silent only if all of them are; it both matches and contradicts if they do."""
    matching: dict[str, None] = {}
    contradicting: dict[str, Verdict] = {}
    reasons: dict[str, str] = {}
    for server, finding in authorities.items():
        name = host(server)
        match finding.verdict:
            case "match":
                matching[name] = None
            case "indeterminate":
                reasons.setdefault(name, finding.reason)
            case "mismatch":
                contradicting[name] = "mismatch"
            case "absent":
                contradicting.setdefault(name, "absent")
    silent = {name: reason for name, reason in reasons.items() if name not in matching and name not in contradicting}
    return tuple(matching), contradicting, silent


def _quorum(resolvers: Mapping[str, Finding], quorum: int) -> Verdict | None:
    said: Counter[Verdict] = Counter(finding.verdict for finding in resolvers.values())
    del said["indeterminate"]
    needed = max(1, min(quorum, len(resolvers)))
    most = said.most_common(2)
    if not most or most[0][1] < needed or (len(most) == 2 and most[1][1] == most[0][1]):
        return None
    return most[0][0]


def _vouched(sighting: Sighting, agreeing: tuple[str, ...]) -> bool:
    """All that claim to have validated must agree: which of them is to be believed only the sighting knows."""
    validated = {server for server, answer in sighting.resolvers.items() if answer.authentic}
    return sighting.authentic and bool(validated) and validated <= set(agreeing)


def _forgotten_by(stale: Mapping[str, Finding], now: datetime) -> datetime | None:
    if not stale:
        return None
    return now + timedelta(seconds=max(_kept_s(finding) for finding in stale.values()))


def _kept_s(finding: Finding) -> int:
    limit = NEGATIVE_MAX_S if finding.verdict == "absent" else POSITIVE_MAX_S
    return min(NEGATIVE_MAX_S if finding.ttl_s is None else finding.ttl_s, limit)
