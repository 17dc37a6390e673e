"""From a row to the request of one attempt, or to what is in the way."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from jobs.context import Context
from jobs.model import Dead
from jobs.notification import Refused, Verdict, hopeless, not_set_up, rendered, unreachable
from jobs.secrets import SecretMissing
from jobs.sms.args import SmsArgs
from jobs.sms.client import UnknownProvider
from jobs.sms.request import request
from jobs.sms.settings import MAIN, ProviderSettings
from jobs.sms.text import alphabet, parts
from jobs.webhook.attempt import Message
from jobs.webhook.guard import Blocked
from jobs.webhook.headers import BadHeader
from jobs.webhook.target import BadUrl
from jobs.webhook.transport import Transport

_OURS = UUID("5f0f7a3e-6f0b-4a53-9d0c-5b1c0e6e7a11")
_RENDERED_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Composed:
    """A message, what it says, and who takes it."""

    message: Message
    provider: ProviderSettings
    text: str
    parts: int


async def compose(args: SmsArgs, ctx: Context, transport: Transport) -> Composed:
    """Refused says what is in the way."""
    sms, name = ctx.tools.sms, args.provider or MAIN
    try:
        provider = sms.provider(name)
    except UnknownProvider as error:
        raise not_set_up("provider_unknown", str(error)) from None
    if ctx.job.crashes and not provider.may_repeat:
        lost = "a daemon was lost while it had this message; it may have been sent, and is not sent again"
        raise Refused(Verdict("unknown", "lost", Dead(lost, code="unknown", detail={"cause": "lost"})))
    if not sms.allows(args.to):
        raise hopeless("number_not_allowed", "the number begins with none of sms.numbers")
    text = await _text(args, ctx)
    count = parts(text)
    if count > provider.parts:
        raise hopeless("text_too_long", f"the text needs {count} parts; {provider.parts} are allowed")
    sender = args.from_ or provider.from_
    if sender is None and "{from}" in str((provider.form, provider.json, provider.headers)):
        raise hopeless("no_sender", f"neither the row nor [sms.providers.{name}] says from whom")
    says = {
        "to": args.to,
        "digits": args.to.removeprefix("+"),
        "text": text,
        "from": sender or "",
        "id": str(uuid5(_OURS, f"{ctx.job.id}\n{ctx.job.args_json}")),
        "type": alphabet(text),
    }
    return Composed(_request(provider, says, ctx, transport), provider, text, count)


def _request(provider: ProviderSettings, says: dict[str, str], ctx: Context, transport: Transport) -> Message:
    try:
        return request(
            provider,
            says,
            secret=ctx.tools.sms.secret,
            target=transport.guard.target,
            user_agent=ctx.tools.webhook.user_agent,
        )
    except SecretMissing as error:
        ctx.log.error("sms_secret_missing", error=str(error))  # says where it was looked for: for operators
        raise not_set_up("secret_missing", "a secret of the provider is not there") from None
    except (Blocked, BadUrl) as error:
        raise unreachable(error) from None
    except OSError as error:
        ctx.log.error("sms_secret_missing", error=repr(error))
        raise unreachable(error) from None
    except BadHeader as error:
        raise hopeless("bad_header", str(error)) from None


async def _text(args: SmsArgs, ctx: Context) -> str:
    if args.template is None:
        return args.text or ""
    text = await rendered(args.template, bytes(args.payload), ctx, _RENDERED_MAX)
    if not text:
        raise hopeless("text_empty", "the template says nothing")
    return text
