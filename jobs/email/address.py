"""A mailbox as people write it, taken whole or refused: an address that must be cleaned is another address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from jobs.email.header import encoded, is_plain, refuse_controls

_MAILBOX = re.compile(r"(?P<name>\"(?:[^\"\\]|\\.)*\"|[^<>]*?) *<(?P<address>[^<>]*)>|(?P<bare>[^<>]*)")
_QUOTED = re.compile(r'"(?P<inside>(?:[^"\\]|\\["\\])*)"')
_PHRASE_SPECIALS = re.compile(r'[()<>\[\]:;@\\,"]')
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u0080-\U0010ffff-]+")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Mailbox:
    """`name <local@domain>`; `name` may be empty.  Build it with `mailbox()`."""

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        """As it was written."""
        return f"{self.local}@{self.domain}"

    @cached_property
    def wire(self) -> str:
        """As SMTP takes it: the domain in its ASCII form."""
        return f"{self.local}@{wire_domain(self.domain)}"

    @property
    def needs_smtputf8(self) -> bool:
        """RFC 6531: a local part outside ASCII has no ASCII form."""
        return not self.local.isascii()

    @property
    def header(self) -> str:
        """As it stands in From, To, Cc and Reply-To; a long name brings its own line breaks."""
        return f"{_phrase(self.name)} <{self.wire}>" if self.name else self.wire


def mailbox(text: str) -> Mailbox:
    """The mailbox of `jane@x.example`, `Jane Doe <jane@x.example>` or `"Doe, Jane" <jane@x.example>`.

    ValueError for anything else, quoted local parts, address literals and comments among it: what RFC 5322 allows and
    nobody uses is what parsers disagree about.
    """
    refuse_controls(text)
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no mailbox")
    address = match["bare"] if match["address"] is None else match["address"]
    local, at, domain = address.rpartition("@")
    if not at:
        raise ValueError(f"{text!r} is no mailbox: there is no @")
    _check_local(local, text)
    found = Mailbox(_name(match["name"] or "", text), local, domain)
    if len(found.wire.encode()) > 254:  # RFC 5321 4.5.3.1.3: a path has 256 octets, its brackets among them
        raise ValueError(f"{text!r} is no mailbox: the address is longer than 254 bytes")
    return found


def wire_domain(domain: str) -> str:
    """The ASCII form of a domain; ValueError where it has none that means exactly the same domain.

    Python's codec is IDNA 2003, which turns `straße` into `strasse`, another domain.  So what does not come back as it
    went in is refused.
    """
    wire = domain
    if not domain.isascii():
        try:
            wire = domain.encode("idna").decode("ascii")
            back = wire.encode("ascii").decode("idna")
        except UnicodeError:
            back = ""
        if back != domain:
            raise ValueError(f"{domain!r} is no domain that we can write in ASCII; give it in its xn-- form")
    if len(wire) > 253 or not all(_LABEL.fullmatch(label) for label in wire.split(".")):
        raise ValueError(f"{domain!r} is no domain name")
    return wire


def _check_local(local: str, text: str) -> None:
    whole = _LOCAL.fullmatch(local) and all(local.split("."))  # no empty atom: "a..b", ".a", "a."
    if not whole or len(local.encode()) > 64 or not local.isprintable():
        raise ValueError(f"{text!r} is no mailbox: {local!r} cannot stand before the @")
    if "=?" in local:
        raise ValueError(f"{text!r} is no mailbox: its address looks like an encoded word")


def _name(text: str, whole: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted["inside"])
    if _PHRASE_SPECIALS.search(text):
        raise ValueError(f'{whole!r} is no mailbox: put the name in "double quotes", and several mailboxes in a list')
    if len(text) > 255:
        raise ValueError(f"the name of {whole[-300:]!r} is longer than 255 characters")
    return text


def _phrase(name: str) -> str:
    if not is_plain(name):
        return encoded(name)
    if _ATOMS.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
