"""What a row asks to be sent, and the bytes that say it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any

import msgspec

from jobs.email import header
from jobs.email.address import Mailbox, mailbox, wire_domain
from jobs.email.body import Attachment, body
from jobs.email.safety import verify
from jobs.email.settings import EmailSettings

MOST_RECIPIENTS = 500
MOST_HEADERS = 64
LONGEST_HEADER = 8 * 1024
LONGEST_SUBJECT = 2000

_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,75}")
_RESERVED = re.compile(
    r"from|sender|to|cc|bcc|reply-to|subject|date|message-id|auto-submitted|return-path|received|received-.*|"
    r"delivered-to|resent-.*|mime-version|content-.*|dkim-.*|arc-.*|authentication-results|domainkey-.*",
    re.IGNORECASE,
)
_IDENTITY = uuid.UUID("5f1f2c52-6d0c-5c0b-9a3e-1d8f6f0a7b11")

Mailboxes = Annotated[str, msgspec.Meta(min_length=1)] | tuple[str, ...]


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set by email_digest_items: this mail tells of `most` things at most that wait in it."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    most: Annotated[int, msgspec.Meta(ge=1, le=1000)]


class EmailArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message.  `to`, `cc`, `bcc`: a mailbox or a list of them; `subject` and `text`, `html` or both, or instead of
    them a `template` and its `data`; `relay`: a name out of `[email.relays]`, `main` if there is none.  `list`: what
    its recipient may unsubscribe from; `security`: it goes to those who are suppressed too."""

    to: Mailboxes
    subject: Annotated[str, msgspec.Meta(max_length=LONGEST_SUBJECT)] | None = None
    text: str | None = None
    html: str | None = None
    template: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] | None = None
    data: dict[str, Any] = {}
    from_: str | None = msgspec.field(default=None, name="from")
    reply_to: str | None = None
    cc: Mailboxes = ()
    bcc: Mailboxes = ()
    headers: dict[str, str] = {}
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=50)] = ()
    relay: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    list_: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = msgspec.field(
        default=None, name="list"
    )
    security: bool = False
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if self.template is None:
            if self.subject is None:
                raise ValueError("there is no `subject`, and no `template` that has one")
            if self.data:
                raise ValueError("`data` is for a `template`, and there is none")
            if self.digest is not None:
                raise ValueError("`digest` is for a `template`, and there is none")
        elif (self.subject, self.text, self.html) != (None, None, None):
            raise ValueError("a `template` says subject, text and html: the row gives either it or them")
        if self.security and self.list_ is not None:
            raise ValueError("`security` mail is of no `list`: nobody can unsubscribe from it")


class Unsendable(ValueError):
    """The row asks for something that is no message, however often it is tried."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message and its envelope, ready to be handed to a relay."""

    wire: bytes
    message_id: str
    sender: Mailbox
    recipients: tuple[Mailbox, ...]

    @property
    def needs_smtputf8(self) -> bool:
        return any(m.needs_smtputf8 for m in (self.sender, *self.recipients)) or self.is_8bit

    @property
    def is_8bit(self) -> bool:
        """A body is always encoded; what is left of 8 bits is an address in the header."""
        return not self.wire.isascii()


def compose(
    args: EmailArgs, settings: EmailSettings, *, identity: str, now: datetime, more: Mapping[str, str] | None = None
) -> Message:
    """The message of a row; Unsendable, with a reason for people, if there is none.  `more`: headers beside the row's.

    `identity` decides the Message-ID and the boundaries: whoever sends a row again sends the same Message-ID, by which
    mail programs know a duplicate.
    """
    try:
        return _compose(args, settings, uuid.uuid5(_IDENTITY, identity), now, more or {})
    except ValueError as error:
        raise Unsendable(str(error)) from error


def _compose(
    args: EmailArgs, settings: EmailSettings, identity: uuid.UUID, now: datetime, more: Mapping[str, str]
) -> Message:
    sender = _sender(args, settings)
    to, cc, bcc = (_mailboxes(list_) for list_ in (args.to, args.cc, args.bcc))
    if not to:
        raise ValueError("there is no recipient in `to`")
    recipients = _once([*to, *cc, *bcc])
    if len(recipients) > MOST_RECIPIENTS:
        raise ValueError(f"{len(recipients)} recipients are too many; at most {MOST_RECIPIENTS}")
    domain = wire_domain(settings.message_id_domain or sender.domain)
    message_id = f"<{identity}@{domain}>"

    people = {"From": [sender], "To": to, "Cc": cc, "Reply-To": _mailboxes(args.reply_to or ())}
    people = {name: mailboxes for name, mailboxes in people.items() if mailboxes}
    texts = {
        "Subject": args.subject or "",
        "Date": format_datetime(now),
        "Message-ID": message_id,
        "Auto-Submitted": "auto-generated",
        **dict(_custom(args.headers)),
        **more,
    }
    head = [header.list_line(name, [m.header for m in mailboxes]) for name, mailboxes in people.items()]
    head += [header.line(name, text) for name, text in texts.items()]
    wire = b"".join(head) + body(args.text, args.html, args.attachments, boundary=identity.hex)

    addresses = {name: [m.wire for m in mailboxes] for name, mailboxes in people.items()}
    verify(wire, [*people, *texts], addresses)
    if len(wire) > settings.max_size:
        raise ValueError(f"the message has {len(wire)} bytes; at most {settings.max_size} (email.max_size)")
    return Message(wire, message_id, sender, tuple(recipients))


def _sender(args: EmailArgs, settings: EmailSettings) -> Mailbox:
    text = settings.from_ if args.from_ is None else args.from_
    if text is None:
        raise ValueError("there is no sender: neither `from` in args nor email.from in the config")
    return mailbox(text)


def _mailboxes(texts: str | Sequence[str]) -> list[Mailbox]:
    return [mailbox(text) for text in ([texts] if isinstance(texts, str) else texts)]


def _once(mailboxes: Sequence[Mailbox]) -> list[Mailbox]:
    """Each address once, though it stands in both To and Cc; domains have no case, local parts have."""
    found: dict[tuple[str, str], Mailbox] = {}
    for one in mailboxes:
        found.setdefault((one.local, wire_domain(one.domain).lower()), one)
    return list(found.values())


def _custom(headers: dict[str, str]) -> Iterator[tuple[str, str]]:
    if len(headers) > MOST_HEADERS:
        raise ValueError(f"{len(headers)} headers are too many; at most {MOST_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no header name")
        if _RESERVED.fullmatch(name):
            raise ValueError(f"the header {name!r} is not for a row to set")
        if name.lower() in seen:
            raise ValueError(f"the header {name!r} is there twice")
        if len(value) > LONGEST_HEADER:
            raise ValueError(f"the header {name!r} has {len(value)} characters; at most {LONGEST_HEADER}")
        seen.add(name.lower())
        yield name, value
