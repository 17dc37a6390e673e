"""A DNS written down in a table, to judge by: what is not in it does not exist, and what is asked is counted."""

from __future__ import annotations

from collections import Counter

from jobs.dns.answer import Answer, failed
from jobs.dns.expectation import Expectation, Type
from jobs.dns.finding import Finding
from jobs.dns.judge import judge

DOMAIN = "shop.example"


def found(*values: str, ttl_s: int | None = 300, chain: tuple[str, ...] = (), authentic: bool = False) -> Answer:
    return Answer(outcome="answer", values=values, ttl_s=ttl_s, chain=chain, authentic=authentic)


def nxdomain(ttl_s: int | None = 60) -> Answer:
    return Answer(outcome="nxdomain", ttl_s=ttl_s)


def nodata(ttl_s: int | None = 60) -> Answer:
    return Answer(outcome="nodata", ttl_s=ttl_s)


class Book:
    """(name, type) → answer.  A name that is there with another type has no such record; any other does not exist."""

    def __init__(self, records: dict[tuple[str, str], Answer | str | list[str]] | None = None) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        for question, value in (records or {}).items():
            self.put(*question, value)

    def put(self, name: str, rdtype: str, value: Answer | str | list[str]) -> None:
        if isinstance(value, str):
            value = [value]
        self.answers[name, rdtype] = value if isinstance(value, Answer) else found(*value)

    def fail(self, name: str, rdtype: str, reason: str = "servfail") -> None:
        self.answers[name, rdtype] = failed(reason)

    async def ask(self, name: str, rdtype: str) -> Answer:
        self.asked[name, rdtype] += 1
        return self.look_up(name, rdtype)

    def look_up(self, name: str, rdtype: str) -> Answer:
        if (name, rdtype) in self.answers:
            return self.answers[name, rdtype]
        exists = any(other == name or other.endswith("." + name) for other, _ in self.answers)
        return nodata() if exists else nxdomain()

    async def judge(self, rdtype: Type, value: str, name: str | None = None, domain: str = DOMAIN) -> Finding:
        """The finding on what this book itself answers to the first question."""
        wanted = Expectation(type=rdtype, value=value, name=name).at(domain)
        return await judge(wanted, self.look_up(*wanted.question), self.ask)
