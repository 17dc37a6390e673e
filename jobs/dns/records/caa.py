"""CAA: whether our certificate authority may issue for a name (RFC 8659).  Advice: told before a renewal fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from jobs.dns import names
from jobs.dns.answer import Answer
from jobs.dns.verdict import Ask, Judged, match, mismatch, missing, unknown

CRITICAL = 128
LEVELS_MAX = 16
"""Names asked on the way up: a name may have 127 labels, and questions are not free."""

KNOWN = frozenset({"issue", "issuewild", "iodef", "contactemail", "contactphone", "issuemail", "issuevmc"})

_RECORD = re.compile(r'(\d+) (\w+) "(.*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Property:
    """One record; for `issue` the value is the authority's domain, empty where nobody may."""

    flags: int
    tag: str
    value: str


def normal(value: str) -> str:
    """The authority's domain, without the parameters that may follow it ("ca.example; accounturi=…")."""
    return names.normal(value.partition(";")[0].strip())


async def judge(name: str, value: str, answer: Answer, ask: Ask) -> Judged:
    """The records nearest above the name count, and only those; without any, everybody may issue.

    Reasons: forbidden, critical (a property that an authority must understand and may not), and too_deep.  Facts: at,
    the name the records stand at.
    """
    for climbed, place in enumerate(_upwards(name)):
        if climbed == LEVELS_MAX:
            return unknown("too_deep")
        if place != name:
            answer = await ask(place, "CAA")
        if answer.outcome == "error":
            return missing(answer, at=place)
        if answer.outcome == "answer":
            return replace(_allowed(value, answer, place), found=answer.values)
    return match(["no CAA record stands there or above, so every authority may issue"])


def _allowed(value: str, answer: Answer, place: str) -> Judged:
    found = [_read(record) for record in answer.values]
    if any(prop.flags & CRITICAL and prop.tag not in KNOWN for prop in found):
        return mismatch("critical", at=place)
    issuers = {prop.value for prop in found if prop.tag == "issue"}
    if issuers and value not in issuers:
        return mismatch("forbidden", at=place)
    return match(at=place)


def _read(record: str) -> Property:
    parts = _RECORD.fullmatch(record)
    if not parts:
        return Property(0, "", "")
    issuer = parts[3].partition(";")[0].strip().lower().removesuffix(".")
    return Property(int(parts[1]), parts[2].lower(), issuer)


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]
