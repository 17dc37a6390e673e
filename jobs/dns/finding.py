"""One expectation beside what one server said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.dns.answer import Answer
from jobs.dns.expectation import Type, Wanted
from jobs.dns.verdict import Judged, Verdict

SHOWN_VALUES = 20
SHOWN_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`found` are the records in the expected one's place, cut to the first 20 of 1,024 characters.

    `reason` is empty for a match.  Else it is one of the reasons that the record's module names (other_value,
    not_lowest, too_many_lookups …); nxdomain, nodata or no_record (absent); or why there is no answer.  `notes` are
    warnings that change no verdict, as sentences.  `facts` are what the record's type has to tell besides (SPF:
    lookups, voids). `ttl_s`: for so long a cache may go on telling this, though the zone has changed.  `advice`: the
    finding is told to people and decides nothing.
    """

    type: Type
    name: str
    expected: str
    found: tuple[str, ...]
    verdict: Verdict
    reason: str
    chain: tuple[str, ...]
    ttl_s: int | None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    advice: bool = False

    def as_row(self) -> Mapping[str, Any]:
        return asdict(self)


def finding(wanted: Wanted, answer: Answer, judged: Judged) -> Finding:
    found = answer.values if judged.found is None else judged.found
    return Finding(
        type=wanted.type,
        name=wanted.name,
        expected=wanted.value,
        found=tuple(_cut(value) for value in found[:SHOWN_VALUES]),
        verdict=judged.verdict,
        reason=judged.reason,
        chain=answer.chain if judged.chain is None else judged.chain,
        ttl_s=answer.ttl_s,
        notes=judged.notes,
        facts=judged.facts,
        advice=wanted.advice,
    )


def _cut(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"
