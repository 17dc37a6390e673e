"""The last look at a message: does the byte string say what was meant, and nothing more?

Whatever wrote it, a receiver goes by the bytes.  So they are read back the way a receiver does, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.utils import getaddresses

_FIELD = re.compile(rb"([!-9;-~]+):(.*)", re.DOTALL)
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_DELIMITER = re.compile(rb"--=_\w+")
_LONGEST_LINE = 998
_BODY_FIELDS = ["Content-Type", "MIME-Version", "Content-Transfer-Encoding"]
_PART_FIELDS = {"content-type", "content-transfer-encoding", "content-disposition"}


class Unsafe(ValueError):
    """The bytes of a message differ from what was meant."""


def verify(wire: bytes, names: Sequence[str], addresses: Mapping[str, Sequence[str]]) -> None:
    """Unsafe unless the header block has exactly the fields `names`, in this order, followed by those of the body;
    each field of `addresses` lists exactly those; no part has a field of its own accord; and each line ends in CRLF and
    has at most 998 bytes (RFC 5322, 2.1.1)."""
    if _BARE_LINE_END.search(wire):
        raise Unsafe("the message has a line end that is not CRLF")
    lines = wire.split(b"\r\n")
    if (longest := max(map(len, lines))) > _LONGEST_LINE:
        raise Unsafe(f"the message has a line of {longest} bytes; at most {_LONGEST_LINE}")
    fields = _fields(lines)
    _check_names([name for name, _ in fields], names)
    for name, value in fields:
        if name in addresses and [a for _, a in getaddresses([value])] != list(addresses[name]):
            raise Unsafe(f"the message's {name} says something else than was meant")
    _check_parts(lines)


def _fields(lines: Sequence[bytes]) -> list[tuple[str, str]]:
    """(name, unfolded value) of each field up to the first empty line."""
    fields: list[tuple[str, str]] = []
    for line in lines:
        if not line:
            return fields
        if line[:1] in b" \t":
            if not fields or not line.strip():
                raise Unsafe(f"{line!r} continues no header")
            fields[-1] = (fields[-1][0], fields[-1][1] + line.decode())
            continue
        match = _FIELD.fullmatch(line)
        if not match:
            raise Unsafe(f"{line!r} is no header")
        fields.append((match[1].decode("ascii"), match[2].decode()))
    raise Unsafe("the message's header has no end")


def _check_names(found: Sequence[str], meant: Sequence[str]) -> None:
    own, rest = list(found[: len(meant)]), list(found[len(meant) :])
    if own != list(meant):
        raise Unsafe(f"the message's headers are {own}, not {list(meant)}")
    if sorted(rest) != sorted(name for name in _BODY_FIELDS if name in rest) or "MIME-Version" not in rest:
        raise Unsafe(f"the message has the further headers {rest}")


def _check_parts(lines: Sequence[bytes]) -> None:
    """Whatever follows a delimiter is a part's header, up to its empty line."""
    for number, line in enumerate(lines):
        if _DELIMITER.fullmatch(line):
            names = [name.lower() for name, _ in _fields(lines[number + 1 :])]
            if len(set(names)) != len(names) or not _PART_FIELDS.issuperset(names):
                raise Unsafe(f"a part of the message has the headers {names}")
