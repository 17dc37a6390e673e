"""The demo's name server: knows one zone, and one name that it cannot answer at first."""

from __future__ import annotations

import dns.message
import dns.name
import dns.rcode

from daemon.demo_moods import FirstTime
from daemon.demo_nameserver import NameServer
from daemon.demo_zone import Contents
from jobs.email.dkim_keys import SigningKey

ZONE = "shop.example"
SLOW_TO_ANSWER = dns.name.from_text(f"flaky.{ZONE}")

_RECORDS = (
    f"{ZONE} A 192.0.2.10",
    f"{ZONE} MX 10 mail.{ZONE}.",
    f'{ZONE} TXT "v=spf1 mx -all"',
    f'_verify.{ZONE} TXT "token=4711"',
    f"www.{ZONE} CNAME {ZONE}.",
    f'{SLOW_TO_ANSWER} TXT "token=4711"',
)


class DnsSink(NameServer):
    """Answers for shop.example and refuses the rest; every other question about flaky.shop.example is a SERVFAIL.

    `dkim`: the key that mail of the zone is signed with.
    """

    def __init__(self, dkim: SigningKey) -> None:
        zone = Contents(ZONE, ttl=60)
        zone.add(*_RECORDS, f'{dkim.host} TXT "{dkim.record}"')
        super().__init__(zone)
        self._is_first = FirstTime()

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        name = query.question[0].name
        if name == SLOW_TO_ANSWER and self._is_first(name.to_text().lower()):
            reply = dns.message.make_response(query)
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        return super().reply(query)
