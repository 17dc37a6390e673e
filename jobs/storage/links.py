"""Links to files of a local folder: signed, good for a while, and for one file each."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from jobs.signed import Signer

PURPOSE = b"file"
PAGE = "/files/"
LONGEST_NAME = 200


class Link(msgspec.Struct, frozen=True, array_like=True):
    """`expires_at`: seconds since 1970; `name`: how a browser calls what it downloads."""

    path: str
    expires_at: int
    name: str


def url_of(public_url: str, signer: Signer, link: Link) -> str:
    token = signer.token(PURPOSE, msgspec.json.encode(link))
    return f"{public_url.rstrip('/')}{PAGE}{token}/{quote(link.name, safe='')}"


def link_of(signer: Signer, token: str) -> Link | None:
    """None for a token that we have not made."""
    said = signer.said(PURPOSE, token)
    return None if said is None else msgspec.json.decode(said, type=Link)


def disposition(name: str) -> str:
    """Content-Disposition: download it under that name.  RFC 6266, with the plain form for what knows no other."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._- ") else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
