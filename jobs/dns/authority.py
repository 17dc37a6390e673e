"""An authoritative server is asked: only where that is allowed, and not too often."""

from __future__ import annotations

from functools import lru_cache

from jobs.dns.answer import Answer, failed
from jobs.dns.delegation import Spot
from jobs.dns.errand import Errand
from jobs.dns.exchange import SILENT, Exchange, Reply
from jobs.dns.question import Question
from jobs.dns.settings import DnsSettings, Server
from jobs.webhook.addresses import is_allowed, networks

ADDRESSES_KEPT = 4096


class Authorities:
    """Every question to a server that somebody's DNS names goes through here.

    Whoever owns a domain chooses the addresses that we ask, so they pass the table that webhooks do; what is not public
    is never sent anything.  The roots are the operator's choice.
    """

    def __init__(self, settings: DnsSettings, exchange: Exchange) -> None:
        self._settings = settings
        self._exchange = exchange
        exceptions = networks(settings.allow_addresses)
        self._is_allowed = lru_cache(maxsize=ADDRESSES_KEPT)(lambda address: is_allowed(address, exceptions))

    async def ask(self, spot: Spot, name: str, rdtype: str, errand: Errand, *, tries: int | None = None) -> Reply:
        """`tries` None: as often as the settings say, but only once if it has been silent so often already."""
        if spot.host and not self._is_allowed(spot.address):
            return failed("blocked")
        place = Server(spot.address, self._settings.authority_port)
        silent_before = errand.silences[spot.address]
        if tries is None:
            tries = max(1, self._settings.tries - silent_before)
        question = Question(name, rdtype)
        reply = await self._exchange.ask(place, question, errand.budget, tries=tries, silent_before=silent_before)
        if isinstance(reply, Answer) and reply.reason in SILENT:
            errand.silences[spot.address] += tries
        else:
            errand.silences.pop(spot.address, None)
        return reply

    def wait_s(self, spot: Spot) -> float:
        """About how long a question to `spot` waits for its turn."""
        return self._exchange.pace.wait_s(spot.address)
