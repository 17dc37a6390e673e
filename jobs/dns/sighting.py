"""What everybody who should know says to one question: the zone's own servers, and resolvers that the world asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.dns.answer import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One question, asked of everybody who should know.

    `authorities` has an entry for each address of each name server: "ns1.example.net (192.0.2.1)".  Where a CNAME leads
    into another zone, that zone's servers are in it too, each with the chain that led there, so that the one which
    lacks the record can be named.  A server that could not be asked or that said nothing usable is there as an error
    with its reason, never left out and never an absence.  `only_parent` and `only_zone` are the name servers that
    the parent's delegation has and the zone's own NS set has not, and the other way round.
    """

    name: str
    """As `names.normal` gives it."""
    type: str
    """ "TXT"."""
    zone: str | None
    """The zone that `name` lies in; None: no cut could be found."""
    authorities: Mapping[str, Answer]
    """Name server and address → what it said, CNAMEs followed to their end."""
    resolvers: Mapping[str, Answer]
    """ "9.9.9.9:53" → what this recursive resolver said; empty if none was asked."""
    authentic: bool
    """A validating resolver vouches for its answer (AD)."""
    bogus: bool
    """One says SERVFAIL, but answers when told not to validate (CD): DNSSEC is broken."""
    quorum: int
    """So many resolvers must say the same: [dns] quorum, or all of them where there are fewer."""
    name_servers: tuple[str, ...] = ()
    """Those of `zone`; empty where nothing was found, or only a public suffix: whoever looks for a change must not take
    an outage for one, nor a name that nobody has registered."""
    only_parent: tuple[str, ...] = ()
    only_zone: tuple[str, ...] = ()


def host(server: str) -> str:
    """ "ns1.example.net" of "ns1.example.net (192.0.2.1)", as `Sighting.authorities` has it."""
    return server.partition(" (")[0]
