"""One header line, written from text that is never parsed.

EmailMessage decodes encoded words in the text it is given, and CPython 3.11.7 and 3.12.1 then write what came out as
it is: the subject `=?utf-8?q?x=0D=0ABcc:_evil@x?=` becomes a Bcc line.  Here such a text is encoded once more, so that
its reader sees exactly the characters that were stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.header import Header

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST_WORD = 900
_WIDTH = 76


def refuse_controls(text: str) -> None:
    """ValueError if there is a character that ends a line, or that is no character, in what must fit on one."""
    if match := _CONTROL.search(text):
        raise ValueError(f"{text[:200]!r} has the control character U+{ord(match[0]):04X}")


def is_plain(text: str) -> bool:
    """Whether it can stand in a header as it is, and be read as what it is."""
    return (
        text.isascii() and "=?" not in text and text == text.strip() and max(map(len, text.split(" "))) <= _LONGEST_WORD
    )


def encoded(text: str, name: str = "") -> str:
    """RFC 2047 encoded words of at most 75 characters, on lines of their own; `name` is the header they follow."""
    return Header(text, "utf-8", maxlinelen=_WIDTH, header_name=name or "X").encode(linesep="\r\n")


def line(name: str, text: str) -> bytes:
    """`Name: text` with its end of line, folded, and encoded where it must be."""
    refuse_controls(text)
    value = _folded(text, len(name) + 1) if is_plain(text) else " " + encoded(text, name)
    return f"{name}:{value}\r\n".encode("ascii")


def list_line(name: str, values: Sequence[str]) -> bytes:
    """`Name: value, value`, one on each line; for values that are header syntax already."""
    return (name + ": " + ",\r\n ".join(values) + "\r\n").encode()


def _folded(text: str, column: int) -> str:
    """Broken before spaces, so that taking the line ends out gives the text back (RFC 5322, 2.2.3)."""
    folded = ""
    for word in text.split(" "):
        fits = column + 1 + len(word) <= _WIDTH
        folded += " " + word if fits or not folded.strip() else "\r\n " + word
        column = len(folded) - folded.rfind("\r\n") - 2 if "\r\n" in folded else column + 1 + len(word)
    return folded
