"""One question to one server and its reply: tried again where it is silent, without EDNS where it wants none, over TCP
where a datagram is too small."""

from __future__ import annotations

import asyncio
from functools import lru_cache

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from jobs.dns.answer import Answer, failed
from jobs.dns.budget import Budget
from jobs.dns.datagram import Misfits, NoRoute, over_tcp, over_udp
from jobs.dns.kept import Kept
from jobs.dns.pace import Pace
from jobs.dns.question import Fit, Question, packed
from jobs.dns.settings import DnsSettings, Server

Reply = dns.message.Message | Answer
"""What came, or an answer of outcome "error" that says why nothing did."""

SILENT = frozenset({"timeout", "malformed"})
"""Reasons to ask a server again at once.  One that said SERVFAIL or REFUSED has spoken, and caches it (RFC 2308, 7)."""

CASELESS_KEPT = PLAIN_KEPT = 4096
PLAIN_S = 3600.0
"""Who answers only without EDNS is asked without it for so long, and need not be waited for each time."""

DECODED_KEPT, KEPT_SIZE_MAX = 1024, 2048

_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})
_TRIES_WITH_EDNS = 2  # who is silent twice may have a firewall in front that drops what it does not know


class Exchange:
    """The wire of one process: how many questions are on it, and how often one server is asked."""

    def __init__(self, settings: DnsSettings) -> None:
        self.pace = Pace(settings.authority_rate)
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._caseless: set[Server] = set()
        self._plain: Kept[bool] = Kept(PLAIN_KEPT, PLAIN_S)

    async def ask(
        self, place: Server, question: Question, budget: Budget, *, tries: int, silent_before: int = 0
    ) -> Reply:
        """What `place` says.  Whatever the network or the server does wrong is an error: timeout, malformed,
        unreachable, no_route, truncated, or budget where the check may ask no more.  `silent_before`: so often in a row
        it has said nothing to this check."""
        with_edns = silent_before < _TRIES_WITH_EDNS and not self._plain.get(str(place))
        payload = self._settings.edns_payload if with_edns else None
        silences: list[Answer] = []
        while True:
            reply = await self._try(place, question, payload, budget)
            if isinstance(reply, Answer):
                if reply.reason == "budget" and silences:
                    return silences[-1]
                silences.append(reply)
                if reply.reason not in SILENT or len(silences) >= tries:
                    return reply
                payload = payload if silent_before + len(silences) < _TRIES_WITH_EDNS else None
            elif payload is not None and reply.rcode() in _NO_EDNS:
                payload = None
            else:
                if payload is None and (silences or silent_before):
                    self._plain.put(str(place), True, PLAIN_S)
                return reply

    async def _try(self, place: Server, question: Question, payload: int | None, budget: Budget) -> Reply:
        try:
            fit, wire = await self._send(place, question, payload, budget, tcp=False)
            if fit == "case":
                return await self._without_case(place, question, payload, budget)
            reply = decoded(wire)
            if not reply.flags & dns.flags.TC:
                return reply
            if not self._settings.tcp_fallback:
                return failed("truncated")
            return await self._whole(place, question, payload, budget)
        except _Spent:
            return failed("budget")
        except NoRoute:
            return failed("no_route")
        except (Misfits, dns.exception.DNSException):
            return failed("malformed")
        except TimeoutError:
            return failed("timeout")
        except (OSError, EOFError):
            return failed("unreachable")

    async def _without_case(self, place: Server, question: Question, payload: int | None, budget: Budget) -> Reply:
        """A reply in other letters than ours: a server that does not keep them, or somebody who guesses.  A connection
        cannot be guessed; from now on `place` is asked in small letters."""
        if len(self._caseless) >= CASELESS_KEPT:
            self._caseless.clear()
        self._caseless.add(place)
        if not self._settings.tcp_fallback:
            return failed("malformed")
        try:
            return await self._whole(place, question, payload, budget)
        except (OSError, EOFError):
            return failed("malformed")  # to be tried again

    async def _whole(self, place: Server, question: Question, payload: int | None, budget: Budget) -> Reply:
        """Over TCP everything fits; a reply that is cut short all the same would show a record set without some of its
        records."""
        _, wire = await self._send(place, question, payload, budget, tcp=True)
        reply = decoded(wire)
        return failed("truncated") if reply.flags & dns.flags.TC else reply

    async def _send(
        self, place: Server, question: Question, payload: int | None, budget: Budget, *, tcp: bool
    ) -> tuple[Fit, bytes]:
        """How the reply fits, and its bytes as `Sent.plain` has them."""
        await self._start(place, budget, paced=not question.recursive)
        try:
            sent = packed(question, payload).sent(keeps_case=place not in self._caseless)
            timeout_s = min(self._settings.timeout, budget.left_s)
            if tcp:
                return "yes", sent.plain(await over_tcp(place, sent, timeout_s))
            fit, wire = await over_udp(place, sent, timeout_s)
            return fit, sent.plain(wire)
        finally:
            self._slots.release()

    async def _start(self, place: Server, budget: Budget, *, paced: bool) -> None:
        """Wait for a turn at `place` and for a slot, in this order: who waits for a busy server keeps no slot from the
        others.  _Spent if the budget ends before."""
        if not budget.take() or (paced and self.pace.wait_s(place.address) > budget.left_s):
            raise _Spent
        if not self._slots.locked() and (not paced or self.pace.take(place.address)):
            await self._slots.acquire()  # at once: this is the usual case, and costs no timer
            return
        try:
            async with asyncio.timeout(budget.left_s):
                if not paced:
                    await self._slots.acquire()
                    return
                async with self.pace.turn(place.address):
                    await self._slots.acquire()
        except TimeoutError:
            raise _Spent from None


def decoded(wire: bytes) -> dns.message.Message:
    """What a reply says; nobody changes it.  To read one is most of what a question costs, and the servers of a zone
    mostly say the same."""
    return _decoded(wire) if len(wire) <= KEPT_SIZE_MAX else dns.message.from_wire(wire)


@lru_cache(maxsize=DECODED_KEPT)
def _decoded(wire: bytes) -> dns.message.Message:
    return dns.message.from_wire(wire)


class _Spent(Exception):
    """The check may ask no more."""
