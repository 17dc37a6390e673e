"""What all servers that should know said to one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.dns.answer import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One question, asked of everybody who should know."""

    name: str  # as names.normal gives it
    type: str  # "TXT"
    zone: str | None  # the zone that name lies in, None: no cut could be found
    authorities: Mapping[str, Answer]  # "ns1.example.net (192.0.2.1)" -> what this server said; CNAMEs followed
    resolvers: Mapping[str, Answer]  # "9.9.9.9" -> what this recursive resolver said
    authentic: bool  # a validating resolver vouches for its answer (AD)
    bogus: bool  # it says SERVFAIL, but answers when asked with CD: DNSSEC is broken
    quorum: int  # so many resolvers must say the same (2)
