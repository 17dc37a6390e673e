"""Is what should be published what a server shows?  It asks on, by a callable, where one answer is not enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from jobs.dns.answer import Answer
from jobs.dns.expectation import Wanted
from jobs.dns.finding import Finding, finding
from jobs.dns.records import caa, cname, dkim, dmarc, mx, ns, spf, text, token
from jobs.dns.sighting import Sighting
from jobs.dns.verdict import Ask, Judged, match, mismatch, missing, unknown


async def judge(wanted: Wanted, answer: Answer, ask: Ask) -> Finding:
    """The finding for one expectation and one server's answer to `wanted.question`.

    Whatever went wrong on the way to an answer is indeterminate, and nothing else is made of it.
    """
    return finding(wanted, answer, await _judge(wanted, answer, ask))


async def judge_all(wanted: Wanted, sighting: Sighting, ask: Ask) -> dict[str, Finding]:
    """server → finding, for all servers of a sighting.  Servers mostly say the same, and that is judged once."""
    judged: dict[tuple[object, ...], Judged] = {}
    found: dict[str, Finding] = {}
    for server, answer in (*sighting.authorities.items(), *sighting.resolvers.items()):
        said = (answer.outcome, tuple(sorted(answer.values)), answer.chain, answer.reason)
        if said not in judged:
            judged[said] = await _judge(wanted, answer, ask)
        found[server] = finding(wanted, answer, judged[said])
    return found


async def _judge(wanted: Wanted, answer: Answer, ask: Ask) -> Judged:
    if answer.outcome == "error":
        return unknown(answer.reason)
    name, value = wanted.name, wanted.value
    match wanted.type:
        case "CNAME":
            return await cname.judge(name, value, answer, ask)
        case "DMARC":
            return await dmarc.judge(name, value, answer, ask)
        case "CAA":
            return await caa.judge(name, value, answer, ask)
        case "TXT" | "A" | "AAAA" | "TOKEN" | "MX" | "DKIM" | "NS" | "SPF" if answer.outcome != "answer":
            return missing(answer)
        case "SPF":
            return await spf.judge(name, value, answer, ask)
        case "TXT":
            return _contains(value, map(text.plain, answer.values))
        case "A" | "AAAA":
            return _contains(value, answer.values)
        case "TOKEN":
            return token.judge(value, answer)
        case "MX":
            return mx.judge(value, answer)
        case "DKIM":
            return dkim.judge(value, answer)
        case "NS":
            return ns.judge(value, answer)
        case _:
            assert_never(wanted.type)


def _contains(value: str, found: Iterable[str]) -> Judged:
    """Further records beside it do no harm."""
    return match() if value in found else mismatch("other_value")
