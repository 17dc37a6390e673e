"""Is what should be published what was found?  Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobs.dns import names
from jobs.dns.answer import Answer

Type = Literal["TXT", "CNAME", "MX", "A", "AAAA"]
Verdict = Literal["match", "mismatch", "absent", "indeterminate"]

GRAVEST_FIRST: tuple[Verdict, ...] = ("mismatch", "absent", "indeterminate", "match")
SHOWN_VALUES = 20
SHOWN_CHARACTERS = 1024

_QUOTED = re.compile(r'\s*(?:"[^"]*"\s*)+')
_PREFERENCE = re.compile(r"(?:(\d{1,5})\s+)?(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One expectation beside what the DNS says.

    `found` are the records in its place, cut to the first 20 of 1,024 characters.  `reason` is empty for a match, else:
    other_value, other_preference, not_lowest, null_mx (mismatch); nxdomain, nodata (absent); or why there is no answer.
    `ttl_s`: for so long a cache may go on telling this, though the zone has changed.
    """

    type: Type
    name: str
    expected: str
    found: tuple[str, ...]
    verdict: Verdict
    reason: str
    chain: tuple[str, ...]
    ttl_s: int | None

    def as_row(self) -> Mapping[str, Any]:
        return asdict(self)


def judge(rdtype: Type, name: str, expected: str, answer: Answer) -> Finding:
    """The finding for one expectation.  Only a server that says "no such name" or "no such record" makes a record
    absent; SERVFAIL, silence, a refusal or a broken reply say nothing about the domain."""
    wanted = normal_value(rdtype, expected)
    verdict: Verdict
    match answer.outcome:
        case "error":
            verdict, reason = "indeterminate", answer.reason
        case "nxdomain" | "nodata":
            verdict, reason = "absent", answer.outcome
        case "answer":
            reason = _difference(rdtype, wanted, answer.values)
            verdict = "mismatch" if reason else "match"
    return Finding(
        type=rdtype,
        name=name,
        expected=wanted,
        found=tuple(_cut(value) for value in answer.values[:SHOWN_VALUES]),
        verdict=verdict,
        reason=reason,
        chain=answer.chain,
        ttl_s=answer.ttl_s,
    )


def overall(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict.  One record that is surely wrong or missing decides, whatever the others are: the domain
    cannot be a match any more, and its owner can act now.  Without one, a single unknown leaves all unknown."""
    verdicts = {finding.verdict for finding in findings}
    return next(verdict for verdict in GRAVEST_FIRST if verdict in verdicts)


def normal_value(rdtype: Type, value: str) -> str:
    """`value` as it is compared; ValueError if no record of that type could say it.

    TXT: surrounding quotes and white space dropped, quoted strings joined, runs of spaces one; case counts.  CNAME, A
    and AAAA: the name or address in its one form.  MX: "host", or "preference host".
    """
    value = value.strip()
    match rdtype:
        case "TXT":
            return _plain_and_not_empty(value)
        case "CNAME":
            return names.normal(value)
        case "MX":
            return _normal_mx(value)
        case "A":
            return str(ipaddress.IPv4Address(value))
        case "AAAA":
            return str(ipaddress.IPv6Address(value))


def _difference(rdtype: Type, wanted: str, found: tuple[str, ...]) -> str:
    """Why `wanted` is not among `found`; empty if it is.  Further records beside it do no harm."""
    match rdtype:
        case "MX":
            return _mx_difference(wanted, found)
        case "TXT":
            return "" if wanted in map(_plain, found) else "other_value"
        case _:
            return "" if wanted in found else "other_value"


def _mx_difference(wanted: str, found: tuple[str, ...]) -> str:
    """A bare host must be (one of) those mail goes to first; a host with its preference must be there just so."""
    hosts = [(int(preference), host) for preference, host in (value.split(" ", 1) for value in found)]
    preference, _, host = wanted.rpartition(" ")
    if not any(other == host for _, other in hosts):
        return "null_mx" if hosts == [(0, ".")] else "other_value"
    if preference:
        return "" if (int(preference), host) in hosts else "other_preference"
    return "" if (min(hosts)[0], host) in hosts else "not_lowest"


def _normal_mx(value: str) -> str:
    parts = _PREFERENCE.fullmatch(value)
    if not parts or int(parts[1] or 0) > 65535:
        raise ValueError(f'{value!r} is not an MX; write "mx.example.net" or "10 mx.example.net"')
    host = names.normal(parts[2])
    return f"{int(parts[1])} {host}" if parts[1] else host


def _plain_and_not_empty(value: str) -> str:
    if not (plain := _plain(value)):
        raise ValueError("a TXT value must not be empty")
    return plain


def _plain(text: str) -> str:
    if _QUOTED.fullmatch(text):
        text = "".join(re.findall(r'"([^"]*)"', text))
    return " ".join(text.split())


def _cut(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"
