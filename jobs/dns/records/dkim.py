"""DKIM: the key that receivers will find is the one we sign with (RFC 6376, 3.6.1; ed25519: RFC 8463)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from jobs.dns.answer import Answer
from jobs.dns.records import tags, text
from jobs.dns.verdict import Judged, match, mismatch

TYPES = ("rsa", "ed25519")


def normal(value: str) -> str:
    """ "k=rsa; p=…", of a whole record or of a key in base64, of which the type is then rsa."""
    value = text.unquoted(value)
    found = _tags(value) if "p=" in value.replace(" ", "") else {"p": value}
    kind = found.get("k", "rsa").lower()
    if kind not in TYPES:
        raise ValueError(f"k={kind} is no type of key; it is one of {', '.join(TYPES)}")
    key = _bytes(found["p"])
    if not key:
        raise ValueError("p= is empty, which revokes a key; write the record that is published, or its key in base64")
    return f"k={kind}; p={base64.b64encode(key).decode('ascii')}"


def judge(value: str, answer: Answer) -> Judged:
    """Keys are compared as bytes: how the base64 is split, spaced and padded is no difference.

    Reasons: several_records (RFC 6376, 3.6.2.2: the result is undefined), quoted, not_a_key, revoked (empty p=),
    other_key_type, other_value, no_sha256 (h=), not_for_mail (s=).  Facts: k, h, s, t as published.
    """
    records = [record for record in answer.values if _is_key(text.unquoted(record))]
    if len(records) > 1:
        return mismatch("several_records", count=len(records))
    if not records:
        return mismatch("not_a_key", detail="no record there has a tag p=")
    if text.unquoted(records[0]) != records[0]:
        return mismatch("quoted")
    try:
        found = _tags(records[0])
        _bytes(found["p"])
    except ValueError as error:
        return mismatch("not_a_key", detail=str(error))
    facts = {name: found[name] for name in ("k", "h", "s", "t") if name in found}
    if reason := _difference(tags.read(value), found):
        return mismatch(reason, _notes(found), **facts)
    return match(_notes(found), **facts)


def _difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    key = _bytes(found["p"])
    if not key:
        return "revoked"
    if found.get("k", "rsa").lower() != wanted["k"]:
        return "other_key_type"
    if key != _bytes(wanted["p"]):
        return "other_value"
    if "h" in found and "sha256" not in _words(found["h"]):
        return "no_sha256"
    if "s" in found and not {"*", "email"} & _words(found["s"]):
        return "not_for_mail"
    return ""


def _notes(found: Mapping[str, str]) -> list[str]:
    flags = _words(found.get("t", ""))
    testing = "t=y: the key is in testing, so receivers may ignore its signatures"
    strict = "t=s: signatures of subdomains' addresses are not taken"
    return [*([testing] if "y" in flags else []), *([strict] if "s" in flags else [])]


def _is_key(record: str) -> bool:
    """Tags may come in any order; what has no p= is no key, but some other text under the same name."""
    return any(part.partition("=")[0].strip() == "p" and "=" in part for part in record.split(";"))


def _tags(record: str) -> dict[str, str]:
    found = tags.read(record)
    if found.get("v", "DKIM1") != "DKIM1":
        raise ValueError(f"v={found['v'][:40]} is not v=DKIM1")
    if "v" in found and next(iter(found)) != "v":
        raise ValueError("v=DKIM1 must be the first tag")
    if "p" not in found:
        raise ValueError("the tag p= is missing")
    return found


def _bytes(key: str) -> bytes:
    squeezed = "".join(key.split()).rstrip("=")
    try:
        return base64.b64decode(squeezed + "=" * (-len(squeezed) % 4), validate=True)
    except binascii.Error:
        raise ValueError("p= is not base64") from None


def _words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(":")}
