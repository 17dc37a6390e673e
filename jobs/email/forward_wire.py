"""The bytes of a forwarded message: as they came, behind two lines of ours.  Nothing of it is parsed and written again.

SMTP has lines that end in CRLF, and no CR or LF beside them (RFC 5321, 2.3.8): that is the one thing that may have to
change.  A lone LF is an end of line that lost its CR, and gets it back, as Postfix does; signatures are over lines, and
hold.  A lone CR may be anything, so such a message is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from jobs.email.address import Mailbox

LOOP = "X-Jobsd-Loop"

_LONE_CR = re.compile(rb"\r(?!\n)")
_LONE_LF = re.compile(rb"(?<!\r)\n")
_END_OF_HEAD = re.compile(rb"(?:\A|\n)\r?\n")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_TOKENS = re.compile(rb"^x-jobsd-loop[ \t]*:((?:[^\n]|\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:[ \t]*(?:\r?\n[ \t]+)?(<[!-;=?-~]{1,250}>)", re.IGNORECASE | re.MULTILINE)


class Unforwardable(ValueError):
    """It cannot go on its way, however often it is tried.  `code` is the word for it."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A message and its envelope, ready to be handed to a relay.  `sender` None is the null path."""

    wire: bytes
    message_id: str
    sender: Mailbox | None
    recipients: tuple[Mailbox, ...]
    wants_smtputf8: bool

    @property
    def needs_smtputf8(self) -> bool:
        """Headers outside ASCII alone do not ask for it: most such messages came without, and would be refused."""
        envelope = self.recipients if self.sender is None else (self.sender, *self.recipients)
        return self.wants_smtputf8 or any(mailbox.needs_smtputf8 for mailbox in envelope)

    @property
    def is_8bit(self) -> bool:
        return not self.wire.isascii()


def smtp_form(raw: bytes) -> bytes:
    """`raw` with CRLF for each end of line, most often `raw` itself.  Unforwardable if there is a lone CR."""
    if b"\r" not in raw:
        return raw.replace(b"\n", b"\r\n")
    if lone := _LONE_CR.search(raw):
        line = raw.count(b"\n", 0, lone.start()) + 1
        reason = f"line {line} has a CR without its LF, which no relay may be sent (RFC 5321, 2.3.8)"
        raise Unforwardable("bare_cr", reason)
    return _LONE_LF.sub(b"\r\n", raw) if raw.count(b"\n") != raw.count(b"\r") else raw


def head_of(raw: bytes) -> bytes:
    """The header, up to the empty line; all of it where there is none."""
    end = _END_OF_HEAD.search(raw)
    return raw if end is None else raw[: end.start() + 1]


def refuse_loops(raw: bytes, tokens: Collection[str], most: int) -> None:
    """Unforwardable if it was here on the same way before, or comes by way of more than `most` servers."""
    head = head_of(raw)
    known = {token.encode() for token in tokens}
    if any(known.intersection(field.split()) for field in _TOKENS.findall(head)):
        raise Unforwardable("mail_loop", "it was forwarded to the same address before: mail goes in a circle")
    hops = len(_RECEIVED.findall(head))
    if hops > most:
        raise Unforwardable(
            "mail_loop", f"it has {hops} Received headers; more than {most} mean that it goes in a circle"
        )


def message_id_of(raw: bytes) -> str:
    """For people to find it by; empty if it has none."""
    found = _MESSAGE_ID.search(head_of(raw))
    return found[1].decode("ascii") if found else ""


def trace(domain: str, forward: int, tokens: Sequence[str], recipients: Sequence[Mailbox], at: datetime) -> bytes:
    """What is written before it: which ways it has been forwarded, and by whom and when.  The same at each attempt."""
    to_whom = f"\r\n\tfor <{recipients[0].wire}>" if len(recipients) == 1 and recipients[0].local.isascii() else ""
    loop = f"{LOOP}: " + "\r\n\t".join(tokens)
    return f"{loop}\r\nReceived: by {domain} (jobsd) id {forward}{to_whom};\r\n\t{format_datetime(at)}\r\n".encode()
