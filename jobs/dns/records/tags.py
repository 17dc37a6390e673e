"""Lists of `tag=value;`, as DKIM and DMARC records are written (RFC 6376, 3.2)."""

from __future__ import annotations

import re

from jobs.dns.records.text import LONGEST

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def read(record: str) -> dict[str, str]:
    """tag → value, in the order of the record, white space around both dropped.

    ValueError for a part that is no tag, and for a tag that stands twice: RFC 6376 makes such a record void, and which
    of two keys a receiver would take nobody knows.
    """
    if len(record) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} characters")
    found: dict[str, str] = {}
    parts = [part.strip() for part in record.split(";")]
    for part in parts[:-1] if not parts[-1] else parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"{part[:40]!r} is not tag=value")
        if name in found:
            raise ValueError(f"the tag {name}= stands twice")
        found[name] = value
    return found


def lenient(record: str) -> dict[str, str]:
    """The same for DMARC, which ignores what it cannot read (RFC 9989, 4.7); of a tag that stands twice the first."""
    found: dict[str, str] = {}
    for part in record[:LONGEST].split(";"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and _NAME.fullmatch(name):
            found.setdefault(name.lower(), value)
    return found
