"""A row of table domains, and what its owner is to publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from jobs.dns.expectation import Expectation, Wanted
from jobs.dns.records.token import published
from jobs.dns.state import Memory, memory_of

_EXPECT = msgspec.json.Decoder(tuple[Expectation, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """`checks`: how many have counted.  `now` is the database's clock when it was read."""

    id: int
    domain: str
    challenge: str
    token: str
    expect: str
    contact: str | None
    checks: int
    name_servers: tuple[str, ...]
    memory: Memory
    now: datetime

    @property
    def is_new(self) -> bool:
        return self.checks == 0

    def wanted(self) -> tuple[Wanted, ...]:
        return wanted(self.domain, self.challenge, self.token, self.expect)


def wanted(domain: str, challenge: str, token: str, expect: str) -> tuple[Wanted, ...]:
    """What should be there, the token first; ValueError, for people, where `expect` (column expect) cannot be read."""
    try:
        first = Expectation(type="TOKEN", name=f"{challenge}.{domain}.", value=token)
        return tuple(expectation.at(domain) for expectation in (first, *_EXPECT.decode(expect)))
    except ValueError as error:
        raise ValueError(f"What is expected of {domain} cannot be read: {error}") from None


def registered(row: Mapping[str, Any]) -> Registered:
    """Of a row of statement `turn`."""
    return Registered(
        id=row["id"],
        domain=row["domain"],
        challenge=row["challenge"],
        token=row["token"],
        expect=row["expect"],
        contact=row["contact"],
        checks=row["checks"],
        name_servers=tuple(row["name_servers"] or ()),
        memory=memory_of(row),
        now=row["now"],
    )


def to_publish(records: tuple[Wanted, ...]) -> list[dict[str, str]]:
    """Name, type and value of each record, for people who have a form of their provider's before them."""
    return [
        {"name": one.name, "type": one.rdtype, "value": published(one.value) if one.type == "TOKEN" else _shown(one)}
        for one in records
        if not one.advice
    ]


def _shown(one: Wanted) -> str:
    match one.type:
        case "SPF":
            return f"one record v=spf1 … with {one.value}"
        case "DMARC":
            return f"v=DMARC1; {one.value}, or stricter"
        case "MX":
            return one.value if " " in one.value else f"{one.value}, with the lowest preference"
        case _:
            return one.value
