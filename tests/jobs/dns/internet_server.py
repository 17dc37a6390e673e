"""A name server on a loopback address that can be told to misbehave."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Unpack

import dns.message
import dns.rdatatype
import dns.rrset

from daemon.demo_nameserver import Listener, Transport, question
from tests.jobs.dns.internet_faults import Fault, Troubles, Which, replies


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it came; `name` in lower case without the final dot, `by` "us" or the address of a resolver of
    the lab, `at` the loop's time."""

    name: str
    type: str
    transport: Transport
    by: str
    at: float
    query: dns.message.Message


class Server(Listener):
    """`reply` is what it would say if it were well, `origin` the zone in whose name its faults speak.

    `log` keeps every question; `asked` counts those of ours by (name, type, transport).
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__()
        self.address, self.port = address, port
        self.log: list[Asked] = []
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.delay_s = 0.0
        self._troubles = Troubles()
        self._heard = asyncio.Event()

    @property
    def place(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def fault(self, fault: Fault, **which: Unpack[Which]) -> None:
        """From now on it answers so, to questions of that name and type, so many times, to us or to resolvers."""
        self._troubles.begin(fault, which)

    def slow(self, seconds: float) -> None:
        self.delay_s = seconds
        self.fault("slow")

    def heal(self) -> None:
        """No fault any more."""
        self._troubles.end()
        self.delay_s = 0.0

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        self.log.clear()
        self.asked.clear()

    async def asked_so_often(self, times: int) -> None:
        """Return when we have asked `times` questions."""
        while self.asked.total() < times:
            self._heard.clear()
            await self._heard.wait()

    @abstractmethod
    def reply(self, query: dns.message.Message) -> dns.message.Message: ...

    def origin(self, question: dns.rrset.RRset) -> str:
        return "."

    def answers(self, wire: bytes, transport: Transport, by: str = "us") -> tuple[list[bytes], float]:
        query = question(wire)
        if query is None:
            return [], 0.0
        asked = query.question[0]
        key = (asked.name.to_text().lower().rstrip("."), dns.rdatatype.to_text(asked.rdtype), transport)
        self.log.append(Asked(*key, by, asyncio.get_running_loop().time(), query))
        if by == "us":
            self.asked[key] += 1
            self._heard.set()
        fault = self._troubles.of(asked, by)
        found = replies(fault, query, self.reply, transport, self.origin(asked))
        return found, self.delay_s if fault == "slow" else 0.0

    def keeps_open(self) -> bool:
        return any(trouble.fault in ("tcp_silent", "silent") for trouble in self._troubles.all)
