"""Relaxed canonicalisation (RFC 6376, 3.4.2 and 3.4.4), which DKIM signatures are over, of lines that end in CRLF."""

from __future__ import annotations

import re

_WSP = re.compile(rb"[ \t]+")
_EMPTY_AT_END = re.compile(rb"(?:\r\n)+\Z")


def split(wire: bytes) -> tuple[list[bytes], bytes]:
    """The fields of a message, folded as they are and without their last CRLF, and its body."""
    head, _, body = wire.partition(b"\r\n\r\n")
    fields: list[bytes] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return fields, body


def name_of(field: bytes) -> str:
    """In lower case."""
    return field.partition(b":")[0].rstrip(b" \t").decode("ascii", "replace").lower()


def relaxed_field(field: bytes) -> bytes:
    """Without a CRLF at its end."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + _WSP.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")


def relaxed_body(body: bytes) -> bytes:
    """Runs of blanks are one, blanks and empty lines at an end are none."""
    if not body:
        return b""
    whole = body if body.endswith(b"\r\n") else body + b"\r\n"
    lines = _WSP.sub(b" ", whole).replace(b" \r\n", b"\r\n")
    content = _EMPTY_AT_END.sub(b"", lines)
    return content + b"\r\n" if content else b""
