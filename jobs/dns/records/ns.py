"""NS: other name servers than at the last check are an early warning that a domain changes hands.  Advice."""

from __future__ import annotations

from jobs.dns import names
from jobs.dns.answer import Answer
from jobs.dns.verdict import Judged, match, mismatch


def normal(value: str) -> str:
    """The names sorted, each once, with one space between."""
    found = value.replace(",", " ").split()
    if not found:
        raise ValueError('name servers are missing; write "ns1.example.net ns2.example.net"')
    return " ".join(sorted({names.normal(name) for name in found}))


def judge(value: str, answer: Answer) -> Judged:
    """Reason: changed.  Facts: gone and new, the names that make the difference."""
    before, now = set(value.split()), {name.lower().removesuffix(".") for name in answer.values}
    if before == now:
        return match()
    return mismatch("changed", gone=sorted(before - now), new=sorted(now - before))
