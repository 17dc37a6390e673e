"""The four verdicts, and what a record's module makes of one server's answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.dns.answer import Answer

Verdict = Literal["match", "mismatch", "absent", "indeterminate"]

GRAVEST_FIRST: tuple[Verdict, ...] = ("mismatch", "absent", "indeterminate", "match")

Ask = Callable[[str, str], Awaitable[Answer]]
"""(name, type) → what the DNS says.  Judging some records takes further questions: SPF's tree, DMARC's walk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """`found` and `chain` replace the answer's own where they are given."""

    verdict: Verdict
    reason: str = ""
    found: tuple[str, ...] | None = None
    chain: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def match(notes: Iterable[str] = (), **facts: Any) -> Judged:
    return Judged(verdict="match", notes=tuple(notes), facts=facts)


def mismatch(reason: str, notes: Iterable[str] = (), **facts: Any) -> Judged:
    return Judged(verdict="mismatch", reason=reason, notes=tuple(notes), facts=facts)


def unknown(reason: str, notes: Iterable[str] = (), **facts: Any) -> Judged:
    return Judged(verdict="indeterminate", reason=reason, notes=tuple(notes), facts=facts)


def missing(answer: Answer, **facts: Any) -> Judged:
    """A server said that there is no such name or no such record, or showed records that are none of these.

    Only that makes a record absent; SERVFAIL, silence, a refusal or a broken reply say nothing about the domain.
    """
    if answer.outcome == "error":
        return unknown(answer.reason, **facts)
    reason = "no_record" if answer.outcome == "answer" else answer.outcome
    return Judged(verdict="absent", reason=reason, facts=facts)


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """One record that is surely wrong or missing decides, whatever the others are: the domain cannot be a match any
    more, and its owner can act now.  Without one, a single unknown leaves all unknown."""
    present = set(verdicts)
    return next((verdict for verdict in GRAVEST_FIRST if verdict in present), "match")
