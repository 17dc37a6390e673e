"""Several servers' answers to one question, taken together as one.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from jobs.dns.answer import Answer, failed
from jobs.dns.delegation import Spot
from jobs.dns.sighting import host

ADDRESSES = frozenset({"A", "AAAA"})


def prevailing(answers: Mapping[str, Answer]) -> Answer:
    """What is said most often among what is usable, records before their absence; else the first failure."""
    usable = [answer for answer in answers.values() if answer.outcome != "error"]
    if not usable:
        return next(iter(answers.values()), failed("no_address"))
    votes = Counter(_word(answer) for answer in usable)
    return max(usable, key=lambda a: (votes[_word(a)], a.outcome == "answer"))


def beyond_doubt(answers: Mapping[str, Answer]) -> Answer:
    """The records that any of them has; else a failure, if there was one; only else that there are none."""
    found = {place: answer for place, answer in answers.items() if answer.outcome == "answer"}
    failures = {place: answer for place, answer in answers.items() if answer.outcome == "error"}
    return prevailing(found or failures or answers)


def unanimous(answers: Mapping[str, Answer], rdtype: str) -> Answer:
    """What all of them say: a failure where a name server is silent, or where they differ ("disagree").

    Name servers go by their names, as everywhere: one address that answers is enough.  Addresses may differ from one
    server to the next by design, so all of them are the answer.
    """
    usable = {place: answer for place, answer in answers.items() if answer.outcome != "error"}
    heard = {host(place) for place in usable}
    silent = [answer for place, answer in answers.items() if host(place) not in heard]
    if silent or not usable:
        return next(iter(silent), failed("no_address"))
    first = next(iter(usable.values()))
    if rdtype in ADDRESSES and any(answer.values for answer in usable.values()):
        values = dict.fromkeys(value for answer in usable.values() for value in answer.values)
        return replace(first, outcome="answer", values=tuple(values))
    return first if len({_word(answer) for answer in usable.values()}) == 1 else failed("disagree")


def joined(answer: Answer, end: Answer) -> Answer:
    """`answer` ends at a CNAME, which leads to `end`."""
    ttls = [ttl_s for ttl_s in (answer.ttl_s, end.ttl_s) if ttl_s is not None]
    return replace(end, chain=answer.chain + end.chain, ttl_s=min(ttls, default=None))


def without_our_faults(said: Mapping[Spot, Answer]) -> Mapping[Spot, Answer]:
    """Without addresses that this machine has no way to (IPv6, mostly), where it has one to another of the same host:
    that says nothing of the server.  A host that it has no way to at all has not been asked, and stands there as that:
    it may know what the others do not."""
    reached = {spot.host for spot, answer in said.items() if answer.reason != "no_route"}
    return {s: answer for s, answer in said.items() if answer.reason != "no_route" or s.host not in reached}


def _word(answer: Answer) -> tuple[str, frozenset[str]]:
    return answer.outcome, frozenset(answer.values)
