"""Rows of email_templates as mails need them: an organisation's own by a name, or the one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sql
from jobs.loads import Loads

if TYPE_CHECKING:
    import asyncpg

_SQL = sql.load("email.sql")

STALE_S = 2.0
"""So long after a change of a template mails may still be written by it as before."""

BYTES_MAX = 16 * 1024 * 1024
"""Of templates that are remembered."""

_OVERHEAD = 500  # bytes of one beside its texts


@dataclass(frozen=True, slots=True)
class Key:
    """`org_id` is "" for rows of no organisation."""

    org_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """`org_id` None: it is the one for all."""

    org_id: str | None
    name: str
    subject: str
    text: str | None
    html: str | None
    sender: str | None
    reply_to: str | None

    @property
    def parts(self) -> list[tuple[str, str, bool]]:
        """What there is to render: its name, the text, and whether it is HTML."""
        found = (("subject", self.subject, False), ("text", self.text, False), ("html", self.html, True))
        return [(name, text, is_html) for name, text, is_html in found if text is not None]


def open_templates(db: asyncpg.Pool) -> Loads[Key, Template]:
    async def load(keys: Sequence[Key]) -> Mapping[Key, Template]:
        rows = await db.fetch(_SQL["templates"], [key.org_id for key in keys], [key.name for key in keys])
        return {Key(row["asked_org"], row["name"]): template_of(row) for row in rows}

    return Loads(load, most=BYTES_MAX, stale_s=STALE_S, weigh=_weight)


def template_of(row: asyncpg.Record) -> Template:
    columns = ("org_id", "name", "subject", "text", "html", "sender", "reply_to")
    return Template(*(row[column] for column in columns))


def _weight(template: Template) -> int:
    return _OVERHEAD + sum(len(text) for _name, text, _html in template.parts)
