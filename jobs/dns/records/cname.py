"""CNAME: it leads to our name, at once or by way of others; and what stands in its place where it does not."""

from __future__ import annotations

from dataclasses import replace

from jobs.dns.answer import Answer
from jobs.dns.verdict import Ask, Judged, match, mismatch, missing, unknown

LINKS_MAX = 8
"""How far a chain is followed; resolvers give up at 8 to 16."""


async def judge(name: str, value: str, answer: Answer, ask: Ask) -> Judged:
    """Reasons: other_value, cname_loop, chain_too_long; apex and address_instead (a server shows no CNAME, but what it
    shows instead says why)."""
    if answer.outcome == "answer":
        return await _follow(name, value, answer, ask)
    if answer.outcome == "nodata":
        return await _in_its_place(name, answer, ask)
    return missing(answer)


async def _follow(name: str, value: str, answer: Answer, ask: Ask) -> Judged:
    """Whether one of the names the chain goes through is ours: then it works, whoever owns the names between."""
    chain: tuple[str, ...] = (answer.values[0],)
    while chain[-1] != value:
        if chain[-1] in (name, *chain[:-1]):
            return replace(mismatch("cname_loop"), chain=chain)
        if len(chain) == LINKS_MAX:
            return replace(mismatch("chain_too_long"), chain=chain)
        link = await ask(chain[-1], "CNAME")
        if link.outcome == "error":
            return replace(unknown(link.reason), chain=chain)
        if link.outcome != "answer":
            return replace(mismatch("other_value"), chain=chain)
        chain += (link.values[0],)
    detour = [f"it goes by way of {', '.join(chain[:-1])}"] if len(chain) > 1 else ()
    return replace(match(detour), chain=chain)


async def _in_its_place(name: str, answer: Answer, ask: Ask) -> Judged:
    """A name with a SOA is the top of its zone, where no CNAME can be (RFC 1034, 3.6.2).  One with addresses is served
    by a proxy that hides the CNAME, or has been resolved ("flattened") by its provider."""
    addresses = [*await _values(name, "A", ask), *await _values(name, "AAAA", ask)]
    if await _values(name, "SOA", ask):
        return replace(mismatch("apex"), found=tuple(addresses))
    if addresses:
        return replace(mismatch("address_instead"), found=tuple(addresses))
    return missing(answer)


async def _values(name: str, rdtype: str, ask: Ask) -> tuple[str, ...]:
    answer = await ask(name, rdtype)
    return answer.values if answer.outcome == "answer" and not answer.chain else ()
