"""Sightings in shorthand: who says what, in one character or one word a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from jobs.dns.answer import Answer, failed
from jobs.dns.conclusion import Conclusion, conclude
from jobs.dns.expectation import Wanted
from jobs.dns.finding import Finding, finding
from jobs.dns.sighting import Sighting
from jobs.dns.verdict import Judged, mismatch, missing, unknown
from jobs.dns.verdict import match as right
from tests.jobs.dns.book import found, nodata, nxdomain

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
WANTED = Wanted(type="TXT", domain="shop.example", name="_t.shop.example", value="right")

ANSWERS: dict[str, Answer] = {
    "match": found("right"),
    "other": found("wrong"),
    "nxdomain": nxdomain(),
    "nodata": nodata(),
    "valid": found("right", authentic=True),
}


def answer(word: str) -> Answer:
    """ "other:900" is another value with a TTL of 900 s; a word that is none of `ANSWERS` is the reason of an error."""
    word, _, ttl_s = word.partition(":")
    if word not in ANSWERS:
        return failed(word)
    told = ANSWERS[word]
    ttl = int(ttl_s) if ttl_s else told.ttl_s
    return Answer(outcome=told.outcome, values=told.values, ttl_s=ttl, authentic=told.authentic)


def judged(told: Answer) -> Judged:
    match told.outcome:
        case "error":
            return unknown(told.reason)
        case "answer":
            return right() if "right" in told.values else mismatch("other_value")
        case _:
            return missing(told)


def sighting(authorities: Sequence[str], resolvers: Sequence[str], *, bogus: bool = False, quorum: int = 2) -> Sighting:
    """ns1, ns2 … say `authorities`; "match/timeout" is a server with two addresses.  r1, r2 … say `resolvers`."""
    said: dict[str, Answer] = {}
    for number, words in enumerate(authorities, 1):
        for place, word in enumerate(words.split("/"), 1):
            said[f"ns{number}.dns.example (192.0.2.{10 * number + place})"] = answer(word)
    answers = {f"r{number}": answer(word) for number, word in enumerate(resolvers, 1)}
    return Sighting(
        name=WANTED.name,
        type="TXT",
        zone="shop.example" if said else None,
        authorities=said,
        resolvers=answers,
        authentic=any(told.authentic for told in answers.values()),
        bogus=bogus,
        quorum=quorum,
    )


def findings(seen: Sighting) -> Mapping[str, Finding]:
    everybody = {**seen.authorities, **seen.resolvers}
    return {server: finding(WANTED, told, judged(told)) for server, told in everybody.items()}


def concluded(seen: Sighting) -> Conclusion:
    return conclude(WANTED, seen, findings(seen), NOW)
