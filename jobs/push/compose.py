"""From a row to the sealed and signed request of one attempt."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.context import Context
from jobs.notification import hopeless, not_set_up, rendered, unreachable
from jobs.push.args import PushArgs
from jobs.push.cipher import PLAIN_MAX, BadKey, seal, unarmoured
from jobs.push.client import NotSetUp
from jobs.push.judge import Standing
from jobs.push.vapid import BadVapidKey, Vapid
from jobs.secrets import SecretMissing
from jobs.values import duration
from jobs.webhook.attempt import Message
from jobs.webhook.guard import Blocked
from jobs.webhook.target import BadUrl, Target
from jobs.webhook.transport import Transport


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message, and what is known of whom it goes to."""

    message: Message
    service: str
    standing: Standing


async def compose(args: PushArgs, ctx: Context, transport: Transport) -> Sealed:
    """Refused says what is in the way."""
    target = _target(args.subscription.endpoint, transport)
    key = _key(ctx)
    plain = await _plain(args, ctx)
    if len(plain) > PLAIN_MAX:
        raise hopeless("payload_too_large", f"the message has {len(plain)} bytes; a push takes {PLAIN_MAX}")
    settings, keys = ctx.tools.push.settings, args.subscription.keys
    try:
        body = seal(plain, unarmoured(keys.p256dh), unarmoured(keys.auth), block=settings.padding)
    except BadKey as error:
        raise hopeless("subscription_invalid", f"subscription.keys: {error}") from None
    audience = f"{target.scheme}://{target.url.host_port_subcomponent}"
    headers = {
        "user-agent": ctx.tools.webhook.user_agent,
        "content-type": "application/octet-stream",
        "content-encoding": "aes128gcm",
        "accept-encoding": "identity",
        "ttl": str(int(settings.ttl if args.ttl is None else duration(args.ttl))),
        "urgency": args.urgency,
        "authorization": key.authorization(audience, settings.subject or ""),
    }
    if args.topic is not None:
        headers["topic"] = args.topic
    return Sealed(Message(target, headers, body), target.host, ctx.tools.push.standing(audience, key.public))


def _target(endpoint: str, transport: Transport) -> Target:
    try:
        return transport.guard.target(endpoint)
    except (Blocked, BadUrl) as error:
        raise unreachable(error) from None


def _key(ctx: Context) -> Vapid:
    """What is wrong with it is the operator's to put right, within the ladder's time; then the dead letter can be
    retried."""
    try:
        return ctx.tools.push.vapid
    except NotSetUp as error:
        raise not_set_up("push_not_set_up", str(error)) from None
    except SecretMissing as error:
        ctx.log.error("push_key_missing", error=str(error))  # says where it was looked for: for operators
        raise not_set_up("secret_missing", "the secret of push.private_key is not there") from None
    except BadVapidKey as error:
        ctx.log.error("push_key_invalid", error=str(error))
        raise not_set_up("secret_invalid", f"push.private_key: {error}") from None
    except OSError as error:
        ctx.log.error("push_key_missing", error=repr(error))
        raise unreachable(error) from None


async def _plain(args: PushArgs, ctx: Context) -> bytes:
    if args.text is not None:
        return args.text.encode("utf-8", "replace")
    if args.template is None:
        return bytes(args.payload)
    return (await rendered(args.template, bytes(args.payload), ctx, PLAIN_MAX)).encode("utf-8", "replace")
