"""MX: mail must come to us first; who else takes it is told, not held against the domain."""

from __future__ import annotations

import re

from jobs.dns import names
from jobs.dns.answer import Answer
from jobs.dns.verdict import Judged, match, mismatch

_PREFERENCE = re.compile(r"(?:(\d{1,5})\s+)?(\S+)")


def normal(value: str) -> str:
    parts = _PREFERENCE.fullmatch(value)
    if not parts or int(parts[1] or 0) > 65535:
        raise ValueError(f'{value!r} is not an MX; write "mx.example.net" or "10 mx.example.net"')
    host = names.normal(parts[2])
    return f"{int(parts[1])} {host}" if parts[1] else host


def judge(value: str, answer: Answer) -> Judged:
    """A bare host must be (one of) those mail goes to first; a host with its preference must be there just so.

    Reasons: null_mx (RFC 7505: the domain takes no mail), other_value, other_preference, not_lowest.
    """
    records = sorted(_records(answer))
    wanted, _, host = value.rpartition(" ")
    preferences = [preference for preference, other in records if other == host]
    if not preferences:
        return mismatch("null_mx" if records == [(0, ".")] else "other_value")
    if wanted and int(wanted) not in preferences:
        return mismatch("other_preference", _others(records, host))
    if not wanted and records[0][0] not in preferences:
        return mismatch("not_lowest", _others(records, host))
    return match(_others(records, host))


def _records(answer: Answer) -> list[tuple[int, str]]:
    pairs = (value.split(" ", 1) for value in answer.values)
    return [(int(preference), host) for preference, host in pairs]


def _others(records: list[tuple[int, str]], host: str) -> list[str]:
    others = [f"{preference} {other}" for preference, other in records if other not in (host, ".")]
    notes = [f"mail may go to other servers too: {', '.join(others)}"] if others else []
    if any(other == "." for _, other in records):
        notes.append("a null MX (0 .) stands beside real ones; senders may take the domain for one without mail")
    return notes
