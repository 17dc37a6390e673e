"""The MIME part of a message: text, HTML and attachments, in ASCII lines that no relay needs to change."""

from __future__ import annotations

import base64
import re
from binascii import b2a_qp
from collections.abc import Sequence
from email import policy
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from typing import Annotated

import msgspec

from jobs.email.header import refuse_controls

_TYPE = re.compile(r"(?!multipart/|message/)[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
_PLAIN_FILENAME = re.compile(r"[A-Za-z0-9._()+-]+(?: [A-Za-z0-9._()+-]+)*")
_POLICY = policy.compat32.clone(linesep="\r\n")


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file.  `content` is Base64 in JSON."""

    filename: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    content: bytes
    content_type: str = "application/octet-stream"


def body(text: str | None, html: str | None, attachments: Sequence[Attachment], *, boundary: str) -> bytes:
    """The entity with its own headers (MIME-Version, Content-…): text and HTML as alternatives, then the files.

    `boundary` goes into the lines between the parts.  "=_" before it occurs neither in quoted-printable nor in Base64
    (RFC 2045, 6.7), and a part is always in one of the two.
    """
    forms = [_text(content, kind) for content, kind in ((text, "plain"), (html, "html")) if content is not None]
    if not forms:
        raise ValueError("there is nothing to say: neither `text` nor `html`")
    entity: MIMEBase = forms[0] if len(forms) == 1 else _multipart("alternative", forms, boundary)
    if attachments:
        entity = _multipart("mixed", [entity, *map(_file, attachments)], boundary)
    entity["MIME-Version"] = "1.0"
    wire = entity.as_bytes(policy=_POLICY)
    return wire if wire.endswith(b"\r\n") else wire + b"\r\n"


def _text(content: str, kind: str) -> MIMEBase:
    """Quoted-printable, as readable as can be for filters and people, unless Base64 is shorter."""
    # CRLF is part of the text's canonical form, inside Base64 too (RFC 2045, 6.8)
    text = content.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").encode()
    readable, short = b2a_qp(text), base64.encodebytes(text)
    is_readable = len(readable) <= len(short)
    part = _part(f"text/{kind}", "quoted-printable" if is_readable else "base64", readable if is_readable else short)
    part.set_param("charset", "utf-8", replace=True)
    return part


def _file(attachment: Attachment) -> MIMEBase:
    name = attachment.filename
    refuse_controls(name)
    if "/" in name or "\\" in name or len(name.encode()) > 255:
        raise ValueError(f"{name!r} is no file name")
    if not _TYPE.fullmatch(attachment.content_type):
        raise ValueError(f"{attachment.content_type[:100]!r} is no content type that can be attached")
    part = _part(attachment.content_type, "base64", base64.encodebytes(attachment.content))
    # RFC 2231 percent-encoding for all but the plainest names: nothing in them is left to be parsed
    plain = _PLAIN_FILENAME.fullmatch(name) is not None
    part.add_header("Content-Disposition", "attachment", filename=name if plain else ("utf-8", "", name))
    return part


def _part(content_type: str, encoding: str, content: bytes) -> MIMEBase:
    part = MIMEBase(*content_type.split("/"))
    del part["MIME-Version"]
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(content.decode("ascii"))
    return part


def _multipart(kind: str, parts: Sequence[MIMEBase], boundary: str) -> MIMEBase:
    multipart = MIMEMultipart(kind, boundary=f"=_{kind}_{boundary}", _subparts=list(parts))
    del multipart["MIME-Version"]
    return multipart
