"""One SPF record, read into its terms (RFC 7208, sections 4.6 and 12)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from jobs.dns import names
from jobs.dns.records.spf_target import Network

ASKING = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})
"""The terms that count as lookups (4.6.4)."""

MECHANISMS = frozenset({"all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"})

_MECHANISM = re.compile(r"([+?~-]?)([A-Za-z][\w.-]*)(?:(:)(.*))?", re.DOTALL)
_MODIFIER = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
_CIDR = re.compile(r"(?P<domain>.*?)(?:/(?P<v4>0|[1-9]\d?))?(?://(?P<v6>0|[1-9]\d{0,2}))?", re.DOTALL)
_CLOSED = re.compile(r"%\{[^}]*\}")
_MACROS = re.compile(r"(?:%\{[slodiphcrtvSLODIPHCRTV]\d*r?[.\-+,/_=]*\}|%%|%_|%-|[!-$&-~])*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """`kind` is a mechanism or "redirect".  `domain` is its target in normal form: None where it has none, which means
    the domain the record stands at, or where it is a macro, whose value depends on the message."""

    kind: str
    passes: bool
    text: str
    domain: str | None = None
    macro: bool = False
    network: Network | None = None
    prefix4: int = 32
    prefix6: int = 128


def is_record(value: str) -> bool:
    """ "v=spf1" and nothing else up to a space or the end (4.5)."""
    return value[:6].lower() == "v=spf1" and value[6:7] in ("", " ")


def read(record: str) -> tuple[Term, ...]:
    """The terms in order, without modifiers that name no other record; ValueError for what makes receivers say
    permerror, which is any error of syntax anywhere in the record (4.6)."""
    terms: list[Term] = []
    modifiers: set[str] = set()
    for word in record[6:].split(" "):
        if not word:
            continue
        if parts := _MODIFIER.fullmatch(word):
            name = parts[1].lower()
            if name in ("redirect", "exp"):
                if name in modifiers:
                    raise ValueError(f"{name}= stands twice")
                modifiers.add(name)
            if name == "redirect":
                terms.append(_aimed(word, "redirect", True, parts[2]))
            continue
        terms.append(_directive(word))
    return tuple(terms)


def _directive(word: str) -> Term:
    parts = _MECHANISM.fullmatch(word)
    if not parts:
        slash = re.fullmatch(r"([+?~-]?)(a|mx)(/.*)", word, re.IGNORECASE)
        if not slash:
            raise ValueError(f"{word[:60]!r} is no term of SPF")
        return _addressed(word, slash[2].lower(), slash[1] in ("", "+"), slash[3])
    passes, kind, rest = parts[1] in ("", "+"), parts[2].lower(), parts[4]
    if kind not in MECHANISMS:
        raise ValueError(f"{word[:60]!r} is no mechanism of SPF")
    match kind:
        case "all":
            if rest is not None:
                raise ValueError("all takes no argument")
            return Term(kind="all", passes=passes, text=word)
        case "ip4" | "ip6":
            return Term(kind=kind, passes=passes, text=word, network=_network(word, kind, rest or ""))
        case "a" | "mx":
            if rest == "":
                raise ValueError(f"{word[:60]!r} names no domain")
            return _addressed(word, kind, passes, rest or "")
        case "ptr" if rest is None:
            return Term(kind="ptr", passes=passes, text=word)
        case _:
            return _aimed(word, kind, passes, rest or "")


def _addressed(word: str, kind: str, passes: bool, rest: str) -> Term:
    """`a` and `mx`, with or without a domain and the lengths of prefixes."""
    parts = _CIDR.fullmatch(rest)
    prefix4, prefix6 = (int(parts[name] or most) for name, most in (("v4", 32), ("v6", 128))) if parts else (99, 999)
    if not parts or prefix4 > 32 or prefix6 > 128 or "/" in _CLOSED.sub("", parts["domain"]):
        raise ValueError(f"{word[:60]!r} has a prefix that is none")
    if not parts["domain"]:
        return Term(kind=kind, passes=passes, text=word, prefix4=prefix4, prefix6=prefix6)
    aimed = _aimed(word, kind, passes, parts["domain"])
    return replace(aimed, prefix4=prefix4, prefix6=prefix6)


def _aimed(word: str, kind: str, passes: bool, spec: str) -> Term:
    domain, macro = _domain(word, spec)
    return Term(kind=kind, passes=passes, text=word, domain=domain, macro=macro)


def _domain(word: str, spec: str) -> tuple[str | None, bool]:
    """(the name, False), or (None, True) where it takes a message to know it."""
    if not _MACROS.fullmatch(spec) or not spec:
        raise ValueError(f"{word[:60]!r} names no domain")
    if "%" in spec:
        return None, True
    try:
        domain = names.normal(spec)
    except ValueError:
        domain = ""
    if "." not in domain:
        raise ValueError(f"{word[:60]!r} names no domain")
    return domain, False


def _network(word: str, kind: str, rest: str) -> Network:
    try:
        return (ipaddress.IPv4Network if kind == "ip4" else ipaddress.IPv6Network)(rest, strict=False)
    except ValueError:
        raise ValueError(f"{word[:60]!r} holds no {'IPv4' if kind == 'ip4' else 'IPv6'} address") from None
