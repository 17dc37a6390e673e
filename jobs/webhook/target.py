"""A URL as it will be used: parsed once, its host an IP literal or a plain A-label name, nothing ambiguous left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from yarl import URL

MAX_URL = 4096
_NAME = re.compile(r"(?!.{254})[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_USERINFO = re.compile(r"[^/?#]*//[^/?#]*@")
_NUMERIC = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$")


class BadUrl(ValueError):
    """The text is no URL that could be sent to; the message says why and quotes nothing secret."""


@dataclass(frozen=True, slots=True)
class Target:
    """`url` is what the client connects by: there is no second reading of the text that could disagree with `host`.

    `host` is lower case, without brackets or trailing dot; `is_literal` if it is an IP address.
    """

    url: URL
    scheme: str
    host: str
    port: int
    is_literal: bool


@lru_cache(maxsize=4096)  # for rows' lanes: a claim of 500 rows asks about few URLs
def parse(text: str) -> Target:
    """The target of `text`; BadUrl if there is none, or if clients could read it in more than one way."""
    if len(text) > MAX_URL:
        raise BadUrl(f"the URL is longer than {MAX_URL} characters")
    if any(c <= " " or c == "\x7f" for c in text):
        raise BadUrl("the URL has spaces or control characters")
    url = _read(text)
    if url.raw_user is not None or url.raw_password is not None or _USERINFO.match(text):
        raise BadUrl("the URL has a user name or password; use a header")
    if url.scheme not in ("http", "https"):
        raise BadUrl("the URL is neither http nor https")
    host = (url.raw_host or "").lower()
    is_literal = _is_literal(host, bracketed=url.raw_authority.startswith("["))
    return Target(url, url.scheme, host.rstrip("."), url.port or 0, is_literal)


def _read(text: str) -> URL:
    """As `text` has it where that is unambiguous: re-quoting would break URLs whose query is signed."""
    try:
        url = URL(text)
        if not (text.isascii() and url.scheme and url.raw_host):
            return url
        verbatim = URL(text, encoded=True).with_host(url.raw_host)
    except (ValueError, IndexError):  # its message may quote the password; IndexError is yarl 1.25's for "http://[]@"
        raise BadUrl("the URL cannot be parsed") from None
    return verbatim if verbatim.origin() == url.origin() else url


def _is_literal(host: str, *, bracketed: bool) -> bool:
    """BadUrl for a host that is neither a name nor an address in the one canonical spelling, without a zone.

    A host whose last label is a number is an address to some resolvers (127.1, 0x7f.1, 2130706433) and a name to
    others; the WHATWG URL standard calls it an address, we refuse to guess.
    """
    try:
        ip_address(host)
    except ValueError:
        is_name = not bracketed and _NAME.fullmatch(host) is not None and not _NUMERIC.search(host)
    else:
        if "%" not in host:
            return True
        is_name = False
    if not is_name:
        raise BadUrl("the URL's host is neither a host name nor a plain IP address")
    return False
