"""The token by which an organisation proves that a domain is its own (draft-ietf-dnsop-domain-verification-techniques).

One is made for each (organisation, domain) and for nothing else, or one tenant's record would verify another's domain.
It is random and derived from nothing, so no secret exists whose loss would break all of them.  It is stored as it is: a
hash would protect nothing, since whoever owns the domain publishes the token to everybody.
"""

from __future__ import annotations

import base64
import re
import secrets

from jobs.dns.answer import Answer
from jobs.dns.records import text
from jobs.dns.verdict import Judged, match, mismatch

TOKEN_BYTES = 20
CHARACTERS_MIN = 26
"""Base32 holds five bits a character, and a token must not be guessed: 128 bits."""

_TOKEN = re.compile(rf"[a-z2-7]{{{CHARACTERS_MIN},128}}")


def new_token() -> str:
    """160 random bits in 32 characters of base32, in lower case; what is stored, and what `published` wraps."""
    return base64.b32encode(secrets.token_bytes(TOKEN_BYTES)).decode("ascii").lower()


def published(token: str, expiry: str | None = None) -> str:
    """The text of the TXT record its owner publishes.

    `expiry` tells him when he may take it away: a date or time of RFC 3339, or "never" where checks go on for ever.
    """
    return f"token={normal(token)}" + (f" expiry={expiry}" if expiry else "")


def normal(value: str) -> str:
    """The bare token, in lower case (base32 has one), of "token=…", with or without what follows it."""
    token = _token(value)
    if not token or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"the value is no token; it has {CHARACTERS_MIN} to 128 characters of base32 (a-z, 2-7), "
            "so that nobody can guess it: new_token() makes one"
        )
    return token


def judge(value: str, answer: Answer) -> Judged:
    """Any record that holds the token will do.  Others stay unnoticed: they are other organisations' or, under a
    wildcard, about something else, which is why existence proves nothing.

    Reason: other_value.
    """
    for record in answer.values:
        if _token(record) == value:
            return match(**_metadata(record))
    return mismatch("other_value")


def _token(record: str) -> str | None:
    """Bare, or the first of the `key=value` pairs; a text of any other form holds none."""
    words = text.plain(record).split(" ")
    first = words[0].lower()
    if first.startswith("token="):
        return first.removeprefix("token=").rstrip("=")
    return first.rstrip("=") if len(words) == 1 else None


def _metadata(record: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in text.plain(record).split(" ")[1:])
    return {key.lower(): value for key, _, value in pairs if key.lower() == "expiry" and value}
