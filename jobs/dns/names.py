"""Domain names as people write them, and the one form in which they are asked and compared."""

from __future__ import annotations

import re

import dns.exception
import dns.name

_CODEC = dns.name.IDNA2008Codec(uts_46=True, transitional=False, allow_pure_ascii=True)
_LABEL = re.compile(rb"[a-z0-9_-]+")


def normal(text: str) -> str:
    """`text` in lower case, as A-labels (IDNA 2008 after UTS 46), without the final dot; ValueError says what is wrong.

    Labels hold letters, digits, `-` and `_`: a name with a space, an escape or a slash is a slip of the pen.
    """
    try:
        name = dns.name.from_text(text, dns.name.root, _CODEC)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{text!r} is not a domain name: {error}") from error
    labels = [label.lower() for label in name.labels[:-1]]
    if not labels:
        raise ValueError(f"{text!r} is not a domain name: it has no label")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{text!r} is not a domain name: a label has letters, digits, '-' and '_' only")
    return b".".join(labels).decode("ascii")


def under(domain: str, name: str | None) -> str:
    """The full name that `name` means in a check of `domain` (already normal), read as a zone file reads it.

    None and "@" are the domain itself.  A name that is the domain or ends with it is full; one with a final dot is full
    too and must be the domain or below it, or the owner of one domain could answer for another: ValueError.  Anything
    else is put in front of the domain.
    """
    if name is None or name == "@":
        return domain
    full = normal(name)
    if full == domain or full.endswith("." + domain):
        return full
    if name.endswith("."):
        raise ValueError(f"{name!r} is neither {domain!r} nor below it")
    return normal(f"{full}.{domain}")


def shown(name: dns.name.Name) -> str:
    """A name out of an answer, in the form of `normal`; the root is "."."""
    return name.to_text(omit_final_dot=True).lower()
