"""The demo's name server: the root, the one zone below it, and a resolver of both; one name fails at first."""

from __future__ import annotations

import time

import dns.message
import dns.name
import dns.rcode

from daemon.demo_nameserver import NameServer
from daemon.demo_zone import Contents
from jobs.email.dkim_keys import SigningKey

ZONE = "shop.example"
HOST = "127.0.0.1"
SLOW_TO_ANSWER = dns.name.from_text(f"flaky.{ZONE}")
FAILS_FOR_S = 1.5
WELL_FOR_S = 10.0

_SERVERS = (f"{ZONE} NS ns.{ZONE}.", f"ns.{ZONE} A {HOST}")
_RECORDS = (
    *_SERVERS,
    f"{ZONE} A 192.0.2.10",
    f"{ZONE} MX 10 mail.{ZONE}.",
    f'{ZONE} TXT "v=spf1 mx -all"',
    f'_verify.{ZONE} TXT "token=4711"',
    f"www.{ZONE} CNAME {ZONE}.",
    f'{SLOW_TO_ANSWER} TXT "token=4711"',
)


class DnsSink(NameServer):
    """Answers for shop.example, which the root delegates to it; whoever asks for flaky.shop.example is refused for a
    moment at first.

    `dkim`: the key that mail of the zone is signed with.
    """

    def __init__(self, dkim: SigningKey) -> None:
        root, zone = Contents(".", ttl=60), Contents(ZONE, ttl=60)
        root.add(*_SERVERS)
        zone.add(*_RECORDS, f'{dkim.host} TXT "{dkim.record}"')
        super().__init__(root, zone)
        self._asked_at = -WELL_FOR_S

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        if query.question[0].name == SLOW_TO_ANSWER and self._fails():
            reply = dns.message.make_response(query)
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        return super().reply(query)

    def _fails(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at > WELL_FOR_S:
            self._asked_at = now
        return now - self._asked_at < FAILS_FOR_S
