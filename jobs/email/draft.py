"""What a row is to say: what it says itself, or its template with the row's data filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from jobs.email.message import LONGEST_SUBJECT, EmailArgs
from jobs.email.template import Key, Template
from jobs.model import Dead, Outcome, Snooze
from jobs.templates import BadTemplate, Templates, TemplatesAway

if TYPE_CHECKING:
    from jobs.context import Context

AGAIN_S = 5.0
"""When a row is looked at again whose template could not be read, or filled in, through no fault of its own."""

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_LINE_ENDS = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")


class NoDraft(Exception):
    """There is nothing to send, and this comes of the row."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


async def drafted(args: EmailArgs, ctx: Context, more: Mapping[str, Any]) -> EmailArgs:
    """The same args with subject, text and html said.  `more` is for the template, besides the row's data."""
    if args.template is None:
        return args
    template = await _template(args.template, ctx)
    try:
        return await filled_in(args, template, more, ctx.tools.templates, ctx.mail.settings.max_size)
    except BadTemplate as error:
        raise NoDraft(Dead(str(error), code=error.code)) from None
    except TemplatesAway:
        away = "this daemon cannot start a process for templates"
        raise NoDraft(Snooze(away, after=AGAIN_S, code="templates_away")) from None


async def filled_in(
    args: EmailArgs, template: Template, more: Mapping[str, Any], templates: Templates, size_max: int
) -> EmailArgs:
    """BadTemplate with a reason for the template's author, TemplatesAway."""
    parts = template.parts
    data = msgspec.json.encode({**args.data, **more})
    try:
        texts = await templates.render_all([(text, escape) for _name, text, escape in parts], data, size_max=size_max)
    except BadTemplate as error:
        reason = f"{_shown(template)}: {parts[error.part][0]}: {error}"
        raise BadTemplate(error.code, reason, error.part) from None
    said = {name: text for (name, _text, _escape), text in zip(parts, texts, strict=True)}
    said["subject"] = _one_line(said["subject"])
    if len(said["subject"]) > LONGEST_SUBJECT:
        long = f"{_shown(template)}: subject: has {len(said['subject'])} characters; at most {LONGEST_SUBJECT}"
        raise BadTemplate("template_too_large", long)
    return msgspec.structs.replace(
        args,
        template=None,
        data={},
        digest=None,
        from_=args.from_ or template.sender,
        reply_to=args.reply_to or template.reply_to,
        **said,
    )


async def _template(name: str, ctx: Context) -> Template:
    """What is not there is looked for once more: it may have come in the transaction of the row."""
    key = Key(ctx.job.org_id or "", name)
    try:
        found = await ctx.tools.email_templates.get(key) or await ctx.tools.email_templates.anew(key)
    except AWAY as error:
        ctx.log.warning("email_template_unread", error=repr(error))
        unread = "the template could not be looked up"
        raise NoDraft(Snooze(unread, after=AGAIN_S, code="database_away")) from None
    if found is None:
        whose = "for all" if ctx.job.org_id is None else f"of organisation {ctx.job.org_id}, nor for all"
        raise NoDraft(Dead(f"there is no template {name!r} {whose}", code="template_unknown"))
    return found


def _shown(template: Template) -> str:
    whose = "for all" if template.org_id is None else f"of {template.org_id}"
    return f"template {template.name!r} {whose}"


def _one_line(text: str) -> str:
    """A subject is one line: what data brings of others becomes spaces.  Other control characters are refused later."""
    return _LINE_ENDS.sub(" ", text).strip()
